"""Writes constant databases (CDB), which Postfix, Exim and tcpserver read.

The reader is popgate.integrations.ucspi.cdb; the format is described there. A record is made once and
stands in each database that is written while it lasts, because to find its number takes the longest.
"""

import struct
from collections.abc import Iterable

from popgate.integrations.ucspi.cdb import hash_of

Record = tuple[int, bytes]
"""The number of a key, and the octets of the record."""

_PAIR = struct.Struct("<II")
_TABLES = 256
_MOST_OCTETS = 0xFFFFFFFF


def record_of(key: bytes, text: bytes) -> Record:
    """The record by which `text` is found under `key`."""
    return hash_of(key), _PAIR.pack(len(key), len(text)) + key + text


def constant_database(records: Iterable[Record]) -> bytes:
    """The database of `records`; of two with one key the first is found. ValueError over 4 GiB."""
    parts = [b""]
    position = _TABLES * _PAIR.size
    entries: list[list[tuple[int, int]]] = [[] for _ in range(_TABLES)]
    for number, octets in records:
        entries[number & 0xFF].append((number, position))
        parts.append(octets)
        position += len(octets)
    header = []
    for some in entries:
        size = 2 * len(some)
        header += [position, size]
        table = [0] * (2 * size)
        for number, place in some:
            at = (number >> 8) % size * 2
            while table[at + 1]:
                at = (at + 2) % (2 * size)
            table[at], table[at + 1] = number, place
        parts.append(struct.pack(f"<{2 * size}I", *table) if position <= _MOST_OCTETS else b"")
        position += 8 * size
    if position > _MOST_OCTETS:
        raise ValueError("too large for a constant database")
    parts[0] = struct.pack(f"<{2 * _TABLES}I", *header)
    return b"".join(parts)
