"""The grant directory as the environment names it, and whose files count in it.

RELAY_CTRL_DIR_FD is a descriptor that relay-ctrl-chdir opened before privileges were
dropped; without it RELAY_CTRL_DIR is opened. The working directory stays as it was: the
original's checker leaves the SMTP server inside the grant directory.

Whose files count. In relay-ctrl's own recipe a login is recorded with the rights of whoever
logged in, so the files of one directory belong to many users, and what keeps everybody else
out is that only the descriptor leads there. Such a *closed* directory (it, or one above it,
cannot be searched by others) counts whoever the owner. Where any user of the machine can
put a file into it (mode 1733, 0777), only files of root, of the directory's owner, of this
process's user and of RELAY_CTRL_UIDS count.
"""

import os

from popgate.commands.chain import Program, reason
from popgate.grants.stores import spool

# O_PATH needs no read permission: 0733 and 0711 are common modes of a grant directory.
_OPEN = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC


class Place:
    """An open grant directory. `was_inherited`: it came as RELAY_CTRL_DIR_FD."""

    __slots__ = ("_uids", "descriptor", "state", "was_inherited")

    def __init__(self, descriptor: int, state: os.stat_result, *, was_inherited: bool) -> None:
        self.descriptor = descriptor
        self.state = state
        self.was_inherited = was_inherited
        self._uids: frozenset[int] | None = None

    def counts(self, uid: int) -> bool:
        """Do files of this user count as grants?"""
        if self._uids is None:
            self._uids = frozenset({0, os.geteuid(), self.state.st_uid, *_listed_uids()})
        return uid in self._uids or spool.is_closed(self.descriptor)

    def allowed(self, name: str) -> frozenset[int]:
        """The owner of the file `name` where they count, as the reader of files wants it."""
        try:
            uid = os.stat(name, dir_fd=self.descriptor, follow_symlinks=False).st_uid
        except OSError:
            return frozenset()
        return frozenset({uid}) if self.counts(uid) else frozenset()


def find_place(program: Program) -> Place | None:
    """The directory that the environment names, or None after a warning."""
    number = os.environ.get("RELAY_CTRL_DIR_FD")
    if number is None:
        return _open_named(program)
    if not number.isascii() or not number.isdigit() or len(number) > 9:
        program.warn("Invalid value for $RELAY_CTRL_DIR_FD")
        return None
    try:
        # Opened again: proves that it is a directory that may be searched, and gives one of our own.
        descriptor = os.open(".", _OPEN, dir_fd=int(number))
        return Place(descriptor, os.fstat(descriptor), was_inherited=True)
    except OSError as error:
        program.warn(f"Could not chdir to FD {number}: {reason(error)}")
        return None


def _open_named(program: Program) -> Place | None:
    path = os.environ.get("RELAY_CTRL_DIR")
    if path is None:
        program.warn("$RELAY_CTRL_DIR is not set.")
        return None
    try:
        descriptor = os.open(path, _OPEN)
        return Place(descriptor, os.fstat(descriptor), was_inherited=False)
    except (OSError, ValueError) as error:
        why = reason(error) if isinstance(error, OSError) else str(error)
        program.warn(f"Could not change directory to '{path}': {why}")
        return None


def close_inherited(program: Program) -> None:
    """Close RELAY_CTRL_DIR_FD and take the variable away, unless the next program is one of relay-ctrl's.

    A program of the user's could write into the directory through it; the original closes it in some
    cases only, and where it does, leaves the variable, so that a second program of its own fails.
    """
    number = os.environ.get("RELAY_CTRL_DIR_FD")
    if number is None or _is_ours(program.arguments):
        return
    if number.isascii() and number.isdigit() and len(number) <= 9 and int(number) > 2:
        try:
            os.close(int(number))
        except OSError:
            return
        del os.environ["RELAY_CTRL_DIR_FD"]


def _is_ours(arguments: list[str]) -> bool:
    return bool(arguments) and arguments[0].rpartition("/")[2].startswith("relay-ctrl-")


def _listed_uids() -> list[int]:
    words = os.environ.get("RELAY_CTRL_UIDS", "").replace(",", " ").split()
    return [int(word) for word in words if word.isascii() and word.isdigit() and len(word) <= 10]
