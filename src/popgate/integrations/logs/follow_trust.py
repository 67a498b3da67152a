"""Who can write a log file? Only what nobody else could have written tells of logins.

A line of a log lets an address relay, so whoever can write the file, or put another in its place,
could grant. Therefore the file, its directory and every directory above it must be writable by root
alone, or by the one owner that the administrator names (Ubuntu's syslog, say). Symbolic links are
followed where only those can make them. Whoever opens checks the descriptor, not the name.
"""

import grp
import os
import pwd
import stat
from collections.abc import Iterator

from popgate.values.value import value

_LINKS_AT_MOST = 20


class NotTrusted(Exception):
    """The file could have been written by somebody else; the text says which part and what to do."""


@value
class Writers:
    """Who may write a log besides root: a user, and groups whose members may too."""

    uids: frozenset[int]
    gids: frozenset[int]

    @classmethod
    def parse(cls, text: str) -> "Writers":
        """`""`, `USER`, `USER:GROUP` or `:GROUP`. A user brings the group that is named like it,
        because some systems let it share directories with root. Raises ValueError."""
        user, _, group = text.partition(":")
        uids, gids = {0}, {0}
        if user:
            try:
                account = pwd.getpwnam(user)
            except KeyError:
                raise ValueError(f"there is no user {user} on this machine") from None
            uids.add(account.pw_uid)
            try:
                own = grp.getgrnam(user)
                gids.add(own.gr_gid)
            except KeyError:
                pass
        if group:
            try:
                gids.add(grp.getgrnam(group).gr_gid)
            except KeyError:
                raise ValueError(f"there is no group {group} on this machine") from None
        return cls(frozenset(uids), frozenset(gids))

    def check_file(self, state: os.stat_result, path: str) -> None:
        """Raises NotTrusted."""
        if not stat.S_ISREG(state.st_mode):
            raise NotTrusted(f"{path} is no regular file")
        if state.st_uid not in self.uids:
            raise NotTrusted(
                f"{path} belongs to {_user(state.st_uid)}, who could write a login into it;"
                f" chown root {path}, or set owner to whoever alone writes it"
            )
        # the group's bits are also the mask of an access control list
        if state.st_mode & 0o020 and state.st_gid not in self.gids:
            raise NotTrusted(
                f"{path} can be written by the group {_group(state.st_gid)} or by its access control list;"
                f" chmod g-w {path}"
            )
        if state.st_mode & 0o002:
            raise NotTrusted(f"{path} can be written by everybody; chmod o-w {path}")

    def check_directory(self, state: os.stat_result, path: str, *, is_above: bool) -> None:
        """May names in this directory be believed? `is_above`: it holds a directory, which belongs to
        somebody trusted, so that a sticky bit keeps it there. Raises NotTrusted."""
        if state.st_uid not in self.uids:
            raise NotTrusted(
                f"{path} belongs to {_user(state.st_uid)}, who could put a file of his own there;"
                f" chown root {path}"
            )
        if is_above and state.st_mode & stat.S_ISVTX:
            return
        if state.st_mode & 0o002:
            raise NotTrusted(
                f"everybody can make files in {path}; keep the log in a directory that root alone can write"
            )
        if state.st_mode & 0o020 and state.st_gid not in self.gids:
            raise NotTrusted(f"the group {_group(state.st_gid)} can make files in {path}; chmod g-w {path}")


def open_trusted(path: str, writers: Writers) -> int:
    """Open the log at `path` for reading. Raises NotTrusted, FileNotFoundError or another OSError."""
    file = os.open(
        _walk(path, writers), os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY
    )
    try:
        writers.check_file(os.fstat(file), path)
    except BaseException:
        os.close(file)
        raise
    return file


def _walk(path: str, writers: Writers) -> str:
    """`path` without symbolic links, when nobody else could have changed any part of it."""
    here, links = "/", 0
    rest = list(_parts(path))
    while rest:
        name = rest.pop(0)
        if name == "..":
            here = os.path.dirname(here)
            continue
        there = os.path.join(here, name)
        state = os.lstat(there)
        if stat.S_ISLNK(state.st_mode):
            links += 1
            if links > _LINKS_AT_MOST:
                raise NotTrusted(f"{path}: too many symbolic links")
            writers.check_directory(os.lstat(here), here, is_above=False)
            target = os.readlink(there)
            rest = [*_parts(target), *rest]
            if target.startswith("/"):
                here = "/"
            continue
        writers.check_directory(
            os.lstat(here), here, is_above=stat.S_ISDIR(state.st_mode) and state.st_uid in writers.uids
        )
        if rest and not stat.S_ISDIR(state.st_mode):
            raise NotADirectoryError(20, "Not a directory", there)
        here = there
    return here


def _parts(path: str) -> Iterator[str]:
    return (part for part in path.split("/") if part not in ("", "."))


def _user(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"user {uid}"


def _group(gid: int) -> str:
    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return str(gid)
