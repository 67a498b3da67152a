"""Log lines."""

import asyncio
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import cast

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from popgate.app import delivery, logs, worker
from popgate.app.context import ServerContext
from popgate.app.logs import LogWriter, render_json, render_logfmt
from popgate.app.supervisor import ChildPipes
from popgate.config import load_text
from popgate.values.event import Event

EVENT = Event(
    "grant.allow",
    1763953200.25,
    {"session": "abc", "client": "192.0.2.1", "reason": None, "count": 3, "helo": 'a "b"\r\nfake=1'},
)


def test_logfmt_is_one_line_and_quotes_what_could_forge_another() -> None:
    assert render_logfmt(EVENT) == (
        "2025-11-24T03:00:00.250Z grant.allow session=abc client=192.0.2.1 count=3"
        ' helo="a \\"b\\"\\r\\nfake=1"\n'
    )


def test_json_is_one_object_a_line() -> None:
    line = render_json(EVENT)
    assert line.count("\n") == 1
    assert json.loads(line) == {
        "at": "2025-11-24T03:00:00.250Z",
        "event": "grant.allow",
        "session": "abc",
        "client": "192.0.2.1",
        "count": 3,
        "helo": 'a "b"\r\nfake=1',
    }


def test_long_and_non_ascii_values_are_bounded_and_escaped() -> None:
    line = render_logfmt(Event("x", 0, {"text": "é" * 10_000}))
    assert line.isascii()
    assert len(line) < 4000


_TEXT = st.text(max_size=40) | st.text("az09.@-_", max_size=20) | st.sampled_from(["", "x" * 499, "y" * 501])
_FIELDS = st.dictionaries(
    st.sampled_from(["session", "client", "identity", "reason", "helo", "sender"]),
    _TEXT | st.none() | st.integers() | st.floats(),
)


@given(_FIELDS)
def test_the_quick_way_to_a_line_renders_what_the_thorough_one_does(fields: dict[str, str]) -> None:
    event = Event("grant.allow", 1763953200.25, fields)
    line = render_logfmt(event)
    assert line == logs._render_quoted(event)
    assert line.isascii() and line.isprintable() is False and line.index("\n") == len(line) - 1


@given(_FIELDS)
@example({"session": float("inf"), "client": float("nan"), "reason": True})
def test_a_json_line_holds_what_the_event_holds(fields: dict[str, str]) -> None:
    line = render_json(Event("grant.allow", 1763953200.25, fields))
    assert line.isascii() and line.index("\n") == len(line) - 1
    kept = {key: item[:500] if isinstance(item, str) else item for key, item in fields.items()}
    wanted = {"at": "2025-11-24T03:00:00.250Z", "event": "grant.allow"}
    wanted |= {key: item for key, item in kept.items() if item is not None}
    assert repr(json.loads(line)) == repr(wanted)  # NaN is not equal to itself


def test_stamps_are_of_their_own_millisecond() -> None:
    times = [1763953200.25, 1763953200.2504, 1763953200.251, 1763953201.0, 1763953200.25, 0.0]
    assert [render_logfmt(Event("x", at, {}))[17:24] for at in times] == [
        "00.250Z",
        "00.250Z",
        "00.251Z",
        "01.000Z",
        "00.250Z",
        "00.000Z",
    ]
    assert render_logfmt(Event("x", 0.0, {})) == "1970-01-01T00:00:00.000Z x\n"


class Pipe:
    """A writer with a loop that is not there, and what has come out of it."""

    def __init__(self) -> None:
        self.timers: list[tuple[float, Callable[[], None]]] = []
        self.reader, self.fd = os.pipe()
        os.set_blocking(self.reader, False)
        self.write = LogWriter(self.fd, "logfmt", lambda seconds, call: self.timers.append((seconds, call)))

    def read(self) -> bytes:
        try:
            return os.read(self.reader, 1 << 20)
        except BlockingIOError:
            return b""


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    pipe = Pipe()
    yield pipe
    os.close(pipe.reader)
    os.close(pipe.fd)


def test_lines_gather_for_a_moment_under_one_timer(pipe: Pipe) -> None:
    for _ in range(3):
        for number in range(3):
            pipe.write(Event("x", 0, {"number": number}))
        assert pipe.read() == b""
        ((seconds, call),) = pipe.timers
        pipe.timers.clear()
        assert seconds == logs.GATHER_SECONDS <= 0.02
        call()
        assert pipe.read().count(b"\n") == 3


async def test_a_line_of_an_idle_process_comes_by_itself(pipe: Pipe) -> None:
    writer = LogWriter(pipe.fd, "logfmt", asyncio.get_running_loop().call_later)
    for _ in range(2):
        writer(Event("x", 0, {}))
        assert pipe.read() == b""
        await asyncio.sleep(5 * logs.GATHER_SECONDS)
        assert pipe.read().count(b"\n") == 1


def test_a_timer_that_is_set_is_not_set_again_when_lines_left_earlier(pipe: Pipe) -> None:
    pipe.write(Event("x", 0, {}))
    pipe.write.flush()
    pipe.write(Event("y", 0, {}))
    assert len(pipe.timers) == 1
    pipe.timers.pop()[1]()
    assert pipe.read().count(b"\n") == 2


def test_writes_are_as_large_as_a_pipe_keeps_whole(pipe: Pipe, monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[int] = []
    write = os.write

    def counted(fd: int, octets: bytes) -> int:
        written.append(len(octets))
        return write(fd, octets)

    monkeypatch.setattr(os, "write", counted)
    for number in range(200):
        pipe.write(Event("x", 0, {"number": number, "pad": "y" * 80}))
    pipe.write.flush()
    lines = pipe.read().splitlines()
    assert [line.split()[2] for line in lines] == [b"number=%d" % number for number in range(200)]
    assert max(written) <= 4096 and min(written[:-1]) > 3900


def test_a_line_of_more_than_a_pipe_keeps_whole_leaves_alone(pipe: Pipe) -> None:
    pipe.write(Event("short", 0, {}))
    pipe.write(Event("long", 0, {f"key{number}": "z" * 490 for number in range(12)}))
    assert pipe.read().count(b"\n") == 2


def test_what_tells_of_a_fault_leaves_at_once_with_all_before_it(pipe: Pipe) -> None:
    pipe.write(Event("pop3.login", 0, {}))
    pipe.write(Event("session.defect", 0, {}))
    assert [line.split()[1] for line in pipe.read().splitlines()] == [b"pop3.login", b"session.defect"]


def test_events_that_leave_at_once_are_documented() -> None:
    table = (Path(__file__).parents[2] / "docs/events.md").read_text()
    assert all(f"| `{name}` |" in table for name in logs.AT_ONCE)


def test_after_the_end_and_without_a_loop_nothing_waits(pipe: Pipe) -> None:
    pipe.write(Event("x", 0, {}))
    pipe.write.close()
    assert pipe.read().count(b"\n") == 1
    pipe.write(Event("y", 0, {}))
    assert pipe.read().count(b"\n") == 1
    LogWriter(pipe.fd, "json")(Event("z", 0, {}))
    assert pipe.read().count(b"\n") == 1


def test_a_log_that_cannot_be_written_stops_nothing(pipe: Pipe) -> None:
    writer = LogWriter(1_000_000, "logfmt")
    writer(Event("x", 0, {}))
    writer(Event("y", 0, {}))


@pytest.mark.parametrize(("module", "role"), [(worker, "_work"), (delivery, "_deliver")])
async def test_a_process_that_fails_has_said_all_before(
    pipe: Pipe, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, module: ModuleType, role: str
) -> None:
    async def fail(context: object, *arguments: object) -> None:
        emit = next(each for each in arguments if getattr(each, "__name__", "") == "emit")
        fields = {"client": "192.0.2.1", "identity": "alice@example.org", "reason": "login"}
        emit(Event("grant.allow", 1763953200.25, fields))  # type: ignore[operator]
        raise RuntimeError("a defect")

    monkeypatch.setattr(module, role, fail)
    text = f'hostname = "mail.example.org"\ndata_dir = "{tmp_path}/data"\nlocal_domains = ["example.org"]\n'
    config = load_text(text).config
    context = cast(ServerContext, SimpleNamespace(log_fd=pipe.fd, config=config))
    pipes = ChildPipes(-1, -1)
    with pytest.raises(RuntimeError, match="a defect"):
        if module is worker:
            await worker._serve(context, 0, pipes)
        else:
            await delivery._run(context, pipes)
    assert b"grant.allow" in pipe.read()
    kept = (Path(config.history_directory) / "grants.jsonl").read_text()
    assert json.loads(kept)["identity"] == "alice@example.org"
