"""Splitting a message into header and body loses and invents nothing, however the blocks are cut."""

from hypothesis import given
from hypothesis import strategies as st

from popgate.queue import header
from popgate.queue.delivery import wire

pieces = st.sampled_from(
    [
        b"Received: a\r\n",
        b" folded\r\n",
        b"\r\n",
        b"x",
        b"Return-Path: <a@b>\r\n",
        b"Delivered-To: me@x\r\n",
        b"\r",
        b"\n",
    ]
)
contents = st.lists(pieces, max_size=30).map(b"".join)


def cut(content: bytes, size: int) -> list[bytes]:
    return [content[start : start + size] for start in range(0, len(content), size)]


@given(contents, st.integers(1, 50))
def test_nothing_is_lost_and_cuts_do_not_matter(content: bytes, size: int) -> None:
    head, start, rest = header.split(cut(content, size))
    assert head + start + b"".join(rest) == content
    assert head == header.split([content])[0]
    assert not head or head.endswith(b"\r\n")


@given(contents)
def test_the_body_does_not_count(content: bytes) -> None:
    head, _, _ = header.split([b"Subject: x\r\n\r\n" + content])
    assert head == b"Subject: x\r\n"
    assert header.hops(head) == 0
    assert not header.was_delivered_to(head, "me@x")


@given(st.binary(max_size=200))
def test_what_passes_the_last_look_holds_no_odd_line_end(content: bytes) -> None:
    if not wire.fault(content):
        rest = content.replace(b"\r\n", b"")
        assert b"\r" not in rest
        assert b"\n" not in rest
        assert b"\0" not in rest


@given(contents)
def test_a_conversion_to_seven_bits_is_clean_or_none(content: bytes) -> None:
    converted = wire.to_seven_bits(
        b"MIME-Version: 1.0\r\nContent-Type: text/plain\r\n" + content + b"\xff\r\n"
    )
    assert converted is None or (converted.isascii() and not wire.fault(converted))


def test_a_header_of_megabytes_is_looked_at_in_part() -> None:
    content = b"X: y\r\n" * 200_000 + b"Received: late\r\n\r\nbody\r\n"
    head, start, rest = header.split(cut(content, 65536))
    assert len(head) <= header.HEADER_OCTETS + 65536
    assert head + start + b"".join(rest) == content
