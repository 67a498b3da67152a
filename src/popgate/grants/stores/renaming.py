"""renameat2: rename by exchange, and rename that replaces nothing.

Two reasons to prefer an exchange to a rename over an existing file. ext4 writes the data of
a file that replaces another out at once (`auto_da_alloc`), which costs 150 us where the
exchange costs 36; a grant needs no such care. And the file that was replaced is still there
afterwards, so that a writer who takes no lock (relay-ctrl-allow) is noticed.

Needs Linux 3.15, and a file system that has it. Not for the commands: ctypes is slow to import.
"""

import ctypes
import errno
import os
from collections.abc import Callable
from typing import Final

NO_REPLACE: Final = 1  # fails with EEXIST where the second name exists
EXCHANGE: Final = 2  # both names exist, and swap their files

Rename2 = Callable[[int, str, str, int], None]
"""`rename2(directory, source, target, flag)`. Raises OSError."""

UNSUPPORTED = frozenset({errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP})
"""What the call says where kernel, file system or sandbox does not have it."""


def rename2_here() -> Rename2 | None:
    """The call, or None where the C library does not have it."""
    try:
        renameat2 = ctypes.CDLL(None, use_errno=True).renameat2
    except (OSError, AttributeError):
        return None
    renameat2.argtypes = [ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_char_p, ctypes.c_uint]

    def rename2(directory: int, source: str, target: str, flag: int) -> None:
        if renameat2(directory, source.encode(), directory, target.encode(), flag):
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number), target)

    return rename2
