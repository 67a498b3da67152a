"""A whole server under what outsiders, tenants and administrators do to it at the wrong moment."""

import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from support.popgate import Popgate
from support.soak import rounds

USER, PASSWORD = "alice@example.org", "secret-enough"


class Client:
    """One connection, line by line."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=15)
        self._file = self.socket.makefile("rb")

    def line(self) -> bytes:
        return self._file.readline()

    def reply(self) -> bytes:
        """An SMTP reply; the last line of it."""
        while (line := self.line())[3:4] == b"-":
            pass
        return line

    def send(self, octets: bytes) -> None:
        self.socket.sendall(octets)

    def command(self, line: bytes) -> bytes:
        self.send(line + b"\r\n")
        return self.reply()

    def close(self) -> None:
        self._file.close()
        self.socket.close()

    def begin_message(self) -> None:
        """An SMTP transaction up to the header of its message."""
        assert self.reply().startswith(b"220")
        self.command(b"EHLO client.example")
        self.command(b"MAIL FROM:<bob@example.net>")
        assert self.command(b"RCPT TO:<alice@example.org>").startswith(b"250")
        assert self.command(b"DATA").startswith(b"354")
        self.send(b"Subject: hello\r\n\r\n")

    def log_in(self) -> bytes:
        """By POP3; the answer to the password."""
        self.line()
        self.send(b"USER %b\r\nPASS %b\r\n" % (USER.encode(), PASSWORD.encode()))
        self.line()
        return self.line()


Connect = Callable[[str], Client]


@pytest.fixture
def connect(site: Popgate) -> Iterator[Connect]:
    clients: list[Client] = []

    def connect(service: str) -> Client:
        client = Client(site.port(service))
        clients.append(client)
        return client

    yield connect
    for client in clients:
        client.close()


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Popgate]:
    site = Popgate(tmp_path / "site")
    text = site.config.read_text()
    site.config.write_text(text.replace("limits.drain_seconds = 2", "limits.drain_seconds = 8"))
    site.add_account(USER, PASSWORD)
    with site:
        yield site


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_message_half_sent_is_taken_when_the_server_stops_or_reloads(
    site: Popgate, connect: Connect, number: int
) -> None:
    client = connect("smtp")
    client.begin_message()
    site.send_signal(number)
    if number == signal.SIGHUP:
        site.wait_for("server.reload")
    time.sleep(0.6)
    client.send(b"and the rest\r\n.\r\n")
    assert client.reply().startswith(b"250 ")
    assert client.reply().startswith(b"421 ")
    assert client.line() == b""


def test_a_flood_of_commands_does_not_keep_others_waiting(site: Popgate, connect: Connect) -> None:
    flooders = []
    for service, command in (("smtp", b"RCPT TO:<alice@example.org>\r\n"), ("pop3", b"STAT\r\n")):
        flooder = connect(service)
        if service == "smtp":
            flooder.reply()
            flooder.command(b"EHLO client.example")
            flooder.command(b"MAIL FROM:<bob@example.net>")
        else:
            assert flooder.log_in().startswith(b"+OK")
        flooders.append((flooder.socket, command * 20_000))
    ending = threading.Event()
    threads = [threading.Thread(target=_flood, args=(*flooder, ending)) for flooder in flooders]
    threads += [threading.Thread(target=_swallow, args=(flooder[0],)) for flooder in flooders]
    for thread in threads:
        thread.start()
    try:
        other = connect("smtp")
        other.reply()
        waits = []
        for _ in range(60):
            began = time.monotonic()
            assert other.command(b"NOOP").startswith(b"250")
            waits.append(time.monotonic() - began)
            time.sleep(0.01)
    finally:
        ending.set()
        for sock, _ in flooders:
            sock.shutdown(socket.SHUT_RDWR)
        for thread in threads:
            thread.join()
    # without turns it is seconds; the margin is for a loaded machine
    assert sorted(waits)[54] < 0.25, waits


def _flood(sock: socket.socket, octets: bytes, ending: threading.Event) -> None:
    try:
        while not ending.is_set():
            sock.sendall(octets)
    except OSError:
        pass


def _swallow(sock: socket.socket) -> None:
    try:
        while sock.recv(1 << 20):
            pass
    except OSError:
        pass


@pytest.mark.slow
@pytest.mark.timeout(3000)
def test_sessions_that_end_in_any_way_leave_nothing_behind(site: Popgate) -> None:
    def reset(client: Client) -> None:
        client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        client.close()

    def one_of_each() -> None:
        for octets in (b"x\r\n", b"x" * 100_000 + b"\r\n"):
            client = Client(site.port("smtp"))
            client.begin_message()
            client.send(octets)
            reset(client)
        for service in ("smtp", "pop3"):
            Client(site.port(service)).close()
        client = Client(site.port("pop3"))
        client.log_in()
        reset(client)
        client = Client(site.port("smtp"))
        client.reply()
        client.send(b"\x16\x03\x01nonsense\r\n")
        client.socket.shutdown(socket.SHUT_WR)
        while client.line():
            pass
        client.close()

    def settle(count: int) -> tuple[int, int]:
        """Memory in KiB and descriptors of the worker after so many rounds."""
        for _ in range(count):
            one_of_each()
        time.sleep(3.0)  # what lingers has gone
        return _memory_and_descriptors(_children(site.pid)[0])

    memory, descriptors = settle(150)
    for _ in range(rounds(2)):
        memory_now, descriptors_now = settle(150)
        assert descriptors_now <= descriptors + 2
        assert memory_now <= memory * 1.05 + 1024
    assert not list((site.directory / "data" / "queue" / "bodies").iterdir())
    assert "defect" not in site.log
    assert "Traceback" not in site.log


def _children(pid: int) -> list[int]:
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def _memory_and_descriptors(pid: int) -> tuple[int, int]:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0]), len(list(Path(f"/proc/{pid}/fd").iterdir()))
