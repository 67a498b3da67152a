"""Postfix's policy delegation protocol: may this client do that?

    request   = 1*( name "=" value LF ) LF
    answer    = "action=" action LF LF

The order of attributes does not matter, and those that nobody knows are passed over. What cannot be
read gets no answer but the end of the connection, for which Postfix answers its client 451:
a line without "=", an attribute that we use given twice, a request of another kind, too many or too
long attributes. Nothing is tolerated that could be read in two ways.

Specification: Postfix's SMTPD_POLICY_README. It knows no clock, no socket and no grant.
"""

from itertools import repeat
from typing import Final

from popgate.protocols.questions import QuestionServer
from popgate.values.value import value

MAX_REQUEST_OCTETS: Final = 65536
MAX_LINE_OCTETS: Final = 8192
MAX_ATTRIBUTES: Final = 100

_KIND = "smtpd_access_policy"
_EQUALS = repeat("=")
_USED = (
    "request",
    "protocol_state",
    "client_address",
    "sender",
    "recipient",
    "recipient_count",
    "sasl_username",
    "instance",
    "size",
    "queue_id",
)


@value
class PolicyRequest:
    """One request; `attributes` as they came, octets that are not UTF-8 replaced. Answer it with
    what `action` gives."""

    attributes: dict[str, str]

    def number(self, name: str) -> int:
        """A count or size; 0 where it is missing or not one."""
        text = self.attributes.get(name, "")
        return int(text) if text.isascii() and text.isdigit() and len(text) <= 15 else 0


def action(text: str) -> bytes:
    """The answer; `text` is an action of access(5) in one line."""
    return b"action=%s\n\n" % text.encode("ascii", "replace").replace(b"\n", b" ")


class PostfixPolicyServer(QuestionServer):
    """Events are PolicyRequest."""

    def _read(self) -> PolicyRequest | None:
        data, offset = self._data, self._offset
        if data.startswith(b"\n", offset):
            self._end("malformed")
            return None
        end = data.find(b"\n\n", max(self._scanned, offset))
        if end < 0:
            if len(data) - offset > MAX_REQUEST_OCTETS:
                self._end("too-long")
            # the last octet may be the first of the two
            self._scanned = max(offset, len(data) - 1)
            return None
        length = end - offset
        if length > MAX_REQUEST_OCTETS:
            self._end("too-long")
            return None
        self._offset = end + 2
        lines = data[offset:end].decode("utf-8", "replace").split("\n")
        if len(lines) > MAX_ATTRIBUTES or (length > MAX_LINE_OCTETS and _has_long_line(data[offset:end])):
            self._end("too-long")
            return None
        # the quickest of ten ways to write it
        attributes = {name: text for name, sign, text in map(str.partition, lines, _EQUALS) if sign}
        if len(attributes) != len(lines) and _is_malformed(lines):
            self._end("malformed")
            return None
        if attributes.get("request") != _KIND:
            self._end("unknown-request")
            return None
        return PolicyRequest(attributes)


def _has_long_line(block: bytes) -> bool:
    return any(len(line) > MAX_LINE_OCTETS for line in block.split(b"\n"))


def _is_malformed(lines: list[str]) -> bool:
    """A line without "=", or an attribute given twice that we use."""
    names = [line.partition("=")[0] for line in lines]
    return any("=" not in line for line in lines) or any(names.count(name) > 1 for name in _USED)
