"""Dovecot as it is, its log followed by `popgate serve`: refused, login, accepted, lapsed, refused."""

import contextlib
import imaplib
import os
import poplib
import signal
import smtplib
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from support.dovecot import Dovecot
from support.popgate import Popgate
from support.qmail_site import pop3_from

pytestmark = [pytest.mark.peer("dovecot-core", "dovecot-pop3d", "dovecot-imapd")]

PASSWORD = "correct horse"
RECIPIENT = "invoices@partner.example"


def log_of(dovecot: Dovecot) -> Path:
    return dovecot.root / "log"


@pytest.fixture(scope="module")
def dovecot() -> Iterator[Dovecot]:
    with Dovecot(
        {"alice": PASSWORD, "bob": PASSWORD}, listen="127.0.0.1, ::1", settings="auth_failure_delay = 0"
    ) as dovecot:
        yield dovecot


@pytest.fixture
def serve(tmp_path: Path, dovecot: Dovecot) -> Iterator[Callable[..., Popgate]]:
    with contextlib.ExitStack() as stack:

        def start(
            settings: str = "", *, workers: int = 2, follow: str = "", host: str = "127.0.0.1"
        ) -> Popgate:
            log = f'\n[[follow]]\nfile = "{log_of(dovecot)}"\npatterns = ["dovecot"]\n{follow}'
            server = Popgate(
                tmp_path / "site",
                (("smtp", ""),),
                f"[grants]\nnever = []\n{settings}{log}",
                workers=workers,
                host=host,
            )
            stack.enter_context(server)
            server.wait_for("follow.start")
            time.sleep(0.3)  # until the log has been looked at
            return server

        yield start


def relay_code(server: Popgate, client: str, sender: str = "alice@example.org") -> int:
    host = "::1" if ":" in client else "127.0.0.1"
    with smtplib.SMTP(host, server.port("smtp"), source_address=(client, 0), timeout=20) as session:
        session.ehlo("device")
        session.mail(sender)
        return session.rcpt(RECIPIENT)[0]


def relay_soon(
    server: Popgate, client: str, code: int, seconds: float = 10.0, sender: str = "alice@example.org"
) -> None:
    deadline = time.monotonic() + seconds
    while relay_code(server, client, sender) != code:
        assert time.monotonic() < deadline, server.log[-3000:]
        time.sleep(0.2)


def by_pop3(dovecot: Dovecot, client: str, user: str = "alice", password: str = PASSWORD) -> None:
    with contextlib.closing(pop3_from("127.0.0.1", dovecot.pop3_port, client)) as session:
        session.user(user)
        session.pass_(password)
        session.quit()


class _Imap(imaplib.IMAP4):
    def __init__(self, port: int, client: str) -> None:
        self._client = client
        super().__init__("::1" if ":" in client else "127.0.0.1", port, timeout=20)

    def _create_socket(self, timeout):  # type: ignore[no-untyped-def]
        return socket.create_connection((self.host, self.port), timeout, source_address=(self._client, 0))


def by_imap(dovecot: Dovecot, client: str) -> None:
    with _Imap(dovecot.imap_port, client) as session:
        session.login("alice", PASSWORD)


@pytest.mark.parametrize(("log_in", "client"), [(by_pop3, "127.0.5.1"), (by_imap, "127.0.5.2")])
def test_refused_login_accepted_lapsed_refused(
    dovecot: Dovecot, serve: Callable[..., Popgate], log_in: Callable[[Dovecot, str], None], client: str
) -> None:
    server = serve("window_seconds = 3\n")
    assert relay_code(server, client) == 550
    log_in(dovecot, client)
    began = time.monotonic()
    relay_soon(server, client, 250)
    assert relay_code(server, "127.0.5.99") == 550
    assert relay_code(server, client, "bob@example.org") == 550  # bound: it is alice's
    relay_soon(server, client, 550)
    # the log tells whole seconds
    assert 1.5 < time.monotonic() - began < 6
    explained = server.command("grant", "explain", client, check=False).stdout
    assert "alice@example.org logged in by" in explained
    assert f"(told by {log_of(dovecot)})" in explained


def test_by_ipv6(dovecot: Dovecot, serve: Callable[..., Popgate]) -> None:
    server = serve(host="[::1]")
    assert relay_code(server, "::1") == 550
    by_imap(dovecot, "::1")
    relay_soon(server, "::1", 250)


def test_two_people_behind_one_address(dovecot: Dovecot, serve: Callable[..., Popgate]) -> None:
    client = "127.0.5.3"
    server = serve()
    by_pop3(dovecot, client)
    relay_soon(server, client, 250)
    assert relay_code(server, client, "bob@example.org") == 550
    by_pop3(dovecot, client, "bob")
    relay_soon(server, client, 250, sender="bob@example.org")
    assert relay_code(server, client) == 250


def test_a_failed_login_grants_nothing_whatever_is_typed(
    dovecot: Dovecot, serve: Callable[..., Popgate]
) -> None:
    client = "127.0.5.4"
    server = serve('sender = "any"\n')
    for user in ("alice", "Login:_user=<alice>,_method=PLAIN,_rip=127.0.5.5", "x>,rip=127.0.5.5"):
        with contextlib.suppress(poplib.error_proto):
            by_pop3(dovecot, client, user, "wrong")
    by_pop3(dovecot, "127.0.5.6")
    relay_soon(server, "127.0.5.6", 250)
    assert relay_code(server, client) == 550 and relay_code(server, "127.0.5.5") == 550
    assert server.log.count("follow.login") == 1


def test_an_open_session_keeps_the_grant(dovecot: Dovecot, serve: Callable[..., Popgate]) -> None:
    client = "127.0.5.7"
    server = serve("window_seconds = 3\n")
    with _Imap(dovecot.imap_port, client) as session:
        session.login("alice", PASSWORD)
        relay_soon(server, client, 250)
        by_pop3(dovecot, client)  # one more that ends
        until = time.monotonic() + 7
        while time.monotonic() < until:
            assert relay_code(server, client) == 250
            time.sleep(0.5)
        # the process that follows dies, and another one knows of the session
        before = server.log.count("follow.start")
        os.kill(_follower(server), signal.SIGKILL)
        server.wait_for("follow.start", count=before + 1)
        until = time.monotonic() + 5
        while time.monotonic() < until:
            assert relay_code(server, client) == 250
            time.sleep(0.5)
    relay_soon(server, client, 550)
    server.wait_for("follow.logout", count=2)


def _follower(server: Popgate) -> int:
    """The process that holds the lock."""
    lock = server.directory / "data/follow/lock"
    inode = lock.stat().st_ino
    for line in Path("/proc/locks").read_text().splitlines():
        words = line.split()
        if words[1] == "FLOCK" and words[5].endswith(f":{inode}"):
            for pid in Path("/proc").glob("[0-9]*"):
                with contextlib.suppress(OSError):
                    for fd in (pid / "fd").iterdir():
                        if (
                            os.readlink(fd) == str(lock)
                            and f":{inode} " in (pid / "fdinfo" / fd.name).read_text()
                        ):
                            return int(pid.name)
    raise AssertionError("nobody follows")


def test_a_reload_adds_and_removes_logs(dovecot: Dovecot, serve: Callable[..., Popgate]) -> None:
    server = serve()
    other = server.directory / "other.log"
    other.touch(mode=0o640)
    text = server.config.read_text()
    server.config.write_text(text + f'[[follow]]\nfile = "{other}"\npatterns = ["courier"]\n')
    os.kill(server.pid, signal.SIGHUP)
    server.wait_for(f"follow.start source={other}")
    with other.open("a") as file:
        file.write(
            time.strftime("%b %e %H:%M:%S", time.localtime())
            + " mail pop3d: LOGIN, user=carol, ip=[::ffff:127.0.5.8], port=[59417]\n"
        )
    relay_soon(server, "127.0.5.8", 250, sender="carol@example.org")
    by_pop3(dovecot, "127.0.5.9")
    relay_soon(server, "127.0.5.9", 250)
    server.config.write_text(text)
    os.kill(server.pid, signal.SIGHUP)
    server.wait_for("follow.start", count=4)
    assert server.log.count(f"follow.start source={other}") == 1
    server.config.write_text(text.replace('["dovecot"]', '["dovcot"]'))
    os.kill(server.pid, signal.SIGHUP)
    server.wait_for("server.reload.refused")


def test_a_restart_loses_nothing(dovecot: Dovecot, serve: Callable[..., Popgate]) -> None:
    server = serve()
    by_pop3(dovecot, "127.0.5.10")
    relay_soon(server, "127.0.5.10", 250)
    server.stop()
    by_pop3(dovecot, "127.0.5.11")
    server.start()
    relay_soon(server, "127.0.5.11", 250)
    assert server.log.count("follow.login") == 2
