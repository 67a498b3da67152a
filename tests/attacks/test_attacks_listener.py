"""Attack cases that only a listener can pass: TLS that does not come, PROXY headers, octets too early.

Real sockets and real TLS, with the sessions' surroundings in memory.
"""

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable

import pytest

from attacks.attack_cases import CASES, octets
from attacks.test_attacks_proxy import REFUSED, V1
from pop3_site import Site
from popgate.servers.connection import Connection
from popgate.servers.limits import ConnectionLimits, ConnectionTable, buffer_size
from popgate.servers.listener import Deadlines, Listener
from popgate.servers.tls import CertificateWatch
from popgate.sessions.session import Peer, Session
from popgate.sessions.smtp import SmtpPolicy
from popgate.values.address import Network
from popgate.values.event import Event
from smtp_support import Dialogue
from support.certificates import Certificates

PLACES = {"U": "ann@example.org", "P": "sesame open", "B64": "AGFsaWNlQGV4YW1wbGUub3JnAHNlY3JldA=="}


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates(tmp_path_factory.mktemp("tls"))


class Bench:
    """One listener of `service`; `peers` are the connections that got a session."""

    def __init__(self, certificates: Certificates) -> None:
        self.certificates = certificates
        self.events: list[Event] = []
        self.peers: list[Peer] = []
        self.site = Site().with_policy(offers_tls=True, plaintext_login=True)
        self.dialogue = Dialogue(SmtpPolicy("mx.example.org", offers_tls=True, plaintext_login=True))
        self.greeting = b""

    def _session(self, service: str) -> Callable[[Peer], Session]:
        def make(peer: Peer) -> Session:
            self.peers.append(peer)
            return self.site.session_for(peer) if service == "pop3" else self.dialogue.session

        return make

    async def start(self, service: str, *, proxy_from: tuple[Network, ...] = ()) -> None:
        self.listener = Listener(
            service=service,
            name="127.0.0.1:110",
            number=0,
            make_session=self._session(service),
            busy_reply=b"421 busy\r\n",
            limits=ConnectionLimits(100, 100, 100),
            table=ConnectionTable(memoryview(bytearray(buffer_size(1))), workers=1, worker=0),
            deadlines=Deadlines(login=100, command=100, minimum_rate=500, handshake=0.1, proxy=0.1),
            clock=self.site.clock,
            emit=self.events.append,
            token=lambda: "token-token-token-tok",
            tls=CertificateWatch(self.certificates.settings, "modern", service, print),
            proxy_from=proxy_from,
        )
        loop = asyncio.get_running_loop()
        self.server = await loop.create_server(lambda: Connection(self.listener), "127.0.0.1", 0)

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        port = self.server.sockets[0].getsockname()[1]
        reader, self.writer = await asyncio.open_connection("127.0.0.1", port)
        return reader, self.writer

    async def stop(self) -> None:
        self.writer.close()
        self.listener.abort()
        self.server.close()
        await asyncio.sleep(0.01)

    def named(self, name: str) -> list[Event]:
        return [event for event in self.events if event.name == name]

    @property
    def asked(self) -> list[str]:
        """The names that somebody tried to log in with."""
        return self.site.accounts.asked + self.dialogue.authenticator.asked


@pytest.fixture
async def bench(certificates: Certificates) -> AsyncIterator[Bench]:
    bench = Bench(certificates)
    yield bench
    await bench.stop()


async def read_all(reader: asyncio.StreamReader) -> bytes:
    try:
        return await asyncio.wait_for(reader.read(), 10)
    except ConnectionResetError:
        return b""


async def to_the_handshake(bench: Bench, service: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A connection whose server waits for a ClientHello."""
    await bench.start(service)
    reader, writer = await bench.connect()
    await reader.readline()
    if service == "smtp":
        writer.write(b"EHLO x\r\n")
        await reader.readuntil(b"250 ")
        await reader.readline()
    writer.write(b"STLS\r\n" if service == "pop3" else b"STARTTLS\r\n")
    assert (await reader.readline()).startswith((b"+OK", b"220"))
    return reader, writer


@pytest.mark.parametrize("service", ["pop3", "smtp"])
async def test_starttls_022_a_failed_handshake_never_falls_back(bench: Bench, service: str) -> None:
    reader, writer = await to_the_handshake(bench, service)
    writer.write(octets(CASES["starttls-022"]["send"][1], PLACES) + b"NOOP\r\nQUIT\r\n")
    output = await read_all(reader)
    assert output[:1] in (b"", b"\x15"), "at most a TLS alert is said"
    assert b"250" not in output and b"+OK" not in output
    assert len(bench.named("tls.failed")) == 1


@pytest.mark.parametrize("service", ["pop3", "smtp"])
async def test_starttls_023_a_handshake_that_does_not_come_has_a_deadline(bench: Bench, service: str) -> None:
    reader, _ = await to_the_handshake(bench, service)
    bench.listener.tick()
    assert bench.listener.connections
    await asyncio.sleep(0.15)
    bench.listener.tick()
    assert await read_all(reader) == b""
    await asyncio.sleep(0.01)
    assert not bench.listener.connections


@pytest.mark.parametrize("is_apart", [False, True], ids=["one-packet", "before-the-handshake"])
@pytest.mark.parametrize(
    "name",
    [
        name
        for name, case in CASES.items()
        if case["class"] == "starttls" and case["expect"] == "discard-or-close" and case["state"] != "imap"
    ],
)
async def test_nothing_sent_before_tls_is_answered_in_it(bench: Bench, name: str, is_apart: bool) -> None:
    service = "pop3" if CASES[name]["state"] == "pop3" else "smtp"
    sent = octets(CASES[name]["send"][0], PLACES)
    if is_apart:
        reader, writer = await to_the_handshake(bench, service)
        writer.write(sent.partition(b"\r\n")[2])
        with pytest.raises((ssl.SSLError, ConnectionError)):
            await writer.start_tls(bench.certificates.client_context, server_hostname="localhost")
        output = b""
    else:
        await bench.start(service)
        reader, writer = await bench.connect()
        await reader.readline()
        if service == "smtp":
            writer.write(b"EHLO x\r\n")
            await reader.readuntil(b"250 ")
            await reader.readline()
        writer.write(sent)
        output = await asyncio.wait_for(reader.readline(), 10)
        if output.startswith((b"220", b"+OK")):  # part of the rest may come later than STARTTLS
            with pytest.raises((ssl.SSLError, ConnectionError)):
                await writer.start_tls(bench.certificates.client_context, server_hostname="localhost")
            output = b""
        else:
            output += await read_all(reader)
    assert b"250" not in output and b"+OK" not in output
    assert bench.asked == []
    assert bench.site.grants.granted == []


LOOPBACK = (Network.parse("127.0.0.0/8"),)


@pytest.mark.parametrize("name", [*REFUSED])
async def test_a_bad_proxy_header_is_closed_without_a_word(bench: Bench, name: str) -> None:
    await bench.start("smtp", proxy_from=LOOPBACK)
    reader, writer = await bench.connect()
    writer.write(REFUSED[name] + b"EHLO x\r\n")
    assert await read_all(reader) == b"", "not even a greeting"
    assert bench.peers == []
    (event,) = bench.named("connection.refused")
    assert event.fields["reason"] == "proxy-header"
    assert event.fields["client"] == "127.0.0.1", "the address of the peer, and never the claimed one"


async def test_proxy_011_twenty_packets_make_one_client(bench: Bench) -> None:
    await bench.start("pop3", proxy_from=LOOPBACK)
    reader, writer = await bench.connect()
    step = -(-len(V1) // 20)
    for at in range(0, len(V1), step):
        writer.write(V1[at : at + step])
        await asyncio.sleep(0.002)
    assert (await asyncio.wait_for(reader.readline(), 10)).startswith(b"+OK")
    assert [peer.client.text for peer in bench.peers] == ["203.0.113.9"]


async def test_proxy_023_a_second_header_changes_nothing(bench: Bench) -> None:
    await bench.start("pop3", proxy_from=LOOPBACK)
    reader, writer = await bench.connect()
    writer.write(V1 + V1.replace(b"203.0.113.9", b"198.51.100.9"))
    assert (await reader.readline()).startswith(b"+OK")
    assert (await reader.readline()).startswith(b"-ERR")
    writer.write(b"USER ann@example.org\r\nPASS sesame open\r\n")
    assert (await reader.readline()).startswith(b"+OK")
    assert (await reader.readline()).startswith(b"+OK")
    assert bench.site.grants.granted == ["203.0.113.9 ann@example.org pop3"]


async def test_grant_009_a_connection_that_breaks_before_the_reply(bench: Bench) -> None:
    """The login was complete, so its grant stands; nothing of the session is left behind."""
    await bench.start("pop3")
    reader, writer = await bench.connect()
    await reader.readline()
    writer.write(b"USER ann@example.org\r\nPASS sesame open\r\n")
    await writer.drain()
    writer.transport.abort()
    for _ in range(200):
        if bench.site.named("pop3.close"):
            break
        await asyncio.sleep(0.005)
    (close,) = bench.site.named("pop3.close")
    assert not bench.site.boxes.open
    assert not +bench.site.users.open
    granted = bench.site.grants.granted
    assert bool(granted) == (close.fields["identity"] is not None)
