"""Reads log files as blocks of whole lines, also compressed ones.

A line without its end is never given: what follows may change its meaning, and an address
cut short is another address. A line too long to tell of a login is left out, however long it is.
"""

import bz2
import gzip
import importlib
import io
import lzma
import os
import zlib
from collections.abc import Callable, Iterator
from typing import IO, cast

from popgate.integrations.logs.syntaxes import MAX_LINE

BLOCK = 1 << 20
_HELD_AT_MOST = 16 * MAX_LINE


class LogFileError(Exception):
    """A file that cannot be read; the text says why."""


def blocks(source: IO[bytes], read_on: Callable[[int], None] = lambda octets: None) -> Iterator[bytes]:
    """Whole lines of `source`, about BLOCK octets at a time; `read_on` hears how many octets of the file
    itself, compressed or not, have been read so far. Raises LogFileError."""
    plain = _decompressed(source)
    held = b""
    is_cut = False  # in the middle of a line that is too long
    while True:
        try:
            data = plain.read(BLOCK)
        except (OSError, EOFError, lzma.LZMAError, zlib.error, ValueError) as error:
            raise LogFileError(str(error) or "cannot be read") from None
        if not data:
            return
        end = data.rfind(b"\n") + 1
        if not end:
            held += data
            if len(held) > _HELD_AT_MOST:
                held, is_cut = b"", True
            continue
        block = held + data[:end]
        if is_cut:
            block, is_cut = block[block.index(b"\n") + 1 :], False
        held = data[end:]
        read_on(_place(source))
        if block:
            yield block


def _place(source: IO[bytes]) -> int:
    try:
        return source.tell()
    except OSError:  # a pipe
        return 0


def _decompressed(source: IO[bytes]) -> IO[bytes]:
    """By how the file begins, because rotated logs have all kinds of names."""
    buffered = (
        source if isinstance(source, io.BufferedReader) else io.BufferedReader(cast("io.RawIOBase", source))
    )
    begins = buffered.peek(6)[:6]
    found: object = buffered
    if begins.startswith(b"\x1f\x8b"):
        found = gzip.GzipFile(fileobj=buffered)
    elif begins.startswith(b"BZh"):
        found = bz2.BZ2File(buffered)
    elif begins.startswith(b"\xfd7zXZ\0"):
        found = lzma.LZMAFile(buffered)  # noqa: SIM115
    elif begins.startswith(b"\x28\xb5\x2f\xfd"):
        found = _zstandard(buffered)
    return cast("IO[bytes]", found)


def _zstandard(source: IO[bytes]) -> IO[bytes]:
    try:
        zstandard = importlib.import_module("zstandard")
    except ImportError:
        raise LogFileError(
            "is compressed by zstd: install the Python package zstandard, or give zstdcat's output"
        ) from None
    reader: IO[bytes] = zstandard.ZstdDecompressor().stream_reader(source, read_across_frames=True)
    return reader


def open_log(path: str) -> IO[bytes]:
    """Raises OSError, and LogFileError for what is no file."""
    if os.path.isdir(path):
        raise LogFileError("is a directory")
    return open(path, "rb")
