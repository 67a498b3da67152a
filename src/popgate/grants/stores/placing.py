"""Puts a file in the place of a grant file, or where there was none.

Somebody who takes no lock (relay-ctrl-allow) may put a file there at the same moment, and theirs is
never lost: an exchange shows what was replaced, and is taken back where that is not what was read.
What was replaced is kept for a while and written again; popgate.grants.stores.spares says why.
"""

import errno
import os
import stat
import time
from typing import Final

from popgate.grants.ownership import Owner
from popgate.grants.stores import spool
from popgate.grants.stores.renaming import EXCHANGE, NO_REPLACE, UNSUPPORTED, rename2_here
from popgate.grants.stores.spares import Spares

_NAMES_AT_MOST: Final = 100


class Placing:
    """For one directory at a time, and under its lock. New files get `file_mode`; `close` removes
    what was kept."""

    def __init__(self, file_mode: int) -> None:
        self._file_mode = file_mode
        self._rename2 = rename2_here()
        self._directory = -1
        self._owner: Owner | None = None
        self._spares = Spares()
        self._replaced: tuple[str, os.stat_result] | None = None  # by the change under way

    def begin(self, directory: int, owner: Owner | None) -> None:
        """From now on in the open `directory`; what root writes is given to `owner`."""
        self._spares.give_up()
        self._directory, self._owner = directory, owner

    def close(self) -> None:
        for name in self._spares.give_up():
            spool.discard(self._directory, name)

    def put(self, name: str, content: bytes, modified_ns: int, before: os.stat_result | None) -> bool:
        """Put `content` in place, dated; False where somebody without a lock was quicker, and theirs
        stays. `before`: what was read there. Call `retire` afterwards. Raises OSError."""
        directory = self._directory
        for _ in range(_NAMES_AT_MOST):
            temporary = self._write_temporary(content, modified_ns)
            try:
                is_placed = self._put_in_place(temporary, name, before)
            except IsADirectoryError:
                # A directory of the name grants nothing, and may not keep a login from granting.
                spool.discard(directory, temporary)
                os.rename(name, temporary, src_dir_fd=directory, dst_dir_fd=directory)
                spool.discard(directory, temporary)
                continue
            except BaseException:
                spool.discard(directory, temporary)
                raise
            if not is_placed:
                spool.discard(directory, temporary)
            return is_placed
        raise FileExistsError(errno.EEXIST, "no free temporary name")

    def retire(self, placed: os.stat_result | None) -> None:
        """Keep what `placed` was exchanged for, where it is a file as we make them."""
        if self._replaced is None:
            return
        temporary, replaced = self._replaced
        self._replaced = None
        if (
            placed is None
            or not spool.is_like(replaced, placed)
            or not self._spares.keep(temporary, replaced, time.monotonic())
        ):
            spool.discard(self._directory, temporary)

    def _write_temporary(self, content: bytes, modified_ns: int) -> str:
        """A file of that content, in a spare one or a new one; its name."""
        directory = self._directory
        while (spare := self._spares.take(time.monotonic())) is not None:
            try:
                if spool.rewrite_temporary(directory, content, modified_ns, *spare):
                    return spare[0]
            except OSError:
                spool.discard(directory, spare[0])
                raise
            # somebody tidied it away, or put something else there, which the sweep will look at
        stamp = time.time()
        owner = self._owner if os.geteuid() == 0 else None
        for _ in range(_NAMES_AT_MOST):
            temporary = spool.temporary_name(stamp)
            try:
                spool.write_temporary(directory, content, modified_ns, temporary, self._file_mode, owner)
                return temporary
            except FileExistsError:
                stamp += 0.000001
        raise FileExistsError(errno.EEXIST, "no free temporary name")

    def _put_in_place(self, temporary: str, name: str, before: os.stat_result | None) -> bool:
        directory = self._directory
        if self._rename2 is not None and (before is None or stat.S_ISREG(before.st_mode)):
            try:
                if before is None:
                    self._rename2(directory, temporary, name, NO_REPLACE)
                    return True
                self._rename2(directory, temporary, name, EXCHANGE)
                replaced = self._state(temporary)
                if replaced is None:
                    return True
                if replaced.st_ino == before.st_ino:
                    self._replaced = temporary, replaced
                    return True
                self._rename2(directory, temporary, name, EXCHANGE)
                return False
            except FileExistsError:
                return False
            except FileNotFoundError:
                pass  # relay-ctrl-check removed what it found expired
            except OSError as error:
                if error.errno not in UNSUPPORTED:
                    raise
                self._rename2 = None
        os.rename(temporary, name, src_dir_fd=directory, dst_dir_fd=directory)
        return True

    def _state(self, name: str) -> os.stat_result | None:
        try:
            return os.stat(name, dir_fd=self._directory, follow_symlinks=False)
        except FileNotFoundError:
            return None
