"""Log lines."""

import json
import os

from popgate.app.logs import LogWriter, render_json, render_logfmt
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


def test_a_turn_of_the_loop_is_written_at_once_in_pieces_that_a_pipe_keeps_whole() -> None:
    read, write = os.pipe()
    later: list[object] = []
    writer = LogWriter(write, "logfmt", later.append)
    for number in range(200):
        writer(Event("x", 0, {"number": number, "pad": "y" * 80}))
    assert len(later) == 1
    writer.flush()
    text = os.read(read, 1 << 20)
    assert text.count(b"\n") == 200
    os.close(read)
    os.close(write)
