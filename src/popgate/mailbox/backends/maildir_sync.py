"""Taking in what other programs have done to a folder's directory.

Deliveries, other servers and other processes of popgate add, rename and remove files whenever they
like. The names in `new` and `cur` are compared with those that the index knows: a base that is new
gets the next uid, in order of arrival; one that has another name has moved or changed its flags; one that
is nowhere is gone. All of it is one transaction, so no two processes give one uid twice.

A directory whose time is what it was when it was read last has not changed, unless it has changed twice
in one tick of the clock: so a time that is not over for a while is not believed.
"""

import sqlite3
from collections.abc import Iterable, Iterator
from typing import Final

from popgate.files.disk import Disk, Entry
from popgate.mailbox.backends.maildir_folder import objection_to, release
from popgate.mailbox.backends.maildir_home import FolderDirectory, Home, Known
from popgate.mailbox.backends.maildir_letters import keywords_stamp, letters_of, read_keywords
from popgate.mailbox.backends.maildir_names import arrival_of, email_id_of, sizes_of, split_name
from popgate.mailbox.backends.maildir_rows import (
    FolderRow,
    Message,
    add_messages,
    as_column,
    forget_messages,
    from_column,
    has_base,
    messages_of,
    place_message,
)
from popgate.mailbox.line_ends import READ_BLOCK, measure

SETTLED_SECONDS: Final = 1.0
_MOST_MEASURED = 200  # messages that are read for their size while other processes wait
_WORTH_KEEPING = 500  # messages: reading that many names again costs more than to write that it is not needed

Place = tuple[str, bool]  # a file's name, and whether it is in new


class NotMeasured(Exception):
    """Messages must be read for their size first, while nobody waits."""

    def __init__(self, places: list[Place]) -> None:
        self.places = places


def stamps_of(maildir: FolderDirectory) -> str:
    """Raises OSError."""
    (a, b, c), (d, e, f) = maildir.stamp("new"), maildir.stamp("cur")
    return f"{a}.{b}.{c}/{d}.{e}.{f}"


def is_current(row: FolderRow, known: Known, stamps: str) -> bool:
    """Whether the index knows everything that is in the directories."""
    return stamps in (known.stamps, row.stamps)


def learn_keywords(home: Home, maildir: FolderDirectory, known: Known) -> None:
    stamp = keywords_stamp(home.site.disk, maildir.home)
    if stamp != known.keywords_stamp:
        known.learn(read_keywords(home.site.disk, maildir.home), stamp)


class Taking:
    """One look at a folder's directories, in a transaction that the caller has begun."""

    def __init__(
        self, home: Home, connection: sqlite3.Connection, row: FolderRow, maildir: FolderDirectory
    ) -> None:
        self._home = home
        self._disk = home.site.disk
        self._connection = connection
        self._row = row
        self._maildir = maildir
        self._known = home.what_is_known(row.uid_validity)
        self._owner: int | None = None
        self._modseq = row.modseq + 1
        self._is_visible = False  # to sessions: other uids or flags
        self.has_changed = False

    def take_in(self, force: bool = False) -> bool:
        """True when something has to be kept, in `row` and elsewhere. Raises NotMeasured, OSError."""
        stamps = stamps_of(self._maildir)
        if not force and is_current(self._row, self._known, stamps):
            return False
        now = self._home.site.clock.now()
        self._compare()
        is_settled = max(float(part.rpartition(".")[2]) for part in stamps.split("/")) < (
            (now - SETTLED_SECONDS) * 1e9
        )
        self._known.stamps = stamps if is_settled else ""
        if is_settled and (self.has_changed or self._row.messages >= _WORTH_KEEPING):
            self._row.stamps = stamps
            self.has_changed = True
        if self.has_changed:
            self._row.save(self._connection)
        return self.has_changed

    def _compare(self) -> None:
        folder = self._row.id
        known = self._connection.execute(
            "SELECT name, in_new, uid FROM messages WHERE folder = ?", (folder,)
        ).fetchall()
        in_new = {name for name, is_new, _ in known if is_new}
        in_cur = {name for name, is_new, _ in known if not is_new}
        # new before cur: a file that moves meanwhile is seen twice rather than not at all
        found_new = self._names(self._maildir.new)
        found_cur = self._names(self._maildir.cur)
        twins = self._twins(found_new, found_cur)
        # cur first: a file that is in both is taken for what it is where it has flags
        added: list[Place] = [(from_column(name), False) for name in found_cur - in_cur]
        added += [(from_column(name), True) for name in found_new - in_new]
        added = [place for place in added if place not in twins]
        gone: dict[str, int] = {}
        if in_new - found_new or in_cur - found_cur:
            for name, is_new, uid in known:
                if name not in (found_new if is_new else found_cur):
                    gone[split_name(from_column(name))[0]] = uid
        if not added and not gone:
            return
        fresh = self._match(added, gone, twins)
        if gone:
            self._look_again(gone)
        if gone:
            self._vanish(list(gone.values()))
        if fresh:
            self._add(fresh)
        if self._is_visible:
            self._row.modseq = self._modseq

    def _names(self, directory: int) -> set[str | bytes]:
        return {as_column(name) for name in self._disk.names(directory) if name[0] != "."}

    def _twins(self, found_new: set[str | bytes], found_cur: set[str | bytes]) -> dict[Place, str]:
        """Further files of known messages, by place; the base of each. Those that are gone are forgotten."""
        twins: dict[Place, str] = {}
        for base, name, in_new in self._connection.execute(
            "SELECT base, name, in_new FROM twins WHERE folder = ?", (self._row.id,)
        ).fetchall():
            if name in (found_new if in_new else found_cur):
                twins[from_column(name), bool(in_new)] = from_column(base)
            else:
                self._drop_twin((from_column(name), bool(in_new)))
        return twins

    def _drop_twin(self, place: Place) -> None:
        self.has_changed = True
        self._connection.execute(
            "DELETE FROM twins WHERE folder = ? AND name = ? AND in_new = ?",
            (self._row.id, as_column(place[0]), place[1]),
        )

    def _match(
        self, added: Iterable[Place], gone: dict[str, int], twins: dict[Place, str]
    ) -> dict[str, Place]:
        """Find moved and renamed files among the added ones, and a place for messages that had two;
        returns new messages."""
        fresh: dict[str, Place] = {}
        for place in added:
            base = split_name(place[0])[0]
            if base in gone:
                self._relocate(gone.pop(base), place)
            elif base in fresh or has_base(self._connection, self._row.id, base):
                self.has_changed = True
                self._connection.execute(
                    "INSERT OR REPLACE INTO twins VALUES (?, ?, ?, ?)",
                    (self._row.id, as_column(base), as_column(place[0]), place[1]),
                )
                twins[place] = base
            else:
                fresh[base] = place
        for place, base in twins.items():
            if base in gone:
                self._drop_twin(place)
                self._relocate(gone.pop(base), place)
        return fresh

    def _look_again(self, gone: dict[str, int]) -> None:
        """A name that changes while the directory is read may be missed under both: nothing is gone for good
        that was not looked for twice."""
        for in_new, directory in ((True, self._maildir.new), (False, self._maildir.cur)):
            for name in self._disk.names(directory):
                base = split_name(name)[0]
                if name[0] != "." and base in gone:
                    self._relocate(gone.pop(base), (name, in_new))

    def _relocate(self, uid: int, place: Place) -> None:
        (before,) = _messages(self._connection, self._row.id, [uid])
        letters = letters_of(place[0])
        modseq = before.modseq
        if letters != before.letters:
            modseq = self._modseq
            self._is_visible = True
            self._row.count(before.letters, before.octets, before.disk_octets, -1)
            self._row.count(letters, before.octets, before.disk_octets)
        self.has_changed = True
        place_message(
            self._connection,
            self._row.id,
            before._replace(name=place[0], in_new=int(place[1]), letters=letters, modseq=modseq),
        )

    def _vanish(self, uids: list[int]) -> None:
        gone = _messages(self._connection, self._row.id, uids)
        self._row.modseq = self._modseq
        self._is_visible = self.has_changed = True
        forget_messages(self._connection, self._row, gone)

    # New messages

    def _add(self, fresh: dict[str, Place]) -> None:
        skipped: dict[str, str] = {}
        entries: dict[str, Entry] = {}
        unmeasured: list[Place] = []
        for base, (name, in_new) in fresh.items():
            try:
                entry = self._disk.entry(name, self._maildir.new if in_new else self._maildir.cur)
            except FileNotFoundError:
                continue  # gone, or moved on meanwhile: the next look finds it
            reason = self._objection(entry)
            if reason:
                skipped[name] = reason
                continue
            entries[base] = entry
            if wire_octets(base, entry) is None and base not in self._home.sizes:
                unmeasured.append((name, in_new))
        if len(unmeasured) > _MOST_MEASURED:
            raise NotMeasured(unmeasured)
        measure_all(self._home, self._maildir, unmeasured)
        messages = []
        for base in sorted(entries, key=lambda base: (arrival_of(base), base)):
            octets = wire_octets(base, entries[base])
            if octets is None:
                octets = self._home.sizes.pop(base, -1)
            if octets < 0:
                skipped[fresh[base][0]] = "it cannot be read"
                continue
            messages.append(self._message(base, fresh[base], entries[base], octets))
        if messages:
            self._is_visible = self.has_changed = True
            add_messages(self._connection, self._row.id, messages)
        self._tell(skipped)

    def _message(self, base: str, place: Place, entry: Entry, octets: int) -> Message:
        name, in_new = place
        letters = letters_of(name)
        self._row.count(letters, octets, entry.size)
        return Message(
            self._row.take_uid(),
            name,
            base,
            int(in_new),
            letters,
            self._modseq,
            octets,
            entry.size,
            int(entry.mtime),
            email_id_of(base),
        )

    def _objection(self, entry: Entry) -> str:
        if self._owner is None:
            self._owner = self._disk.entry_of(self._maildir.home).uid
        return objection_to(entry, self._owner, self._home.site.own_uid)

    def _tell(self, skipped: dict[str, str]) -> None:
        before = self._known.skipped
        self._known.skipped = frozenset(skipped)
        by_reason: dict[str, list[str]] = {}
        for name, reason in skipped.items():
            if name not in before:
                by_reason.setdefault(reason, []).append(name)
        # one event a reason: a directory full of links must not fill the log
        for reason, names in by_reason.items():
            self._home.site.tell(
                "mailbox.skipped",
                {
                    "identity": str(self._home.identity),
                    "folder": self._row.name,
                    "reason": reason,
                    "name": ascii(names[0])[1:-1],
                    "count": len(names),
                },
            )


def _messages(connection: sqlite3.Connection, folder: int, uids: list[int]) -> list[Message]:
    return list(messages_of(connection, folder, uids))


def wire_octets(base: str, entry: Entry) -> int | None:
    """What the name claims, if it can be true."""
    stored, wire = sizes_of(base)
    if wire is not None and stored in (None, entry.size) and entry.size <= wire <= 2 * entry.size + 2:
        return wire
    return None


def measure_all(home: Home, maildir: FolderDirectory, places: Iterable[Place]) -> None:
    """Read messages for their size; those that cannot be read get -1."""
    disk = home.site.disk
    for name, in_new in places:
        try:
            fd = disk.open_file(name, maildir.new if in_new else maildir.cur)
        except OSError:
            home.sizes[split_name(name)[0]] = -1
            continue
        try:
            home.sizes[split_name(name)[0]] = measure(_blocks(disk, fd))
        except OSError:
            home.sizes[split_name(name)[0]] = -1
        finally:
            release(disk, fd)


def _blocks(disk: Disk, fd: int) -> Iterator[bytes]:
    while block := disk.read(fd, READ_BLOCK):
        yield block
