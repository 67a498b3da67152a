"""popgate-table-opensmtpd and its settings, beside a popgate that answers well, late, rubbish or not."""

import contextlib
import os
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from popgate.integrations.opensmtpd import table as table_module
from popgate.integrations.opensmtpd.asking import Asker, Unanswered
from popgate.integrations.opensmtpd.settings import TableConfigError, TableSettings, read_settings
from popgate.integrations.opensmtpd.table import Table
from popgate.protocols.opensmtpd_table import CHECK, OpenSmtpdTable
from popgate.values.address import ClientAddress
from support.popgate import SOURCE

HOME = ClientAddress.parse("203.0.113.9")
DEADLINE = 0.2


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory with a path short enough for a socket."""
    with tempfile.TemporaryDirectory(prefix="popgate-") as directory:
        yield Path(directory)


Act = Callable[[socket.socket, int], None]


class FakePopgate:
    """Does `act` with each connection, and the number of it, in a thread of its own."""

    def __init__(self, path: Path, act: Act) -> None:
        self.questions: list[bytes] = []
        self.connections = 0
        self._act = act
        path.unlink(missing_ok=True)
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen()
        self._open: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._accept)]

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self._open.append(connection)
            self.connections += 1
            thread = threading.Thread(target=self._serve, args=(connection, self.connections))
            self._threads.append(thread)
            thread.start()

    def _serve(self, connection: socket.socket, number: int) -> None:
        with contextlib.suppress(OSError):
            self._act(connection, number)

    def __enter__(self) -> "FakePopgate":
        self._threads[0].start()
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._threads[0].join(5)
        self._listener.close()
        for each in self._open:
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
        for thread in self._threads[1:]:
            thread.join(5)
        for each in self._open:
            each.close()


def answering(*answers: bytes, then_close: bool = False) -> Act:
    """Each question gets the next answer, and the last one again and again."""

    def act(connection: socket.socket, _: int) -> None:
        left = list(answers)
        while question := connection.recv(4096):
            assert question == b"relay 203.0.113.9\n"
            connection.sendall(left.pop(0) if len(left) > 1 else left[0])
            if then_close:
                connection.shutdown(socket.SHUT_RDWR)
                return

    return act


def asker(place: Path, clock: Callable[[], float] = time.monotonic) -> Asker:
    return Asker(TableSettings(str(place / "line"), DEADLINE), clock)


def test_yes_and_no_over_one_connection(place: Path) -> None:
    with FakePopgate(place / "line", answering(b"yes\n", b"no\n", b"yes\n")) as popgate:
        asks = asker(place)
        assert [asks.may_relay(HOME) for _ in range(4)] == [True, False, True, True]
        assert popgate.connections == 1
        asks.close()


@pytest.mark.parametrize(
    "answer",
    [
        b"defer\n",
        b"error\n",
        b"yes alice@example.org\n",
        b"yes \n",
        b"yes\r\n",
        b"YES\n",
        b"yes\nyes\n",
        b"no\nyes\n",
        b"yes\n\n",
        b"\n",
        b"\0\n",
        b"HTTP/1.1 200 OK\n",
        b"200 RELAY\n",
        b"y" * 10000 + b"\n",
        b"\xff\n",
    ],
)
def test_what_is_no_answer_is_no_yes_and_ends_the_connection(place: Path, answer: bytes) -> None:
    with FakePopgate(place / "line", answering(answer)) as popgate:
        asks = asker(place)
        for number in (1, 2):
            with pytest.raises(Unanswered):
                asks.may_relay(HOME)
            assert popgate.connections == number


def test_grants_that_cannot_be_read_have_words_of_their_own(place: Path) -> None:
    is_told = pytest.raises(Unanswered, match="popgate cannot read its grants now")
    with FakePopgate(place / "line", answering(b"defer\n")), is_told:
        asker(place).may_relay(HOME)


@pytest.mark.parametrize("part", [b"", b"y", b"yes"])
def test_a_connection_that_ends_in_an_answer(place: Path, part: bytes) -> None:
    def act(connection: socket.socket, _: int) -> None:
        connection.recv(4096)
        connection.sendall(part)
        connection.shutdown(socket.SHUT_RDWR)

    with FakePopgate(place / "line", act):
        asks = asker(place)
        for _ in range(2):
            with pytest.raises(Unanswered):
                asks.may_relay(HOME)


def test_no_late_answer_is_that_of_the_next_question(place: Path) -> None:
    def act(connection: socket.socket, number: int) -> None:
        connection.recv(4096)
        if number == 1:
            time.sleep(DEADLINE * 1.5)
            connection.sendall(b"yes\n")
            connection.recv(4096)
        else:
            connection.sendall(b"no\n")
            connection.recv(4096)

    with FakePopgate(place / "line", act):
        asks = asker(place)
        with pytest.raises(Unanswered, match="within"):
            asks.may_relay(HOME)
        time.sleep(DEADLINE * 2)
        assert asks.may_relay(HOME) is False
        asks.close()


def test_what_comes_unasked_is_no_answer(place: Path) -> None:
    def act(connection: socket.socket, number: int) -> None:
        connection.recv(4096)
        connection.sendall(b"no\n")
        if number == 1:
            time.sleep(0.05)
            connection.sendall(b"yes\n")
        connection.recv(4096)

    with FakePopgate(place / "line", act) as popgate:
        asks = asker(place)
        assert asks.may_relay(HOME) is False
        time.sleep(0.2)
        assert asks.may_relay(HOME) is False
        assert popgate.connections == 2
        asks.close()


def test_an_answer_octet_by_octet_and_never_longer_than_the_deadline(place: Path) -> None:
    pause = 0.01

    def act(connection: socket.socket, _: int) -> None:
        while connection.recv(4096):
            for octet in b"yes\n":
                connection.sendall(bytes([octet]))
                time.sleep(pause)

    with FakePopgate(place / "line", act):
        asks = asker(place)
        assert asks.may_relay(HOME) is True
        pause = DEADLINE / 2
        began = time.monotonic()
        with pytest.raises(Unanswered):
            asks.may_relay(HOME)
        assert DEADLINE * 0.9 <= time.monotonic() - began < DEADLINE * 2


def test_who_hangs_is_left_alone_for_as_long_as_he_was_waited_for(place: Path) -> None:
    with FakePopgate(place / "line", lambda connection, _: time.sleep(DEADLINE * 4)) as popgate:
        asks = asker(place)
        began = time.monotonic()
        for _ in range(100):
            with pytest.raises(Unanswered, match="within"):
                asks.may_relay(HOME)
        assert DEADLINE * 0.9 <= time.monotonic() - began < DEADLINE * 1.9
        assert popgate.connections == 1
        time.sleep(DEADLINE)
        with pytest.raises(Unanswered):
            asks.may_relay(HOME)
        assert popgate.connections == 2


def test_nobody_there_then_somebody_then_another(place: Path) -> None:
    asks = asker(place)
    for _ in range(3):
        with pytest.raises(Unanswered, match="No such file"):
            asks.may_relay(HOME)
    for answer in (True, False):
        with FakePopgate(place / "line", answering(b"yes\n" if answer else b"no\n")):
            assert asks.may_relay(HOME) is answer
            assert asks.may_relay(HOME) is answer
        with pytest.raises(Unanswered, match="Connection refused"):
            asks.may_relay(HOME)


def test_a_closed_connection_is_made_anew_without_a_fault(place: Path) -> None:
    with FakePopgate(place / "line", answering(b"yes\n", then_close=True)) as popgate:
        asks = asker(place)
        assert [asks.may_relay(HOME) for _ in range(5)] == [True] * 5
        assert popgate.connections == 5
        asks.close()


def test_a_connection_that_closes_as_it_is_asked_is_made_anew_once(place: Path) -> None:
    def act(connection: socket.socket, number: int) -> None:
        connection.recv(4096)
        if number == 1:
            connection.sendall(b"yes\n")
            connection.recv(4096)
        if number > 2:
            connection.sendall(b"yes\n")
            connection.recv(4096)
        connection.shutdown(socket.SHUT_RDWR)

    with FakePopgate(place / "line", act) as popgate:
        asks = asker(place)
        assert asks.may_relay(HOME) is True
        with pytest.raises(Unanswered, match="without an answer"):
            asks.may_relay(HOME)
        assert popgate.connections == 2
        assert asks.may_relay(HOME) is True
        asks.close()


def test_a_full_queue_of_connections_is_answered_at_once(place: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener, contextlib.ExitStack() as stack:
        listener.bind(str(place / "line"))
        listener.listen(0)
        for _ in range(8):
            one = stack.enter_context(socket.socket(socket.AF_UNIX))
            one.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                one.connect(str(place / "line"))
        began = time.monotonic()
        with pytest.raises(Unanswered):
            asker(place).may_relay(HOME)
        assert time.monotonic() - began < DEADLINE * 2


# The settings


def written(place: Path, text: str) -> str:
    (place / "table.toml").write_text(text)
    return str(place / "table.toml")


def test_settings_are_read(place: Path) -> None:
    assert read_settings(written(place, 'socket = "/run/line"')) == TableSettings("/run/line", 2.0, "refuse")
    text = 'socket = "unix:/run/line"\ndeadline_seconds = 1\non_fault = "defer"\n'
    assert read_settings(written(place, text)) == TableSettings("/run/line", 1.0, "defer")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "socket",
        'socket = "run/line"',
        'socket = "127.0.0.1:22813"',
        'socket = "/run/li\\u0000ne"',
        "socket = 5",
        'socket = "/a"\ndeadline_seconds = 0',
        'socket = "/a"\ndeadline_seconds = nan',
        'socket = "/a"\ndeadline_seconds = inf',
        'socket = "/a"\ndeadline_seconds = 31',
        'socket = "/a"\ndeadline_seconds = true',
        'socket = "/a"\ndeadline_seconds = "2"',
        'socket = "/a"\non_fault = "permit"',
        'socket = "/a"\non_fault = 1',
        'socket = "/a"\nsockte = "/b"',
        "a" + ".a" * 3000 + " = 1",
        "a = " + "[" * 30000,
        "#" * 65537,
    ],
    ids=range(18),
)
def test_settings_that_cannot_be_used_say_so(place: Path, text: str) -> None:
    with pytest.raises(TableConfigError, match=r"table\.toml"):
        read_settings(written(place, text))


def test_settings_that_are_no_file(place: Path) -> None:
    os.mkfifo(place / "fifo")
    (place / "latin").write_bytes(b'socket = "/\xe4"')
    for name in ("fifo", "missing", "", "latin", "nul\0"):
        with pytest.raises(TableConfigError):
            read_settings(str(place / name))


# What is said in the log


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def look(key: str) -> bytes:
    payload = struct.pack("=i", 8) + struct.pack("@N", 0) + key.encode() + b"\0"
    return struct.pack("=IHHII", CHECK, 16 + len(payload), 0, 0, 0) + payload


def result(table: Table, key: str = "203.0.113.9") -> int:
    engine = OpenSmtpdTable()
    engine.receive(look(key))
    event = engine.next_event()
    assert event is not None
    table.decide(engine, event)
    (found,) = struct.unpack("=i", engine.take_output()[16:])
    return int(found)


@pytest.mark.parametrize(("on_fault", "expected"), [("refuse", 0), ("defer", -1)])
def test_a_fault_is_told_once_a_minute(place: Path, on_fault: str, expected: int) -> None:
    said: list[str] = []
    clock = Clock()
    path = written(place, f'socket = "{place}/line"\non_fault = "{on_fault}"')
    table = Table(path, said.append, clock)
    for _ in range(59):
        assert result(table) == expected
        clock.now += 1
    assert len(said) == 1 and "No such file" in said[0]
    clock.now += 1
    assert result(table) == expected
    assert len(said) == 2 and "so far 60 questions" in said[1]
    with FakePopgate(place / "line", answering(b"yes\n")):
        assert result(table) == 1
        assert "answers again; 60 questions" in said[2]
        table.reread()
    for _ in range(10):  # it comes and goes, and the log stays short
        assert result(table) == expected
        with FakePopgate(place / "line", answering(b"yes\n")):
            assert result(table) == 1
    assert len(said) == 3
    clock.now += 60
    assert result(table) == expected
    assert len(said) == 4 and "so far 11 questions" in said[3]


def test_what_is_no_address_asks_nobody_and_is_no_fault(place: Path) -> None:
    said: list[str] = []
    table = Table(written(place, f'socket = "{place}/line"\non_fault = "defer"'), said.append)
    for key in ("local", "", "203.0.113.9/32", "203.0.113.9\nrelay 203.0.113.10", "[::1", "fe80::1%eth0"):
        assert result(table, key) == 0
    assert said == []


@pytest.mark.parametrize(
    ("key", "asked"),
    [
        ("203.0.113.9", b"203.0.113.9"),
        ("[2001:DB8:0::9]", b"2001:db8::9"),
        ("[IPv6:2001:db8::9]", b"2001:db8::9"),
        ("IPv6:2001:db8::9", b"2001:db8::9"),
        ("[::ffff:203.0.113.9]", b"203.0.113.9"),
        ("[::1]", b"::1"),
    ],
)
def test_every_spelling_of_an_address_is_the_same_question(place: Path, key: str, asked: bytes) -> None:
    def act(connection: socket.socket, _: int) -> None:
        question = connection.recv(4096)
        connection.sendall(b"yes\n" if question == b"relay %s\n" % asked else b"no\n")
        connection.recv(4096)

    with FakePopgate(place / "line", act):
        table = Table(written(place, f'socket = "{place}/line"'), lambda text: None)
        assert result(table, key) == 1
        table.reread()


def test_settings_are_read_again_once_a_second_until_they_can_be_used(place: Path) -> None:
    said: list[str] = []
    clock = Clock()
    table = Table(str(place / "table.toml"), said.append, clock)
    assert result(table) == 0
    assert "table.toml: No such file" in said[0]
    with FakePopgate(place / "line", answering(b"yes\n")):
        written(place, f'socket = "{place}/line"')
        assert result(table) == 0
        clock.now += 1
        assert result(table) == 1
        written(place, "socket = 5")
        assert not table.reread()
        assert result(table) == 1
        written(place, f'socket = "{place}/line"')
        assert table.reread()


# The program


@contextlib.contextmanager
def program(*arguments: str, is_text: bool = False) -> Iterator[tuple[socket.socket, subprocess.Popen[str]]]:
    """As smtpd starts it: a socket on descriptor 0, with the text protocol on 1 too."""
    ours, theirs = socket.socketpair()
    with ours:
        with theirs:
            process = subprocess.Popen(
                [sys.executable, "-c", f"from {table_module.__name__} import main; main()", *arguments],
                stdin=theirs, stdout=theirs if is_text else None, stderr=subprocess.PIPE, text=True,
                env={**os.environ, "PYTHONPATH": str(SOURCE)},
            )  # fmt: skip
        ours.settimeout(10)
        try:
            yield ours, process
        finally:
            ours.close()
            try:
                process.wait(10)
            finally:
                process.kill()
                process.wait()
                assert process.stderr is not None
                process.stderr.close()


def test_the_program_speaks_records_on_descriptor_0(place: Path) -> None:
    with FakePopgate(place / "line", answering(b"yes\n", b"no\n")):
        with program(written(place, f'socket = "{place}/line"')) as (smtpd, process):
            for expected in (1, 0):
                smtpd.sendall(look("203.0.113.9"))
                assert struct.unpack("=i", smtpd.recv(100)[16:]) == (expected,)
        assert process.returncode == 0


def test_the_program_speaks_lines_on_descriptors_0_and_1(place: Path) -> None:
    with FakePopgate(place / "line", answering(b"yes\n", b"no\n")):
        with program(written(place, f'socket = "{place}/line"'), is_text=True) as (smtpd, process):
            smtpd.sendall(b"config|smtpd-version|7.6.0\nconfig|protocol|0.1\nconfig|ready\n")
            assert smtpd.recv(100) == b"register|netaddr\nregister|ready\n"
            for expected in (b"found", b"not-found"):
                smtpd.sendall(b"table|0.1|1.2|granted|check|netaddr|17|203.0.113.9\n")
                assert smtpd.recv(100) == b"check-result|17|%s\n" % expected
        assert process.returncode == 0


@pytest.mark.parametrize("arguments", [(), ("/nonesuch",), ("a\nb",)])
def test_the_program_lives_without_settings(arguments: Sequence[str]) -> None:
    with program(*arguments) as (smtpd, process):
        for _ in range(3):
            smtpd.sendall(look("203.0.113.9"))
            assert struct.unpack("=i", smtpd.recv(100)[16:]) == (0,)
        smtpd.shutdown(socket.SHUT_WR)
        assert process.wait(10) == 0
        assert process.stderr is not None
        (line,) = process.stderr.read().splitlines()
        assert line.startswith("popgate-table-opensmtpd: ") and "nobody relays" in line


def test_the_program_ends_where_smtpd_cannot_be_understood() -> None:
    with program("/nonesuch") as (smtpd, process):
        smtpd.sendall(b"\xff" * 20)
        assert smtpd.recv(100) == b""
        assert process.wait(10) == 1
        assert process.stderr is not None
        assert "cannot be understood (malformed)" in process.stderr.read()


def test_the_program_says_what_it_is_to_who_starts_it_by_hand() -> None:
    ours, terminal = os.openpty()
    done = subprocess.run(
        [sys.executable, "-c", f"from {table_module.__name__} import main; main()", "--help"],
        stdin=terminal, capture_output=True, text=True, timeout=10, check=False,
        env={**os.environ, "PYTHONPATH": str(SOURCE)},
    )  # fmt: skip
    os.close(ours)
    os.close(terminal)
    assert done.returncode == 100
    assert "is started by smtpd" in done.stderr


def test_the_program_ends_quietly_at_a_signal_from_the_keyboard() -> None:
    with program("/nonesuch") as (smtpd, process):
        smtpd.sendall(look("local"))
        assert smtpd.recv(100)
        process.send_signal(signal.SIGINT)
        assert process.wait(10) == 0
        assert process.stderr is not None
        assert process.stderr.read() == ""
