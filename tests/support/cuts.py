"""The three ways in which a dialogue's octets reach an engine: whole, octet by octet, and cut at random."""

import random
from collections.abc import Callable, Iterator

Cut = Callable[[bytes], Iterator[bytes]]


def whole(data: bytes) -> Iterator[bytes]:
    if data:
        yield data


def byte_by_byte(data: bytes) -> Iterator[bytes]:
    for index in range(len(data)):
        yield data[index : index + 1]


def random_cuts(data: bytes) -> Iterator[bytes]:
    while data:
        length = random.randint(1, 60)
        yield data[:length]
        data = data[length:]


CUTS: tuple[Cut, ...] = (whole, byte_by_byte, random_cuts)
