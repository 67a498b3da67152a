"""The table side of OpenSMTPD's protocols: dialogues in every cut, what is malformed, what is invented."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from popgate.protocols.engine import MisuseError, Wait
from popgate.protocols.opensmtpd_table import (
    CHECK,
    CLOSE,
    FAIL,
    FETCH,
    LOOKUP,
    MAX_CONFIG_LINES,
    MAX_LINE_OCTETS,
    MAX_RECORD_OCTETS,
    NETADDR,
    OK,
    OPEN,
    UPDATE,
    Look,
    OpenSmtpdTable,
    Reread,
)
from support.cuts import CUTS, Cut

GRANTED = ("203.0.113.9", "[2001:db8::9]")
DOWN = "203.0.113.99"
"""A client about whom nothing can be said now."""


class Table:
    """The engine, and somebody who answers it."""

    def __init__(self) -> None:
        self.engine = OpenSmtpdTable()
        self.asked: list[object] = []
        self.is_done = True

    def send(self, data: bytes) -> bytes:
        self.engine.receive(data)
        while (event := self.engine.next_event()) is not None:
            self.asked.append(event)
            if isinstance(event, Reread):
                self.engine.done(is_done=self.is_done)
            else:
                assert isinstance(event, Look)
                if event.key in GRANTED:
                    self.engine.found()
                elif event.key == DOWN:
                    self.engine.fault()
                else:
                    self.engine.not_found()
        return self.engine.take_output()

    def send_in(self, pieces: list[bytes]) -> bytes:
        return b"".join(self.send(piece) for piece in pieces)

    @property
    def is_closing(self) -> bool:
        return self.engine.waiting_for is Wait.CLOSE


def record(kind: int, payload: bytes = b"", *, length: int | None = None) -> bytes:
    """As smtpd sends it: its own process in the last field."""
    size = 16 + len(payload) if length is None else length
    return struct.pack("=IHHII", kind, size, 0, 0, 4711) + payload


def opening(version: int = 2) -> bytes:
    return record(OPEN, struct.pack("=I", version) + b"granted".ljust(2048, b"\0"))


def look(kind: int, key: bytes, service: int = NETADDR, parameters: tuple[bytes, ...] = ()) -> bytes:
    count = struct.pack("@N", len(parameters) // 2)
    more = b"".join(each + b"\0" for each in parameters)
    return record(kind, struct.pack("=i", service) + count + more + key + b"\0")


def answer(result: int, value: bytes = b"") -> bytes:
    payload = struct.pack("=i", result) + value
    return struct.pack("=IHHII", OK, 16 + len(payload), 0, 0, 0) + payload


OPENED = struct.pack("=IHHII", OK, 16, 0, 0, 0)
FAILED = struct.pack("=IHHII", FAIL, 16, 0, 0, 0)

RECORDS: list[tuple[bytes, bytes]] = [
    (opening(), OPENED),
    (look(CHECK, b"203.0.113.9"), answer(1)),
    (look(CHECK, b"[2001:db8::9]"), answer(1)),
    (look(CHECK, b"203.0.113.10"), answer(0)),
    (look(CHECK, b"203.0.113.9", parameters=(b"name", b"value", b"other", b"")), answer(1)),
    (look(CHECK, b"local"), answer(0)),
    (look(CHECK, DOWN.encode()), answer(-1)),
    (look(LOOKUP, b"[2001:db8::9]"), answer(1, b"[2001:db8::9]\0")),
    (look(LOOKUP, b"203.0.113.10"), answer(0)),
    (look(LOOKUP, b"203.0.113.9", service=0x04), answer(0)),
    (look(CHECK, b"203.0.113.9", service=0x1000), answer(0)),
    (record(FETCH, struct.pack("=i", 0x20) + struct.pack("@N", 0)), answer(0)),
    (record(UPDATE), answer(1)),
    (look(CHECK, b"203.0.113.9"), answer(1)),
    (record(CLOSE), b""),
]

LINES: list[tuple[bytes, bytes]] = [
    (b"config|smtpd-version|7.6.0\n", b""),
    (b"config|protocol|0.1\n", b""),
    (b"config|tablename|granted\n", b""),
    (b"config|ready\n", b"register|netaddr\nregister|ready\n"),
    (b"table|0.1|1713795103.314423|granted|check|netaddr|e58|203.0.113.9\n", b"check-result|e58|found\n"),
    (b"table|0.1|1713795103.314423|granted|check|netaddr|1|[2001:db8::9]\n", b"check-result|1|found\n"),
    (b"table|0.1|1713795103.314423|granted|check|netaddr|2|203.0.113.10\n", b"check-result|2|not-found\n"),
    (b"table|0.1|1713795103.314423|granted|check|netaddr|3|203.0.113.99\n", b"check-result|3|error\n"),
    (b"table|0.1|1713795103.314423|granted|check|netaddr|4|a|b\n", b"check-result|4|not-found\n"),
    (b"table|0.1|1.2|granted|check|netaddr|5|\n", b"check-result|5|not-found\n"),
    (b"table|0.1|1.2|granted|lookup|netaddr|6|203.0.113.9\n", b"lookup-result|6|found|203.0.113.9\n"),
    (b"table|0.1|1.2|granted|lookup|credentials|7|203.0.113.9\n", b"lookup-result|7|not-found\n"),
    (b"table|0.1|1.2|granted|check|alias|8|203.0.113.9\n", b"check-result|8|not-found\n"),
    (b"table|0.1|1.2|granted|fetch|source|9\n", b"fetch-result|9|not-found\n"),
    (b"table|0.1|1.2|granted|update|478ff0d2\n", b"update-result|478ff0d2|ok\n"),
    (b"table|0.2|1.2|granted|check|netaddr|10|203.0.113.9\n", b"check-result|10|found\n"),
]  # fmt: skip


@pytest.mark.parametrize("dialogue", [RECORDS, LINES], ids=["records", "lines"])
def test_each_question_has_its_answer(dialogue: list[tuple[bytes, bytes]]) -> None:
    table = Table()
    for asked, expected in dialogue:
        assert not table.is_closing
        assert table.send(asked) == expected, asked
    table.send(b"")
    assert table.is_closing
    assert table.engine.ended_by == ("quit" if dialogue is LINES else "close")
    assert table.engine.is_text is (dialogue is LINES)


@pytest.mark.parametrize("cut", CUTS)
@pytest.mark.parametrize("dialogue", [RECORDS, LINES], ids=["records", "lines"])
def test_a_dialogue_in_pieces(dialogue: list[tuple[bytes, bytes]], cut: Cut) -> None:
    table = Table()
    assert table.send_in(list(cut(b"".join(asked for asked, _ in dialogue)))) == b"".join(
        expected for _, expected in dialogue
    )


@pytest.mark.parametrize("is_done", [True, False])
def test_an_update_that_was_done_or_not(is_done: bool) -> None:
    table = Table()
    table.is_done = is_done
    table.send(opening())
    assert table.send(record(UPDATE)) == answer(int(is_done))
    table = Table()
    table.is_done = is_done
    table.send(b"config|ready\n")
    result = b"ok" if is_done else b"error"
    assert table.send(b"table|0.1|1|granted|update|1\n") == b"update-result|1|%s\n" % result


NOT_READ = {
    "empty": b"",
    "a service alone": struct.pack("=i", NETADDR),
    "no key": struct.pack("=i", NETADDR) + struct.pack("@N", 0),
    "no end of the key": struct.pack("=i", NETADDR) + struct.pack("@N", 0) + b"203.0.113.9",
    "a parameter too few": struct.pack("=i", NETADDR) + struct.pack("@N", 1) + b"203.0.113.9\0",
    "a parameter too many": struct.pack("=i", NETADDR) + struct.pack("@N", 0) + b"a\0b\x00203.0.113.9\0",
    "something behind the end": struct.pack("=i", NETADDR) + struct.pack("@N", 0) + b"x\x00203.0.113.99",
    "two keys": struct.pack("=i", NETADDR) + struct.pack("@N", 0) + b"203.0.113.9\x00203.0.113.9\0",
    "endless parameters": struct.pack("=i", NETADDR) + b"\xff" * 8 + b"203.0.113.9\0",
    "other services too": struct.pack("=i", NETADDR | 1) + struct.pack("@N", 0) + b"203.0.113.9\0",
    "every service": struct.pack("=i", -1) + struct.pack("@N", 0) + b"203.0.113.9\0",
    "no parameters, as other versions might send it": struct.pack("=i", NETADDR) + b"203.0.113.9\0",
}


@pytest.mark.parametrize("kind", [CHECK, LOOKUP])
@pytest.mark.parametrize("payload", NOT_READ.values(), ids=NOT_READ.keys())
def test_a_question_that_cannot_be_read_is_not_found_and_smtpd_lives(payload: bytes, kind: int) -> None:
    table = Table()
    table.send(opening())
    assert table.send(record(kind, payload)) == answer(0)
    assert table.asked == []
    assert not table.is_closing
    assert table.send(look(CHECK, b"203.0.113.9")) == answer(1)


def test_keys_that_are_no_text_are_no_address() -> None:
    table = Table()
    table.send(opening())
    for key in (b"\xff\xfe", b"", b"203.0.113.9\n", b" 203.0.113.9", b"x" * 16000):
        assert table.send(look(CHECK, key)) == answer(0)


@pytest.mark.parametrize(
    ("data", "output", "reason"),
    [
        (record(OPEN, length=15), b"", "malformed"),
        (record(OPEN, length=0), b"", "malformed"),
        (record(OPEN, length=MAX_RECORD_OCTETS + 1), b"", "malformed"),
        (record(CHECK, length=65535), b"", "malformed"),
        (opening(version=1), FAILED, "version"),
        (opening(version=3), FAILED, "version"),
        (record(OPEN, b"\2"), FAILED, "version"),
        (record(8), FAILED, "unknown-request"),
        (record(OK), FAILED, "unknown-request"),
        (record(2**32 - 1), FAILED, "unknown-request"),
        (b"GET / HTTP/1.1\r\n\r\n", b"", ""),
        (b"config|protocol|1.0\n", b"", "version"),
        (b"cable|0.1|1|granted|check|netaddr|1|203.0.113.9\n", b"", "malformed"),
        (b"config|x\n" * (MAX_CONFIG_LINES + 1), b"", "malformed"),
        (b"config|" + b"x" * MAX_LINE_OCTETS, b"", "too-long"),
        (b"config|ready", b"", ""),
    ],
)
def test_what_is_no_record_or_line_ends_the_dialogue(data: bytes, output: bytes, reason: str) -> None:
    table = Table()
    assert table.send(data) == output
    assert table.is_closing is bool(reason)
    assert table.send(look(CHECK, b"203.0.113.9")) == b""
    table.send(b"")
    assert table.is_closing
    assert table.engine.ended_by == (reason or "truncated")
    assert table.asked == []


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"table",
        b"table|0.1|1|granted|check",
        b"table|1.0|1|granted|check|netaddr|1|203.0.113.9",
        b"report|0.1|1|granted|check|netaddr|1|203.0.113.9",
        b"table|0.1|1|granted|check|netaddr|1",
        b"table|0.1|1|granted|update|1|2",
        b"table|0.1|1|granted|fetch|source",
        b"table|0.1|1|granted|forget|netaddr|1|203.0.113.9",
    ],
)
def test_a_line_that_has_no_answer_ends_the_dialogue(line: bytes) -> None:
    table = Table()
    table.send(b"config|ready\n")
    assert table.send(line + b"\n") == b""
    assert table.is_closing
    assert table.asked == []


def test_an_answer_without_a_question_is_a_mistake_of_ours() -> None:
    engine = OpenSmtpdTable()
    with pytest.raises(MisuseError):
        engine.found()


def payloads(output: bytes) -> list[bytes]:
    """What is in each record that we sent; they are whole, and well-formed."""
    found = []
    while output:
        kind, length, *rest = struct.unpack("=IHHII", output[:16])
        assert kind in (OK, FAIL) and 16 <= length <= len(output) and rest == [0, 0, 0]
        found.append(output[16:length])
        output = output[length:]
    return found


questions = st.builds(
    look,
    st.sampled_from([CHECK, LOOKUP]),
    st.sampled_from([b"203.0.113.9", b"203.0.113.10", b"[2001:db8::9]"]) | st.binary(max_size=40),
    st.sampled_from([NETADDR, 0, 4, -1]),
    st.sampled_from([(), (b"a", b"b")]),
)
whole = st.sampled_from([opening(), record(UPDATE), b"config|ready\n", LINES[4][0]]) | questions
pieces = st.lists(whole | st.binary(max_size=60), max_size=8)


@given(pieces, st.randoms(use_true_random=False))
def test_whatever_comes_a_yes_is_for_a_granted_address_and_cuts_change_nothing(given_pieces, chance) -> None:  # type: ignore[no-untyped-def]
    data = b"".join(given_pieces)
    table, other = Table(), Table()
    output = table.send(data) if data else b""
    in_pieces, rest = b"", data
    while rest:
        size = chance.randint(1, 40)
        in_pieces += other.send(rest[:size])
        assert len(other.engine._data) - other.engine._offset <= MAX_RECORD_OCTETS + 40
        rest = rest[size:]
    assert (in_pieces, other.asked, other.engine.ended_by) == (output, table.asked, table.engine.ended_by)
    granted = sum(isinstance(event, Look) and event.key in GRANTED for event in table.asked)
    if table.engine.is_text:
        assert output.count(b"|found") == granted
    else:
        done = sum(isinstance(event, Reread) for event in table.asked)
        assert sum(payload[:4] == struct.pack("=i", 1) for payload in payloads(output)) == granted + done
    table.send(b"")
    assert table.is_closing
