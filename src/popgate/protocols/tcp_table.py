"""Postfix's tcp_table protocol: look a key up, in lines of text.

    question = "get" SP key LF
    answer   = ("200" / "400" / "500") SP text LF    found; a fault that passes; not found
    encoding = "%" and two hexadecimal digits for "%", white space and what is not printable

`put` is refused. Specification: tcp_table(5).
"""

import re
from typing import Final

from popgate.protocols.questions import QuestionServer
from popgate.protocols.socketmap import LookUp

MAX_LINE_OCTETS: Final = 4096
MOST_ERRORS: Final = 20
"""Lines that are no question, after which the connection is closed."""

_ENCODED = re.compile(rb"%([0-9A-Fa-f]{2})?")
_PLAIN = re.compile(rb"[!-$&-~]*\Z").match


def found(data: str) -> bytes:
    return b"200 %s\n" % _encode(data)


def not_found() -> bytes:
    return b"500 not%20found\n"


def temporary(reason: str) -> bytes:
    return b"400 %s\n" % _encode(reason)


def _encode(text: str) -> bytes:
    octets = text.encode("utf-8", "replace")
    if _PLAIN(octets):
        return octets
    return b"".join(b"%c" % octet if _PLAIN(b"%c" % octet) else b"%%%02X" % octet for octet in octets)


def _decode(octets: bytes) -> bytes | None:
    """None where a % has no two digits behind it."""
    is_whole = True

    def octet(match: re.Match[bytes]) -> bytes:
        nonlocal is_whole
        if match[1] is None:
            is_whole = False
            return b""
        return bytes.fromhex(match[1].decode("ascii"))

    decoded = _ENCODED.sub(octet, octets)
    return decoded if is_whole else None


class TcpTableServer(QuestionServer):
    """Events are LookUp with the name ""."""

    def __init__(self) -> None:
        super().__init__()
        self._errors = 0

    def _read(self) -> LookUp | None:
        while (line := self._take_line(MAX_LINE_OCTETS)) is not None:
            verb, space, key = line.partition(b" ")
            if verb == b"get" and space:
                decoded = _decode(key) if b"%" in key else key
                if decoded is not None:
                    return LookUp("", decoded.decode("utf-8", "replace"))
                self._refuse(b"400 the%20key%20is%20not%20encoded%20as%20it%20should\n")
            elif verb == b"put":
                self._refuse(b"500 nothing%20can%20be%20put%20here\n")
            else:
                self._refuse(b"400 unknown%20request\n")
            if self._is_closing:
                return None
        return None

    def _refuse(self, wire: bytes) -> None:
        self._output.append(wire)
        self._errors += 1
        if self._errors >= MOST_ERRORS:
            self._end("errors")
