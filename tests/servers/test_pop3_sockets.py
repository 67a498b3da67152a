"""Every POP3 dialogue of transcripts/pop3 again, over real sockets and real TLS."""

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from pop3_site import ANN, LONG, SMALL, Site
from popgate.servers.connection import Connection
from popgate.servers.limits import ConnectionLimits, ConnectionTable, buffer_size
from popgate.servers.listener import Deadlines, Listener
from popgate.servers.tls import CertificateWatch
from support.certificates import Certificates
from transcripts.test_transcripts_pop3 import DIALOGUES, check_lines, read


class Client:
    def __init__(self, context: ssl.SSLContext) -> None:
        self._context = context

    async def connect(self, port: int, *, tls: bool = False) -> None:
        options = {"ssl": self._context, "server_hostname": "localhost"} if tls else {}
        self._reader, self._writer = await asyncio.open_connection("127.0.0.1", port, **options)  # type: ignore[arg-type]

    def send(self, octets: bytes) -> None:
        self._writer.write(octets)

    async def lines(self, count: int) -> bytes:
        output = b""
        for _ in range(count):
            output += await asyncio.wait_for(self._reader.readline(), 10)
        return output

    async def rest(self) -> bytes:
        try:
            return await asyncio.wait_for(self._reader.read(), 10)
        except ConnectionResetError:
            return b""

    async def start_tls(self) -> None:
        await self._writer.start_tls(self._context, server_hostname="localhost")

    async def close(self) -> None:
        self._writer.close()
        try:
            await self._writer.wait_closed()
        except (ConnectionError, ssl.SSLError):
            pass


class Bench:
    """One POP3 listener on a free loopback port over a site in memory."""

    def __init__(self, directory: Path) -> None:
        certificates = Certificates(directory)
        self._settings = certificates.settings
        self.context = certificates.client_context
        self._clients: list[Client] = []

    async def start(self, site: Site, *, implicit_tls: bool = False) -> None:
        site.run = asyncio.to_thread
        self.listener = Listener(
            service="pop3",
            name="127.0.0.1:110",
            number=0,
            make_session=site.session_for,
            busy_reply=b"-ERR [SYS/TEMP] busy\r\n",
            limits=ConnectionLimits(100, 100, 100),
            table=ConnectionTable(memoryview(bytearray(buffer_size(1))), workers=1, worker=0),
            deadlines=Deadlines(login=60, command=60, minimum_rate=500),
            clock=site.clock,
            emit=site.events.append,
            token=lambda: "token-token-token-tok",
            tls=CertificateWatch(self._settings, "modern", "pop3", print),
            implicit_tls=implicit_tls,
        )
        self._server = await asyncio.get_running_loop().create_server(
            lambda: Connection(self.listener), "127.0.0.1", 0
        )
        self.port = int(self._server.sockets[0].getsockname()[1])

    async def client(self, *, tls: bool = False) -> Client:
        client = Client(self.context)
        await client.connect(self.port, tls=tls)
        self._clients.append(client)
        return client

    async def stop(self) -> None:
        for client in self._clients:
            await client.close()
        self.listener.abort()
        self._server.close()
        await asyncio.sleep(0.01)


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    bench = Bench(tmp_path)
    yield bench
    await bench.stop()


@pytest.mark.parametrize("path", DIALOGUES, ids=lambda path: path.stem)
async def test_dialogue(bench: Bench, path: Path) -> None:
    settings, steps = read(path)
    is_tls = bool(settings.pop("tls", False))
    site = Site().with_policy(**settings)
    site.accounts.is_later = True
    await bench.start(site, implicit_tls=is_tls)
    client = await bench.client(tls=is_tls)
    expected: list[bytes] = []
    for kind, what in [*steps, ("END", b"")]:
        if kind == "C":
            client.send(what)
        elif kind == "S":
            expected.append(what)
        elif kind == "CLOSED":
            check_lines(await client.rest(), expected)
            break
        else:
            check_lines(await client.lines(len(expected)), expected)
            expected = []
            if kind == "TLS":
                await client.start_tls()
    await client.close()
    for _ in range(100):
        if site.named("pop3.close"):
            break
        await asyncio.sleep(0.01)
    assert len(site.named("pop3.close")) == 1
    assert not site.boxes.open


async def test_a_client_that_closes_tls_is_answered_at_once(bench: Bench) -> None:
    site = Site().with_policy(offers_tls=True)
    await bench.start(site)

    def talk(port: int) -> None:
        with socket.create_connection(("127.0.0.1", port), 10) as plain:
            plain.recv(100)
            plain.sendall(b"STLS\r\n")
            plain.recv(100)
            tls = bench.context.wrap_socket(plain, server_hostname="localhost")
            tls.sendall(b"USER ann@example.org\r\n")
            assert tls.recv(100).startswith(b"+OK")
            with tls.unwrap() as left:  # raises when the server's own alert does not come
                assert left.recv(100) == b""

    await asyncio.to_thread(talk, bench.port)


async def test_long_messages_and_listings_come_whole_to_a_slow_reader(bench: Bench) -> None:
    site = Site(bodies=[LONG * 40, *[SMALL] * 3000])
    await bench.start(site)
    client = await bench.client()
    client.send(b"USER ann@example.org\r\nPASS sesame open\r\nUIDL\r\nRETR 1\r\nLIST\r\nQUIT\r\n")
    await asyncio.sleep(0.2)  # let the server's buffers fill
    output = await client.rest()
    parts = output.split(b"\r\n.\r\n")
    assert parts[0].endswith(b"3001 uid-3001")
    message = parts[1].split(b"\r\n", 1)[1] + b"\r\n"
    assert message.replace(b"\r\n..", b"\r\n.") == site.boxes.mail[ANN]["uid-1"]
    assert parts[2].endswith(b"3001 24")
    assert parts[3] == b"+OK Goodbye.\r\n"


async def test_a_message_that_breaks_off_ends_the_connection(bench: Bench) -> None:
    site = Site(bodies=[LONG])
    site.boxes.breaks.add("uid-1")
    await bench.start(site)
    client = await bench.client()
    client.send(b"USER ann@example.org\r\nPASS sesame open\r\nRETR 1\r\nNOOP\r\n")
    output = await client.rest()
    assert b"Subject: long" in output
    assert not output.endswith(b".\r\n")
    assert b"-ERR" not in output
    assert not site.boxes.open
