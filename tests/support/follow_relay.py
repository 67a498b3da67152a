"""A server that follows another server's log, and its clients: who may relay, who logs in from where."""

import contextlib
import imaplib
import smtplib
import socket
import time
from collections.abc import Iterator
from pathlib import Path

from support.popgate import Popgate
from support.qmail_site import pop3_from

RECIPIENT = "invoices@partner.example"


@contextlib.contextmanager
def following(
    directory: Path, follow: str, settings: str = "", *, workers: int = 2, host: str = "127.0.0.1"
) -> Iterator[Popgate]:
    """A `popgate serve` with `follow`, the text of a [[follow]] and what comes behind it."""
    with Popgate(
        directory / "site",
        (("smtp", ""),),
        f"[grants]\nnever = []\n{settings}\n{follow}",
        workers=workers,
        host=host,
    ) as server:
        server.wait_for("follow.start")
        time.sleep(0.5)  # until the log has been looked at
        yield server


def relay_code(server: Popgate, client: str, sender: str) -> int:
    """What RCPT is answered to a client with that address."""
    host = "::1" if ":" in client else "127.0.0.1"
    with smtplib.SMTP(host, server.port("smtp"), source_address=(client, 0), timeout=20) as session:
        session.ehlo("device")
        session.mail(sender)
        return session.rcpt(RECIPIENT)[0]


def relay_soon(server: Popgate, client: str, sender: str, code: int, seconds: float = 10.0) -> None:
    """Until RCPT is answered so."""
    deadline = time.monotonic() + seconds
    while relay_code(server, client, sender) != code:
        assert time.monotonic() < deadline, server.log[-3000:]
        time.sleep(0.2)


class ImapFrom(imaplib.IMAP4):
    """An IMAP client with an address of its own."""

    def __init__(self, port: int, client: str) -> None:
        self._client = client
        super().__init__("::1" if ":" in client else "127.0.0.1", port, timeout=20)

    def _create_socket(self, timeout):  # type: ignore[no-untyped-def]
        return socket.create_connection((self.host, self.port), timeout, source_address=(self._client, 0))


def by_imap(port: int, client: str, user: str, password: str) -> None:
    with ImapFrom(port, client) as session:
        session.login(user, password)


def by_pop3(port: int, client: str, user: str, password: str) -> None:
    host = "::1" if ":" in client else "127.0.0.1"
    with contextlib.closing(pop3_from(host, port, client)) as session:
        session.user(user)
        session.pass_(password)
        session.quit()
