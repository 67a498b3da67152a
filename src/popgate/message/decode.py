"""Content transfer encodings taken off as a stream (RFC 2045 6), and charsets after them.

Tolerant as mail needs it: what is no part of the encoding is skipped, what is cut off at the end is
given as far as it goes. No more is held than a block and a line.
"""

import binascii
import re
from collections.abc import Iterable, Iterator

from popgate.message.charset import decoder, whole

_IDENTITY = frozenset(("", "7bit", "8bit", "binary"))
_NOT_BASE64 = bytes(
    octet
    for octet in range(256)
    if octet not in b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/="
)
_SPACE_AT_END = re.compile(rb"(?<![ \t])[ \t]++(?=\r?\n)")
_LONG_LINE = 8192


class UnknownEncoding(ValueError):
    """A Content-Transfer-Encoding that nobody can take off (RFC 3516: NO [UNKNOWN-CTE])."""


def decode(blocks: Iterable[bytes], encoding: str) -> Iterator[bytes]:
    """The octets that `blocks` of a body stand for. Raises UnknownEncoding at once."""
    encoding = encoding.strip().lower()
    if encoding in _IDENTITY:
        return iter(blocks)
    if encoding == "base64":
        return _base64(blocks)
    if encoding == "quoted-printable":
        return _quoted_printable(blocks)
    raise UnknownEncoding(f"{encoding!r} is no content transfer encoding that is known here")


def is_known(encoding: str) -> bool:
    return encoding in _IDENTITY or encoding in ("base64", "quoted-printable")


def _base64(blocks: Iterable[bytes]) -> Iterator[bytes]:
    kept = b""
    for block in blocks:
        # RFC 2045 6.8: all other characters must be ignored
        data = kept + block.translate(None, _NOT_BASE64)
        if b"=" in data:
            # padding ends one run; some senders glue several together
            *ended, data = data.split(b"=")
            for run in ended:
                if run:
                    yield _run(run)
        whole_groups = len(data) & ~3
        kept = data[whole_groups:]
        if whole_groups:
            yield binascii.a2b_base64(data[:whole_groups])
    if kept:
        yield _run(kept)


def _run(characters: bytes) -> bytes:
    if len(characters) % 4 == 1:
        characters = characters[:-1]  # six bits alone are no octet
    return binascii.a2b_base64(characters + b"=" * (-len(characters) % 4))


def _quoted_printable(blocks: Iterable[bytes]) -> Iterator[bytes]:
    kept = b""
    for block in blocks:
        data = kept + block
        cut = data.rfind(b"\n") + 1
        if not cut and len(data) > _LONG_LINE:
            # nothing may be torn apart: an escape, or the CR of a line end
            cut = len(data) - 3
            escape = data.find(b"=", cut - 2, cut)
            cut = escape if escape >= 0 else cut
        kept = data[cut:]
        if cut:
            yield _unquoted(data[:cut])
    if kept:
        yield _unquoted(kept)


def _unquoted(data: bytes) -> bytes:
    # RFC 2045 6.7 (3): white space at the end of a line was added on the way
    if b" \r\n" in data or b"\t\r\n" in data or b" \n" in data or b"\t\n" in data:
        data = _SPACE_AT_END.sub(b"", data)
    return binascii.a2b_qp(data)


def text_of(blocks: Iterable[bytes], encoding: str, charset: str) -> Iterator[str]:
    """The text of a part in pieces. An unknown encoding is none, an unknown charset UTF-8; U+FFFD for
    what cannot be read."""
    characters = decoder(charset)
    for octets in decode(blocks, encoding if is_known(encoding) else "binary"):
        piece = characters.decode(octets)
        if piece:
            yield whole(piece)
    rest = characters.decode(b"", True)
    if rest:
        yield whole(rest)


def charset_of(parameters: tuple[tuple[str, str], ...]) -> str:
    """The charset parameter of a text part, us-ascii where it has none (RFC 2046 4.1.2)."""
    for name, value in parameters:
        if name == "charset":
            return value
    return "us-ascii"
