"""Attack cases on memory, against a started server: its worker must not grow with what is sent."""

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from attacks.attack_cases import CASES
from support.popgate import Popgate

GROWTH_KIB = 2048
"""The cases ask for less than 2 MiB more for one connection."""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Popgate]:
    server = Popgate(tmp_path_factory.mktemp("site"))
    server.add_account("alice@example.org", "correct horse")
    with server:
        yield server


def worker(site: Popgate) -> int:
    (line,) = [line for line in site.log.splitlines() if "process.start" in line and "worker-0" in line]
    return int(line.rpartition("pid=")[2])


def peak_kib(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0])


def forget_peak(pid: int) -> None:
    Path(f"/proc/{pid}/clear_refs").write_text("5")


def flood(port: int, before: bytes, piece: bytes, times: int) -> bytes:
    """Send until all is sent or the server has closed; what it said."""
    with socket.create_connection(("127.0.0.1", port), 30) as client:
        client.recv(4096)
        if before:
            for line in before.splitlines(keepends=True):
                client.sendall(line)
                client.recv(4096)
        block = piece * max(1, 65536 // len(piece))
        try:
            for _ in range(len(piece) * times // len(block) + 1):
                client.sendall(block)
            client.shutdown(socket.SHUT_WR)
            said = b""
            while part := client.recv(65536):
                said += part
        except ConnectionError:
            return b""
        return said


DATA = b"EHLO x\r\nMAIL FROM:<a@example.net>\r\nRCPT TO:<alice@example.org>\r\nDATA\r\n"


@pytest.mark.parametrize("name", ["limit-017", "limit-044"])
def test_what_never_ends_is_not_kept(site: Popgate, name: str) -> None:
    case = CASES[name]
    service = "pop3" if case["state"] == "pop3" else "smtp"
    assert case["expect"] == "bounded-memory"
    before = DATA if case["state"] == "data" else b""
    flood(site.port(service), before, b"warm up", 10000)
    pid = worker(site)
    forget_peak(pid)
    start = peak_kib(pid)
    repeat = case["send"][0]["rep"]
    said = flood(site.port(service), before, repeat["s"].encode(), repeat["n"])
    assert peak_kib(pid) - start < GROWTH_KIB
    assert b"250" not in said and b"+OK" not in said
    assert worker(site) == pid, "the worker has died"
    with socket.create_connection(("127.0.0.1", site.port(service)), 10) as client:
        assert client.recv(4) in (b"220 ", b"+OK ")
