"""An open Maildir: the descriptors of its directories, reached without following a link.

Each directory is opened from its parent's descriptor with O_NOFOLLOW, and everything in it
by name from its own descriptor; so whoever swaps a directory for a link meanwhile moves
nothing that popgate reads, writes or removes (the mail root's own parents are the
administrator's).
"""

from popgate.files.disk import DirectoryStamp, Disk, Entry
from popgate.values.identity import Identity

# Users of a site without domains. No domain name has an underscore in it, so no user's
# Maildir can ever be a directory inside another user's.
NO_DOMAIN = "_"

_ANY_READ_BIT = 0o444


class Folder:
    """The Maildir of one user: `home` is a descriptor, and `new`, `cur` and `tmp` are, each opened
    at its first use. A device that polls finds nothing new and needs none of the three."""

    __slots__ = ("_cur", "_disk", "_is_new", "_new", "_tmp", "home")

    def __init__(self, disk: Disk, root: str, identity: Identity, *, settle: bool = False) -> None:
        """Open it, and make what is missing. With `settle` the path to it is on disk for sure,
        even when another process made it a moment ago. Raises OSError."""
        self._disk = disk
        self._is_new = False
        self._tmp = self._new = self._cur = self.home = -1
        above = disk.open_directory(root)
        try:
            domain = self._enter(above, identity.domain or NO_DOMAIN, settle)
            release(disk, above)
            above = domain
            self.home = self._enter(above, identity.user, settle)
            if settle or self._is_new:
                self._new = self._enter(self.home, "new", settle)
                self._cur = self._enter(self.home, "cur", settle)
            if self._is_new:
                _ = self.tmp  # other programs take it for a Maildir only with all three
        except BaseException:
            self.close()
            raise
        finally:
            release(disk, above)

    @property
    def new(self) -> int:
        if self._new < 0:
            self._new = self._enter(self.home, "new", settle=False)
        return self._new

    @property
    def cur(self) -> int:
        if self._cur < 0:
            self._cur = self._enter(self.home, "cur", settle=False)
        return self._cur

    def stamp(self, name: str) -> DirectoryStamp:
        """What a change of `new` or `cur` changes; made where it is missing. Raises OSError for what is
        no directory."""
        try:
            return self._disk.stamp(name, self.home)
        except FileNotFoundError:
            _ = self.new, self.cur, self.tmp
            return self._disk.stamp(name, self.home)

    @property
    def tmp(self) -> int:
        if self._tmp < 0:
            self._tmp = self._enter(self.home, "tmp", settle=False)
        return self._tmp

    def close_parts(self) -> None:
        """Close `new`, `cur` and `tmp`, which the next use opens again."""
        for fd in (self._tmp, self._new, self._cur):
            if fd >= 0:
                release(self._disk, fd)
        self._tmp = self._new = self._cur = -1

    def close(self) -> None:
        """Safe to call twice."""
        self.close_parts()
        if self.home >= 0:
            home, self.home = self.home, -1
            release(self._disk, home)

    def _enter(self, above: int, name: str, settle: bool) -> int:
        disk = self._disk
        try:
            fd = disk.open_directory(name, above)
        except FileNotFoundError:
            try:
                disk.make_directory(name, above)
                self._is_new = True
            except FileExistsError:
                pass  # another process was quicker
            settle = True
            fd = disk.open_directory(name, above)
        if settle:
            try:
                disk.sync_directory(above)
            except BaseException:
                release(disk, fd)
                raise
        return fd


def release(disk: Disk, fd: int) -> None:
    """Close what nothing was written through: a close that fails closes too and loses nothing."""
    try:
        disk.close(fd)
    except OSError:
        pass


def objection_to(entry: Entry, owner: int, own_uid: int) -> str:
    """Why a file in the Maildir of `owner` is no message for popgate, run as `own_uid`; "" if it is one."""
    if entry.kind != "f":
        return "not a regular file"
    if entry.uid != owner:
        # A hard link to somebody else's file shows its owner; one to a file of ours, made
        # by whoever owns the Maildir, shows by its links.
        if entry.uid != own_uid:
            return "it belongs to another user"
        if entry.links > 1:
            return "it is a link to another file"
    if not entry.mode & _ANY_READ_BIT:
        return "no permission to read it"
    return ""
