"""Dovecot as it is, its log followed by `popgate serve`: refused, login, accepted, lapsed, refused."""

import contextlib
import os
import poplib
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from support.dovecot import Dovecot
from support.follow_relay import ImapFrom, by_imap, by_pop3, following, relay_code, relay_soon
from support.popgate import Popgate

pytestmark = [pytest.mark.peer("dovecot-core", "dovecot-pop3d", "dovecot-imapd")]

PASSWORD = "correct horse"


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
    follow = f'[[follow]]\nfile = "{log_of(dovecot)}"\npatterns = ["dovecot"]\n'
    with contextlib.ExitStack() as stack:

        def start(settings: str = "", *, host: str = "127.0.0.1") -> Popgate:
            return stack.enter_context(following(tmp_path, follow, settings, host=host))

        yield start


def code_for(server: Popgate, client: str, sender: str = "alice@example.org") -> int:
    return relay_code(server, client, sender)


def soon(server: Popgate, client: str, code: int, sender: str = "alice@example.org") -> None:
    relay_soon(server, client, sender, code)


def pop3(dovecot: Dovecot, client: str, user: str = "alice", password: str = PASSWORD) -> None:
    by_pop3(dovecot.pop3_port, client, user, password)


def imap(dovecot: Dovecot, client: str) -> None:
    by_imap(dovecot.imap_port, client, "alice", PASSWORD)


@pytest.mark.parametrize(("log_in", "client"), [(pop3, "127.0.5.1"), (imap, "127.0.5.2")])
def test_refused_login_accepted_lapsed_refused(
    dovecot: Dovecot, serve: Callable[..., Popgate], log_in: Callable[[Dovecot, str], None], client: str
) -> None:
    server = serve("window_seconds = 5\n")
    assert code_for(server, client) == 550
    log_in(dovecot, client)
    began = time.monotonic()
    soon(server, client, 250)
    assert code_for(server, "127.0.5.99") == 550
    assert code_for(server, client, "bob@example.org") == 550  # bound: it is alice's
    soon(server, client, 550)
    # the log tells whole seconds
    assert 3.5 < time.monotonic() - began < 10
    explained = server.explain(client, f"(told by {log_of(dovecot)})")
    assert "alice@example.org logged in by" in explained


def test_by_ipv6(dovecot: Dovecot, serve: Callable[..., Popgate]) -> None:
    server = serve(host="[::1]")
    assert code_for(server, "::1") == 550
    imap(dovecot, "::1")
    soon(server, "::1", 250)


def test_two_people_behind_one_address(dovecot: Dovecot, serve: Callable[..., Popgate]) -> None:
    client = "127.0.5.3"
    server = serve()
    pop3(dovecot, client)
    soon(server, client, 250)
    assert code_for(server, client, "bob@example.org") == 550
    pop3(dovecot, client, "bob")
    soon(server, client, 250, sender="bob@example.org")
    assert code_for(server, client) == 250


def test_a_failed_login_grants_nothing_whatever_is_typed(
    dovecot: Dovecot, serve: Callable[..., Popgate]
) -> None:
    server = serve('sender = "any"\n')
    typed = ("alice", "Login:_user=<alice>,_method=PLAIN,_rip=127.0.5.5", "x>,rip=127.0.5.5")
    clients = [
        f"127.0.5.{41 + number}" for number in range(len(typed))
    ]  # Dovecot delays the second try of one
    for client, user in zip(clients, typed, strict=True):
        with contextlib.suppress(poplib.error_proto):
            pop3(dovecot, client, user, "wrong")
    pop3(dovecot, "127.0.5.6")
    soon(server, "127.0.5.6", 250)
    for client in (*clients, "127.0.5.5"):
        assert code_for(server, client) == 550
    assert server.log.count("follow.login") == 1


def test_an_open_session_keeps_the_grant(dovecot: Dovecot, serve: Callable[..., Popgate]) -> None:
    client = "127.0.5.7"
    server = serve("window_seconds = 5\n")
    with ImapFrom(dovecot.imap_port, client) as session:
        session.login("alice", PASSWORD)
        soon(server, client, 250)
        pop3(dovecot, client)  # one more that ends
        until = time.monotonic() + 9
        while time.monotonic() < until:
            assert code_for(server, client) == 250
            time.sleep(0.5)
        # the process that follows dies, and another one knows of the session
        before = server.log.count("follow.start")
        os.kill(_follower(server), signal.SIGKILL)
        server.wait_for("follow.start", count=before + 1)
        until = time.monotonic() + 8
        while time.monotonic() < until:
            assert code_for(server, client) == 250
            time.sleep(0.5)
    soon(server, client, 550)
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
    soon(server, "127.0.5.8", 250, sender="carol@example.org")
    pop3(dovecot, "127.0.5.9")
    soon(server, "127.0.5.9", 250)
    server.config.write_text(text)
    os.kill(server.pid, signal.SIGHUP)
    server.wait_for("follow.start", count=4)
    assert server.log.count(f"follow.start source={other}") == 1
    server.config.write_text(text.replace('["dovecot"]', '["dovcot"]'))
    os.kill(server.pid, signal.SIGHUP)
    server.wait_for("server.reload.refused")


def test_a_restart_loses_nothing(dovecot: Dovecot, serve: Callable[..., Popgate]) -> None:
    server = serve()
    pop3(dovecot, "127.0.5.10")
    soon(server, "127.0.5.10", 250)
    server.stop()
    pop3(dovecot, "127.0.5.11")
    server.start()
    soon(server, "127.0.5.11", 250)
    assert server.log.count("follow.login") == 2
