"""Which folders a user is subscribed to: the file `subscriptions`, as Dovecot keeps it in a Maildir++.

A line is a name in modified UTF-7. In files that begin with `V<tab>2` and an empty line its levels are
apart by tabs, in older ones by full stops. Lines that name no folder here stay as they are.
"""

from collections.abc import Callable
from typing import Final

from popgate.files.disk import Disk
from popgate.mailbox.backends.maildir_folder import release
from popgate.mailbox.folder_names import decoded, encoded, folder_name
from popgate.mailbox.folders import BadFolderName
from popgate.mailbox.mailbox import MailboxError

FILE: Final = "subscriptions"
_HEADER: Final = ["V\t2", ""]
_MAX_FILE: Final = 1 << 20


class Subscriptions:
    """The file in the directory `home`."""

    def __init__(self, disk: Disk, home: int) -> None:
        """Raises OSError."""
        self._disk = disk
        self._home = home
        text = _read(disk, home)
        lines = text.split("\n")
        self._separator = "\t" if text == "" or lines[:2] == _HEADER else "."
        self._lines = [line for line in (lines[2:] if lines[:2] == _HEADER else lines) if line]

    def names(self) -> set[str]:
        return {name for name in map(self._name, self._lines) if name is not None}

    def _name(self, line: str) -> str | None:
        try:
            name = decoded(line.replace("/", "\t").replace(self._separator, "/"))
            return name if folder_name(name) == name else None
        except (BadFolderName, ValueError):
            return None

    def change(self, name: str, subscribed: bool, token: Callable[[], str]) -> None:
        """On disk when it returns. Raises OSError, MailboxError."""
        is_there = name in self.names()
        if is_there == subscribed:
            return
        lines = [line for line in self._lines if self._name(line) != name]
        if subscribed:
            lines.append(encoded(name).replace("/", self._separator))
        if self._separator == "\t":
            lines = [*_HEADER, *lines]
        data = ("\n".join(lines) + "\n").encode("utf-8", "surrogateescape")
        if len(data) > _MAX_FILE:
            raise MailboxError("there are too many subscriptions")
        replace_file(self._disk, self._home, FILE, data, token)


def _read(disk: Disk, home: int) -> str:
    try:
        fd = disk.open_file(FILE, home)
    except FileNotFoundError:
        return ""
    blocks = []
    octets = 0
    try:
        while octets <= _MAX_FILE and (block := disk.read(fd, 65536)):
            blocks.append(block)
            octets += len(block)
    finally:
        release(disk, fd)
    return b"".join(blocks)[:_MAX_FILE].decode("utf-8", "surrogateescape")


def replace_file(disk: Disk, home: int, name: str, data: bytes, token: Callable[[], str]) -> None:
    """Put a whole file in the place of another one, or of none. Raises OSError."""
    coming = f"{name}.{token()}"
    fd = disk.create(coming, home)
    try:
        try:
            disk.write(fd, data)
            disk.sync(fd)
        finally:
            disk.close(fd)
        disk.rename(coming, home, name, home)
    except BaseException:
        try:
            disk.unlink(coming, home)
        except OSError:
            pass
        raise
    disk.sync_directory(home)
