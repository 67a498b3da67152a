"""relay-ctrl-age: removes from the grant directory what has lapsed, and what never was a grant.

Run by cron. A grant that has lapsed grants nothing, whether or not this has run; only the
directory would grow. Whatever its arguments, it does the same, as the original.
"""

import fcntl
import os
import stat
import time

from popgate.commands.chain import EnvdirError, Program, positive_number
from popgate.grants.stores import spool

FUTURE_SECONDS = 2
STALE_SECONDS = 60
"""Age of a temporary file that nobody will rename any more."""
MAX_AGE_SECONDS = 43200
_LIKE_AN_ADDRESS = frozenset("0123456789abcdefABCDEF.:")


def main(arguments: list[str]) -> None:
    program = Program("relay-ctrl-age", arguments, shows_pid=False)
    try:
        program.take_options()
    except EnvdirError as error:
        program.fail(str(error), 1)
    path = os.environ.get("RELAY_CTRL_DIR")
    if path is None:
        program.fail("$RELAY_CTRL_DIR is not set.", 1)
    try:
        directory = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except (OSError, ValueError):
        program.fail(f"Could not change directory to '{path}'.", 1)
    window = positive_number("RELAY_CTRL_EXPIRY", 900)
    lock = _Lock(directory)
    with os.scandir(directory) as entries:  # a million names are not held at once
        for entry in entries:
            if _is_over(directory, entry.name, window):
                _remove(directory, entry.name, window, lock)
    os._exit(0)


def _is_over(directory: int, name: str, window: int) -> bool:
    try:
        state = os.stat(name, dir_fd=directory, follow_symlinks=False)
    except OSError:
        return False
    now = time.time()
    age = int(now) - int(state.st_mtime)
    if not stat.S_ISREG(state.st_mode):
        # Nothing but a plain file is a grant. A directory goes where it takes an address's place.
        return not stat.S_ISDIR(state.st_mode) or _LIKE_AN_ADDRESS.issuperset(name)
    if spool.is_temporary(name):
        return age > min(window, STALE_SECONDS)
    if state.st_mtime > now + FUTURE_SECONDS:
        # Dated before the clock was set back: it would come to life once more.
        return True
    return age > window and not _goes_on(directory, name, now)


def _goes_on(directory: int, name: str, now: float) -> bool:
    """Does a server of ours still need the file: a longer window, or counts of a quota?"""
    try:
        file = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=directory)
    except OSError:
        return False
    try:
        state = os.fstat(file)
        content = os.read(file, spool.MAX_BYTES + 1)
    except OSError:
        return False
    finally:
        os.close(file)
    if b"POPGATE_VERSION=" not in content:
        return False
    for record in spool.parse(content, state.st_mtime_ns // 1000) or ():
        max_age = MAX_AGE_SECONDS if record.max_age is None else record.max_age
        if record.window is not None and record.renewed / spool.MICRO + record.window >= now:
            return True
        if record.used != (0, 0, 0) and record.since / spool.MICRO + max_age >= now:
            return True
    return False


def _remove(directory: int, name: str, window: int, lock: "_Lock") -> None:
    """Remove it if it is still so under the lock, so that no login of this instant is hit."""
    is_locked = lock.take()
    try:
        if not _is_over(directory, name, window):
            return
        try:
            os.unlink(name, dir_fd=directory)
        except IsADirectoryError:
            os.rmdir(name, dir_fd=directory)
    except OSError:
        pass  # somebody else's, or gone
    finally:
        if is_locked:
            lock.release()


class _Lock:
    """The server's lock. Waits for it once only: who holds it for long must not hold up this run."""

    def __init__(self, directory: int) -> None:
        self._directory = directory
        self._patience = 100

    def take(self) -> bool:
        while True:
            try:
                fcntl.flock(self._directory, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return True
            except OSError:
                if not self._patience:
                    return False
                self._patience -= 1
                time.sleep(0.001)

    def release(self) -> None:
        fcntl.flock(self._directory, fcntl.LOCK_UN)
