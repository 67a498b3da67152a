"""The selected mailbox as the client knows it: the numbers of its messages, and what it does not know yet.

A sequence number is the place of a uid in `uids`. The view changes only in `news`, and each
change of it is in what `news` returns; so a number means to us what it means to the
client, whatever happened in the folder since. What was expunged while that may not be
told stays in the view until it may.

Most sessions know all that there is; then `uids` is the folder's own sequence, shared by all of them.
"""

from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence

from popgate.mailbox.folders import Changes, Folder, FolderState, MessageRow
from popgate.mailbox.mailbox import MailboxError
from popgate.protocols.imap import answers
from popgate.protocols.imap import sequence as sets
from popgate.sessions.imap.dialect import Dialect

SYSTEM_FLAGS = ("\\Answered", "\\Flagged", "\\Deleted", "\\Seen", "\\Draft")
Spans = list[tuple[int, int]]
"""Places in the view, from and up to, rising and apart."""

_NOTHING: Mapping[int, int] = {}
_FEW = 64
_MOST_RECENT_RANGES = 16


class NoSuchMessage(Exception):
    """A sequence number that no message has."""


class FolderLost(MailboxError):
    """The selected folder is no longer what was selected: removed, or made anew."""


class Selected:
    """One session's view of one folder. Only `news` and `begin` ask the disk."""

    __slots__ = (
        "_keywords",
        "_pending",
        "_recent",
        "_uid_next",
        "folder",
        "is_read_only",
        "modseq",
        "name",
        "uid_validity",
        "uids",
    )

    def __init__(self, folder: Folder, *, is_read_only: bool) -> None:
        self.folder = folder
        self.name = folder.name
        self.is_read_only = is_read_only
        self.uids: Sequence[int] = ()
        self.modseq = 0
        self.uid_validity = 0
        self._uid_next = 1
        self._pending: frozenset[int] | set[int] = frozenset()  # in the view, gone from the folder
        self._recent: tuple[tuple[int, int], ...] = ()  # ranges of uids
        self._keywords: frozenset[str] = frozenset(SYSTEM_FLAGS)

    def begin(self) -> FolderState:
        """Take in the whole folder: what a client is told by SELECT."""
        state = self.folder.refresh()
        uids = self.folder.uids()
        self.uids = uids
        self.modseq = state.highest_modseq
        self.uid_validity = state.uid_validity
        self._uid_next = max(state.uid_next, uids[-1] + 1 if uids else 1)
        self._claim(state)
        return state

    # Numbers

    def __len__(self) -> int:
        return len(self.uids)

    def number(self, uid: int) -> int:
        """Its sequence number; 0 for a message that the client does not know."""
        place = bisect_left(self.uids, uid)
        return place + 1 if place < len(self.uids) and self.uids[place] == uid else 0

    def numbers(self, uids: Sequence[int]) -> Sequence[int]:
        """The sequence numbers of rising `uids` of the view."""
        if len(uids) == len(self.uids):
            return range(1, len(uids) + 1)
        return [bisect_left(self.uids, uid) + 1 for uid in uids]

    def spans(
        self, wanted: sets.Sequence, saved: Sequence[int], *, by_uid: bool, is_lenient: bool = False
    ) -> Spans:
        """Where in the view the messages of a set are. Raises NoSuchMessage for a number beyond it,
        unless `is_lenient`; uids that nobody has are left out (RFC 9051 6.4.9)."""
        if isinstance(wanted, sets.SavedResult):
            return _runs(self.numbers([uid for uid in saved if self.number(uid)]))
        count = len(self.uids)
        spans: Spans = []
        for one, other in wanted.ranges:
            if by_uid:
                if not count:
                    continue
                low, high = _ordered(one, other, self.uids[-1])
                span = (bisect_left(self.uids, low), bisect_right(self.uids, high))
            else:
                low, high = _ordered(one, other, count)
                if not is_lenient and (high > count or not count):
                    raise NoSuchMessage
                span = (max(low, 1) - 1, min(high, count))
            if span[0] < span[1]:
                spans.append(span)
        return _merged(spans)

    def at(self, spans: Spans) -> Sequence[int]:
        """The uids in `spans`; the view's own sequence where it is all of it."""
        if len(spans) == 1:
            low, high = spans[0]
            return self.uids if low == 0 and high == len(self.uids) else self.uids[low:high]
        found = array("I")
        for low, high in spans:
            found.extend(self.uids[low:high])
        return found

    # What is recent, and which keywords are known

    def is_recent(self, uid: int) -> bool:
        return any(low <= uid <= high for low, high in self._recent)

    @property
    def recent_count(self) -> int:
        return sum(bisect_right(self.uids, high) - bisect_left(self.uids, low) for low, high in self._recent)

    def _claim(self, state: FolderState | None = None) -> None:
        """RFC 3501 2.3.2: this is the first session that is told of them."""
        if self.is_read_only:
            low = state.recent_from if state is not None else 0
        else:
            low = self.folder.claim_recent()
        high = self._uid_next - 1
        if not low or low > high:
            return
        if self._recent and low <= self._recent[-1][1] + 1:
            low = self._recent[-1][0]
            self._recent = self._recent[:-1]
        self._recent = (*self._recent[-_MOST_RECENT_RANGES:], (low, high))

    def flags_text(self, row: MessageRow) -> bytes:
        """`FLAGS (...)` of a message, \\Recent with them where it is."""
        flags = [flag for flag in SYSTEM_FLAGS if flag in row.flags]
        if len(flags) != len(row.flags):
            flags += sorted(row.flags.difference(SYSTEM_FLAGS))
        if self._recent and self.is_recent(row.uid):
            flags.append("\\Recent")
        return b"FLAGS " + answers.flag_list(flags)

    @property
    def known_flags(self) -> tuple[str, ...]:
        return (*SYSTEM_FLAGS, *sorted(self._keywords.difference(SYSTEM_FLAGS)))

    def learn_flags(self, flags: Iterable[str]) -> bytes:
        """What to say before these flags are told of a message: RFC 9051 7.3.5, keywords that are new."""
        new = self._keywords.union(flags)
        if len(new) == len(self._keywords):
            return b""
        self._keywords = new
        return answers.flags_line(self.known_flags) + self.permanent_flags()

    def permanent_flags(self) -> bytes:
        if self.is_read_only:
            return answers.ok_line(b"PERMANENTFLAGS ()", b"Nothing can be changed.")
        told = answers.flag_list((*self.known_flags, "\\*"))
        return answers.ok_line(b"PERMANENTFLAGS " + told, b"Flags are kept.")

    # What has happened

    def news(
        self,
        dialect: Dialect,
        *,
        may_expunge: bool,
        with_uid: bool = False,
        told: Mapping[int, int] = _NOTHING,
    ) -> bytes:
        """Untagged lines for all that the client does not know. `may_expunge`: RFC 9051 7.5.1, not while
        it speaks in sequence numbers. `told`: uids with the modseq that it has just been told of.

        Raises FolderLost, MailboxError.
        """
        changes = self.folder.changes(self.modseq)
        if changes.state.uid_validity != self.uid_validity:
            raise FolderLost(f"{self.name} was made anew")
        if not changes.changed and not changes.vanished and not (self._pending and may_expunge):
            self.modseq = changes.state.highest_modseq
            return b""
        gone = self._gone(changes)
        lines: list[bytes] = []
        if may_expunge:
            if gone:
                lines += self._expunged(sorted(gone), dialect)
            self._pending = frozenset()
        else:
            self._pending = gone
        old_next = self._uid_next
        lines += self._arrived(changes, dialect)
        with_uid = with_uid or dialect.tells_uid
        for row in changes.changed:
            if row.uid >= old_next or told.get(row.uid) == row.modseq:
                continue
            number = self.number(row.uid)
            if number:
                lines.append(self.flags_line(number, row, dialect, with_uid=with_uid))
        self.modseq = changes.state.highest_modseq
        self._share()
        return b"".join(lines)

    def flags_line(
        self, number: int, row: MessageRow, dialect: Dialect, *, with_uid: bool, with_flags: bool = True
    ) -> bytes:
        items = [b"UID %d" % row.uid] if with_uid else []
        before = b""
        if with_flags:
            before = self.learn_flags(row.flags)
            items.append(self.flags_text(row))
        if dialect.condstore:
            items.append(b"MODSEQ (%d)" % row.modseq)  # RFC 7162 3.1.4
        return before + answers.fetch_line(number, items)

    def _gone(self, changes: Changes) -> set[int]:
        gone = set(self._pending)
        if len(changes.vanished) <= len(self.uids):
            gone.update(uid for uid in changes.vanished if self.number(uid))
        else:  # the folder remembers no more than who is not there
            gone.update(uid for uid in self.uids if _holds(changes.vanished, uid))
        return gone

    def _expunged(self, gone: list[int], dialect: Dialect) -> Iterator[bytes]:
        numbers = [self.number(uid) for uid in gone]
        if len(numbers) < _FEW:
            uids = array("I", self.uids)
            for number in reversed(numbers):
                del uids[number - 1]
        else:
            lost = set(gone)
            uids = array("I", [uid for uid in self.uids if uid not in lost])
        self.uids = uids
        if dialect.qresync:
            yield answers.vanished_line(gone)  # RFC 7162 3.2.10
        else:
            # The highest first, so that no number told changes one that follows
            for number in reversed(numbers):
                yield answers.expunge_line(number)

    def _arrived(self, changes: Changes, dialect: Dialect) -> list[bytes]:
        arrived = [row.uid for row in changes.changed if row.uid >= self._uid_next]
        if not arrived:
            return []
        uids = array("I", self.uids)
        uids.extend(arrived)
        self.uids = uids
        self._uid_next = arrived[-1] + 1
        self._claim()
        lines = [answers.exists_line(len(uids))]
        if not dialect.is_rev2:
            lines.append(answers.recent_line(self.recent_count))
        return lines

    def _share(self) -> None:
        """Hold the folder's own sequence where it is the same."""
        theirs = self.folder.uids()
        if theirs is not self.uids and len(theirs) == len(self.uids) and theirs == self.uids:
            self.uids = theirs


def _ordered(one: int, other: int, last: int) -> tuple[int, int]:
    one, other = one or last, other or last  # STAR is 0
    return (one, other) if one <= other else (other, one)


def _merged(spans: Spans) -> Spans:
    if len(spans) < 2:
        return spans
    spans.sort()
    merged = [spans[0]]
    for low, high in spans[1:]:
        if low <= merged[-1][1]:
            if high > merged[-1][1]:
                merged[-1] = (merged[-1][0], high)
        else:
            merged.append((low, high))
    return merged


def _runs(numbers: Sequence[int]) -> Spans:
    spans: Spans = []
    for number in numbers:
        if spans and spans[-1][1] == number - 1:
            spans[-1] = (spans[-1][0], number)
        else:
            spans.append((number - 1, number))
    return spans


def _holds(uids: Sequence[int], uid: int) -> bool:
    place = bisect_left(uids, uid)
    return place < len(uids) and uids[place] == uid
