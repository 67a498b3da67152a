"""Debian's courier-pop and courier-imap as docs/courier.md sets them up: login, then mail.

Courier's own listener, login programs, authdaemond and start scripts run; the test brings only a user.
"""

import contextlib
import imaplib
import os
import poplib
import smtplib
import socket
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from support.courier import CAROL, PASSWORD, USER, Courier
from support.popgate import Popgate
from support.qmail_site import pop3_from

pytestmark = [pytest.mark.peer("courier-pop", "courier-imap", "openssl")]

Login = Callable[[Courier, str, str, str], int]
RECORD = b"USER=" + USER.encode() + b"\0"
SMTP = (("smtp", ""),)


@pytest.fixture(scope="module")
def courier() -> Iterator[Courier]:
    with Courier() as courier:
        yield courier


class _ImapFrom(imaplib.IMAP4):
    def __init__(self, port: int, source: str) -> None:
        self._source = source
        super().__init__("127.0.0.1", port, timeout=20)

    def _create_socket(self, timeout):  # type: ignore[no-untyped-def]
        return socket.create_connection((self.host, self.port), timeout, source_address=(self._source, 0))


def by_pop3(courier: Courier, source: str, user: str, password: str) -> int:
    return _pop3(courier.pop3_port, source, user, password)


def _pop3(port: int, source: str, user: str, password: str) -> int:
    with contextlib.closing(pop3_from("127.0.0.1", port, source)) as session:
        session.user(user)
        session.pass_(password)
        count, _ = session.stat()
        session.quit()
        return count


def by_imap(courier: Courier, source: str, user: str, password: str) -> int:
    with _ImapFrom(courier.imap_port, source) as session:
        session.login(user, password)
        return int(session.select()[1][0] or b"")


LOGINS = pytest.mark.parametrize(("log_in", "number"), [(by_pop3, 1), (by_imap, 2)], ids=["pop3", "imap"])


@LOGINS
def test_refused_login_accepted_lapsed_refused(courier: Courier, log_in: Login, number: int) -> None:
    client = f"127.0.4.{number}"
    assert courier.relay_client(client) is None
    assert log_in(courier, client, USER, PASSWORD) == 1  # Courier's program runs behind
    assert courier.relay_client(client) == USER
    assert courier.relay_client(f"127.0.4.{number + 100}") is None
    file = courier.allow / client
    os.utime(file, (file.stat().st_mtime - 901,) * 2)
    assert courier.relay_client(client) is None
    log_in(courier, client, USER, PASSWORD)
    assert courier.relay_client(client) == USER


@LOGINS
def test_the_grant_is_of_who_logged_in(courier: Courier, log_in: Login, number: int) -> None:
    client = f"127.0.4.{number + 2}"
    log_in(courier, client, USER, PASSWORD)
    assert courier.recorded(client) == RECORD
    # written with the rights of the account, through the descriptor that root opened
    assert (courier.allow / client).stat().st_uid == CAROL
    assert (courier.allow.parent).stat().st_mode & 0o777 == 0o700


def test_a_failed_login_grants_nothing(courier: Courier) -> None:
    def refused(log_in: Login, client: str, user: str, password: str) -> None:
        with pytest.raises((poplib.error_proto, imaplib.IMAP4.error)):
            log_in(courier, client, user, password)

    attempts = [
        (log_in, client, *names)
        for log_in, client in ((by_pop3, "127.0.4.5"), (by_imap, "127.0.4.6"))
        for names in ((USER, "wrong"), (USER, " "), ("nobody@example.org", PASSWORD))
    ]
    with ThreadPoolExecutor(len(attempts)) as together:  # Courier takes five seconds for each refusal
        list(together.map(refused, *zip(*attempts, strict=True)))
    for client in ("127.0.4.5", "127.0.4.6"):
        assert courier.recorded(client) is None
        assert courier.relay_client(client) is None


def test_popgates_own_listener_honours_it(courier: Courier, tmp_path: Path) -> None:
    settings = f'[grants]\nstore = "directory:{courier.allow}"\nsender = "any"\nnever = []\n'
    with Popgate(tmp_path / "site", SMTP, settings) as server:

        def may_relay(client: str) -> bool:
            with smtplib.SMTP("127.0.0.1", server.port("smtp"), source_address=(client, 0)) as session:
                session.ehlo("device")
                session.mail("scanner@example.org")
                return session.rcpt("invoices@partner.example")[0] == 250

        for log_in, client in ((by_pop3, "127.0.4.7"), (by_imap, "127.0.4.8")):
            assert not may_relay(client)
            log_in(courier, client, USER, PASSWORD)
            assert may_relay(client)


def test_with_tls(courier: Courier) -> None:
    """couriertls stands between the listener and the login there, and hands the descriptor on."""
    client = "127.0.4.11"
    context = courier.certificates.client_context
    plain = socket.create_connection(("127.0.0.1", courier.pop3s_port), 20, source_address=(client, 0))
    connection = context.wrap_socket(plain, server_hostname="localhost")
    with connection, connection.makefile("rb") as replies:
        assert replies.readline().startswith(b"+OK")
        assert courier.recorded(client) is None
        for command in (f"USER {USER}", f"PASS {PASSWORD}", "QUIT"):
            connection.sendall(f"{command}\r\n".encode())
            assert replies.readline().startswith(b"+OK"), command
    assert courier.recorded(client) == RECORD


@pytest.mark.parametrize(("place", "number"), [("old_port", 9), ("early_port", 10)])
def test_before_the_password_nothing_is_granted(courier: Courier, place: str, number: int) -> None:
    """relay-ctrl-allow before courierpop3login: as Courier's old scripts said it by AUTHUSER and
    AUTHARGV0 with AUTHENTICATED empty, and as a mistake of today."""
    client, port = f"127.0.4.{number}", getattr(courier, place)
    with contextlib.closing(pop3_from("127.0.0.1", port, client)) as session:
        session.user(USER)  # and no password
    assert courier.recorded(client) is None
    assert courier.recorded("127.0.4.254") is None  # who looked whether the server is up
    assert _pop3(port, client, USER, PASSWORD) == 1
    assert courier.recorded(client) == RECORD
    assert ("stands before courierpop3login" in courier.log) or place == "old_port"
