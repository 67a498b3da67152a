"""The tree of parts: where each lies, what broken mail becomes, and that nothing hostile is slow."""

import random

import pytest

from popgate.message.part import Part
from popgate.message.structure import from_json, parse, to_json

MIXED = (
    b"Subject: two\r\nContent-Type: multipart/mixed; boundary=abc\r\n\r\npreamble\r\n"
    b"--abc\r\nContent-Type: text/html; charset=utf-8\r\n\r\n<p>\r\n</p>\r\n"
    b"--abc\r\n\r\nplain\r\n--abc--\r\nepilogue\r\n"
)


def octets(message: bytes, part: Part) -> tuple[bytes, bytes]:
    return message[part.start : part.body], message[part.body : part.end]


def test_a_multipart() -> None:
    root, header = parse([MIXED])
    assert header == MIXED[: root.body]
    assert (root.type, root.subtype, root.start, root.end) == ("multipart", "mixed", 0, len(MIXED))
    html, plain = root.parts
    assert octets(MIXED, html) == (b"Content-Type: text/html; charset=utf-8\r\n\r\n", b"<p>\r\n</p>")
    assert octets(MIXED, plain) == (b"\r\n", b"plain")
    assert html.parameters == (("charset", "utf-8"),)
    assert from_json(to_json(root)) == root


@pytest.mark.parametrize("size", [1, 2, 3, 7, 50])
def test_cuts_change_nothing(size: int) -> None:
    whole = parse([MIXED])
    assert parse(MIXED[at : at + size] for at in range(0, len(MIXED), size)) == whole
    cuts, left, pieces = random.Random(size), MIXED, []
    while left:
        length = cuts.randint(0, size)
        pieces.append(left[:length])
        left = left[length:]
    assert parse(pieces) == whole
