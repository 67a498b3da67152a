"""SMTP on the real back ends: accounts, grants, throttle and queue; the client is Python's smtplib."""

import asyncio
import secrets
import smtplib
import sqlite3
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from popgate.auth.backends.account_logins import AccountLogins
from popgate.auth.backends.accounts import AccountDatabase
from popgate.auth.recipients import Recipients
from popgate.auth.settings import AuthSettings
from popgate.auth.throttle import Throttle
from popgate.auth.verified import VerifiedPasswords
from popgate.auth.workers import Workers
from popgate.files.real import RealDisk
from popgate.grants.grant import DEFAULT_TERMS
from popgate.grants.service import Grants
from popgate.grants.settings import GrantSettings
from popgate.grants.stores.memory import MemoryStore
from popgate.protocols.engine import Wait
from popgate.protocols.smtp import Reply
from popgate.queue import queue_id
from popgate.queue.store import SqliteQueue
from popgate.sessions.session import Peer, Runtime
from popgate.sessions.smtp import SmtpPolicy, SmtpServices, SmtpSession
from popgate.values.address import ClientAddress
from popgate.values.event import Event
from popgate.values.identity import Identity
from support.users import Users

ANN = Identity("ann", "example.org")
LOOPBACK = ClientAddress.parse("127.0.0.1")
MESSAGE = b"From: ann@example.org\r\nSubject: a scan\r\n\r\n.a dot\r\n..two\r\n.\r\nend\r\n"


class RealClock:
    now = staticmethod(time.time)
    monotonic = staticmethod(time.monotonic)


class Site:
    """A site on disk. `serve` runs a client in a thread against sessions on a loopback socket."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.events: list[Event] = []
        self.slept: list[float] = []
        self.clock = RealClock()
        self.database = AccountDatabase(str(root / "accounts.db"))
        self.database.add("ann@example.org", "sesame open", is_recoverable=True)
        self.database.add("bob@example.org", "sesame close")
        self.grants = Grants(MemoryStore(), GrantSettings(never=[]), self.clock, self.events.append)
        self.logins = AccountLogins(
            self.database, VerifiedPasswords(self.clock, 3600), Workers(threads=1), apop=True
        )
        self.queue = SqliteQueue(str(root / "queue"), RealDisk(), self.clock, self.events.append)
        self.services = SmtpServices(
            self.logins,
            Recipients([self.database], ["example.org"], ANN),
            self.grants,
            self.queue,
            Throttle(AuthSettings(), self.clock),
            frozenset(("example.org",)),
            Users(),
        )

    def close(self) -> None:
        self.logins.close()
        self.queue.close()

    def stored(self) -> list[tuple[bytes, str, list[str]]]:
        """What lies in the queue: body, identity and recipients, read without the queue's own code."""
        connection = sqlite3.connect(self.root / "queue" / "queue.sqlite")
        found = []
        for number, identity, body in connection.execute(
            "SELECT id, identity, body FROM message ORDER BY id"
        ).fetchall():
            if body is None:
                body = (self.root / "queue" / "bodies" / queue_id.to_text(number)).read_bytes()
            rows = connection.execute("SELECT local, domain FROM recipient WHERE message = ?", (number,))
            found.append((body, identity, sorted(f"{local}@{domain}" for local, domain in rows)))
        connection.close()
        return found

    async def _sleep(self, seconds: float) -> None:
        self.slept.append(seconds)

    async def serve(self, client: Callable[[int], None]) -> None:
        server = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        async with server:
            await asyncio.to_thread(client, server.sockets[0].getsockname()[1])

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        policy = SmtpPolicy("mx.example.org", plaintext_login=True, cram_md5=True)
        runtime = Runtime(
            self.clock, self.events.append, self._sleep, asyncio.to_thread, lambda: secrets.token_urlsafe(16)
        )
        peer = Peer(secrets.token_hex(4), LOOPBACK, 40000, "127.0.0.1:25")
        session = SmtpSession(peer, policy, runtime, self.services)
        engine = session.engine
        writer.write(engine.take_output())
        while engine.waiting_for is not Wait.CLOSE:
            engine.receive(await reader.read(65536))
            while (event := engine.next_event()) is not None:
                decision = session.decide(event)
                answer = await decision if isinstance(decision, Awaitable) else decision
                if isinstance(answer, Reply):
                    engine.answer(answer)
            writer.write(engine.take_output())
            await writer.drain()
        session.closed("quit")
        writer.close()


@pytest.fixture
async def site(tmp_path: Path):
    made = Site(tmp_path)
    yield made
    made.close()


def connect(port: int) -> smtplib.SMTP:
    return smtplib.SMTP("127.0.0.1", port, local_hostname="printer.example.org", timeout=10)


async def test_a_login_by_pop3_opens_the_way_for_a_while(site: Site) -> None:
    def client(port: int) -> None:
        with connect(port) as smtp:
            with pytest.raises(smtplib.SMTPRecipientsRefused) as refused:
                smtp.sendmail("ann@example.org", ["you@example.net"], MESSAGE)
            code, text = refused.value.recipients["you@example.net"]
            assert code == 550
            assert text.startswith(b"5.7.1 relaying denied for [127.0.0.1]")
            assert site.grants.allow(LOOPBACK, ANN, "pop3", DEFAULT_TERMS, "P1")
            smtp.sendmail("ann@example.org", ["you@example.net", "bob@example.org"], MESSAGE)
            with pytest.raises(smtplib.SMTPRecipientsRefused):
                smtp.sendmail("bob@example.org", ["you@example.net"], MESSAGE)
            site.grants.revoke(LOOPBACK, None, "test")
            with pytest.raises(smtplib.SMTPRecipientsRefused):
                smtp.sendmail("ann@example.org", ["you@example.net"], MESSAGE)

    await site.serve(client)
    [(body, identity, recipients)] = site.stored()
    assert body.endswith(MESSAGE)
    assert b"(grant: ann@example.org by pop3 at " in body
    assert identity == "ann@example.org"
    assert recipients == ["bob@example.org", "you@example.net"]
    assert site.grants.list() == []


@pytest.mark.parametrize("octets", [100_000, 3_000_000])
async def test_a_large_message_arrives_whole(site: Site, octets: int) -> None:
    large = MESSAGE + (b"." * 997 + b"\r\n") * (octets // 999)

    def client(port: int) -> None:
        with connect(port) as smtp:
            smtp.sendmail("someone@example.net", ["ann@example.org"], large)

    await site.serve(client)
    [(body, identity, _)] = site.stored()
    assert body.endswith(large)
    assert body.count(b"Received: ") == 1
    assert identity == ""


@pytest.mark.parametrize("mechanism", ["PLAIN", "LOGIN", "CRAM-MD5"])
async def test_every_mechanism_logs_in_and_relays(site: Site, mechanism: str) -> None:
    def client(port: int) -> None:
        with connect(port) as smtp:
            smtp.ehlo()
            smtp.user, smtp.password = "ann@example.org", "wrong"
            method = getattr(smtp, f"auth_{mechanism.lower().replace('-', '_')}")
            with pytest.raises(smtplib.SMTPAuthenticationError) as refused:
                smtp.auth(mechanism, method)
            assert refused.value.smtp_code == 535
            smtp.password = "sesame open"
            assert smtp.auth(mechanism, method)[0] == 235
            smtp.sendmail("ann@example.org", ["you@example.net"], MESSAGE)

    await site.serve(client)
    [(body, identity, _)] = site.stored()
    assert b"with ESMTPA id " in body
    assert identity == "ann@example.org"
    assert site.slept == [pytest.approx(1.0, abs=0.5)]


async def test_names_here_are_known_or_refused(site: Site) -> None:
    def client(port: int) -> None:
        with connect(port) as smtp:
            names = ["ann@example.org", "Bob+scans@EXAMPLE.org", "nobody@example.org", "../ann@example.org"]
            refused = smtp.sendmail("", names, MESSAGE)
            assert {name: code for name, (code, _) in refused.items()} == {
                "nobody@example.org": 550,
                "../ann@example.org": 501,
            }
            smtp.sendmail("", ["postmaster@example.org"], MESSAGE)

    await site.serve(client)
    assert [sorted(recipients) for _, _, recipients in site.stored()] == [
        ["Bob+scans@example.org", "ann@example.org"],
        ["postmaster@example.org"],
    ]
