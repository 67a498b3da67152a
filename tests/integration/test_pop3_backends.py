"""POP3 on the real back ends: accounts, grants, throttle and Maildirs, with Python's poplib as the client."""

import asyncio
import hashlib
import poplib
import secrets
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from popgate.auth.backends.account_logins import AccountLogins
from popgate.auth.backends.accounts import AccountDatabase
from popgate.auth.settings import AuthSettings
from popgate.auth.throttle import Throttle
from popgate.auth.verified import VerifiedPasswords
from popgate.auth.workers import Workers
from popgate.files.real import RealDisk
from popgate.grants.grant import Terms
from popgate.grants.service import Grants
from popgate.grants.settings import GrantSettings
from popgate.grants.stores.memory import MemoryStore
from popgate.mailbox.backends.maildir import MaildirMailboxes
from popgate.mailbox.mailbox import MailboxError
from popgate.protocols.engine import Wait
from popgate.protocols.pop3.replies import Reply
from popgate.sessions.pop3 import Pop3Policy, Pop3Services, Pop3Session
from popgate.sessions.session import Peer, Runtime
from popgate.values.address import ClientAddress
from popgate.values.event import Event
from popgate.values.identity import Identity
from popgate.values.mail import MailAddress
from support.users import Users

ANN = Identity("ann", "example.org")
LOOPBACK = ClientAddress.parse("127.0.0.1")
SENDER = MailAddress("ann", "example.org")


class RealClock:
    now = staticmethod(time.time)
    monotonic = staticmethod(time.monotonic)


class Backends:
    """A site on disk. `serve` runs clients in threads against sessions on a loopback socket."""

    def __init__(self, root: Path) -> None:
        self.events: list[Event] = []
        self.clock = RealClock()
        (root / "mail").mkdir(mode=0o700)
        self.database = AccountDatabase(str(root / "accounts.db"))
        self.database.add("ann@example.org", "sesame open", is_recoverable=True)
        self.database.add("printer@example.org", "0000 0000", terms=Terms(is_device=True))
        self.mailboxes = MaildirMailboxes(
            str(root / "mail"), RealDisk(), self.clock, "mail.example.org", self.events.append, most_kept=2
        )
        self.grants = Grants(MemoryStore(), GrantSettings(never=[]), self.clock, self.events.append)
        self.logins = AccountLogins(
            self.database, VerifiedPasswords(self.clock, 3600), Workers(threads=1), apop=True
        )
        self.services = Pop3Services(
            self.logins, self.mailboxes, self.grants, Throttle(AuthSettings(), self.clock), Users()
        )
        self.slept: list[float] = []
        self.new = root / "mail" / "example.org" / "ann" / "new"
        self.cur = root / "mail" / "example.org" / "ann" / "cur"

    def close(self) -> None:
        self.logins.close()
        self.mailboxes.close()

    def may_relay(self) -> bool:
        return self.grants.decide(LOOPBACK, SENDER, 1, 0, "smtp").verdict == "permit"

    async def _sleep(self, seconds: float) -> None:
        self.slept.append(seconds)

    async def serve(self, client: Callable[[int], None]) -> None:
        server = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        async with server:
            await asyncio.to_thread(client, server.sockets[0].getsockname()[1])

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        policy = Pop3Policy("mail.example.org", plaintext_login=True, apop=True)
        runtime = Runtime(
            self.clock, self.events.append, self._sleep, asyncio.to_thread, lambda: secrets.token_urlsafe(16)
        )
        peer = Peer(secrets.token_hex(4), LOOPBACK, 40000, "127.0.0.1:110")
        session = Pop3Session(peer, policy, runtime, self.services)
        engine = session.engine
        writer.write(engine.take_output())
        while engine.waiting_for is not Wait.CLOSE:
            engine.receive(await reader.read(65536))
            await _pump(session, writer)
        session.closed("quit")
        writer.close()


async def _pump(session: Pop3Session, writer: asyncio.StreamWriter) -> None:
    engine = session.engine
    while True:
        event = engine.next_event()
        if event is not None:
            decision = session.decide(event)
            reply = await decision if isinstance(decision, Awaitable) else decision
            assert isinstance(reply, Reply)
            engine.answer(reply)
        elif engine.source is not None:
            try:
                for block in engine.source:
                    engine.body(block)
                    writer.write(engine.take_output())
                    await writer.drain()
            except MailboxError:
                engine.body_end(failed=True)
            else:
                engine.body_end()
        else:
            break
    writer.write(engine.take_output())
    await writer.drain()


@pytest.fixture
def site(tmp_path: Path):
    backends = Backends(tmp_path)
    yield backends
    backends.close()


def connect(port: int) -> poplib.POP3:
    return poplib.POP3("127.0.0.1", port, timeout=10)


def log_in(port: int) -> poplib.POP3:
    client = connect(port)
    client.user("ann@example.org")
    client.pass_("sesame open")
    return client


def message(number: int, body: bytes = b"text\r\n") -> bytes:
    return b"Subject: number %d\r\n\r\n" % number + body


async def test_a_whole_session_of_poplib(site: Backends) -> None:
    dots = b".\r\n..\r\n.dot\r\n" + b"line of text\r\n" * 20_000
    bodies = [message(1), message(2, dots), message(3)]
    for body in bodies:
        site.mailboxes.deliver(ANN, [body])

    def client(port: int) -> None:
        assert not site.may_relay()
        pop = log_in(port)
        assert site.may_relay()
        capabilities = pop.capa()
        assert capabilities["SASL"] == ["PLAIN", "LOGIN", "SCRAM-SHA-256", "CRAM-MD5"]
        assert pop.stat() == (3, sum(map(len, bodies)))
        uids = [line.split()[1] for line in pop.uidl()[1]]
        assert len(set(uids)) == 3
        for number, body in enumerate(bodies, 1):
            assert b"".join(line + b"\r\n" for line in pop.retr(number)[1]) == body
        assert pop.top(2, 1)[1] == [b"Subject: number 2", b"", b"."]
        pop.dele(1)
        assert [line.split()[0] for line in pop.list()[1]] == [b"2", b"3"]
        with pytest.raises(poplib.error_proto):
            pop.retr(1)
        pop.quit()
        again = log_in(port)
        assert [line.split()[1] for line in again.uidl()[1]] == uids[1:]
        again.close()

    await site.serve(client)
    assert len(list(site.cur.iterdir())) == 2
    assert not list(site.new.iterdir())
    names = [event.name for event in site.events]
    assert names.count("pop3.login") == 2
    assert names.count("grant.allow") == 2


async def test_apop_and_a_device(site: Backends) -> None:
    def client(port: int) -> None:
        pop = connect(port)
        pop.apop("ann@example.org", "sesame open")
        pop.quit()
        assert site.may_relay()
        device = connect(port)
        device.user("printer@example.org")
        device.pass_("0000 0000")
        assert device.stat() == (0, 0)
        device.quit()

    await site.serve(client)
    allowed = [event.fields["protocol"] for event in site.events if event.name == "grant.allow"]
    assert allowed == ["apop", "pop3"]


async def test_wrong_logins_grant_nothing_and_close(site: Backends) -> None:
    def client(port: int) -> None:
        pop = connect(port)
        texts = []
        for name in ("ann@example.org", "nobody@example.org", "ann@example.org"):
            pop.user(name)
            with pytest.raises(poplib.error_proto) as error:
                pop.pass_("wrong")
            texts.append(str(error.value))
        assert texts[0] == texts[1]
        with pytest.raises((poplib.error_proto, OSError)):
            pop.noop()
        pop.close()

    await site.serve(client)
    assert not site.may_relay()
    assert len(site.slept) >= 3
    assert all(event.fields.get("identity") is None for event in site.events)


async def test_pop3_027_unique_ids_stay_and_are_in_range(site: Backends) -> None:
    site.mailboxes.deliver(ANN, [message(1)])
    for name in ("with space", "colon:2,S", "new\nline", "x" * 200, "é"):
        (site.new / f"15.{name}").write_bytes(b"Subject: x\n\nx\n")
    lists = []

    def client(port: int) -> None:
        for _ in range(2):
            pop = log_in(port)
            lists.append([line.split(b" ", 1)[1] for line in pop.uidl()[1]])
            pop.retr(1)
            pop.quit()

    await site.serve(client)
    assert lists[0] == lists[1]
    assert len(set(lists[0])) == len(lists[0]) == 6
    for uid in lists[0]:
        assert 1 <= len(uid) <= 70
        assert all(0x21 <= octet <= 0x7E for octet in uid)


async def test_pop3_029_031_files_that_vanish_or_change(site: Backends, tmp_path: Path) -> None:
    for number in range(3):
        site.mailboxes.deliver(ANN, [message(number)])
    secret = tmp_path / "secret"
    secret.write_text("root:hash\n")

    def client(port: int) -> None:
        pop = log_in(port)
        first, second, _ = sorted(site.new.iterdir())
        first.unlink()
        second.unlink()
        second.symlink_to(secret)
        for number in (1, 2):
            with pytest.raises(poplib.error_proto, match="SYS/TEMP"):
                pop.retr(number)
        assert pop.retr(3)[1][0] == b"Subject: number 2"
        for number in (1, 2, 3):
            pop.dele(number)
        with pytest.raises(poplib.error_proto, match="SYS/TEMP"):
            pop.quit()
        pop.close()

    await site.serve(client)
    assert not list(site.new.iterdir())
    assert secret.read_text() == "root:hash\n"


async def test_pop3_030_a_maildrop_in_use(site: Backends) -> None:
    def client(port: int) -> None:
        first, second = log_in(port), connect(port)
        second.user("ann@example.org")
        with pytest.raises(poplib.error_proto, match="IN-USE"):
            second.pass_("sesame open")
        second.quit()
        first.quit()
        log_in(port).quit()

    await site.serve(client)


async def test_pop3_033_octets_of_list_are_what_is_sent(site: Backends) -> None:
    site.mailboxes.deliver(ANN, [message(1)])
    for number, content in enumerate((b"", b"x", b"\n.\n..\n.a", b"a\r\nb\nc\r", b"x\n" * 40_000)):
        (site.new / f"14.{number}").write_bytes(content)

    def client(port: int) -> None:
        pop = log_in(port)
        for line in pop.list()[1]:
            number, octets = map(int, line.split())
            assert sum(len(text) + 2 for text in pop.retr(number)[1]) == octets
        pop.quit()

    await site.serve(client)


async def test_ten_thousand_messages(site: Backends) -> None:
    site.mailboxes.deliver(ANN, [message(0)])
    for number in range(10_000):
        (site.cur / f"1500000000.M{number}P1.mx,S=100,W=104:2,S").write_bytes(b"x" * 97 + b"\n\n\n")

    def client(port: int) -> None:
        pop = log_in(port)
        started = time.perf_counter()
        assert len(pop.list()[1]) == 10_001
        assert len(pop.uidl()[1]) == 10_001
        assert time.perf_counter() - started < 30  # only what grows with the square is that slow
        pop.quit()

    await site.serve(client)


def test_the_digest_of_apop_is_md5(site: Backends) -> None:
    result = site.logins.check_apop(
        "ann@example.org", b"<x@y>", hashlib.md5(b"<x@y>sesame open").hexdigest().encode()
    )
    assert not isinstance(result, Awaitable)
    assert result.identity == ANN  # type: ignore[union-attr]
