"""Framing of a multi-line response: RFC 1939 3, "byte-stuffed" lines and the final dot."""


class DotStuffer:
    """Takes a message in blocks cut anywhere and gives what goes on the wire.

    A line begins behind every LF, a lone one too: a client that takes a lone LF for a line
    end must not find our end of message inside somebody's text.
    """

    __slots__ = ("_tail",)

    def __init__(self) -> None:
        self._tail = b"\r\n"  # the last two octets given

    def block(self, block: bytes) -> bytes:
        if not block:
            return b""
        starts_line = self._tail[-1] == 10
        self._tail = block[-2:] if len(block) > 1 else self._tail[-1:] + block
        if b"\n." in block:
            block = block.replace(b"\n.", b"\n..")
        return b"." + block if starts_line and block[0] == 46 else block

    def end(self) -> bytes:
        """The final dot, behind a line end where the message has none."""
        if self._tail == b"\r\n":
            return b".\r\n"
        return b"\n.\r\n" if self._tail[-1] == 13 else b"\r\n.\r\n"
