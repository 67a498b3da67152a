"""whoson listeners of `popgate serve`: by TCP, by a unix socket and in datagrams, over all workers."""

import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.popgate import Popgate


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Popgate]:
    server = Popgate(tmp_path / "site", [("whoson", ""), ("whoson_udp", ""), ("smtp", "")], workers=2)
    with server:
        yield server


class Udp:
    def __init__(self, port: int) -> None:
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.settimeout(10)
        self.socket.connect(("127.0.0.1", port))

    def ask(self, line: bytes) -> bytes:
        self.socket.send(line)
        return self.socket.recv(1024)

    def __enter__(self) -> "Udp":
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()


def test_told_in_a_datagram_asked_by_tcp_and_the_other_way_round(site: Popgate) -> None:
    with (
        Udp(site.port("whoson_udp")) as udp,
        socket.create_connection(("127.0.0.1", site.port("whoson")), 10) as tcp,
        tcp.makefile("rb") as answers,
    ):
        for number in range(20):
            address = b"203.0.113.%d" % number
            assert udp.ask(b"QUERY " + address) == b"-Not logged in\r\n\r\n"
            if number % 2:
                assert udp.ask(b"LOGIN " + address + b" alice\r\n\r\n") == b"+LOGIN OK\r\n\r\n"
            else:
                tcp.sendall(b"LOGIN " + address + b" alice\r\n\r\n")
                assert (answers.readline(), answers.readline()) == (b"+LOGIN OK\r\n", b"\r\n")
            assert udp.ask(b"QUERY " + address + b"\r\n") == b"+alice@example.org\r\n\r\n"
            tcp.sendall(b"QUERY " + address + b"\r\n\r\n")
            assert (answers.readline(), answers.readline()) == (b"+alice@example.org\r\n", b"\r\n")
    assert "protocol=whoson" in site.log


def test_what_is_no_command_gets_no_answer_in_a_datagram(site: Popgate) -> None:
    with Udp(site.port("whoson_udp")) as udp:
        for noise in (
            b"",
            b"*that is no command\r\n\r\n",
            b"+LOGIN OK",
            b"x" * 2000,
            b"QUERY 1\nQUERY 2",
            b"QUIT",
        ):
            udp.socket.send(noise)
        assert udp.ask(b"QUERY 203.0.113.9") == b"-Not logged in\r\n\r\n"
        udp.socket.setblocking(False)
        with pytest.raises(BlockingIOError):
            udp.socket.recv(1024)


def test_over_a_reload(site: Popgate) -> None:
    with Udp(site.port("whoson_udp")) as udp:
        assert udp.ask(b"LOGIN 203.0.113.9 alice") == b"+LOGIN OK\r\n\r\n"
        site.send_signal(signal.SIGHUP)
        for _ in range(50):
            assert udp.ask(b"QUERY 203.0.113.9") == b"+alice@example.org\r\n\r\n"
        site.wait_for("server.reload generation=2")
        assert udp.ask(b"QUERY 203.0.113.9") == b"+alice@example.org\r\n\r\n"
