"""Listeners that speak HTTP: what their settings may not say together."""

import os
from pathlib import Path

import pytest

from popgate.config import ConfigError, load_text
from popgate.config.files import file_findings
from popgate.config.settings import Config
from popgate.grants.settings import GrantSettings
from popgate.servers.settings import ListenerSettings

HEAD = 'hostname = "mail.example.org"\nlocal_domains = ["example.org"]\n'


def told(service: str, bind: str, *lines: str, head: str = "") -> list[str]:
    """Errors, or else warnings."""
    text = f'{HEAD}{head}[[listener]]\nservice = "{service}"\nbind = "{bind}"\n' + "\n".join(lines)
    try:
        return [str(problem) for problem in load_text(text, "popgate.toml", ()).warnings]
    except ConfigError as error:
        return [str(problem) for problem in error.problems]


SECRET = 'secret_file = "/etc/popgate/secret"'


@pytest.mark.parametrize(
    ("service", "bind", "lines"),
    [
        ("dovecot_auth_policy", "127.0.0.1:22800", [SECRET]),
        (
            "dovecot_auth_policy",
            "[::1]:22800",
            [SECRET, "session_ends = true", 'default_domain = "a.example"'],
        ),
        ("http", "127.0.0.1:22801", []),
        ("http", "unix:/run/popgate/http", []),
        ("http", "127.0.0.1:22801", [SECRET]),
    ],
)
def test_what_is_well(service: str, bind: str, lines: list[str]) -> None:
    assert told(service, bind, *lines) == []


@pytest.mark.parametrize(
    ("service", "bind", "lines", "words"),
    [
        ("dovecot_auth_policy", "127.0.0.1:1", [], ["secret_file", "every user and program"]),
        ("dovecot_auth_policy", "unix:/run/popgate/dovecot", [], ["bind", "over TCP alone"]),
        ("dovecot_auth_policy", "192.0.2.1:1", [], ["secret_file", "could let any address relay"]),
        ("http", "0.0.0.0:1", [], ["secret_file", "learn who logged in"]),
        ("http", "fd:http", [], ["secret_file"]),
        ("http", "192.0.2.1:1", [SECRET], ["tls", "in clear"]),
        ("http", "127.0.0.1:1", ['tls = "starttls"'], ["tls", "no STARTTLS"]),
        ("http", "127.0.0.1:1", ["plaintext_login = true"], ["says nothing"]),
        ("http", "127.0.0.1:1", ['default_domain = "example.org"'], ["default_domain", "says nothing"]),
        ("http", "127.0.0.1:1", ["session_ends = true"], ["session_ends", "says nothing"]),
        ("http", "127.0.0.1:1", ['key_file = "/etc/popgate/key"'], ["key_file", "says nothing"]),
        ("http", "127.0.0.1:1", ['relay_by = ["grant"]'], ["relay_by", "relays nothing"]),
        ("http", "127.0.0.1:1", ['secret_file = "a\\u0000b"'], ["secret_file", "NUL"]),
        ("smtp", "127.0.0.1:1", [SECRET], ["secret_file", "says nothing"]),
        ("pop3", "127.0.0.1:1", ["plaintext_login = true", "session_ends = true"], ["says nothing"]),
        ("dovecot_auth_policy", "127.0.0.1:1", [SECRET, 'default_domain = "x y"'], ["default_domain"]),
    ],
)
def test_what_is_told(service: str, bind: str, lines: list[str], words: list[str]) -> None:
    found = [line for line in told(service, bind, *lines) if all(word in line for word in words)]
    assert found, told(service, bind, *lines)


def test_sessions_that_renew_nothing() -> None:
    (line,) = told(
        "dovecot_auth_policy",
        "127.0.0.1:1",
        SECRET,
        "session_ends = true",
        head="grants.renew_while_open = false\n",
    )
    assert "changes nothing" in line


def test_logins_of_devices_alone() -> None:
    (line,) = told("dovecot_auth_policy", "127.0.0.1:1", SECRET, head='grants.who = "devices"\n')
    assert "no device account" in line


def secret_findings(path: Path, service: str = "http") -> list[str]:
    config = Config(
        hostname="mail.example.org",
        data_dir=str(path.parent),
        grants=GrantSettings(),
        listener=[ListenerSettings(service, "127.0.0.1:1", secret_file=str(path))],  # type: ignore[arg-type]
    )
    return [finding.message for _, finding in file_findings(config, 0.0) if "secret_file" in finding.path]


def test_the_file_of_the_secret(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    assert secret_findings(path) == ["there is no such file"]
    path.write_text("short\n")
    path.chmod(0o600)
    assert "a key has 16 or more" in secret_findings(path)[0]
    path.write_text("x" * 24 + "\n")
    assert secret_findings(path) == []
    path.chmod(0o644)
    assert "can read the secrets" in secret_findings(path)[0]
    os.chmod(path, 0o660)
    assert "can replace the key" in secret_findings(path)[0]
