"""What `popgate doctor --dovecot` finds in what doveconf prints."""

import base64
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from popgate.integrations.dovecot.doveconf import DoveconfError, read
from popgate.integrations.dovecot.places import OurListener
from popgate.integrations.dovecot.traps import examine

SECRET = b"a secret of 24 octets..."
HERE = OurListener("127.0.0.1", 22800, True, SECRET, False, False)
COUNTING = OurListener("127.0.0.1", 22800, True, SECRET, False, True)
THERE = OurListener("2001:db8::1", 22800, True, SECRET, False, False)
OPEN = OurListener("127.0.0.1", 22800, False, None, False, False)

BASIC = "Basic " + base64.b64encode(b"x:" + SECRET).decode()

VERSION = "# 2.3.19.1 (9b53102964): /etc/dovecot/dovecot.conf\n# Hostname: mail.example.org\n"
ATTRIBUTES = (
    "auth_policy_request_attributes = login=%{requested_username} user=%{user} master=%{master_user}"
    " remote=%{rip} protocol=%s session_id=%{session}\n"
)
POLICY = (
    VERSION
    + """\
auth_policy_check_after_auth = no
auth_policy_check_before_auth = no
auth_policy_hash_nonce = # hidden, use -P to show it
"""
    + ATTRIBUTES
    + """\
auth_policy_server_api_header = Authorization: Bearer a secret of 24 octets...
auth_policy_server_url = http://127.0.0.1:22800/
"""
)
EXPORTER = """\
event_exporter popgate {
  format = json
  format_args = time-rfc3339
  transport = http-post
  transport_args = http://#hidden_use-P_to_show#@127.0.0.1:22800/event
  transport_timeout = 250 ms
}
"""
LOGINS = """\
metric popgate_login {
  exporter = popgate
  filter = event=auth_request_finished AND success=yes
}
"""
ENDS = """\
metric popgate_end {
  exporter = popgate
  filter = event=mail_user_session_finished
}
"""
NEW = """\
# 2.4.1-4 (7d8c0e5759): /etc/dovecot/dovecot.conf
dovecot_config_version = 2.4.1
auth_policy_check_after_auth = no
auth_policy_check_before_auth = no
auth_policy_hash_nonce = x
auth_policy_server_url = "http://127.0.0.1:22800/"
auth_policy_server_api_header = "Authorization: Bearer a secret of 24 octets..."
auth_policy_request_attributes {
  login = %{requested_username}
  user = %{user}
  master = %{master_user}
  remote = %{remote_ip}
  protocol = %{protocol}
  session_id = %{session}
}
event_exporter popgate {
  driver = http-post
  format = json
  http_post_url = http://popgate:x@127.0.0.1:22800/event
}
"""


def traps(text: str, ours: Sequence[OurListener] | None = (HERE,)) -> list[str]:
    return [finding.trap for finding in examine(read(text, "doveconf -n"), ours)]


@pytest.mark.parametrize(
    ("text", "ours"),
    [
        (POLICY, (HERE,)),
        (POLICY, None),
        (POLICY, (OurListener("0.0.0.0", 22800, True, None, False, False),)),
        (POLICY + EXPORTER + ENDS, (COUNTING,)),
        (VERSION + EXPORTER + LOGINS, (HERE,)),
        (VERSION + EXPORTER + LOGINS, None),
        (NEW, (HERE,)),
        (NEW + ENDS, (COUNTING,)),
        (POLICY.replace("127.0.0.1:22800", "localhost:22800"), (HERE,)),
        (POLICY.replace("127.0.0.1", "[2001:db8::1]"), (THERE,)),
        (POLICY.replace("protocol=%s", "protocol=%{service}"), (HERE,)),
        (POLICY.replace("Bearer a secret of 24 octets...", BASIC), (HERE,)),
        (POLICY + "login_trusted_networks = 192.0.2.10 10.0.0.0/8\n", (HERE,)),
        (POLICY + "haproxy_trusted_networks = 2001:db8::/48, 192.0.2.0/24\n", (HERE,)),
    ],
)  # fmt: skip
def test_nothing_is_wrong(text: str, ours: Sequence[OurListener] | None) -> None:
    assert traps(text, ours) == []


def without(name: str) -> str:
    return "".join(line for line in POLICY.splitlines(True) if not line.startswith(name))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (VERSION + "protocols = imap\n", ["nothing-told"]),
        (without("auth_policy_server_url"), ["nothing-told"]),
        (without("auth_policy_check_before_auth"), ["checks-left-on"]),
        (without("auth_policy_check_after_auth"), ["checks-left-on"]),
        (POLICY.replace("check_after_auth = no", "check_after_auth = yes"), ["checks-left-on"]),
        (POLICY + "auth_policy_report_after_auth = no\n", ["report-off"]),
        (POLICY + "auth_policy_reject_on_fail = yes\n", ["reject-on-fail"]),
        (without("auth_policy_hash_nonce"), ["no-nonce"]),
        (without("auth_policy_request_attributes"), ["master-logins", "password-hash-sent"]),
        (POLICY.replace(" master=%{master_user}", ""), ["master-logins"]),
        (POLICY.replace("login=%{requested_username} user=%{user}", ""), ["attribute-missing"]),
        (POLICY.replace(" remote=%{rip}", ""), ["attribute-missing"]),
        (POLICY.replace(" protocol=%s", ""), ["attribute-missing"]),
        (POLICY.replace("%{rip}", "%{lip}"), ["attribute-wrong"]),
        (POLICY.replace("protocol=%s", "protocol=pop3"), ["attribute-wrong"]),
        (POLICY.replace("login=", "p=%{password} login="), ["password-hash-sent"]),
        (POLICY.replace(":22800/", ":22801/"), ["not-ours"]),
        (POLICY.replace("127.0.0.1", "127.0.0.2"), ["not-ours"]),
        (POLICY.replace("127.0.0.1", "[::1]"), ["not-ours"]),
        (POLICY.replace("http://", "https://"), ["tls-on-one-side"]),
        (POLICY.replace(":22800/", ":22800"), ["wrong-path"]),
        (POLICY.replace(":22800/", ":22800/?x=1&"), ["wrong-path"]),
        (POLICY.replace("http://", ""), ["no-url"]),
        (POLICY.replace("http://127.0.0.1:22800/", "http://[::1/"), ["no-url"]),
        (POLICY.replace("http://127.0.0.1:22800/", "http://127.0.0.1:99999/"), ["no-url"]),
        (without("auth_policy_server_api_header"), ["no-secret"]),
        (POLICY.replace("octets...", "octets"), ["wrong-secret"]),
        (POLICY.replace("Authorization", "X-Secret"), ["wrong-secret"]),
        (POLICY.replace("Bearer", "Basic"), ["wrong-secret"]),
        (POLICY + "auth_mechanisms = plain ANONYMOUS\n", ["anonymous-logins"]),
        (POLICY + "login_trusted_networks = 0.0.0.0/0\n", ["wide-trusted-networks"]),
        (POLICY + "login_trusted_networks = 192.0.2.1 ::/0\n", ["wide-trusted-networks"]),
        (POLICY + "haproxy_trusted_networks = 203.0.0.0/8\n", ["wide-trusted-networks"]),
        (POLICY + EXPORTER + ENDS, ["ends-not-heard"]),
        (VERSION + EXPORTER, ["nothing-told"]),
        (VERSION + LOGINS, ["nothing-told"]),
        (VERSION + EXPORTER.replace("http-post", "log") + LOGINS, ["nothing-told"]),
        (VERSION + EXPORTER.replace("format = json", "format = tab-text") + LOGINS, ["exporter-format"]),
        (VERSION + EXPORTER.replace("#hidden_use-P_to_show#@", "") + LOGINS, ["no-secret"]),
        (VERSION + EXPORTER.replace("/event", "/events") + LOGINS, ["wrong-path"]),
        (NEW.replace("request_attributes {", "nothing {"), ["master-logins", "password-hash-sent"]),
        (NEW.replace("%{remote_ip}", "%{local_ip}"), ["attribute-wrong"]),
        (NEW.replace("auth_policy_request_attributes {", ATTRIBUTES + "nothing {"), ["attributes-of-2.3"]),
    ],
)  # fmt: skip
def test_traps(text: str, expected: list[str]) -> None:
    assert traps(text) == expected


def test_ends_that_nobody_tells() -> None:
    assert traps(POLICY, (COUNTING,)) == ["ends-not-told"]


def test_hibernation() -> None:
    text = POLICY + EXPORTER + ENDS
    assert traps(text + "imap_hibernate_timeout = 30 secs\n", (COUNTING,)) == ["hibernation"]
    assert traps(text + "imap_hibernate_timeout = 0\n", (COUNTING,)) == []
    assert traps(POLICY + "imap_hibernate_timeout = 30 secs\n", (HERE,)) == []


def test_popgate_has_no_listener_for_it() -> None:
    findings = examine(read(POLICY, "x"), [])
    assert [finding.trap for finding in findings] == ["not-ours"]
    assert "nowhere" in findings[0].what


def test_no_secret_is_asked_for() -> None:
    assert traps(without("auth_policy_server_api_header"), (OPEN,)) == []


def test_a_finding_names_the_line_and_no_secret() -> None:
    text = POLICY.replace("octets...", "octets")
    (finding,) = examine(read(text, "saved"), (HERE,))
    assert finding.place() == "saved:7"
    assert text.splitlines()[6].startswith("auth_policy_server_api_header")
    for shown in (finding.what, finding.remedy):
        assert "24 octets" not in shown


def test_the_dangerous_comes_first() -> None:
    assert traps(without("auth_policy_check") + "auth_mechanisms = anonymous\n")[0] == "anonymous-logins"


def test_reading() -> None:
    conf = read(NEW, "x")
    assert (conf.version, conf.is_new) == ("2.4.1-4", True)
    assert conf.get("auth_policy_server_url").content == "http://127.0.0.1:22800/"  # type: ignore[union-attr]
    (exporter,) = conf.root.find("event_exporter")
    assert (exporter.name, exporter.settings["driver"].content) == ("popgate", "http-post")
    nested = read(
        'service auth {\n  unix_listener "a b" {\n    mode = 0666\n  }\n}\nx = "y"\n}\nz = 1\n', "x"
    )
    (service,) = nested.root.blocks
    assert service.blocks[0].name == "a b"
    assert nested.get("z") is not None
    assert not nested.is_new
    assert read("# 2.10.0: x\na = b\n", "x").is_new


@pytest.mark.parametrize("text", ["", "# only a comment\n", "Fatal: no configuration\n"])
def test_what_is_no_configuration(text: str) -> None:
    with pytest.raises(DoveconfError):
        read(text, "x")


@given(st.text(alphabet=st.sampled_from('ab= {}#"/:@%[]\n._-1'), max_size=200))
def test_nothing_that_is_read_raises(text: str) -> None:
    try:
        conf = read(POLICY + text, "x")
    except DoveconfError:
        return
    examine(conf, (HERE, COUNTING))
