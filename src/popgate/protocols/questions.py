"""What the engines have in common that other mail servers ask: one question, one answer.

A question is read whole, given out as an event, and nothing more is read until it is answered.
Many questions may follow each other on a connection; there is no greeting, no login and no
farewell. A question that cannot be read has no answer: the connection is closed, which every
asking server takes for a fault that passes, and never for a yes.

Octets are kept as one `bytes`: askers wait for each answer, so nearly always what arrives is
one whole question and nothing is copied. A part of a question is joined with what comes later,
which costs at most a copy of the longest question for each piece.
"""

from collections.abc import Iterator

from popgate.protocols.engine import MisuseError, Wait


class QuestionServer:
    """The form of popgate.protocols.engine.Engine; a protocol adds `_read`.

    `questions`: how many were asked. `ended_by`: `quit` (the end of file between two questions),
    `truncated` (in the middle of one), `malformed`, `too-long`, `unknown-request`, `errors`.
    """

    source: Iterator[bytes] | None = None
    has_more = False

    def __init__(self) -> None:
        self.most_lines = 0
        self.ended_by = ""
        self.questions = 0
        self._data = b""
        self._offset = 0  # of the first octet that is not read
        self._scanned = 0  # no end of a question stands before it
        self._output: list[bytes] = []
        self._is_open = False  # an event waits for its answer
        self._is_closing = False
        self._has_eof = False

    def receive(self, data: bytes) -> None:
        if self._is_closing:
            return
        if not data:
            self._has_eof = True
            return
        offset = self._offset
        if offset < len(self._data):
            self._data = self._data[offset:] + data
            self._scanned = max(0, self._scanned - offset)
        else:
            self._data = data
            self._scanned = 0
        self._offset = 0

    def next_event(self) -> object | None:
        if self._is_open or self._is_closing:
            return None
        event = self._read()
        if event is not None:
            self._is_open = True
            self.questions += 1
            return event
        if self._has_eof and not self._is_closing:
            self._end("quit" if self._offset >= len(self._data) else "truncated")
        return None

    def answer(self, wire: bytes) -> None:
        """`wire`: the answer as it is sent, from the protocol's own functions."""
        if not self._is_open:
            raise MisuseError("no question is open")
        self._is_open = False
        if wire:
            self._output.append(wire)

    def take_output(self) -> bytes:
        output = self._output
        if len(output) == 1:
            return output.pop()
        wire = b"".join(output)
        output.clear()
        return wire

    def body(self, block: bytes) -> None:
        raise MisuseError("these protocols have no long replies")

    def body_end(self, *, failed: bool = False) -> None:
        raise MisuseError("these protocols have no long replies")

    def tls_started(self) -> None:
        raise MisuseError("these protocols have no TLS")

    def shut_down(self, reply: object) -> None:
        """Close; a question that is open gets its answer first. There are no last words."""
        self._is_closing = True

    @property
    def waiting_for(self) -> Wait:
        if self._is_open:
            return Wait.DECISION
        return Wait.CLOSE if self._is_closing else Wait.COMMAND

    def _read(self) -> object | None:
        """The next whole question, or None: it is not complete, or `_end` was called."""
        raise NotImplementedError

    def _end(self, reason: str) -> None:
        self.ended_by = self.ended_by or reason
        self._is_closing = True
        self._data, self._offset = b"", 0

    def _take_line(self, most: int) -> bytes | None:
        """The octets before the next LF; None when it has not come. Ends the session where a line has
        more than `most` octets."""
        data, offset = self._data, self._offset
        end = data.find(b"\n", max(self._scanned, offset))
        if end < 0:
            self._scanned = len(data)
            if len(data) - offset > most:
                self._end("too-long")
            return None
        if end - offset > most:
            self._end("too-long")
            return None
        self._offset = end + 1
        return data[offset:end]
