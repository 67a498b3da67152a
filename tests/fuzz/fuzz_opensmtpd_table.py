"""Whatever comes, in whatever pieces: what is sent is whole records or lines, and as many of them say that
something was found as addresses with a grant were asked about."""

import re
import struct

from question_checks import cuts

from popgate.protocols.engine import Wait
from popgate.protocols.opensmtpd_table import MAX_RECORD_OCTETS, Look, OpenSmtpdTable
from popgate.values.spelling import Spellings
from support import fuzzing

_GRANTED = ("203.0.113.9", "2001:db8::9")
_LINE = re.compile(
    rb"register\|(?:netaddr|ready)|[a-z]+-result\|[^|\n]*\|(?:ok|error|not-found|found(?:\|[^\n]*)?)"
)


def check(data: bytes) -> None:
    engine, output, found, done = converse([data])
    other, again, _, _ = converse(list(cuts(data, len(data))))
    assert (again, other.ended_by) == (output, engine.ended_by)
    if engine.is_text:
        lines = output.split(b"\n")
        assert lines.pop() == b""
        assert all(_LINE.fullmatch(line) for line in lines)
        assert sum(b"|found" in line for line in lines) == found
        return
    results = 0
    while output:
        kind, length, flags, peer, pid = struct.unpack("=IHHII", output[:16])
        assert (flags, peer, pid) == (0, 0, 0)
        assert kind in (0, 1)
        assert 16 <= length <= len(output)
        results += output[16:length][:4] == struct.pack("=i", 1)
        output = output[length:]
    assert results == found + done


def converse(pieces: list[bytes]) -> tuple[OpenSmtpdTable, bytes, int, int]:
    """The engine at its end, all that it sent, how many were found, how many updates were done."""
    engine, output, found, done = OpenSmtpdTable(), b"", 0, 0
    spellings = Spellings()
    for piece in [*filter(None, pieces), b""]:
        engine.receive(piece)
        while (event := engine.next_event()) is not None:
            if not isinstance(event, Look):
                engine.done(is_done=True)
                done += 1
                continue
            address = spellings.find(event.key)
            if address is not None and address.text in _GRANTED:
                engine.found()
                found += 1
            else:
                engine.not_found()
        output += engine.take_output()
        assert len(engine._data) - engine._offset <= max(MAX_RECORD_OCTETS, len(piece)) + 30
    assert engine.waiting_for is Wait.CLOSE
    return engine, output, found, done


if __name__ == "__main__":
    fuzzing.main(check)
