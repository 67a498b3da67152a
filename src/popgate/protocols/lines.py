"""A bounded input buffer that is consumed by offset and never scans a byte twice."""


class LineTooLong(Exception):
    """More octets than the limit came without a line end."""


class BareLineEnd(Exception):
    """A CR without LF or a LF without CR where a line was to be read."""


class InputBuffer:
    """Bytes from the client. `take_line` gives lines without their CRLF, `take` raw blocks."""

    __slots__ = ("_data", "_offset", "_scanned")

    def __init__(self) -> None:
        self._data: bytes | bytearray = b""
        self._offset = 0  # of the first unconsumed byte
        self._scanned = 0  # no LF stands between there and this offset

    def __len__(self) -> int:
        return len(self._data) - self._offset

    def feed(self, data: bytes) -> None:
        if self._offset == len(self._data):
            self._data = data  # not copied: a client that awaits each answer sends a line at a time
            self._offset = self._scanned = 0
            return
        if type(self._data) is bytes:
            self._data = bytearray(self._data)
        self._data += data

    def take_line(self, limit: int) -> bytes | None:
        """The next line without its CRLF, or None when it is not complete.

        `limit` counts octets with the CRLF. Raises LineTooLong when the line is or will be
        longer (the octets stay in the buffer), BareLineEnd when the line ends in LF alone
        or holds a CR (the line is consumed).
        """
        data, offset = self._data, self._offset
        end = data.find(b"\n", self._scanned, offset + limit)
        if end < 0:
            if len(data) - offset >= limit:
                raise LineTooLong
            self._scanned = len(data)
            return None
        self._offset = self._scanned = end + 1
        if end == offset or data[end - 1] != 13:
            raise BareLineEnd
        line = bytes(data[offset : end - 1])
        if b"\r" in line:
            raise BareLineEnd
        self._compact()
        return line

    def peek(self, most: int) -> bytes:
        """Up to `most` octets, which stay in the buffer."""
        return bytes(self._data[self._offset : self._offset + most])

    def take(self, most: int) -> bytes:
        """Up to `most` octets, b"" when there are none."""
        offset = self._offset
        block = bytes(self._data[offset : offset + most])
        self._offset = self._scanned = offset + len(block)
        self._compact()
        return block

    def clear(self) -> None:
        self._data = b""
        self._offset = self._scanned = 0

    def _compact(self) -> None:
        if self._offset == len(self._data):
            self.clear()
        elif self._offset > 65536:
            self._data = self._data[self._offset :]
            self._scanned -= self._offset
            self._offset = 0
