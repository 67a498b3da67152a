"""However a client's octets are cut, the buffer gives the same lines and blocks."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from popgate.protocols.lines import BareLineEnd, InputBuffer, LineTooLong

LIMIT = 12
texts = st.lists(st.sampled_from([b"a", b"bc", b"\r\n", b"\n", b"\r", b"0123456789", b" "]), max_size=40)


def cut(data: bytes, sizes: list[int]) -> list[bytes]:
    parts = []
    for size in sizes:
        parts.append(data[:size])
        data = data[size:]
    return [part for part in [*parts, data] if part]


def lines_of(parts: list[bytes]) -> list[object]:
    """What the lines are, and what is wrong where something is."""
    buffer = InputBuffer()
    found: list[object] = []
    for part in parts:
        kept = bytes(part)
        buffer.feed(part)
        while True:
            try:
                line = buffer.take_line(LIMIT)
            except LineTooLong:
                return [*found, "too long"]
            except BareLineEnd:
                found.append("bare")
                continue
            if line is None:
                break
            found.append(line)
        assert part == kept
    return [*found, len(buffer)]


@given(texts, st.lists(st.integers(1, 7), max_size=30))
def test_lines_do_not_depend_on_the_cut(pieces: list[bytes], sizes: list[int]) -> None:
    data = b"".join(pieces)
    whole = lines_of([data] if data else [])
    assert lines_of(cut(data, sizes)) == whole
    assert lines_of(cut(data, [1] * len(data))) == whole


@given(texts, st.lists(st.integers(1, 7), max_size=30), st.integers(1, 9))
def test_blocks_are_the_octets_that_came(pieces: list[bytes], sizes: list[int], most: int) -> None:
    data = b"".join(pieces)
    buffer, taken = InputBuffer(), []
    for part in cut(data, sizes):
        buffer.feed(part)
        assert buffer.peek(most) == (buffer.peek(1000))[:most]
        taken.append(buffer.take(most))
    while block := buffer.take(most):
        taken.append(block)
    assert b"".join(taken) == data
    assert len(buffer) == 0


@pytest.mark.parametrize("octets", [40, 70_000, 300_000])
def test_long_input_of_short_lines(octets: int) -> None:
    buffer = InputBuffer()
    data = b"NOOP\r\n" * (octets // 6)
    for start in range(0, len(data), 60_000):
        buffer.feed(data[start : start + 60_000])
    for left in range(octets // 6, 0, -1):
        assert len(buffer) == 6 * left
        assert buffer.take_line(LIMIT) == b"NOOP"
    assert buffer.take_line(LIMIT) is None


def test_what_is_consumed_is_not_held() -> None:
    buffer = InputBuffer()
    buffer.feed(b"x" * 200_000 + b"\r\n")
    buffer.take_line(300_000)
    assert len(buffer._data) == 0
    buffer.feed(b"x" * 200_000)
    buffer.take(150_000)
    assert len(buffer._data) == 50_000
