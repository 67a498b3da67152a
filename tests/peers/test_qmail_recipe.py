"""The recipe of the relay-ctrl guides, with Debian's ucspi-tcp and daemontools: login, then mail.

supervise runs the services, envdir sets the variables, relay-ctrl-chdir opens the directory,
softlimit bounds the memory, tcpserver listens. Clients come from loopback addresses of their own.
"""

import os
import poplib
import pwd
import signal
import stat
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from popgate.integrations.qmail import Machine, examine
from support import peers
from support.qmail_site import ALICE, POP3_RUN, QMAILD, SMTP_RUN, QmailSite, eventually, running

pytestmark = [pytest.mark.peer("ucspi-tcp", "daemontools")]


@pytest.fixture(scope="module", autouse=True)
def _as_root() -> None:
    peers.require_root("ucspi-tcp")


@pytest.fixture(scope="module", params=["tcpserver", "popgate tcpserver"])
def site(request: pytest.FixtureRequest) -> Iterator[QmailSite]:
    """The recipe as it stands in the guides, and with one word changed."""
    with running(QmailSite(request.param)) as site:
        yield site


def uid_of(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(next(line.split()[1] for line in status.splitlines() if line.startswith("Uid:")))


def traps(site: QmailSite) -> set[str]:
    findings = examine(Machine(), str(site.root / "service"), [str(site.root / "etc/cron")])[1]
    # the host's programs are on supervise's PATH here, and in /usr/bin on a real one
    return {one.trap for one in findings} - {"no-such-program", "ipv4-only"}


def test_refused_login_accepted_lapsed_refused(site: QmailSite) -> None:
    client = "127.0.3.1"
    assert not site.may_relay(client)
    assert site.log_in(client) == 1
    assert site.may_relay(client)
    assert not site.may_relay("127.0.3.2")
    site.make_older(client, 901)
    assert not site.may_relay(client)
    site.log_in(client)
    assert site.may_relay(client)


def test_the_message_names_who_logged_in(site: QmailSite) -> None:
    client = "127.0.3.3"
    site.log_in(client, user="bob")
    text = site.send(client)
    assert text.startswith(
        "sender scanner@example.org\nrecipient invoices@partner.example\nlogin bob@example.org\n"
    )
    assert f"({client})" in text and text.endswith("\n\n.scanned\n")


def test_apop(site: QmailSite) -> None:
    client = "127.0.3.4"
    with pytest.raises(poplib.error_proto, match="authorization failed"):
        site.log_in(client, "wrong", apop=True)
    assert not site.may_relay(client)
    assert site.log_in(client, apop=True) == 1
    assert site.may_relay(client)


def test_a_wrong_password_gives_nothing(site: QmailSite) -> None:
    client = "127.0.3.5"
    for user, password in (("alice", "wrong"), ("alice", ""), ("nobody", "correct horse")):
        with pytest.raises(poplib.error_proto):
            site.log_in(client, password, user)
    assert not site.grant_file(client).exists()
    assert not site.may_relay(client)


def test_files_belong_to_who_logged_in_and_the_server_to_qmaild(site: QmailSite) -> None:
    client = "127.0.3.6"
    site.log_in(client)
    state = site.grant_file(client).stat()
    # popgate's listener records the login itself, and is root in the POP3 service
    expected = (ALICE, 0o666) if site.tcpserver == "tcpserver" else (0, 0o644)
    assert (state.st_uid, stat.S_IMODE(state.st_mode)) == expected
    assert uid_of(site.pid("smtpd")) == QMAILD
    # nobody comes to the file but through the descriptor
    assert stat.S_IMODE(site.allow.parent.stat().st_mode) == 0o700


def test_rules_of_tcprules_still_count(site: QmailSite) -> None:
    client = "127.0.3.7"
    rules = site.root / "etc/tcp.smtp"
    before = rules.read_text()
    try:
        rules.write_text(f'{client}:allow,RELAYCLIENT="@from.printer"\n{before}')
        site.compile_rules()
        assert site.may_relay(client)
        assert "recipient invoices@partner.example@from.printer\n" in site.send(client)
    finally:
        rules.write_text(before)
        site.compile_rules()


def test_supervise_starts_a_killed_server_again(site: QmailSite) -> None:
    client = "127.0.3.8"
    site.log_in(client)
    for service, greeting in (("smtpd", b"220"), ("pop3d", b"+OK")):
        killed = site.pid(service)
        os.kill(killed, signal.SIGKILL)
        assert eventually(lambda service=service, killed=killed: site.pid(service) not in (0, killed))  # type: ignore[misc]
        site.await_service(service, greeting)
    assert site.may_relay(client)
    assert not site.may_relay("127.0.3.9")
    site.log_in("127.0.3.9")
    assert site.may_relay("127.0.3.9")


def test_the_ager_removes_what_has_lapsed(site: QmailSite) -> None:
    old, young = "127.0.3.10", "127.0.3.11"
    site.log_in(old)
    site.log_in(young)
    site.make_older(old, 901)
    site.command("envdir", f"{site.root}/etc/relay-ctrl", "relay-ctrl-age")
    assert not site.grant_file(old).exists()
    assert site.may_relay(young)


def test_the_doctor_finds_the_recipe_well(site: QmailSite) -> None:
    assert traps(site) == set()


def test_a_grant_lapses_by_itself() -> None:
    client = "127.0.3.12"
    with running(QmailSite(expiry_seconds=2)) as site:
        site.log_in(client)
        assert site.may_relay(client)
        time.sleep(3.05)
        assert not site.may_relay(client)
        site.log_in(client)
        assert site.may_relay(client)


def test_an_unset_host_opens_nothing() -> None:
    """The guides' line with $HOST unset has relay-ctrl-allow in the checker's place: with the original,
    a wrong password opened the relay."""
    client = "127.0.3.13"
    with running(QmailSite(pop3_run=POP3_RUN.replace("mail.example.org", "$HOST"))) as site:
        with pytest.raises(poplib.error_proto):
            site.log_in(client, "wrong")
        with pytest.raises(poplib.error_proto):
            site.log_in(client)
        assert not site.may_relay(client)
        assert list(site.allow.iterdir()) == []
        assert "relay-ctrl-allow" in site.log_of("pop3d").read_text()
        assert traps(site) == {"recorder-is-checker"}


def test_ids_that_are_not_exported_do_leave_it_root() -> None:
    """The doctor's reason, seen with Debian's tcpserver."""
    with running(QmailSite(smtp_run=SMTP_RUN.replace("export QMAILDUID NOFILESGID\n", "\n"))) as site:
        assert uid_of(site.pid("smtpd")) == 0
        assert traps(site) == {"server-stays-root"}


def test_the_guides_memory_limit_does_start_nothing() -> None:
    """The doctor's reason, seen with Debian's programs."""
    site = QmailSite(smtp_run=SMTP_RUN.replace("-m 200000000", "-m 2000000"))
    try:
        site.supervise("smtpd")
        log = site.log_of("smtpd")
        assert eventually(lambda: "shared libraries" in log.read_text()), log.read_text()
        assert "memory-limit" in traps(site)
    finally:
        site.stop()


def test_without_chdir_nobody_is_granted() -> None:
    """The doctor's reason: qmaild cannot come to the directory, nor can who logs in."""
    client = "127.0.3.14"
    smtp, pop3 = (run.replace("relay-ctrl-chdir", "") for run in (SMTP_RUN, POP3_RUN))
    with running(QmailSite(smtp_run=smtp, pop3_run=pop3)) as site:
        site.log_in(client)  # the login itself works
        assert not site.may_relay(client)
        assert traps(site) == {"no-chdir"}


# -- the same over IPv6: Debian's ucspi-tcp has none


def test_ipv6() -> None:
    with running(QmailSite("popgate tcpserver", host="::1")) as site:
        assert not site.may_relay("::1")
        with pytest.raises(poplib.error_proto):
            site.log_in("::1", "wrong")
        assert not site.may_relay("::1")
        assert site.log_in("::1", apop=True) == 1
        assert "(::1)" in site.send("::1")
        assert site.grant_file("::1").exists()
        site.make_older("::1", 901)
        assert not site.may_relay("::1")
        killed = site.pid("smtpd")
        os.kill(killed, signal.SIGKILL)
        assert eventually(lambda: site.pid("smtpd") not in (0, killed))
        site.await_service("smtpd", b"220")
        site.log_in("::1")
        assert site.may_relay("::1")


def test_one_listener_for_both_families() -> None:
    """`::` as host: who logs in by IPv4 sends by IPv4, and the address is the same one in both services."""
    with running(QmailSite("popgate tcpserver", host="::")) as site:
        assert not site.may_relay("127.0.3.15")
        site.log_in("127.0.3.15")
        assert site.grant_file("127.0.3.15").exists()
        assert site.may_relay("127.0.3.15")
        assert not site.may_relay("::1")
        site.log_in("::1")
        assert site.may_relay("::1")


# -- the whole server as the listener

SERVE_RUN = """\
#!/bin/sh
exec popgate serve --config {root}/etc/popgate.toml 2>&1
"""

POPGATE_TOML = """\
hostname = "mail.example.org"
data_dir = "{root}/data"
local_domains = ["example.org"]
user = "nobody"
workers = 1

[[listener]]
service = "ucspi"
bind = "{host}:{port}"
command = ["{root}/qmail/bin/qmail-smtpd"]
grant = "check"

[grants]
store = "directory:{root}/spool/allow"
sender = "any"
never = []
"""


def test_a_listener_of_the_server_asks_for_grants_of_the_chain() -> None:
    """SMTP behind `[[listener]] service = "ucspi"`, POP3 as it always was; supervise runs both."""
    client = "127.0.3.16"
    site = QmailSite(smtp_run=SERVE_RUN)
    text = POPGATE_TOML.format(root=site.root, host=site.host, port=site.ports["smtpd"])
    (site.root / "etc/popgate.toml").write_text(text)
    # the server's group may pass through the outer directory
    os.chown(site.allow.parent, 0, pwd.getpwnam("nobody").pw_gid)
    site.allow.parent.chmod(0o710)
    (site.root / "data").mkdir()
    os.chown(site.root / "data", pwd.getpwnam("nobody").pw_uid, pwd.getpwnam("nobody").pw_gid)
    with running(site):
        assert not site.may_relay(client)
        site.log_in(client)
        assert "login alice@example.org\n" in site.send(client)
        site.make_older(client, 901)
        assert not site.may_relay(client)
        killed = site.pid("smtpd")
        os.kill(killed, signal.SIGKILL)
        assert eventually(lambda: site.pid("smtpd") not in (0, killed))
        site.await_service("smtpd", b"220")
        site.log_in(client)
        assert site.may_relay(client)
