"""The table side of OpenSMTPD's two protocols between smtpd and its table programs.

smtpd speaks first, so the first octet tells which it is. In both it waits for each answer before it does
anything else, and ends itself where an answer is none.

To 7.5: imsg records on descriptor 0, in the machine's own byte order (tried with 6.8.0p2):

    record  = type:u32 length:u16 flags:u16 peer:u32 pid:u32 payload     length: of all, to 16384
    OPEN    = version:u32 name                        2 is the only version known here
    UPDATE  = empty        CLOSE = empty
    CHECK   = service:i32 count:size_t *(name NUL value NUL) key NUL     LOOKUP alike
    FETCH   = service:i32 count:size_t *(name NUL value NUL)
    OK      = empty, to OPEN; result:i32, to UPDATE; result:i32 [value NUL], to the others
    result  = 1 found, or done; 0 not found, or not done; -1 a fault that passes

From 7.6: lines (smtpd-tables(7)):

    config|name|value ... config|ready                and we: register|netaddr, register|ready
    table|0.1|time|table|update|id                    update-result|id|ok, or error
    table|0.1|time|table|check|service|id|key         check-result|id|found, not-found or error
    table|0.1|time|table|lookup|service|id|key        lookup-result|id|found|value, not-found or error
    table|0.1|time|table|fetch|service|id             fetch-result|id|not-found

Words behind "error" are allowed by the manual, but smtpd 7.6 ends itself over them, so there are none.

Only addresses can be looked up here: every other service, and every key that cannot be read, is not
found. A record that is none, or whose answer could not be given, ends the dialogue.
"""

import struct
from typing import Final

from popgate.protocols.questions import QuestionServer
from popgate.values.value import value

MAX_RECORD_OCTETS: Final = 16384
MAX_LINE_OCTETS: Final = 4096
MAX_CONFIG_LINES: Final = 100

OK, FAIL, OPEN, CLOSE, UPDATE, CHECK, LOOKUP, FETCH = range(8)
OPEN_VERSION: Final = 2
NETADDR: Final = 0x08
"""The service whose keys are addresses of clients."""

_HEADER = struct.Struct("=IHHII")
_INTEGER = struct.Struct("=i")
_SIZE = struct.Struct("@N")
_FOUND, _NOT_FOUND, _FAULT = _INTEGER.pack(1), _INTEGER.pack(0), _INTEGER.pack(-1)


@value
class Look:
    """Is the address `key` in the table? Octets that are not UTF-8 are replaced; nothing is checked."""

    key: str


@value
class Reread:
    """smtpd is told to update the table."""


class OpenSmtpdTable(QuestionServer):
    """Events are Look, answered by `found`, `not_found` or `fault`, and Reread, answered by `done`.

    `ended_by` besides those of QuestionServer: `close` (smtpd is done), `version`, `malformed`.
    `is_text`: which protocol it is, None before the first octet.
    """

    def __init__(self) -> None:
        super().__init__()
        self.is_text: bool | None = None
        self._is_configured = False
        self._config_lines = 0
        self._operation = 0
        self._id = b""
        self._key = ""

    def found(self) -> None:
        """The client is in the table."""
        if self.is_text:
            more = b"|" + self._key.encode("utf-8", "replace") if self._operation == LOOKUP else b""
            self._answer_line(b"found" + more)
        else:
            more = self._key.encode("utf-8", "replace") + b"\0" if self._operation == LOOKUP else b""
            self.answer(_record(OK, _FOUND + more))

    def not_found(self) -> None:
        if self.is_text:
            self._answer_line(b"not-found")
        else:
            self.answer(_record(OK, _NOT_FOUND))

    def fault(self) -> None:
        """It cannot be said now; smtpd answers its client 451."""
        if self.is_text:
            self._answer_line(b"error")
        else:
            self.answer(_record(OK, _FAULT))

    def done(self, *, is_done: bool) -> None:
        """The answer to Reread."""
        if self.is_text:
            self._answer_line(b"ok" if is_done else b"error")
        else:
            self.answer(_record(OK, _FOUND if is_done else _NOT_FOUND))

    def _read(self) -> Look | Reread | None:
        if self.is_text is None:
            if self._offset >= len(self._data):
                return None
            self.is_text = self._data[self._offset] == 0x63  # "c" of config; no record's type begins so
        return self._read_text() if self.is_text else self._read_records()

    # imsg

    def _read_records(self) -> Look | Reread | None:
        while True:
            data, offset = self._data, self._offset
            if len(data) - offset < _HEADER.size:
                return None
            kind, length, _, _, _ = _HEADER.unpack_from(data, offset)
            if not _HEADER.size <= length <= MAX_RECORD_OCTETS:
                self._end("malformed")
                return None
            if len(data) - offset < length:
                return None
            self._offset = offset + length
            event = self._record(kind, data[offset + _HEADER.size : offset + length])
            if event is not None or self._is_closing:
                return event

    def _record(self, kind: int, payload: bytes) -> Look | Reread | None:
        """The question in a record; None where it is answered here."""
        self._operation = kind
        if kind == OPEN:
            if payload[:4] == struct.pack("=I", OPEN_VERSION):
                self._output.append(_record(OK, b""))
            else:
                self._output.append(_record(FAIL, b""))
                self._end("version")
        elif kind == UPDATE:
            return Reread()
        elif kind == CLOSE:
            self._end("close")
        elif kind in (CHECK, LOOKUP):
            service, self._key = _look(payload)
            if service == NETADDR:
                return Look(self._key)
            self._output.append(_record(OK, _NOT_FOUND))
        elif kind == FETCH:
            self._output.append(_record(OK, _NOT_FOUND))
        else:
            self._output.append(_record(FAIL, b""))
            self._end("unknown-request")
        return None

    # Lines

    def _read_text(self) -> Look | Reread | None:
        while (line := self._take_line(MAX_LINE_OCTETS)) is not None:
            if self._is_configured:
                event = self._line(line)
                if event is not None:
                    return event
            else:
                self._config(line)
            if self._is_closing:
                return None
        return None

    def _config(self, line: bytes) -> None:
        word, _, rest = line.partition(b"|")
        self._config_lines += 1
        if word != b"config" or self._config_lines > MAX_CONFIG_LINES:
            self._end("malformed")
        elif rest.startswith(b"protocol|") and not rest.startswith(b"protocol|0."):
            self._end("version")
        elif rest == b"ready":
            self._is_configured = True
            self._output.append(b"register|netaddr\nregister|ready\n")

    def _line(self, line: bytes) -> Look | Reread | None:
        """The question in a line; None where it is answered here."""
        fields = line.split(b"|", 7)
        if len(fields) < 6 or fields[0] != b"table" or not fields[1].startswith(b"0."):
            self._end("malformed")
            return None
        word, more = fields[4], fields[5:]
        if word == b"update" and len(more) == 1:
            self._operation, self._id = UPDATE, more[0]
            return Reread()
        if word == b"fetch" and len(more) == 2:
            self._output.append(b"fetch-result|%s|not-found\n" % more[1])
            return None
        if word in (b"check", b"lookup") and len(more) == 3:
            service, self._id, key = more
            self._operation = LOOKUP if word == b"lookup" else CHECK
            self._key = key.decode("utf-8", "replace")
            if service == b"netaddr":
                return Look(self._key)
            self._output.append(b"%s-result|%s|not-found\n" % (word, self._id))
            return None
        self._end("unknown-request")
        return None

    def _answer_line(self, result: bytes) -> None:
        self.answer(b"%s|%s|%s\n" % (_RESULTS[self._operation], self._id, result))


_RESULTS = {UPDATE: b"update-result", CHECK: b"check-result", LOOKUP: b"lookup-result"}


def _record(kind: int, payload: bytes) -> bytes:
    return _HEADER.pack(kind, _HEADER.size + len(payload), 0, 0, 0) + payload


def _look(payload: bytes) -> tuple[int, str]:
    """The service and the key of CHECK and LOOKUP, service 0 where they cannot be read."""
    start = _INTEGER.size + _SIZE.size
    if len(payload) <= start or payload[-1]:
        return 0, ""
    (service,) = _INTEGER.unpack_from(payload)
    (count,) = _SIZE.unpack_from(payload[_INTEGER.size : start])
    # behind the parameters, a name and a value each, stands the key, and nothing behind it
    if payload.count(b"\0", start) != 2 * count + 1:
        return 0, ""
    key = payload[start:-1].rpartition(b"\0")[2]
    return service, key.decode("utf-8", "replace")
