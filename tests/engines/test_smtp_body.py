"""The block readers against a reading line by line, and in every cut."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from popgate.protocols.smtp.body import BadBody, ChunkReader, DotReader

PIECES = st.lists(
    st.sampled_from([b"\r\n", b".", b"..", b"a", b"ab", b"\r\n.", b"\r\n.\r\n", b"\r", b"\n", b"\0", b" "]),
    max_size=30,
).map(b"".join)
LINES = st.lists(st.sampled_from([b"", b".", b"..", b".a", b"a", b"ab", b"a.b", b" ."]), max_size=20)


def read(octets: bytes, cuts: list[int]) -> tuple[bytes, bytes | None]:
    """The content and what came behind its end; None when it did not end."""
    reader = DotReader()
    content = b""
    edges = sorted({min(cut, len(octets)) for cut in cuts} | {0, len(octets)})
    for start, end in itertools.pairwise(edges):
        content += reader.feed(octets[start:end])
        if reader.is_complete:
            return content, reader.rest + octets[end:]
    return content, None


def slowly(octets: bytes) -> tuple[bytes, bytes | None]:
    content = b""
    while True:
        line, end, octets = octets.partition(b"\r\n")
        if b"\r" in line or b"\n" in line or b"\0" in line:
            raise BadBody
        if not end:
            return content, None
        if line == b".":
            return content, octets
        content += line.removeprefix(b".") + b"\r\n"


@given(LINES, st.lists(st.integers(0, 100), max_size=10))
def test_what_was_stuffed_comes_back(lines: list[bytes], cuts: list[int]) -> None:
    stuffed = b"".join((b"." + line if line.startswith(b".") else line) + b"\r\n" for line in lines)
    content = b"".join(line + b"\r\n" for line in lines)
    assert read(stuffed + b".\r\nRSET\r\n", cuts) == (content, b"RSET\r\n")


@given(PIECES, st.lists(st.integers(0, 100), max_size=10))
def test_blocks_are_read_as_lines_are(octets: bytes, cuts: list[int]) -> None:
    octets += b"\r\n.\r\n"
    try:
        expected = slowly(octets)
    except BadBody:
        # a line end may turn out bad only in the last line before the end, or sooner
        with pytest.raises(BadBody):
            read(octets, cuts)
        return
    assert read(octets, cuts) == expected


@given(st.lists(st.sampled_from([b"\r\n", b"a", b"\r", b"\n", b"\0", b""]), max_size=12))
def test_chunks_are_one_text(chunks: list[bytes]) -> None:
    whole = b"".join(chunks)
    rest = whole.replace(b"\r\n", b"")
    is_bad = b"\r" in rest or b"\n" in rest or b"\0" in rest
    reader = ChunkReader()
    content = b""
    try:
        for chunk in chunks:
            content += reader.feed(chunk)
        content += reader.finish()
    except BadBody:
        assert is_bad
        return
    assert not is_bad
    assert content in (whole, whole + b"\r\n")
    assert content.endswith(b"\r\n")


def test_a_large_body_costs_no_more_in_small_blocks() -> None:
    reader = DotReader()
    held = 0
    for _ in range(2000):
        reader.feed(b"\r\n." * 100)
        held = max(held, len(reader._held))
    assert held <= 5
