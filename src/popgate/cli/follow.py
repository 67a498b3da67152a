"""Follows a file of lines that others append to, as `tail -F` does."""

import os
import time
from collections.abc import Callable, Iterator

_LONGEST_LINE = 1 << 20


def follow(path: str, sleep: Callable[[float], None] = time.sleep) -> Iterator[bytes]:
    """Every line that is appended to `path` after this call, without its line end.

    A file that is not there yet is waited for; one that is renamed away and made anew is read
    to its end first. `sleep` is called while nothing happens.
    """
    file = _open(path)
    if file >= 0:
        os.lseek(file, 0, os.SEEK_END)
    return _lines(path, file, sleep)


def _lines(path: str, file: int, sleep: Callable[[float], None]) -> Iterator[bytes]:
    rest = b""
    while True:
        block = os.read(file, 65536) if file >= 0 else b""
        if block:
            *lines, rest = (rest + block).split(b"\n")
            yield from lines
            if len(rest) > _LONGEST_LINE:
                rest = b""
        elif file < 0 or _is_replaced(path, file):
            # a last look: something may have been written between the read and the renaming
            if file >= 0:
                *lines, rest = (rest + os.read(file, 1 << 24)).split(b"\n")
                yield from lines
            newer = _open(path)
            if newer >= 0:
                if file >= 0:
                    os.close(file)
                file, rest = newer, b""
            else:
                sleep(0.25)
        else:
            sleep(0.25)


def _open(path: str) -> int:
    try:
        return os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return -1


def _is_replaced(path: str, file: int) -> bool:
    try:
        return os.stat(path).st_ino != os.fstat(file).st_ino
    except FileNotFoundError:
        return True
