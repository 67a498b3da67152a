"""One folder of a Maildir++, open for a session.

It holds the folder's number in the index and nothing else; what is remembered of the folder is its
user's (`Home`), whoever has it open. Every change is made to the files first and on disk for sure, then
to the index: a crash between the two leaves what another program could have done, and the next look
takes it in.
"""

import errno
import sqlite3
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import Final, TypeVar

from popgate.mailbox.backends.maildir_folder import release
from popgate.mailbox.backends.maildir_folders import folder_row
from popgate.mailbox.backends.maildir_home import Home
from popgate.mailbox.backends.maildir_letters import (
    add_keywords,
    keywords_stamp,
    letters_for,
    name_with,
)
from popgate.mailbox.backends.maildir_rows import (
    FolderRow,
    Message,
    add_messages,
    as_column,
    changed_since,
    forget_messages,
    from_column,
    has_base,
    message_of,
    messages_of,
    place_message,
)
from popgate.mailbox.backends.maildir_work import (
    Elsewhere,
    Work,
    copy_content,
    find,
    look,
    open_message,
    wire_blocks,
    withdraw,
    write,
)
from popgate.mailbox.content import parsed_of, root_from_octets, root_to_octets
from popgate.mailbox.folders import (
    Changes,
    FolderState,
    MessageGone,
    MessageRow,
    Parsed,
    Placed,
    Stored,
)
from popgate.mailbox.mailbox import MailboxError
from popgate.mailbox.message_flags import Operation

_T = TypeVar("_T")
_PARSED_AT_ONCE: Final = 100
NO_LINK: Final = frozenset((errno.EXDEV, errno.EPERM, errno.EMLINK, errno.ENOTSUP, errno.EACCES))


class MaildirFolder:
    """`popgate.mailbox.folders.Folder` on a directory."""

    __slots__ = ("_ends", "_home", "_number", "_uid_validity", "name")

    def __init__(self, home: Home, row: FolderRow) -> None:
        self._home = home
        self._number = row.id
        self._uid_validity = row.uid_validity
        self._ends: list[Callable[[], None]] = []
        self.name = row.name

    # Looking

    def refresh(self) -> FolderState:
        return self._home.perform(self._look).state()

    def _look(self, connection: sqlite3.Connection) -> FolderRow:
        return look(self._home, connection, self._number, self._uid_validity)

    def uids(self) -> Sequence[int]:
        known = self._home.what_is_known(self._uid_validity)
        if known.uids_key[0] != self._uid_validity:
            self.refresh()
        return known.uids

    def claim_recent(self) -> int:
        def claim(work: Work) -> int:
            row = work.row
            first = row.recent_from
            if first != row.uid_next:
                row.recent_from = row.uid_next
                work.save()
            return first

        return self._home.perform(lambda connection: self._write(connection, claim))

    def changes(self, since_modseq: int) -> Changes:
        def read(connection: sqlite3.Connection) -> Changes:
            row = self._look(connection)
            known = self._home.what_is_known(self._uid_validity)
            changed = (
                changed_since(connection, self._number, since_modseq) if row.modseq > since_modseq else []
            )
            if since_modseq < row.vanished_floor:
                gone: Sequence[int] = _missing(known.uids, row.uid_next)
            else:
                found = connection.execute(
                    "SELECT uid FROM vanished WHERE folder = ? AND modseq > ?", (self._number, since_modseq)
                )
                gone = sorted(uid for (uid,) in found)
            return Changes(row.state(), [self._row(each) for each in changed], gone)

        return self._home.perform(read)

    def rows(self, uids: Iterable[int] | None = None) -> Iterator[MessageRow]:
        wanted = None if uids is None else uids if isinstance(uids, range) else sorted(set(uids))
        messages = self._home.perform(lambda connection: self._messages(connection, wanted))
        return map(self._row, messages)

    def _messages(self, connection: sqlite3.Connection, uids: Iterable[int] | None) -> list[Message]:
        find(connection, self._number, self._uid_validity)
        return list(messages_of(connection, self._number, uids))

    def _row(self, message: Message) -> MessageRow:
        flags = self._home.what_is_known(self._uid_validity).flags(message.letters)
        return MessageRow(
            message.uid, flags, message.modseq, message.octets, message.received, message.email_id, ""
        )

    # Content

    def parsed(self, uids: Iterable[int]) -> Iterator[tuple[int, Parsed]]:
        wanted = sorted(set(uids))
        for at in range(0, len(wanted), _PARSED_AT_ONCE):
            yield from self._parsed(wanted[at : at + _PARSED_AT_ONCE])

    def _parsed(self, uids: list[int]) -> Iterator[tuple[int, Parsed]]:
        found = self._home.perform(lambda connection: self._kept(connection, uids))
        made: dict[int, Parsed] = {}
        for uid in uids:
            if uid not in found:
                try:
                    made[uid] = parsed_of(partial(self.read, uid))
                except MessageGone:
                    continue
        if made:
            self._home.perform(lambda connection: self._keep(connection, made))
            found |= made
        for uid in uids:
            if uid in found:
                yield uid, found[uid]

    def _kept(self, connection: sqlite3.Connection, uids: list[int]) -> dict[int, Parsed]:
        find(connection, self._number, self._uid_validity)
        marks = ", ".join("?" * len(uids))
        found = connection.execute(
            f"SELECT uid, header, structure, preview FROM content WHERE folder = ? AND uid IN ({marks})",  # noqa: S608 - our column names
            (self._number, *uids),
        ).fetchall()
        kept = {}
        for uid, header, structure, preview in found:
            try:
                kept[uid] = Parsed(header, root_from_octets(structure), preview)
            except (ValueError, TypeError, IndexError):
                continue  # an older popgate wrote it otherwise
        return kept

    def _keep(self, connection: sqlite3.Connection, made: dict[int, Parsed]) -> None:
        # What is kept was read from a file that never changes; that the message is still there decides
        connection.executemany(
            "INSERT OR REPLACE INTO content SELECT folder, uid, ?, ?, ? FROM messages"
            " WHERE folder = ? AND uid = ?",
            [
                (each.header, root_to_octets(each.root), each.preview, self._number, uid)
                for uid, each in made.items()
            ],
        )

    def read(self, uid: int, start: int = 0, octets: int | None = None) -> Iterator[bytes]:
        blocks = self._home.perform(lambda connection: self._blocks(connection, uid, start, octets))
        next(blocks)  # from here on the generator closes the file, even when nobody asks for more
        return blocks

    def _blocks(
        self, connection: sqlite3.Connection, uid: int, start: int, octets: int | None
    ) -> Iterator[bytes]:
        home = self._home
        for _ in range(3):
            row = find(connection, self._number, self._uid_validity)
            message = message_of(connection, self._number, uid)
            if message is None:
                break
            with home.directory(row.name) as maildir:
                try:
                    fd = open_message(home.site.disk, maildir, message, home.site.own_uid)
                    return wire_blocks(home.site.disk, fd, message.name, start, octets)
                except FileNotFoundError:
                    pass
            self._write(connection, lambda work: None, force=True)
        raise MessageGone(f"message {uid} is gone")

    # Flags

    def store(
        self,
        uids: Iterable[int],
        operation: Operation,
        flags: frozenset[str],
        unchanged_since: int | None = None,
    ) -> Stored:
        wanted = sorted(set(uids))
        return self._home.perform(
            lambda connection: self._write(
                connection, lambda work: self._store(work, wanted, operation, flags, unchanged_since)
            )
        )

    def _store(
        self,
        work: Work,
        wanted: list[int],
        operation: Operation,
        flags: frozenset[str],
        unchanged_since: int | None,
    ) -> Stored:
        messages = list(messages_of(work.connection, self._number, wanted))
        letters = frozenset(letters_given(work, flags, operation != "remove" and bool(messages)))
        modseq = work.row.modseq + 1
        rows: list[MessageRow] = []
        modified: list[int] = []
        directories: set[int] = set()
        for message in messages:
            if unchanged_since is not None and message.modseq > unchanged_since:
                modified.append(message.uid)
                continue
            after = self._changed(work, message, operation, letters, modseq, directories)
            rows.append(self._row(after))
        for directory in directories:
            work.disk.sync_directory(directory)
        if directories:
            work.row.modseq = modseq
            work.save()
        there = {message.uid for message in messages}
        return Stored(rows, modified, [uid for uid in wanted if uid not in there])

    def _changed(
        self,
        work: Work,
        message: Message,
        operation: Operation,
        letters: frozenset[str],
        modseq: int,
        directories: set[int],
    ) -> Message:
        before = frozenset(message.letters)
        chosen = before | letters if operation == "add" else before - letters
        if operation == "replace":
            chosen = letters
        if chosen == before:
            return message
        after = "".join(sorted(chosen))
        name = name_with(message.name, after)
        if name == message.name and not message.in_new:
            return message  # it is of a form that can have no flags
        if _has_twin(work, message):
            return message  # renaming onto it would delete it
        rename(work, message, name)
        directories.add(work.maildir.cur)
        if message.in_new:
            directories.add(work.maildir.new)
        changed = message._replace(name=name, in_new=0, letters=after, modseq=modseq)
        place_message(work.connection, self._number, changed)
        work.row.count(message.letters, message.octets, message.disk_octets, -1)
        work.row.count(after, message.octets, message.disk_octets)
        return changed

    # Going

    def expunge(self, uids: Iterable[int] | None = None) -> Sequence[int]:
        wanted = None if uids is None else sorted(set(uids))
        removed: set[int] = set()  # also by an attempt that then had to begin anew
        return self._home.perform(
            lambda connection: self._write(connection, lambda work: self._expunge(work, wanted, removed))
        )

    def _expunge(self, work: Work, wanted: list[int] | None, removed: set[int]) -> list[int]:
        if work.row.deleted:
            everything = messages_of(work.connection, self._number, wanted)
            gone = [message for message in everything if "T" in message.letters]
            directories = set()
            for message in gone:
                directories.add(work.directory(message.in_new))
                remove_file(work, message)
                removed.add(message.uid)
            self._are_gone(work, gone, directories)
        return sorted(removed)

    def _are_gone(self, work: Work, gone: list[Message], directories: set[int]) -> None:
        if not gone:
            return
        for directory in directories:
            work.disk.sync_directory(directory)
        work.row.modseq += 1
        forget_messages(work.connection, work.row, gone)
        work.save()

    def copy(self, uids: Iterable[int], target: str) -> Placed:
        return self._place(uids, target, is_move=False)

    def move(self, uids: Iterable[int], target: str) -> Placed:
        return self._place(uids, target, is_move=True)

    def _place(self, uids: Iterable[int], target: str, is_move: bool) -> Placed:
        wanted = sorted(set(uids))

        def place(connection: sqlite3.Connection) -> Placed:
            there = folder_row(self._home, connection, target)
            look(self._home, connection, there.id, there.uid_validity)  # its uids in order of arrival
            return self._write(connection, lambda work: self._transfer(work, there, wanted, is_move))

        return self._home.perform(place)

    def _transfer(self, work: Work, there: FolderRow, wanted: list[int], is_move: bool) -> Placed:
        messages = list(messages_of(work.connection, self._number, wanted))
        if there.id == work.row.id:
            return self._renumber(work, messages) if is_move else Transfer(work, work).copy(messages)
        there = find(work.connection, there.id, there.uid_validity)
        with work.home.directory(there.name) as maildir:
            to = Work(work.home, work.connection, there, maildir)
            transfer = Transfer(work, to)
            if not is_move:
                return transfer.copy(messages)
            placed = transfer.move(messages)
            self._are_gone(work, messages, {work.directory(message.in_new) for message in messages})
            return placed

    def _renumber(self, work: Work, messages: list[Message]) -> Placed:
        """A move into the folder itself: new uids and nothing else (RFC 6851 3.3)."""
        if not messages:
            return Placed(self._uid_validity, (), ())
        work.row.modseq += 1
        forget_messages(work.connection, work.row, messages)
        again = [each._replace(uid=work.row.take_uid(), modseq=work.row.modseq) for each in messages]
        for message in again:
            work.row.count(message.letters, message.octets, message.disk_octets)
        add_messages(work.connection, self._number, again)
        work.save()
        return Placed(self._uid_validity, [each.uid for each in messages], [each.uid for each in again])

    # Being told

    def watch(self, changed: Callable[[], None]) -> Callable[[], None]:
        known = self._home.what_is_known(self._uid_validity)
        known.watchers.append(changed)
        if len(known.watchers) == 1:
            self._begin_watching()

        def end() -> None:
            if changed in known.watchers:
                known.watchers.remove(changed)
                if not known.watchers:
                    _end(known.ends)

        self._ends.append(end)
        return end

    def _begin_watching(self) -> None:
        home, known = self._home, self._home.what_is_known(self._uid_validity)
        notices = home.site.notices
        if notices is None:
            return

        def tell() -> None:
            for changed in list(known.watchers):
                changed()

        try:
            with home.directory(self.name) as maildir:
                for directory in (maildir.new, maildir.cur):
                    known.ends.append(notices.watch(directory, tell))
        except (OSError, MailboxError) as error:
            # Sessions look by themselves now and then; they hear later of what has changed
            _end(known.ends)
            home.site.tell(
                "mailbox.unwatched",
                {"identity": str(home.identity), "folder": self.name, "reason": str(error)},
            )

    def close(self) -> None:
        _end(self._ends)

    def _write(self, connection: sqlite3.Connection, act: Callable[[Work], _T], *, force: bool = False) -> _T:
        return write(self._home, connection, self._number, self._uid_validity, act, force=force)


def _end(ends: list[Callable[[], None]]) -> None:
    while ends:
        ends.pop()()


class Transfer:
    """Messages on their way from one folder into another, or the same."""

    def __init__(self, source: Work, target: Work) -> None:
        self._source = source
        self._target = target
        self._made: list[tuple[str, int]] = []  # names in the target, and the directory of each

    def copy(self, messages: list[Message]) -> Placed:
        return self._file(messages, is_move=False)

    def move(self, messages: list[Message]) -> Placed:
        """The files leave the source; its index is the caller's."""
        return self._file(messages, is_move=True)

    def _file(self, messages: list[Message], is_move: bool) -> Placed:
        source, target = self._source, self._target
        if not messages:
            return Placed(target.row.uid_validity, (), ())
        letters = self._letters(messages)
        owner = source.disk.entry_of(source.maildir.home).uid
        target.row.modseq += 1
        try:
            filed = [self._link(each, letters[each.letters], owner, is_move) for each in messages]
            for directory in {directory for _, directory in self._made}:
                target.disk.sync_directory(directory)
        except BaseException:
            for name, directory in self._made:
                withdraw(target.disk, name, directory)
            raise
        if is_move:
            self._leave(messages)
        add_messages(target.connection, target.row.id, filed)
        for before, after in zip(messages, filed, strict=True):
            target.row.count(after.letters, after.octets, after.disk_octets)
            target.connection.execute(
                "INSERT OR REPLACE INTO content SELECT ?, ?, header, structure, preview FROM content"
                " WHERE folder = ? AND uid = ?",
                (target.row.id, after.uid, source.row.id, before.uid),
            )
        target.save()
        return Placed(target.row.uid_validity, [each.uid for each in messages], [each.uid for each in filed])

    def _leave(self, messages: list[Message]) -> None:
        source = self._source
        for number, message in enumerate(messages):
            try:
                source.disk.unlink(message.name, source.directory(message.in_new))
            except FileNotFoundError:
                pass  # it is gone by now, or has another name and will be taken for a message that came
            except OSError:
                # Those before have moved, as the next look at both folders will find; the others stay
                for name, directory in self._made[number:]:
                    withdraw(self._target.disk, name, directory)
                raise

    def _letters(self, messages: list[Message]) -> dict[str, str]:
        """What the flags of the source are in the target, which has keywords of its own."""
        found = {}
        for letters in {message.letters for message in messages}:
            found[letters] = letters_given(self._target, self._source.known.flags(letters), True)
        return found

    def _link(self, message: Message, letters: str, owner: int, is_move: bool) -> Message:
        source, target = self._source, self._target
        base = message.base
        if not is_move or has_base(target.connection, target.row.id, base):
            base = _base_like(message, target.home.site.unique())
        in_new = int(not letters and message.in_new)
        name = base if in_new else name_with(base, letters)
        directory = target.directory(in_new)
        try:
            fd = open_message(source.disk, source.maildir, message, source.home.site.own_uid)
        except FileNotFoundError as error:
            raise Elsewhere from error
        try:
            entry = source.disk.entry_of(fd)
            # POP3 does not serve a file of ours with two names in a Maildir of somebody else's
            may_link = is_move or entry.uid == owner
            if not (may_link and self._linked(message, name, directory)):
                copy_in(target, fd, name, directory, message.received)
        finally:
            release(source.disk, fd)
        self._made.append((name, directory))
        return Message(
            target.row.take_uid(),
            name,
            base,
            in_new,
            letters,
            target.row.modseq,
            message.octets,
            message.disk_octets,
            message.received,
            message.email_id,
        )

    def _linked(self, message: Message, name: str, directory: int) -> bool:
        source = self._source
        try:
            source.disk.link(message.name, source.directory(message.in_new), name, directory)
        except FileNotFoundError as error:
            raise Elsewhere from error
        except OSError as error:
            if error.errno in NO_LINK:
                return False
            raise
        return True


def copy_in(target: Work, source: int, name: str, directory: int, received: int) -> None:
    """Put what the descriptor `source` reads into a folder as a file of its own. Raises OSError."""
    disk = target.disk
    tmp, coming = target.maildir.tmp, target.home.site.unique()
    copy_content(disk, source, coming, tmp)
    try:
        disk.set_mtime(coming, tmp, received)
        disk.link(coming, tmp, name, directory)
    finally:
        withdraw(disk, coming, tmp)


def _base_like(message: Message, unique: str) -> str:
    """A new base with the sizes of an old one."""
    return f"{unique},S={message.disk_octets},W={message.octets}"


def letters_given(work: Work, flags: frozenset[str], may_add: bool) -> str:
    """The letters of flags in a folder; keywords that have none get one, where they may. Raises TooMany."""
    letters, missing = letters_for(flags, work.known.keywords)
    if missing and may_add:
        keywords = add_keywords(work.disk, work.maildir.home, missing, work.home.site.clock)
        work.known.learn(keywords, keywords_stamp(work.disk, work.maildir.home))
        letters, _ = letters_for(flags, keywords)
    return letters


def rename(work: Work, message: Message, name: str) -> None:
    """Within the folder, to cur. Raises Elsewhere, OSError."""
    try:
        work.disk.rename(message.name, work.directory(message.in_new), name, work.maildir.cur)
    except FileNotFoundError as error:
        raise Elsewhere from error


def remove_file(work: Work, message: Message) -> None:
    """With second names of the same file, which would bring it back. Raises Elsewhere, OSError."""
    directory = work.directory(message.in_new)
    twins = _twins(work, message)
    try:
        inode = work.disk.entry(message.name, directory).inode if twins else 0
        work.disk.unlink(message.name, directory)
    except FileNotFoundError as error:
        raise Elsewhere from error
    for name, in_new in twins:
        try:
            if work.disk.entry(name, work.directory(in_new)).inode == inode:
                work.disk.unlink(name, work.directory(in_new))
        except FileNotFoundError:
            pass
    if twins:
        # Another message under the same base is a new one from now on
        work.connection.execute(
            "DELETE FROM twins WHERE folder = ? AND base = ?", (work.row.id, as_column(message.base))
        )


def _twins(work: Work, message: Message) -> list[tuple[str, int]]:
    found = work.connection.execute(
        "SELECT name, in_new FROM twins WHERE folder = ? AND base = ?", (work.row.id, as_column(message.base))
    )
    return [(from_column(name), in_new) for name, in_new in found]


def _has_twin(work: Work, message: Message) -> bool:
    return bool(_twins(work, message))


def _missing(uids: Sequence[int], uid_next: int) -> Sequence[int]:
    """All uids below `uid_next` that are not among `uids`."""
    missing = array("I")
    last = 0
    for uid in (*uids, uid_next):
        missing.extend(range(last + 1, uid))
        last = uid
    return missing
