"""relay-ctrl-send and relay-ctrl-udp with each other, over sockets that lose and repeat."""

import os
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from popgate.grants.stores import spool
from popgate.protocols import relay_ctrl_udp as wire
from popgate.values.address import ClientAddress
from support.ports import free_port
from support.relay_ctrl import Installed

KEY = "a key that both machines share"


class Machine:
    """A directory and a relay-ctrl-udp on it, listening on `host`."""

    def __init__(
        self, programs: Installed, path: Path, host: str, *arguments: str, **environment: str
    ) -> None:
        self.path = path / "there"
        self.path.mkdir()
        self.port = free_port(host)
        self.end = f"[{host}]:{self.port}" if ":" in host else f"{host}:{self.port}"
        self.log = (path / "log").open("w+b")
        self._process = subprocess.Popen(
            [programs.path("relay-ctrl-udp"), *arguments],
            env={
                "PATH": "/bin",
                "RELAY_CTRL_DIR": str(self.path),
                "RELAY_CTRL_BIND": self.end,
                **environment,
            },
            stderr=self.log,
        )
        self._wait_until_bound()

    def _wait_until_bound(self) -> None:
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            tables = [Path("/proc/net", name).read_text() for name in ("udp", "udp6")]
            if any(f":{self.port:04X} " in table for table in tables):
                return
            time.sleep(0.02)
        raise AssertionError("relay-ctrl-udp does not listen: " + self.said())

    def said(self) -> str:
        self.log.seek(0)
        return self.log.read().decode()

    def identity(self, address: str = "192.0.2.7") -> str | None:
        """Who holds the last grant there; None: nobody."""
        entry = self.path / address
        if not entry.exists():
            return None
        records = spool.parse(entry.read_bytes(), entry.stat().st_mtime_ns // 1000)
        return str(records[0].identity) if records else None

    def stop(self) -> None:
        self._process.terminate()
        self._process.wait(10)
        self.log.close()


@pytest.fixture
def key(tmp_path: Path) -> str:
    path = tmp_path / "key"
    path.write_text(KEY + "\n")
    path.chmod(0o600)
    return str(path)


@pytest.fixture
def machine(programs: Installed, tmp_path: Path, key: str) -> Iterator[Machine]:
    running = Machine(programs, tmp_path, "127.0.0.1", RELAY_CTRL_KEY=key)
    yield running
    running.stop()


def send(
    programs: Installed, remotes: str, *flags: str, **environment: str
) -> "subprocess.CompletedProcess[bytes]":
    environment = {"TCPREMOTEIP": "192.0.2.7", "USER": "bob", "RELAY_CTRL_REMOTES": remotes, **environment}
    return programs.run(["relay-ctrl-send", *flags, "/bin/sh", "-c", "echo ran"], environment)


class Wire:
    """A network between the two that drops or repeats datagrams: `toward` says how often each goes on."""

    def __init__(self, there: int, toward: list[int], back: list[int]) -> None:
        self._toward, self._back = toward, back
        self._front = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._front.bind(("127.0.0.1", 0))
        self._front.settimeout(0.1)
        self.port = self._front.getsockname()[1]
        self._there = there
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._carry)
        self._thread.start()

    def _carry(self) -> None:
        behind = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        behind.settimeout(0.15)
        while not self._is_over.is_set():
            try:
                data, source = self._front.recvfrom(2000)
            except TimeoutError:
                continue
            for _ in range(self._toward.pop(0) if self._toward else 1):
                behind.sendto(data, ("127.0.0.1", self._there))
            try:
                while True:
                    answer = behind.recv(2000)
                    for _ in range(self._back.pop(0) if self._back else 1):
                        self._front.sendto(answer, source)
            except TimeoutError:
                pass
        behind.close()

    def close(self) -> None:
        self._is_over.set()
        self._thread.join()
        self._front.close()


def test_a_signed_login_is_there_before_the_program_runs(
    machine: Machine, programs: Installed, key: str
) -> None:
    command = ["relay-ctrl-send", "/bin/sh", "-c", f"cat {machine.path}/192.0.2.7 | tr '\\0' ' '"]
    environment = {"TCPREMOTEIP": "192.0.2.7", "USER": "bob", "DOMAIN": "example.org"}
    done = programs.run(command, {**environment, "RELAY_CTRL_REMOTES": machine.end, "RELAY_CTRL_KEY": key})
    assert (done.stdout, done.stderr) == (b"USER=bob DOMAIN=example.org ", b"")


def test_over_ipv6_for_an_ipv6_client(programs: Installed, tmp_path: Path, key: str) -> None:
    if not socket.has_ipv6:
        pytest.skip("no IPv6 here")
    machine = Machine(programs, tmp_path, "::1", RELAY_CTRL_KEY=key)
    try:
        done = send(programs, machine.end, RELAY_CTRL_KEY=key, TCPREMOTEIP="2001:DB8::7")
        assert done.stderr == b"" and machine.identity("2001:db8::7") == "bob"
    finally:
        machine.stop()


def test_the_answer_comes_from_the_address_that_was_asked(
    programs: Installed, tmp_path: Path, key: str
) -> None:
    """Bound to all addresses, the system would answer from the one that it prefers."""
    machine = Machine(programs, tmp_path, "0.0.0.0", RELAY_CTRL_KEY=key)
    try:
        done = send(programs, f"127.0.0.77:{machine.port}", RELAY_CTRL_KEY=key)
        assert done.stderr == b"" and machine.identity() == "bob"
    finally:
        machine.stop()


@pytest.mark.parametrize(
    ("toward", "back"),
    [([0, 1], []), ([], [0, 1]), ([3], []), ([], [3])],
    ids=["login lost", "answer lost", "login repeated", "answer repeated"],
)
def test_loss_and_repetition(
    toward: list[int], back: list[int], machine: Machine, programs: Installed, key: str
) -> None:
    between = Wire(machine.port, toward, back)
    try:
        done = send(programs, f"127.0.0.1:{between.port}", RELAY_CTRL_KEY=key)
        assert (done.stdout, done.stderr) == (b"ran\n", b"") and machine.identity() == "bob"
    finally:
        between.close()


def test_a_machine_that_is_down_holds_up_nobody(programs: Installed, tmp_path: Path, key: str) -> None:
    log = tmp_path / "log"
    environment = {
        "PATH": "/bin", "TCPREMOTEIP": "192.0.2.7", "USER": "bob", "RELAY_CTRL_KEY": key,
        "RELAY_CTRL_REMOTES": f"127.0.0.1:{free_port()}", "RELAY_CTRL_TRIES": "1",
    }  # fmt: skip
    start = time.monotonic()
    with log.open("wb") as errors:
        command = [programs.path("relay-ctrl-send"), "/bin/echo", "ran"]
        done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, stderr=errors, check=True)
    assert done.stdout == b"ran\n"
    assert time.monotonic() - start < 0.9, "the pipe to the client was held open, or the login waited"
    deadline = time.monotonic() + 5
    while b"Timed out" not in log.read_bytes() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert b"Timed out" in log.read_bytes()


def test_another_key_and_none(machine: Machine, programs: Installed, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.write_text("a key that nobody shares")
    other.chmod(0o600)
    for environment in ({"RELAY_CTRL_KEY": str(other)}, {}):
        done = send(programs, machine.end, RELAY_CTRL_TRIES="1", **environment)
        assert b"Timed out" in done.stderr and machine.identity() is None
    assert "signature is wrong" in machine.said() and "not signed" in machine.said()


def test_a_recorded_datagram_later(machine: Machine) -> None:
    """Sent again it is answered, and the grant gets no younger; an old or a future one gets no answer."""
    address = ClientAddress.parse("192.0.2.7")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as here:
        here.connect(("127.0.0.1", machine.port))
        here.settimeout(2)
        data = wire.signed_login(wire.PeerLogin(address, "bob", "", time.time(), "ab" * 16), KEY.encode())
        here.send(data)
        answer = here.recv(2000)
        entry = machine.path / "192.0.2.7"
        os.utime(entry, (entry.stat().st_mtime - 30,) * 2)
        before = entry.stat().st_mtime_ns
        here.send(data)
        assert here.recv(2000) == answer and entry.stat().st_mtime_ns == before
        here.settimeout(0.3)
        for off in (-3600, 3600):
            skewed = wire.PeerLogin(address, "eve", "", time.time() + off, "cd" * 16)
            here.send(wire.signed_login(skewed, KEY.encode()))
            with pytest.raises(TimeoutError):
                here.recv(2000)
    assert machine.identity() == "bob" and "by its own clock" in machine.said()


def test_datagrams_of_the_original_elsewhere_only_if_asked_for(programs: Installed) -> None:
    done = send(programs, "192.0.2.1")
    assert b"Nothing sent to '192.0.2.1'" in done.stderr and b"--insecure" in done.stderr


@pytest.mark.parametrize("fault", ["open to all", "short", "missing"])
def test_a_key_that_is_none(fault: str, programs: Installed, tmp_path: Path) -> None:
    path = tmp_path / "key"
    if fault != "missing":
        path.write_text("short" if fault == "short" else KEY)
        path.chmod(0o604 if fault == "open to all" else 0o600)
    done = send(programs, "127.0.0.1", RELAY_CTRL_KEY=str(path))
    assert done.stdout == b"ran\n" and b"Warning" in done.stderr
    environment = {"RELAY_CTRL_DIR": str(tmp_path), "RELAY_CTRL_KEY": str(path)}
    done = programs.run(["relay-ctrl-udp"], environment)
    assert done.returncode == 111 and b"key" in done.stderr


def test_no_process_of_ours_is_left_to_the_program(programs: Installed) -> None:
    """The mail server behind finds no child that it did not start."""
    environment = {
        "TCPREMOTEIP": "192.0.2.7",
        "RELAY_CTRL_REMOTES": f"127.0.0.1:{free_port()}",
        "RELAY_CTRL_TRIES": "1",
    }
    command = ["relay-ctrl-send", "sh", "-c", "cat /proc/$$/task/$$/children"]
    done = programs.run(command, environment)
    children = done.stdout.split()
    assert len(children) <= 1, "one is cat itself"
