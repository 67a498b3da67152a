"""The text form of sets of numbers (RFC 9051 9 sequence-set), both ways."""

import re

from popgate.protocols.imap.lexer import Cursor, Syntax
from popgate.protocols.imap.sequence import MAX_NUMBER, STAR, SavedResult, Sequence, SequenceSet

MAX_RANGES = 16384
"""A line of 64 KiB names no more messages than this with numbers of three digits."""

_SET = re.compile(rb"[0-9*:,]+")
# seq-number = nz-number / "*"; seq-range = seq-number ":" seq-number
_NUMBER = r"(?:[1-9][0-9]{0,9}|\*)"
_WELL_FORMED = re.compile(rf"{_NUMBER}(?::{_NUMBER})?(?:,{_NUMBER}(?::{_NUMBER})?)*".encode())
_STAR = str(STAR).encode()


def read_sequence(cursor: Cursor) -> Sequence:
    """RFC 9051 9 sequence-set, or `$` (RFC 5182). Raises Syntax."""
    if cursor.take(b"$"):
        return SavedResult()
    return read_numbers(cursor)


def read_numbers(cursor: Cursor, *, has_star: bool = True) -> SequenceSet:
    """A sequence-set. Without `has_star` it is of known numbers only (RFC 7162 7). Raises Syntax."""
    found = cursor.match(_SET)
    if not found:
        raise Syntax(b"Sequence set expected")
    if not has_star and b"*" in found[0]:
        raise Syntax(b"* not allowed here")
    return parse_numbers(found[0])


def parse_numbers(text: bytes) -> SequenceSet:
    """The set that `text` is. Raises Syntax."""
    if text.count(b",") >= MAX_RANGES:
        raise Syntax(b"Sequence set is too long", b"[LIMIT]")
    if not _WELL_FORMED.fullmatch(text):
        raise Syntax(b"Sequence set is not well-formed")
    words = text.replace(b"*", _STAR).split(b",")
    if b":" not in text:
        first = last = list(map(int, words))
    else:
        # A search that gives back its groups costs twice as much as a second split.
        words = [word if b":" in word else word + b":" + word for word in words]
        both = list(map(int, b":".join(words).split(b":")))
        first, last = both[::2], both[1::2]
    if max(first) > MAX_NUMBER or max(last) > MAX_NUMBER:
        raise Syntax(b"Number out of range")
    return SequenceSet(tuple(zip(first, last, strict=True)))
