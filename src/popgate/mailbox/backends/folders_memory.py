"""Folders in memory: what `popgate.mailbox.folders` means, in the fewest words, and a double for tests."""

import hashlib
import itertools
import threading
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence

from popgate.mailbox.content import parsed_of
from popgate.mailbox.folder_names import INBOX, folder_name, parents_of, special_use_of
from popgate.mailbox.folders import (
    BadFolderName,
    Changes,
    Draft,
    FolderExists,
    FolderInfo,
    FolderState,
    MessageGone,
    MessageRow,
    NoSuchFolder,
    Parsed,
    Placed,
    Stored,
    TooMany,
)
from popgate.mailbox.line_ends import BLOCK, READ_BLOCK, StoredForm, to_wire
from popgate.mailbox.mailbox import MailboxError, MailboxFull
from popgate.mailbox.message_flags import MAX_KEYWORDS, Operation, combined, sorted_out
from popgate.values.identity import Identity


class _Message:
    __slots__ = ("email_id", "flags", "modseq", "parsed", "received", "uid", "wire")

    def __init__(self, uid: int, wire: bytes, received: int, email_id: str) -> None:
        self.uid = uid
        self.wire = wire
        self.received = received
        self.email_id = email_id
        self.flags: frozenset[str] = frozenset()
        self.modseq = 1
        self.parsed: Parsed | None = None

    def row(self) -> MessageRow:
        return MessageRow(self.uid, self.flags, self.modseq, len(self.wire), self.received, self.email_id, "")


class _Box:
    """What is in one folder."""

    def __init__(self, name: str, uid_validity: int, special_use: str) -> None:
        self.name = name
        self.uid_validity = uid_validity
        self.special_use = special_use
        self.id = f"F{uid_validity}"
        self.uid_next = 1
        self.modseq = 1
        self.recent_from = 1
        self.messages: dict[int, _Message] = {}
        self.vanished: list[tuple[int, int]] = []  # uid, modseq
        self.keywords: dict[str, str] = {}
        self.watchers: list[Callable[[], None]] = []
        self.uids: Sequence[int] = array("I")
        self.is_there = True

    def add(self, message: _Message) -> None:
        message.modseq = self.modseq
        self.messages[message.uid] = message
        self.uid_next = message.uid + 1

    def spelling(self, flags: Iterable[str]) -> frozenset[str]:
        system, keywords = sorted_out(flags)
        for keyword in keywords:
            if keyword.lower() not in self.keywords and len(self.keywords) >= MAX_KEYWORDS:
                raise TooMany(f"a folder has at most {MAX_KEYWORDS} keywords")
            self.keywords.setdefault(keyword.lower(), keyword)
        return system | {self.keywords[keyword.lower()] for keyword in keywords}

    def remove(self, uids: Sequence[int]) -> None:
        if uids:
            self.modseq += 1
        for uid in uids:
            del self.messages[uid]
            self.vanished.append((uid, self.modseq))

    def refreshed(self) -> FolderState:
        self.uids = array("I", self.messages)
        seen = [message for message in self.messages.values() if "\\Seen" in message.flags]
        deleted = [message for message in self.messages.values() if "\\Deleted" in message.flags]
        return FolderState(
            self.uid_validity,
            self.uid_next,
            self.modseq,
            len(self.messages),
            len(self.messages) - len(seen),
            len(deleted),
            sum(len(message.wire) for message in self.messages.values()),
            sum(len(message.wire) for message in deleted),
            self.recent_from,
            self.id,
        )


class _Site:
    """What the folders of all users share."""

    def __init__(self, capacity_octets: int | None) -> None:
        self.capacity = capacity_octets
        self.guard = threading.RLock()
        self.numbers = itertools.count(1)
        self.boxes: dict[Identity, dict[str, _Box]] = {}
        self.subscriptions: dict[Identity, set[str]] = {}

    def email_id(self) -> str:
        return "M" + hashlib.sha256(b"%d" % next(self.numbers)).hexdigest()[:32]


class MemoryAccounts:
    """`popgate.mailbox.folders.Accounts` that forget all at exit.

    With `capacity_octets` what would not fit into an account raises MailboxFull. Watchers are
    called on the thread that makes a change.
    """

    def __init__(self, capacity_octets: int | None = None) -> None:
        self._site = _Site(capacity_octets)

    def open_account(self, identity: Identity) -> "MemoryAccount":
        site = self._site
        with site.guard:
            if identity not in site.boxes:
                site.boxes[identity] = {INBOX: _Box(INBOX, next(site.numbers), "")}
                site.subscriptions[identity] = set()
        return MemoryAccount(site, identity)


class MemoryAccount:
    """The folders of one user of MemoryAccounts."""

    def __init__(self, site: _Site, identity: Identity) -> None:
        self._site = site
        self._boxes = site.boxes[identity]
        self._subscribed = site.subscriptions[identity]

    def folders(self) -> Sequence[FolderInfo]:
        with self._site.guard:
            names = {*self._boxes, *self._subscribed}
            for name in self._boxes:
                names.update(parents_of(name))
            return [self._info(name) for name in sorted(names)]

    def _info(self, name: str) -> FolderInfo:
        box = self._boxes.get(name)
        is_subscribed = name in self._subscribed
        if box is None:
            return FolderInfo(name, False, is_subscribed)
        use = box.special_use or special_use_of(name)
        if not box.special_use and any(other.special_use == use for other in self._boxes.values()):
            use = ""
        return FolderInfo(name, True, is_subscribed, use, box.id)

    def open(self, name: str) -> "MemoryFolder":
        with self._site.guard:
            return MemoryFolder(self._site, self, self.box(name))

    def box(self, name: str) -> _Box:
        box = self._boxes.get(name)
        if box is None:
            raise NoSuchFolder(f"there is no folder {name!a}")
        return box

    def create(self, name: str, special_use: str = "") -> FolderInfo:
        name = folder_name(name.removesuffix("/"))
        with self._site.guard:
            if name in self._boxes:
                raise FolderExists(f"there is a folder {name!a}")
            for parent in (*parents_of(name), name):
                if parent not in self._boxes:
                    self._boxes[parent] = _Box(parent, next(self._site.numbers), "")
            self._boxes[name].special_use = special_use
            return self._info(name)

    def delete(self, name: str) -> None:
        if name == INBOX:
            raise BadFolderName("INBOX cannot be deleted")
        with self._site.guard:
            box = self.box(name)
            del self._boxes[name]
            box.is_there = False
            self._tell(box)

    def rename(self, name: str, new: str) -> None:
        new = folder_name(new.removesuffix("/"))
        with self._site.guard:
            box = self.box(name)
            if name == INBOX:
                self.create(new)
                self.open(INBOX).move(list(box.messages), new)
                return
            if new.startswith(name + "/"):
                raise BadFolderName("a folder cannot be moved below itself")
            moving = {
                each: new + each[len(name) :]
                for each in self._boxes
                if each == name or each.startswith(name + "/")
            }
            for target in moving.values():
                if target in self._boxes:
                    raise FolderExists(f"there is a folder {target!a}")
                folder_name(target)
            for parent in parents_of(new):
                if parent not in self._boxes:
                    self.create(parent)
            for source, target in moving.items():
                self._boxes[target] = self._boxes.pop(source)
                self._boxes[target].name = target

    def subscribe(self, name: str, *, subscribed: bool = True) -> None:
        with self._site.guard:
            if subscribed:
                self._subscribed.add(folder_name(name))
            else:
                self._subscribed.discard(name)

    def state(self, name: str) -> FolderState:
        with self._site.guard:
            return self.box(name).refreshed()

    def draft(self) -> "MemoryDraft":
        return MemoryDraft()

    def append(self, name: str, drafts: Sequence[tuple[Draft, frozenset[str], int]]) -> Placed:
        with self._site.guard:
            box = self.box(name)
            coming = []
            for draft, flags, received in drafts:
                assert isinstance(draft, MemoryDraft)
                coming.append((draft.whole(), box.spelling(flags), received, self._site.email_id()))
            return self.place(box, coming)

    def place(self, box: _Box, coming: Sequence[tuple[bytes, frozenset[str], int, str]]) -> Placed:
        if self._site.capacity is not None:
            used = self.used()[1] + sum(len(wire) for wire, _, _, _ in coming)
            if used > self._site.capacity:
                raise MailboxFull("the mailbox is full")
        box.modseq += 1
        uids = []
        for wire, flags, received, email_id in coming:
            message = _Message(box.uid_next, wire, received, email_id)
            message.flags = flags
            box.add(message)
            uids.append(message.uid)
        self._tell(box)
        return Placed(box.uid_validity, (), uids)

    def _tell(self, box: _Box) -> None:
        for changed in list(box.watchers):
            changed()

    def used(self) -> tuple[int, int]:
        with self._site.guard:
            messages = [message for box in self._boxes.values() for message in box.messages.values()]
            return len(messages), sum(len(message.wire) for message in messages)

    def close(self) -> None:
        pass


class MemoryDraft:
    """A message that is coming."""

    def __init__(self) -> None:
        self._form = StoredForm()
        self._blocks: list[bytes] = []
        self._whole: bytes | None = None

    def write(self, data: bytes) -> None:
        self._blocks.append(self._form.feed(data))

    def finish(self) -> None:
        stored = b"".join(self._blocks) + self._form.finish()
        self._whole = b"".join(to_wire(_cut(stored, READ_BLOCK)))

    def whole(self) -> bytes:
        if self._whole is None:
            raise MailboxError("the draft is not finished, or was discarded")
        return self._whole

    def discard(self) -> None:
        self._blocks.clear()
        self._whole = None


class MemoryFolder:
    """One folder of a MemoryAccount, open."""

    def __init__(self, site: _Site, account: MemoryAccount, box: _Box) -> None:
        self._site = site
        self._account = account
        self._kept = box
        self.name = box.name

    @property
    def _box(self) -> _Box:
        if not self._kept.is_there:
            raise NoSuchFolder(f"the folder {self.name!a} was deleted")
        return self._kept

    def refresh(self) -> FolderState:
        with self._site.guard:
            return self._box.refreshed()

    def uids(self) -> Sequence[int]:
        return self._box.uids

    def claim_recent(self) -> int:
        with self._site.guard:
            box = self._box
            first, box.recent_from = box.recent_from, box.uid_next
            return first

    def changes(self, since_modseq: int) -> Changes:
        with self._site.guard:
            box = self._box
            changed = [each.row() for each in box.messages.values() if each.modseq > since_modseq]
            gone = sorted(uid for uid, modseq in box.vanished if modseq > since_modseq)
            return Changes(box.refreshed(), changed, gone)

    def rows(self, uids: Iterable[int] | None = None) -> Iterator[MessageRow]:
        with self._site.guard:
            return iter([message.row() for message in self._chosen(uids)])

    def _chosen(self, uids: Iterable[int] | None) -> list[_Message]:
        messages = self._box.messages
        if uids is None:
            return list(messages.values())
        return [messages[uid] for uid in sorted(set(uids)) if uid in messages]

    def parsed(self, uids: Iterable[int]) -> Iterator[tuple[int, Parsed]]:
        with self._site.guard:
            chosen = self._chosen(uids)
        for message in chosen:
            if message.parsed is None:
                message.parsed = parsed_of(_reader(message.wire))
            yield message.uid, message.parsed

    def read(self, uid: int, start: int = 0, octets: int | None = None) -> Iterator[bytes]:
        with self._site.guard:
            message = self._box.messages.get(uid)
        if message is None:
            raise MessageGone(f"message {uid} is gone")
        return _reader(message.wire)(start, octets)

    def store(
        self,
        uids: Iterable[int],
        operation: Operation,
        flags: frozenset[str],
        unchanged_since: int | None = None,
    ) -> Stored:
        with self._site.guard:
            box = self._box
            wanted = sorted(set(uids))
            spelt = box.spelling(flags)
            rows: list[MessageRow] = []
            modified = []
            modseq = box.modseq + 1
            for uid in wanted:
                message = box.messages.get(uid)
                if message is None:
                    continue
                if unchanged_since is not None and message.modseq > unchanged_since:
                    modified.append(uid)
                    continue
                after = combined(message.flags, operation, spelt)
                if after != message.flags:
                    message.flags = after
                    box.modseq = message.modseq = modseq
                rows.append(message.row())
            if box.modseq == modseq:
                self._account._tell(box)
            return Stored(rows, modified, [uid for uid in wanted if uid not in box.messages])

    def expunge(self, uids: Iterable[int] | None = None) -> Sequence[int]:
        with self._site.guard:
            box = self._box
            gone = [message.uid for message in self._chosen(uids) if "\\Deleted" in message.flags]
            box.remove(gone)
            if gone:
                self._account._tell(box)
            return gone

    def copy(self, uids: Iterable[int], target: str) -> Placed:
        with self._site.guard:
            box = self._account.box(target)
            chosen = self._chosen(uids)
            if not chosen:
                return Placed(box.uid_validity, (), ())
            coming = [(each.wire, box.spelling(each.flags), each.received, each.email_id) for each in chosen]
            placed = self._account.place(box, coming)
            return Placed(box.uid_validity, [each.uid for each in chosen], placed.target)

    def move(self, uids: Iterable[int], target: str) -> Placed:
        with self._site.guard:
            capacity, self._site.capacity = self._site.capacity, None  # a move takes no room
            try:
                placed = self.copy(uids, target)
            finally:
                self._site.capacity = capacity
            self._box.remove(placed.source)
            self._account._tell(self._box)
            return placed

    def watch(self, changed: Callable[[], None]) -> Callable[[], None]:
        watchers = self._box.watchers
        watchers.append(changed)

        def end() -> None:
            if changed in watchers:
                watchers.remove(changed)

        return end

    def close(self) -> None:
        pass


def _reader(wire: bytes) -> Callable[[int, int | None], Iterator[bytes]]:
    def read(start: int, octets: int | None) -> Iterator[bytes]:
        return _cut(wire[start:] if octets is None else wire[start : start + octets], BLOCK)

    return read


def _cut(data: bytes, size: int) -> Iterator[bytes]:
    return (data[start : start + size] for start in range(0, len(data), size))
