"""COMPRESS=DEFLATE (RFC 4978): raw DEFLATE streams both ways, within bounds of memory.

What comes is unpacked a piece at a time and only when somebody has use for it, so that a few
octets which stand for gigabytes cost turns, not memory. It knows nothing of what is in it.
"""

import zlib

PIECE = 65536
"""The most octets that one step unpacks."""

_WINDOW = -13  # 8 KiB of history, 64 KiB of memory in all; any DEFLATE reader takes a smaller window
_MEMORY = 6


class BrokenStream(Exception):
    """The client's octets are no DEFLATE stream, or it has ended the stream."""


class Compression:
    """Both directions of one connection."""

    __slots__ = ("_deflater", "_inflater", "_is_full", "_packed")

    def __init__(self) -> None:
        self._inflater = zlib.decompressobj(-15)
        self._deflater: zlib._Compress | None = None
        self._packed = b""
        self._is_full = False  # the last step gave as much as it may, so there may be more

    @property
    def has_more(self) -> bool:
        """Whether `unpack` may give something."""
        return self._is_full or bool(self._packed)

    def receive(self, packed: bytes) -> None:
        self._packed = self._packed + packed if self._packed else packed

    def unpack(self) -> bytes:
        """The next octets of the client, PIECE at most. Raises BrokenStream."""
        try:
            octets = self._inflater.decompress(self._packed, PIECE)
        except zlib.error as error:
            raise BrokenStream from error
        self._packed = self._inflater.unconsumed_tail
        self._is_full = len(octets) == PIECE
        if self._inflater.eof:
            raise BrokenStream
        return octets

    def pack(self, octets: bytes) -> bytes:
        """`octets` in a form that the client can unpack without waiting for more."""
        if self._deflater is None:
            self._deflater = zlib.compressobj(zlib.Z_DEFAULT_COMPRESSION, zlib.DEFLATED, _WINDOW, _MEMORY)
        return self._deflater.compress(octets) + self._deflater.flush(zlib.Z_SYNC_FLUSH)

    def rest(self) -> None:
        """Nothing will be sent for a while: give back the memory for packing. A flushed stream goes on
        with any blocks that refer to nothing before them, so the next `pack` just begins anew."""
        self._deflater = None

    def forget(self) -> None:
        """Drop what has come and is not unpacked."""
        self._packed = b""
        self._is_full = False
