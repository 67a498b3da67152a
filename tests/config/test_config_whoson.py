"""whoson listeners: a protocol without proof stays on this machine."""

import pytest

from config.test_config_http import told


@pytest.mark.parametrize(
    ("service", "bind", "lines", "words"),
    [
        ("whoson", "127.0.0.1:9876", [], ["service", "every user and program"]),
        ("whoson", "unix:/run/popgate/whoson", [], ["cannot be held"]),
        ("whoson", "192.0.2.1:9876", [], ["bind", "could let any address relay"]),
        ("whoson_udp", "0.0.0.0:9876", [], ["bind", "could let any address relay"]),
        ("whoson_udp", "[::]:9876", [], ["bind", "could let any address relay"]),
        ("whoson_udp", "unix:/run/popgate/whoson", [], ["bind", "over IP"]),
        ("whoson", "127.0.0.1:1", ['tls = "implicit"'], ["tls", "no TLS"]),
        ("whoson", "127.0.0.1:1", ['proxy_from = ["192.0.2.1"]'], ["proxy_from", "no PROXY"]),
        ("whoson", "127.0.0.1:1", ["plaintext_login = true"], ["says nothing"]),
        ("whoson", "127.0.0.1:1", ['default_domain = "x y"'], ["default_domain"]),
        ("whoson", "127.0.0.1:1", ['secret_file = "/x"'], ["secret_file", "says nothing"]),
        ("whoson", "127.0.0.1:1", ['relay_by = ["grant"]'], ["relay_by", "relays nothing"]),
        ("smtp", "127.0.0.1:1", ['default_domain = "example.org"'], ["default_domain", "says nothing"]),
    ],
)
def test_what_is_told(service: str, bind: str, lines: list[str], words: list[str]) -> None:
    found = told(service, bind, *lines)
    assert any(all(word in line for word in words) for line in found), found


def test_both_kinds_share_a_port() -> None:
    more = '[[listener]]\nservice = "whoson_udp"\nbind = "127.0.0.1:9876"'
    assert not any("is taken" in line for line in told("whoson", "127.0.0.1:9876", more))
    more = more.replace("whoson_udp", "relay_ctrl_udp") + "\n" + more
    assert any("is taken" in line for line in told("whoson", "127.0.0.1:9876", more))


def test_logins_of_devices_alone() -> None:
    lines = told("whoson", "127.0.0.1:1", head='grants.who = "devices"\n')
    assert any("no device account" in line for line in lines)
