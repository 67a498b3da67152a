"""The three calls of Linux's inotify(7) that tell of names in directories, and nothing of what they were.

asyncinotify makes four objects of each event. Here only the directory matters, and a program that
files ten thousand messages must not hold up everybody's sessions while their names are looked at.
"""

import ctypes
import os
import struct
from typing import Final

_libc = ctypes.CDLL(None, use_errno=True)

_CREATE, _DELETE, _MOVED_FROM, _MOVED_TO, _ONLYDIR = 0x100, 0x200, 0x40, 0x80, 0x01000000
_MASK: Final = _CREATE | _DELETE | _MOVED_FROM | _MOVED_TO | _ONLYDIR
_IGNORED, _OVERFLOW = 0x8000, 0x4000
_EVENT: Final = struct.Struct("@iIII")  # wd, mask, cookie, octets of the name behind it
_READ_OCTETS: Final = 65536


class Inotify:
    """One instance of the kernel's; raises OSError where it gives no more."""

    def __init__(self) -> None:
        # its flags have the values of those of open(2)
        self.fd = _checked(_libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC))

    def add(self, directory: int) -> int:
        """Watch the directory behind a descriptor; the same number for the same directory. Raises
        OSError: ENOSPC where the user has no watches left."""
        path = b"/proc/self/fd/%d" % directory
        return _checked(_libc.inotify_add_watch(self.fd, path, ctypes.c_uint32(_MASK)))

    def remove(self, watch: int) -> None:
        """Watch it no longer; nothing is wrong if it is gone."""
        _libc.inotify_rm_watch(self.fd, watch)

    def read(self) -> tuple[set[int], set[int], bool]:
        """What has happened since the last call: to which watches, which of them have ended because
        their directory is gone, and whether so much that some of it is lost."""
        changed: set[int] = set()
        ended: set[int] = set()
        is_lost = False
        while True:
            try:
                events = os.read(self.fd, _READ_OCTETS)
            except BlockingIOError:
                return changed, ended, is_lost
            offset = 0
            while offset < len(events):
                watch, mask, _, octets = _EVENT.unpack_from(events, offset)
                offset += _EVENT.size + octets
                if mask & _OVERFLOW:
                    is_lost = True
                    continue
                changed.add(watch)
                if mask & _IGNORED:
                    ended.add(watch)

    def close(self) -> None:
        os.close(self.fd)


def _checked(result: int) -> int:
    if result == -1:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result
