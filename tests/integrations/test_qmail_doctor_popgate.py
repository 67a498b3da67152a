"""Traps of hosts on which popgate listens, and of hosts that tell each other of logins."""

import pytest

from support.qmail_host import NESTED, POP3, POP3_RUN, SMTP, SMTP_RUN, QmailHost, one

# -- popgate tcpserver in tcpserver's place


def ours(text: str) -> str:
    return text.replace("/usr/bin/tcpserver", "tcpserver").replace("tcpserver ", "popgate tcpserver ")


def test_one_word_changed_is_well(host: QmailHost) -> None:
    host.smtp(ours(SMTP))
    host.pop3(ours(POP3))
    assert host.examine() == []
    # it opens the directory itself, while it is root
    host.smtp(ours(SMTP).replace("relay-ctrl-chdir", ""))
    host.pop3(
        ours(POP3).replace("relay-ctrl-chdir", "").replace("-vRHl0", "-vH -C 5:later --envdir /etc/none")
    )
    assert [it.trap for it in host.examine()] == ["no-env-directory"]


def test_popgate_listens_to_names_of_users_and_refuses_empty_ones(host: QmailHost) -> None:
    host.smtp(ours(SMTP).replace('-u "$QMAILDUID" -g "$NOFILESGID"', "-u qmaild -g qmail"))
    assert host.examine() == []
    host.smtp(ours(NESTED).replace("export QMAILDUID NOFILESGID\n", "\n"))
    found = one(host.examine(), "no-user", SMTP_RUN, 8)
    assert "export" in found.remedy
    host.smtp(ours(SMTP).replace('-u "$QMAILDUID" -g "$NOFILESGID"', "-u 0 -g 0"))
    one(host.examine(), "server-stays-root", SMTP_RUN, 21, "danger")


def test_popgate_hears_ipv6_where_it_is_told(host: QmailHost) -> None:
    host.write("proc/net/if_inet6", "20010db8000000000000000000000002 02 40 00 80     eth0\n")
    host.smtp(ours(SMTP).replace(" 0 smtp", " :: smtp"))
    host.pop3(ours(POP3).replace("-vRHl0", "-6vRHl0"))
    assert host.examine() == []
    host.pop3(ours(POP3))
    one(host.examine(), "ipv4-only", POP3_RUN, 3, "advice")


def test_popgate_allow_where_the_checker_belongs(host: QmailHost) -> None:
    host.pop3(ours(POP3).replace("relay-ctrl-allow", "popgate-allow").replace("mail.example.org", "$HOST"))
    one([it for it in host.examine() if it.level == "danger"], "recorder-is-checker", POP3_RUN, 4, "danger")


def test_popgate_told_what_to_do(host: QmailHost) -> None:
    host.smtp(ours(SMTP).replace("relay-ctrl-check ", "").replace("-v -R", "--check -v -R"))
    host.pop3(ours(POP3))
    assert host.examine() == []


def test_popgate_needs_memory_for_python(host: QmailHost) -> None:
    host.smtp(ours(SMTP).replace("-m 60000000", "-m 9000000"))
    assert "runs on Python" in one(host.examine(), "memory-limit", SMTP_RUN, 19).what


def test_the_whole_server_ages(host: QmailHost) -> None:
    host.remove("etc/cron.d/relay-ctrl")
    host.smtp(ours(SMTP))
    assert [it.trap for it in host.examine()] == ["nobody-ages"]
    host.script("service/popgate/run", "#!/bin/sh\nexec popgate serve --config /etc/popgate.toml 2>&1\n")
    assert host.examine() == []


# -- logins told from host to host

TELLING = POP3.replace("relay-ctrl-allow", "relay-ctrl-send")
HEARING = """\
#!/bin/sh
exec envdir /etc/relay-ctrl relay-ctrl-udp 2>&1
"""
UDP_RUN = "/service/relay-ctrl-udp/run"


def with_peers(host: QmailHost, key: str = "x" * 44, mode: int = 0o640) -> None:
    host.write("etc/popgate/peer-key", key + "\n")
    (host.root / "etc/popgate/peer-key").chmod(mode)
    host.write("etc/relay-ctrl/RELAY_CTRL_KEY", "/etc/popgate/peer-key\n")
    host.write("etc/relay-ctrl/RELAY_CTRL_REMOTES", "192.0.2.25,192.0.2.26:811\n")
    host.write("etc/relay-ctrl/RELAY_CTRL_CALLERS", "192.0.2.110\n")
    host.pop3(TELLING)
    host.script("service/relay-ctrl-udp/run", HEARING)


def test_hosts_that_tell_each_other_are_well(host: QmailHost) -> None:
    with_peers(host)
    assert host.examine() == []
    # a host that only reads mail, beside an SMTP server for what comes in
    host.smtp(SMTP.replace("relay-ctrl-check ", ""))
    assert [it.trap for it in host.examine() if it.trap == "grants-not-asked"] == []


def test_unsigned_logins(host: QmailHost) -> None:
    with_peers(host)
    host.script("service/relay-ctrl-udp/run", HEARING.replace("-udp", "-udp --insecure"))
    assert "in a caller's name" in one(host.examine(), "unsigned-logins", UDP_RUN, 2, "danger").what
    host.remove("service/relay-ctrl-udp")
    host.remove("etc/relay-ctrl/RELAY_CTRL_KEY")
    host.pop3(TELLING.replace("relay-ctrl-send", "relay-ctrl-send --insecure"))
    one(host.examine(), "unsigned-logins", POP3_RUN, 5, "advice")


@pytest.mark.parametrize(
    ("key", "mode", "told"),
    [
        ("short", 0o640, "less than 16 octets"),
        ("x" * 44, 0o644, "everybody can read or change"),
        ("x" * 44, 0o600, "only root can read"),
        (None, 0, "is no file"),
    ],
)
def test_a_key_that_cannot_be_used(host: QmailHost, key: str | None, mode: int, told: str) -> None:
    with_peers(host, key or "", mode)
    if key is None:
        host.remove("etc/popgate/peer-key")
    findings = host.examine()
    assert {(it.trap, it.file) for it in findings} == {("peer-key", "/etc/relay-ctrl/RELAY_CTRL_KEY")}
    assert told in findings[0].what


def test_nobody_is_told_or_heard(host: QmailHost) -> None:
    with_peers(host)
    host.remove("etc/relay-ctrl/RELAY_CTRL_REMOTES")
    assert "RELAY_CTRL_REMOTES" in one(host.examine(), "nobody-is-told", POP3_RUN, 5).what
    with_peers(host)
    host.remove("etc/relay-ctrl/RELAY_CTRL_CALLERS")
    one(host.examine(), "no-callers", UDP_RUN, 2)
    with_peers(host)
    host.remove("etc/relay-ctrl/RELAY_CTRL_KEY")
    assert "RELAY_CTRL_KEY" in one(host.examine(), "nobody-is-told", POP3_RUN, 5).what
    host.write("etc/relay-ctrl/RELAY_CTRL_REMOTES", "127.0.0.1 [::1]:811\n")
    assert host.examine() == []
    with_peers(host)
    host.script("service/relay-ctrl-udp/run", HEARING.replace("envdir /etc/relay-ctrl ", ""))
    one(host.examine(), "no-grant-directory", UDP_RUN, 2)
