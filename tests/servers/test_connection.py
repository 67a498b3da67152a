"""The shell around an engine, on real loopback sockets with a small line protocol."""

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path

import pytest
import trustme

from popgate.protocols.engine import Wait
from popgate.protocols.lines import InputBuffer
from popgate.servers.connection import Connection
from popgate.servers.limits import ConnectionLimits, ConnectionTable, buffer_size
from popgate.servers.listener import Deadlines, Listener
from popgate.servers.settings import TlsSettings
from popgate.servers.tls import CertificateWatch
from popgate.sessions.session import Peer
from popgate.values.address import Network
from popgate.values.event import Event


class LineEngine:
    """ECHO x, SLOW x, BIG n, BODY, TLS, CRASH, QUIT: enough to drive every path of the shell."""

    def __init__(self) -> None:
        self.buffer = InputBuffer()
        self.output = b"hello\r\n"
        self.source: Iterator[bytes] | None = None
        self.open = False
        self.closing = False
        self.tls = False
        self.in_body = False
        self.most_lines = 0
        self.has_more = False
        self.ended_by = ""
        self.last_words = b""
        self.is_logging_in = False

    def receive(self, data: bytes) -> None:
        if not data:
            self.closing = True
        self.buffer.feed(data)

    def next_event(self) -> object | None:
        if self.open or self.closing or self.source or self.tls or self.in_body:
            return None
        line = self.buffer.take_line(1000)
        if line is None:
            return None
        self.open = True
        return line

    def answer(self, reply: object) -> None:
        assert self.open, "misuse"
        self.open = False
        if reply == "tls":
            self.tls = True
            self.output += b"go\r\n"
        elif reply == "body":
            self.in_body = True
        elif reply == "bye":
            self.output += b"bye\r\n"
            self.closing = True
        elif reply == "gone":
            self.output += b"bye\r\n"
            self.closing = True
            self.ended_by = "quit"
        elif isinstance(reply, bytes):
            self.output += reply + b"\r\n"
        else:
            self.source = reply  # type: ignore[assignment]
        if self.last_words and self.source is None:
            self.shut_down(self.last_words)

    def take_output(self) -> bytes:
        out, self.output = self.output, b""
        return out

    def body(self, block: bytes) -> None:
        self.output += block

    def body_end(self, *, failed: bool = False) -> None:
        self.source = None
        self.output += b"end\r\n"
        self.closing = self.closing or failed
        if self.last_words:
            self.shut_down(self.last_words)

    def tls_started(self) -> None:
        self.tls = False
        self.buffer.clear()

    def shut_down(self, reply: object) -> None:
        assert isinstance(reply, bytes)
        if self.open or self.source or (self.in_body and not self.last_words):
            self.last_words = reply
            return
        self.output += reply
        self.closing = True

    @property
    def waiting_for(self) -> Wait:
        if self.closing:
            return Wait.CLOSE
        if self.tls:
            return Wait.TLS
        if self.open:
            return Wait.DECISION
        if self.is_logging_in:
            return Wait.LOGIN
        return Wait.BODY if self.in_body else Wait.COMMAND


class LineSession:
    tick_seconds = 1.0

    def __init__(self, peer: Peer, seen: list[object]) -> None:
        self.peer = peer
        self.engine = LineEngine()
        self.seen = seen
        self.ticks = 0
        self.is_tls = False
        seen.append(self)
        self.closed_for: str | None = None
        self.seen_events: list[bytes] = []

    def decide(self, event: object) -> object | Awaitable[object] | None:
        assert isinstance(event, bytes)
        self.seen_events.append(event)
        verb, _, rest = event.partition(b" ")
        if verb == b"SLOW":
            return self.slow(rest)
        if verb == b"BIG":
            return (b"x" * 65536 for _ in range(int(rest)))
        if verb == b"BROKEN":
            return self.broken()
        if verb == b"CRASH":
            raise RuntimeError("password=secret")
        if verb == b"TLS":
            return "tls"
        if verb == b"BODY":
            return "body"
        if verb == b"QUIT":
            return "bye"
        if verb == b"GONE":
            return "gone"
        if verb == b"WHO":
            return f"{self.peer.client} {self.peer.client_port} {self.is_tls}".encode()
        return rest

    def broken(self) -> Iterator[bytes]:
        yield b"part\r\n"
        raise OSError("gone")

    async def slow(self, rest: bytes) -> bytes:
        await asyncio.sleep(0.05)
        return rest

    def tls_started(self, version: str, cipher: str) -> None:
        assert version.startswith("TLSv1")
        self.is_tls = True

    def tick(self) -> None:
        self.ticks += 1

    def timeout_reply(self) -> object:
        return b"timeout\r\n"

    def shutdown_reply(self) -> object:
        return b"shutdown\r\n"

    def closed(self, reason: str) -> None:
        assert self.closed_for is None
        self.closed_for = reason


class PushingLineSession(LineSession):
    """Says what it wants, when it wants."""

    def __init__(self, peer: Peer, seen: list[object]) -> None:
        super().__init__(peer, seen)
        self.wake: Callable[[], bool] = lambda: False
        self.times_can_push = 0

    def push(self, line: bytes) -> bool:
        self.engine.output += line
        return self.wake()

    def can_push(self) -> None:
        self.times_can_push += 1


class Bench:
    """A listener on a free loopback port."""

    def __init__(self) -> None:
        self.sessions: list[LineSession] = []
        self.events: list[Event] = []
        self.deadlines = Deadlines(login=100, command=100, minimum_rate=500)
        self.limits = ConnectionLimits(100, 100, 100)
        self.options: dict[str, object] = {}
        self.writers: list[asyncio.StreamWriter] = []
        self.kind = LineSession

    async def start(self) -> int:
        self.table = ConnectionTable(memoryview(bytearray(buffer_size(1))), workers=1, worker=0)
        self.listener = Listener(
            service="smtp",
            name="127.0.0.1:25",
            number=0,
            make_session=lambda peer: self.kind(peer, self.sessions),  # type: ignore[arg-type]
            busy_reply=b"busy\r\n",
            limits=self.limits,
            table=self.table,
            deadlines=self.deadlines,
            clock=_Clock(),
            emit=self.events.append,
            token=lambda: "token-token-token-tok",
            **self.options,  # type: ignore[arg-type]
        )
        self.server = await asyncio.get_running_loop().create_server(
            lambda: Connection(self.listener), "127.0.0.1", 0
        )
        return int(self.server.sockets[0].getsockname()[1])

    async def connect(
        self, port: int, limit: int = 65536
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=limit)
        self.writers.append(writer)
        return reader, writer

    async def talk(self, port: int, text: bytes) -> bytes:
        """Everything that the server says to `text` until it closes."""
        reader, writer = await self.connect(port)
        writer.write(text)
        return await read_all(reader)


async def read_all(reader: asyncio.StreamReader) -> bytes:
    """Until the end; a reset is an end too."""
    out = b""
    try:
        while block := await asyncio.wait_for(reader.read(65536), 10):
            out += block
    except ConnectionResetError:
        pass
    return out


class _Clock:
    def now(self) -> float:
        return 1000.0

    def monotonic(self) -> float:
        return 5.0


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    bench = Bench()
    yield bench
    bench.listener.abort()
    bench.server.close()
    for writer in bench.writers:
        writer.close()
        try:
            await writer.wait_closed()
        except ConnectionError:
            pass
    await asyncio.sleep(0.01)
    assert not bench.listener.connections, "a connection was left behind"


async def test_pipelined_commands_are_answered_in_order_while_one_is_slow(bench: Bench) -> None:
    port = await bench.start()
    out = await bench.talk(port, b"ECHO 1\r\nSLOW 2\r\nECHO 3\r\nSLOW 4\r\nQUIT\r\n")
    assert out == b"hello\r\n1\r\n2\r\n3\r\n4\r\nbye\r\n"
    assert bench.sessions[0].closed_for == "quit"


async def test_a_long_reply_is_sent_whole_to_a_slow_reader(bench: Bench) -> None:
    port = await bench.start()
    reader, writer = await bench.connect(port, limit=1000)
    writer.write(b"BIG 100\r\nECHO after\r\nQUIT\r\n")
    await asyncio.sleep(0.2)  # the buffers fill, the writer must pause
    buffered = sum(
        connection._transport.get_write_buffer_size()  # type: ignore[attr-defined]
        for connection in bench.listener.connections
    )
    assert buffered < 300_000, "the reply piled up in memory"
    out = await read_all(reader)
    assert out == b"hello\r\n" + b"x" * 6553600 + b"end\r\nafter\r\nbye\r\n"


async def test_a_reply_that_breaks_off_closes_the_connection(bench: Bench) -> None:
    port = await bench.start()
    assert await bench.talk(port, b"BROKEN\r\nECHO no\r\n") == b"hello\r\npart\r\nend\r\n"
    assert [event.name for event in bench.events] == ["session.source-failed"]


async def test_a_defect_ends_the_session_without_an_answer_and_tells_no_secret(bench: Bench) -> None:
    port = await bench.start()
    reader, writer = await bench.connect(port)
    assert await reader.readline() == b"hello\r\n"
    writer.write(b"CRASH\r\n")
    assert await read_all(reader) == b""
    (event,) = bench.events
    assert event.name == "session.defect"
    assert "RuntimeError in decide" in str(event.fields["detail"])
    assert "secret" not in str(event.fields)


async def test_a_command_that_does_not_come_is_timed_out(bench: Bench) -> None:
    bench.deadlines = Deadlines(login=100, command=0.2, minimum_rate=500)
    port = await bench.start()
    reader, writer = await bench.connect(port)
    await asyncio.sleep(0.1)
    bench.listener.tick()
    writer.write(b"ECH")  # part of a command does not buy more time
    await asyncio.sleep(0.15)
    bench.listener.tick()
    assert await read_all(reader) == b"hello\r\ntimeout\r\n"
    assert bench.sessions[0].closed_for == "timeout"


async def test_a_body_below_the_minimum_rate_is_ended(bench: Bench) -> None:
    bench.deadlines = Deadlines(login=100, command=100, minimum_rate=1e6, body_grace=0.0)
    port = await bench.start()
    reader, writer = await bench.connect(port)
    writer.write(b"BODY\r\n")
    await asyncio.sleep(0.1)
    bench.listener.tick()
    assert await read_all(reader) == b"hello\r\ntimeout\r\n"
    assert bench.sessions[0].closed_for == "too-slow"


async def test_a_client_that_reads_nothing_is_cut_off(bench: Bench) -> None:
    bench.deadlines = Deadlines(login=100, command=100, minimum_rate=500, write=0.1)
    port = await bench.start()
    _, writer = await bench.connect(port, limit=1000)
    writer.write(b"BIG 1000\r\n")
    await asyncio.sleep(0.5)
    bench.listener.tick()
    assert not bench.listener.connections or bench.sessions[0].closed_for == "too-slow"
    assert bench.sessions[0].closed_for == "too-slow"


async def test_a_long_body_that_keeps_coming_outlives_the_deadline_of_a_command(bench: Bench) -> None:
    bench.deadlines = Deadlines(login=100, command=0.3, minimum_rate=100)
    port = await bench.start()
    reader, writer = await bench.connect(port)
    writer.write(b"BODY\r\n")
    for _ in range(6):
        await asyncio.sleep(0.1)
        bench.listener.tick()
        writer.write(b"x" * 100)
    await asyncio.sleep(0.1)
    bench.listener.tick()
    assert bench.sessions[0].closed_for is None
    await asyncio.sleep(0.35)  # now it has stopped coming
    bench.listener.tick()
    assert await read_all(reader) == b"hello\r\ntimeout\r\n"


async def test_a_long_reply_outlives_the_deadline_of_a_command(bench: Bench) -> None:
    bench.deadlines = Deadlines(login=100, command=0.2, minimum_rate=500)
    port = await bench.start()
    reader, writer = await bench.connect(port, limit=1000)
    writer.write(b"BIG 400\r\n")
    octets = 0
    ending = b""
    while not ending.endswith(b"end\r\n"):
        block = await asyncio.wait_for(reader.read(262144), 10)
        assert block, "cut off"
        octets += len(block)
        ending = (ending + block)[-5:]
        if octets < 26_000_000:
            await asyncio.sleep(0.003)
        bench.listener.tick()
    assert octets == 400 * 65536 + len(b"hello\r\nend\r\n")


async def test_a_failed_login_does_not_lift_the_deadline_for_logins(bench: Bench) -> None:
    bench.deadlines = Deadlines(login=0.3, command=100, minimum_rate=500)
    port = await bench.start()
    reader, writer = await bench.connect(port)
    writer.write(b"SLOW no\r\n")  # while it is decided no deadline runs
    await asyncio.sleep(0.02)
    bench.sessions[0].engine.is_logging_in = True
    await reader.readuntil(b"no\r\n")
    bench.listener.tick()
    assert bench.sessions[0].closed_for is None
    await asyncio.sleep(0.35)
    bench.listener.tick()
    assert bench.sessions[0].closed_for == "timeout"


async def test_a_half_closed_client_that_reads_nothing_is_cut_off(bench: Bench) -> None:
    bench.deadlines = Deadlines(login=100, command=100, minimum_rate=500, write=0.3)
    port = await bench.start()
    plain = socket.socket()
    plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    plain.setblocking(False)
    await bench.listener.loop.sock_connect(plain, ("127.0.0.1", port))
    await asyncio.sleep(0.05)
    (connection,) = bench.listener.connections
    transport = connection._transport  # type: ignore[attr-defined]
    transport.set_write_buffer_limits(high=1 << 26)  # so that all of it waits in the transport
    plain.send(b"BIG 200\r\n")
    plain.shutdown(socket.SHUT_WR)
    await asyncio.sleep(0.3)
    assert bench.sessions[0].closed_for is not None
    assert bench.listener.connections, "the transport has unsent octets"
    await asyncio.sleep(0.4)
    bench.listener.tick()
    await asyncio.sleep(0.05)
    assert not bench.listener.connections
    plain.close()


async def test_what_lingers_counts_as_a_connection(bench: Bench) -> None:
    bench.limits = ConnectionLimits(100, 1, 100)
    port = await bench.start()
    reader, writer = await bench.connect(port)
    writer.write(b"QUIT\r\n")
    assert await read_all(reader) == b"hello\r\nbye\r\n"
    assert await bench.talk(port, b"") == b"busy\r\n"
    writer.close()
    await asyncio.sleep(0.05)
    assert await bench.talk(port, b"QUIT\r\n") == b"hello\r\nbye\r\n"


@pytest.mark.parametrize("text", [b"GONE\r\n", b"ECHO 1\r\nGONE\r\n"])
async def test_who_quits_is_not_waited_for(bench: Bench, text: bytes) -> None:
    port = await bench.start()
    reader, writer = await bench.connect(port)
    await reader.readline()
    writer.write(text)
    assert (await reader.read()).endswith(b"bye\r\n")
    await asyncio.sleep(0.05)
    assert not bench.listener.connections


@pytest.mark.parametrize("octets", [3, 900_000])
async def test_what_stands_behind_the_quit_does_not_reset_the_answer_away(bench: Bench, octets: int) -> None:
    port = await bench.start()
    reader, writer = await bench.connect(port)
    writer.write(b"GONE\r\n" + b"x" * octets)
    await asyncio.sleep(0.05)
    assert await asyncio.wait_for(reader.read(), 5) == b"hello\r\nbye\r\n"


async def test_a_megabyte_of_commands_does_not_keep_others_waiting(bench: Bench) -> None:
    port = await bench.start()
    _, flood = await bench.connect(port)
    reader, writer = await bench.connect(port)
    await reader.readline()
    flood.write(b"ECHO\r\n" * 100_000)
    await asyncio.sleep(0.05)
    answered = len(bench.sessions[0].seen_events)
    writer.write(b"ECHO me\r\n")
    assert await asyncio.wait_for(reader.readline(), 5) == b"me\r\n"
    assert len(bench.sessions[0].seen_events) - answered < 10_000


async def test_ticks_reach_the_session(bench: Bench) -> None:
    port = await bench.start()
    await bench.connect(port)
    await asyncio.sleep(0.05)
    (connection,) = bench.listener.connections
    now = bench.listener.loop.time()
    connection.tick(now + 2)
    assert bench.sessions[0].ticks == 1
    connection.tick(now + 2.9)
    assert bench.sessions[0].ticks == 1


async def test_ticks_come_as_often_as_the_session_asks_for_now(bench: Bench) -> None:
    port = await bench.start()
    await bench.connect(port)
    await asyncio.sleep(0.05)
    (connection,) = bench.listener.connections
    session, now = bench.sessions[0], bench.listener.loop.time()
    session.tick_seconds = 20.0
    connection.tick(now + 5)
    assert session.ticks == 0
    session.tick_seconds = 2.5  # as after the login of an account with a short window
    connection.tick(now + 5)
    assert session.ticks == 1
    session.tick_seconds = 0
    connection.tick(now + 50)
    assert session.ticks == 1


async def test_limits_refuse_and_are_given_back(bench: Bench) -> None:
    bench.limits = ConnectionLimits(100, 2, 100)
    port = await bench.start()
    first = await bench.connect(port)
    second = await bench.connect(port)
    assert await first[0].readline() == await second[0].readline() == b"hello\r\n"
    assert await bench.talk(port, b"") == b"busy\r\n"
    assert bench.events[0].fields["reason"] == "limit-address"
    first[1].write(b"QUIT\r\n")
    await first[0].read()
    first[1].close()
    await asyncio.sleep(0.05)
    assert await bench.talk(port, b"QUIT\r\n") == b"hello\r\nbye\r\n"


async def test_drain_tells_idle_and_busy_clients(bench: Bench) -> None:
    port = await bench.start()
    idle = await bench.connect(port)
    busy = await bench.connect(port)
    busy[1].write(b"SLOW 1\r\n")
    await asyncio.sleep(0.02)
    bench.listener.drain()
    assert await read_all(idle[0]) == b"hello\r\nshutdown\r\n"
    await asyncio.sleep(0.1)
    bench.listener.drain()
    assert await read_all(busy[0]) == b"hello\r\n1\r\nshutdown\r\n"


async def test_a_body_may_come_to_its_end_while_the_server_drains(bench: Bench) -> None:
    port = await bench.start()
    reader, writer = await bench.connect(port)
    writer.write(b"BODY\r\n")
    await asyncio.sleep(0.05)
    for _ in range(3):  # the worker asks every 50 ms
        bench.listener.drain()
    assert bench.sessions[0].closed_for is None
    bench.listener.drain(is_last=True)
    assert await read_all(reader) == b"hello\r\nshutdown\r\n"
    assert bench.sessions[0].closed_for == "shutdown"


async def test_the_last_call_does_not_take_the_place_of_an_answer(bench: Bench) -> None:
    port = await bench.start()
    reader, writer = await bench.connect(port)
    writer.write(b"SLOW 1\r\n")
    await asyncio.sleep(0.02)
    bench.listener.drain()
    bench.listener.drain(is_last=True)
    assert await read_all(reader) == b"hello\r\n1\r\nshutdown\r\n"


async def test_end_of_file_and_reset_close_the_session(bench: Bench) -> None:
    port = await bench.start()
    reader, writer = await bench.connect(port)
    writer.write(b"ECHO last\r\n")
    writer.write_eof()
    assert await read_all(reader) == b"hello\r\nlast\r\n"
    plain = socket.create_connection(("127.0.0.1", port))
    plain.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    await asyncio.sleep(0.05)
    plain.close()
    await asyncio.sleep(0.05)
    assert [session.closed_for for session in bench.sessions][1] == "reset"


@pytest.mark.parametrize("loop_name", ["asyncio", "uvloop"])
def test_tls_never_loses_a_client_hello(tmp_path: Path, loop_name: str) -> None:
    """It came with the connection or before the upgrade had begun, and was dropped: the handshake hung."""
    authority = trustme.CA()
    issued = authority.issue_cert("localhost")
    issued.cert_chain_pems[0].write_to_path(str(tmp_path / "cert"))
    issued.private_key_pem.write_to_path(str(tmp_path / "key"))
    context = ssl.create_default_context()
    authority.configure_trust(context)
    settings = TlsSettings(certificate=str(tmp_path / "cert"), key=str(tmp_path / "key"))

    def client(port: int, *, implicit: bool) -> str:
        with socket.create_connection(("127.0.0.1", port), 5) as plain:
            plain.settimeout(5)
            if not implicit:
                assert plain.recv(100) == b"hello\r\n"
                plain.sendall(b"TLS\r\n")
                assert plain.recv(100) == b"go\r\n"
            with context.wrap_socket(plain, server_hostname="localhost") as tls:
                if implicit:
                    assert tls.recv(100) == b"hello\r\n"
                tls.sendall(b"WHO\r\nQUIT\r\n")
                out = b""
                while block := tls.recv(100):
                    out += block
                return out.decode()

    async def main(*, implicit: bool) -> None:
        bench = Bench()
        watch = CertificateWatch(settings, "modern", "smtp", print)
        bench.options = {"tls": watch, "implicit_tls": implicit}
        port = await bench.start()
        for _ in range(25):
            said = await asyncio.to_thread(client, port, implicit=implicit)
            assert said.startswith("127.0.0.1 ")
            assert said.endswith(" True\r\nbye\r\n")
        bench.server.close()

    factory = asyncio.new_event_loop
    if loop_name == "uvloop":
        factory = pytest.importorskip("uvloop").new_event_loop
    for implicit in (True, False):
        with asyncio.Runner(loop_factory=factory) as runner:
            runner.run(main(implicit=implicit))


async def test_the_proxy_header_gives_the_client_and_is_refused_from_others(bench: Bench) -> None:
    bench.options = {"proxy_from": [Network.parse("127.0.0.1")]}
    port = await bench.start()
    out = await bench.talk(port, b"PROXY TCP4 192.0.2.7 198.51.100.1 4000 25\r\nWHO\r\nQUIT\r\n")
    assert out == b"hello\r\n192.0.2.7 4000 False\r\nbye\r\n"
    assert await bench.talk(port, b"ECHO x\r\n") == b""
    bench.listener.proxy_from = (Network.parse("127.0.0.9"),)
    assert await bench.talk(port, b"PROXY TCP4 192.0.2.7 198.51.100.1 4000 25\r\nWHO\r\n") == b""
    reasons = [event.fields["reason"] for event in bench.events]
    assert reasons == ["proxy-header", "proxy-not-listed"]


async def test_a_proxy_header_that_does_not_come_is_timed_out(bench: Bench) -> None:
    bench.options = {"proxy_from": [Network.parse("127.0.0.1")]}
    bench.deadlines = Deadlines(login=100, command=100, minimum_rate=500, proxy=0.05)
    port = await bench.start()
    reader, _ = await bench.connect(port)
    await asyncio.sleep(0.1)
    bench.listener.tick()
    assert await read_all(reader) == b""


async def _pushing(bench: Bench) -> tuple[PushingLineSession, asyncio.StreamReader, asyncio.StreamWriter]:
    bench.kind = PushingLineSession
    port = await bench.start()
    reader, writer = await bench.connect(port, limit=1000)
    assert await reader.readline() == b"hello\r\n"
    (session,) = bench.sessions
    assert isinstance(session, PushingLineSession)
    return session, reader, writer


async def test_a_session_speaks_although_its_client_asked_nothing(bench: Bench) -> None:
    session, reader, _ = await _pushing(bench)
    assert session.push(b"* 1 EXISTS\r\n")
    assert await reader.readline() == b"* 1 EXISTS\r\n"
    assert session.wake(), "nothing to say is no fault"


async def test_what_a_session_says_unasked_waits_for_a_decision(bench: Bench) -> None:
    session, reader, writer = await _pushing(bench)
    writer.write(b"SLOW asked\r\n")
    while not session.seen_events:
        await asyncio.sleep(0.001)
    assert session.push(b"unasked\r\n"), "it goes out with the answer"
    assert await reader.readline() == b"unasked\r\n"
    assert await reader.readline() == b"asked\r\n"


async def test_what_a_session_says_unasked_waits_for_a_long_reply(bench: Bench) -> None:
    session, reader, writer = await _pushing(bench)
    writer.write(b"BIG 40\r\n")
    while not session.seen_events:
        await asyncio.sleep(0.001)
    session.wake()
    assert await asyncio.wait_for(reader.readexactly(40 * 65536), 10) == b"x" * 40 * 65536
    assert await reader.readline() == b"end\r\n"
    assert session.push(b"unasked\r\n")
    assert await reader.readline() == b"unasked\r\n"


async def test_nothing_is_said_unasked_to_a_client_that_does_not_read(bench: Bench) -> None:
    session, reader, writer = await _pushing(bench)
    said = 0
    while session.wake():
        session.push(b"x" * 65535 + b"\n")
        said += 1
        await asyncio.sleep(0)
        assert said < 1000, "the sockets took 64 MB"
    (connection,) = bench.listener.connections
    assert connection._transport.get_write_buffer_size() < 300_000  # type: ignore[attr-defined]
    assert not session.push(b"held\r\n")
    assert session.engine.output == b"held\r\n", "taken out of the engine although nobody reads"
    assert session.times_can_push == 0
    await asyncio.wait_for(reader.readexactly(said * 65536), 10)
    assert await reader.readline() == b"held\r\n"
    while session.times_can_push == 0:
        await asyncio.sleep(0.001)
    assert session.times_can_push == 1
    writer.write(b"ECHO on\r\n")
    assert await reader.readline() == b"on\r\n", "reading was not taken up again"


async def test_our_own_words_do_not_keep_a_client_that_is_gone(bench: Bench) -> None:
    bench.deadlines = Deadlines(login=100, command=0.3, minimum_rate=500)
    session, reader, _ = await _pushing(bench)
    for number in range(4):
        await asyncio.sleep(0.1)
        session.push(b"%d\r\n" % number)
        bench.listener.tick()
    assert session.closed_for == "timeout"
    assert (await read_all(reader)).endswith(b"timeout\r\n")
    assert not session.wake(), "it is over"


async def test_a_session_that_ends_itself_unasked_is_closed(bench: Bench) -> None:
    session, reader, _ = await _pushing(bench)
    session.engine.closing = True
    session.push(b"* BYE\r\n")
    assert await read_all(reader) == b"* BYE\r\n"
    assert session.closed_for == "quit"
