"""One user's Maildir as a POP3 maildrop: listed once, locked until closed.

Other programs deliver to, read and tidy the same directories meanwhile, and whoever may
write there may put anything there. So every file is checked when it is opened, found again
by its base name when it has moved, and skipped with an event when it cannot be used.
"""

import errno
from collections.abc import Callable, Iterable, Iterator, Sequence

from popgate.files.disk import Disk, Entry
from popgate.mailbox.backends.maildir_folder import objection_to, release
from popgate.mailbox.backends.maildir_kept import NO_DESCRIPTORS, KeptFolders, LockedFolder
from popgate.mailbox.backends.maildir_names import arrival_of, seen_name, sizes_of, split_name, uid_of
from popgate.mailbox.line_ends import READ_BLOCK, measure, to_wire, top
from popgate.mailbox.mailbox import MailboxError, Message

MAX_REMEMBERED_SIZES = 50_000

Skip = Callable[[str, str], None]  # the file's name, the reason
SizeMemory = dict[tuple[int, int, float, int], int]  # inode, size, mtime, owner -> octets with CRLF


class _File:
    """One message: where it lay when last seen; `twins` are other files with the same base."""

    __slots__ = ("base", "entry", "in_new", "name", "twins")

    def __init__(self, base: str, name: str, in_new: bool, entry: Entry) -> None:
        self.base = base
        self.name = name
        self.in_new = in_new
        self.entry = entry
        self.twins: list[tuple[str, bool, Entry]] = []


Listing = tuple[list[_File], Sequence[Message]]


class MaildirMaildrop:
    """`popgate.mailbox.mailbox.Maildrop` on an open and locked Maildir."""

    __slots__ = ("_disk", "_files", "_folder", "_folders", "_own_uid", "_owner", "_places", "messages")

    def __init__(
        self,
        disk: Disk,
        folders: KeptFolders,
        folder: LockedFolder,
        own_uid: int,
        listing: "Listing" = ([], ()),
    ) -> None:
        """`folder`, of `folders`, is given back by `close`. `listing`: one of an earlier session that
        still holds; without one `look` comes next."""
        self._disk = disk
        self._folders = folders
        self._folder: LockedFolder | None = folder
        self._own_uid = own_uid
        self._owner: int | None = None  # of the Maildir; a session that only asks for STAT needs it not
        self._places: dict[str, tuple[str, bool]] | None = None
        self._files, self.messages = listing

    @property
    def listing(self) -> "Listing":
        """For a later session. Where files lay when last seen moves with this one."""
        return self._files, self.messages

    # The list

    def look(self, known: SizeMemory, skip: Skip) -> None:
        """List the messages; `known` spares reading a file for its size again in a later session.
        Raises OSError."""
        folder = self._open_folder()
        found: dict[str, _File] = {}
        # new before cur: a file that moves meanwhile is seen twice rather than not at all
        for in_new, fd in ((True, folder.new), (False, folder.cur)):
            for name, entry in self._disk.entries(fd):
                if name[0] == ".":
                    continue
                reason = self._objection(entry)
                if reason:
                    skip(name, reason)
                    continue
                base = split_name(name)[0]
                there = found.get(base)
                if there is None:
                    found[base] = _File(base, name, in_new, entry)
                else:
                    there.twins.append((name, in_new, entry))
        files, messages = [], []
        for file in sorted(found.values(), key=_arrival):
            octets = self._octets(file, known, skip)
            if octets is not None:
                files.append(file)
                messages.append(Message(uid_of(file.base), octets))
        self._files, self.messages = files, messages

    def _objection(self, entry: Entry) -> str:
        if self._owner is None:
            self._owner = self._disk.entry_of(self._open_folder().home).uid
        return objection_to(entry, self._owner, self._own_uid)

    def _octets(self, file: _File, known: SizeMemory, skip: Skip) -> int | None:
        size = file.entry.size
        stored, wire = sizes_of(file.base)
        # The name's claim spares reading the file; one that cannot be true is not believed
        if wire is not None and (stored is None or stored == size) and size <= wire <= 2 * size + 2:
            return wire
        entry = file.entry
        key = (entry.inode, size, entry.mtime, entry.uid)
        octets = known.get(key)
        if octets is None:
            try:
                octets = self._measured(file)
            except FileNotFoundError:
                return None  # another program removed it meanwhile
            except OSError as error:
                if error.errno in NO_DESCRIPTORS:
                    raise  # the message has no part in it
                skip(file.name, error.strerror or "it cannot be read")
                return None
            if len(known) >= MAX_REMEMBERED_SIZES:
                known.clear()
            known[key] = octets
        return octets

    def _measured(self, file: _File) -> int:
        fd = self._open(file)
        try:
            return measure(self._stored_blocks(fd))
        finally:
            release(self._disk, fd)

    # One message

    def read(self, index: int, body_lines: int | None = None) -> Iterator[bytes]:
        self._places = None
        file = self._files[index]
        try:
            try:
                fd = self._open(file)
            except OSError as error:
                if not self._folders.makes_room_for(error):
                    raise
                fd = self._open(file)
        except OSError as error:
            raise MailboxError(f"{file.name!a} cannot be read: {error.strerror}") from error
        blocks = self._wire_blocks(file, fd, body_lines)
        next(blocks)  # from here on the generator closes the file, even when nobody asks for more
        return blocks

    def _wire_blocks(self, file: _File, fd: int, body_lines: int | None) -> Iterator[bytes]:
        try:
            yield b""
            blocks = to_wire(self._stored_blocks(fd))
            yield from blocks if body_lines is None else top(blocks, body_lines)
        except OSError as error:
            raise MailboxError(f"{file.name!a} cannot be read: {error.strerror}") from error
        finally:
            release(self._disk, fd)

    def _stored_blocks(self, fd: int) -> Iterator[bytes]:
        while block := self._disk.read(fd, READ_BLOCK):
            yield block

    def _open(self, file: _File) -> int:
        fd = self._find(file, self._disk.open_file)
        try:
            reason = self._objection(self._disk.entry_of(fd))
            if reason:
                raise PermissionError(errno.EPERM, reason)
        except BaseException:
            release(self._disk, fd)
            raise
        return fd

    def _find(self, file: _File, act: Callable[[str, int], int]) -> int:
        """Do something to the file where it was last seen, or else where it is by now."""
        try:
            return act(file.name, self._directory(file))
        except FileNotFoundError:
            # One look around serves all messages of an operation: thousands may be gone
            if self._places is None:
                self._places = self._look_around()
            if file.base not in self._places:
                raise
        file.name, file.in_new = self._places[file.base]
        return act(file.name, self._directory(file))

    def _directory(self, file: _File) -> int:
        folder = self._open_folder()
        return folder.new if file.in_new else folder.cur

    def _open_folder(self) -> LockedFolder:
        if self._folder is None:
            raise MailboxError("the maildrop was closed")
        return self._folder

    def _look_around(self) -> dict[str, tuple[str, bool]]:
        folder = self._open_folder()
        return {
            split_name(name)[0]: (name, in_new)
            for in_new, fd in ((True, folder.new), (False, folder.cur))
            for name in self._disk.names(fd)
            if name[0] != "."
        }

    # The end of the session

    def remove(self, indexes: Iterable[int]) -> Sequence[int]:
        folder = self._open_folder()
        failed = []
        removed = []
        self._places = None
        for index in indexes:
            try:
                self._remove(folder, self._files[index])
                removed.append(index)
            except OSError:
                failed.append(index)
        if removed:
            try:
                self._disk.sync_directory(folder.new)
                self._disk.sync_directory(folder.cur)
            except OSError:
                failed += removed  # they may come back after a crash
        return sorted(failed)

    def _remove(self, folder: LockedFolder, file: _File) -> None:
        self._find(file, self._unlink)
        for name, in_new, entry in file.twins:
            # A second link to the same file would bring the message back. Another message
            # under the same name is left, and listed next time.
            if entry.inode == file.entry.inode:
                try:
                    self._disk.unlink(name, folder.new if in_new else folder.cur)
                except FileNotFoundError:
                    pass

    def _unlink(self, name: str, fd: int) -> int:
        self._disk.unlink(name, fd)
        return 0

    def mark_seen(self, indexes: Iterable[int]) -> None:
        folder = self._open_folder()
        for index in indexes:
            file = self._files[index]
            name = seen_name(file.name)
            if file.twins or (name == file.name and not file.in_new):
                continue  # renaming onto a twin would delete it
            try:
                self._disk.rename(file.name, self._directory(file), name, folder.cur)
            except OSError:
                continue
            file.name, file.in_new = name, False

    def close(self) -> None:
        folder, self._folder = self._folder, None
        if folder is not None:
            self._folders.give_back(folder)


def _arrival(file: _File) -> tuple[int, str]:
    return arrival_of(file.base), file.base
