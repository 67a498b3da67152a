"""Looks keys up in a constant database (CDB), the format in which tcprules writes its rules.

A header of 256 pairs (position, slots) of hash tables, the records, the tables; numbers
are 32 bits, little-endian. All of it is taken from a file that may be cut or wrong, so
every position is checked against the end before it is used.
"""

import struct

_HEADER_OCTETS = 2048
_PAIR = struct.Struct("<II")


class CdbError(Exception):
    """Not a constant database, or one that was cut off."""


class Cdb:
    """The database whose whole file is `octets`. Raises CdbError where there is no header."""

    __slots__ = ("_octets",)

    def __init__(self, octets: bytes) -> None:
        if len(octets) < _HEADER_OCTETS:
            raise CdbError("too short for a constant database")
        self._octets = octets

    def find(self, key: bytes) -> bytes | None:
        """The first record of `key`. Raises CdbError for a position outside the file."""
        octets = self._octets
        number = hash_of(key)
        table, slots = _PAIR.unpack_from(octets, (number & 0xFF) * 8)
        if not slots:
            return None
        if table + slots * 8 > len(octets):
            raise CdbError("a table lies outside the file")
        slot = (number >> 8) % slots
        for _ in range(slots):
            found, position = _PAIR.unpack_from(octets, table + slot * 8)
            if not position:
                return None
            if found == number:
                record = self._record(position, key)
                if record is not None:
                    return record
            slot = slot + 1 if slot + 1 < slots else 0
        return None

    def _record(self, position: int, key: bytes) -> bytes | None:
        octets = self._octets
        if position + 8 > len(octets):
            raise CdbError("a record lies outside the file")
        key_octets, data_octets = _PAIR.unpack_from(octets, position)
        data = position + 8 + key_octets
        if data + data_octets > len(octets):
            raise CdbError("a record lies outside the file")
        if octets[position + 8 : data] != key:
            return None
        return octets[data : data + data_octets]


def hash_of(key: bytes) -> int:
    """The number by which a key is found."""
    number = 5381
    for octet in key:
        number = ((number << 5) + number ^ octet) & 0xFFFFFFFF
    return number
