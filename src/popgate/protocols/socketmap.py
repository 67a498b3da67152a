"""The socketmap protocol of Sendmail and Postfix: look a key up in a named map.

    question = netstring of: name SP key
    answer   = netstring of: "OK" SP data / "NOTFOUND" SP / "TEMP" SP reason / "PERM" SP reason
    netstring = length ":" octets ","      length in decimal, without leading zeros

A netstring that is none, or too long, leaves no place at which the next would begin: the connection
is closed. Specification: socketmap_table(5) of Postfix, cf/README of Sendmail.
"""

import re
from typing import Final

from popgate.protocols.questions import QuestionServer
from popgate.values.value import value

MAX_OCTETS: Final = 4096
"""Of a question; names and keys of mail servers are addresses and host names."""

_LENGTH = re.compile(rb"(0|[1-9][0-9]{0,3}):")
_START_OF_LENGTH = re.compile(rb"(?:0|[1-9][0-9]{0,3})?\Z")


@value
class LookUp:
    """A question: `key` in the map `name`. Octets that are not UTF-8 are replaced."""

    name: str
    key: str


def found(data: str) -> bytes:
    return _netstring("OK " + data)


def not_found() -> bytes:
    return b"9:NOTFOUND ,"


def temporary(reason: str) -> bytes:
    return _netstring("TEMP " + reason)


def _netstring(text: str) -> bytes:
    octets = text.encode("utf-8", "replace")
    return b"%d:%s," % (len(octets), octets)


class SocketmapServer(QuestionServer):
    """Events are LookUp."""

    def _read(self) -> LookUp | None:
        data, offset = self._data, self._offset
        match = _LENGTH.match(data, offset)
        if match is None:
            if not _START_OF_LENGTH.match(data, offset):
                self._end("malformed")
            return None
        length = int(match[1])
        if length > MAX_OCTETS:
            self._end("too-long")
            return None
        start = match.end()
        end = start + length
        if len(data) <= end:
            return None
        if data[end] != 0x2C:
            self._end("malformed")
            return None
        self._offset = end + 1
        name, _, key = data[start:end].decode("utf-8", "replace").partition(" ")
        return LookUp(name, key)
