"""popgate beside a mail server that needs no XCLIENT: configured as a document says, clients from loopback.

Logins come from any address behind a PROXY header; who sends comes from 127.0.0.x, which gets grants here.
"""

import re
import smtplib
import socket
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from support import ports
from support.relaying import ALICE, BRIEF, FRIEND, PASSWORD, RelaySite


class BesideSite(RelaySite):
    """As RelaySite; documented sockets and maps below /run/popgate are below `run`."""

    def __init__(
        self, directory: Path, toml: str, run: Path, more: str = "", people: Sequence[str] = (ALICE, BRIEF)
    ) -> None:
        toml = toml.replace("/run/popgate", str(run))
        tables = re.findall(r"^\[\[map\]\]\n(?:[^\[\n].*\n)*", toml, re.MULTILINE)
        grants = re.search(r"^\[grants\]\n((?:[^\[\n].*\n)*)", toml, re.MULTILINE)
        settings = f"[grants]\nnever = []\n{grants[1] if grants else ''}{more}" + "".join(tables)
        super().__init__(directory, toml, settings, people)


class LocalClient:
    """An SMTP client from `address`, 127.0.0.x or ::1, which has said EHLO."""

    def __init__(self, port: int, address: str) -> None:
        server = "::1" if ":" in address else "127.0.0.1"
        self.smtp = smtplib.SMTP(server, port, timeout=60, source_address=(address, 0))
        self.smtp.ehlo("printer.example.org")
        self.seconds = 0.0

    def __enter__(self) -> "LocalClient":
        return self

    def __exit__(self, *_: object) -> None:
        self.smtp.close()

    def ask(self, recipient: str = FRIEND, sender: str = ALICE) -> int:
        """The code of the answer to RCPT in a transaction of its own; how long it took in `seconds`."""
        self.smtp.docmd("RSET")
        code, text = self.smtp.mail(sender)
        assert code == 250, text
        began = time.monotonic()
        code, _ = self.smtp.rcpt(recipient)
        self.seconds = time.monotonic() - began
        return code


def asked(port: int, address: str, sender: str = ALICE) -> int:
    """The code of the answer to a recipient elsewhere, in a session of its own."""
    with LocalClient(port, address) as client:
        return client.ask(sender=sender)


def soon(condition: Callable[[], bool], seconds: float = 2.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it does not come true"
        time.sleep(0.02)


def free_port() -> int:
    """A port that is free on 127.0.0.1 and ::1."""
    while True:
        port = ports.free_port()
        with socket.socket(socket.AF_INET6) as other:
            try:
                other.bind(("::1", port))
                return port
            except OSError:
                pass


__all__ = ["ALICE", "BRIEF", "FRIEND", "PASSWORD", "BesideSite", "LocalClient", "asked", "free_port", "soon"]
