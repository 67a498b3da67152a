"""SEARCH: a tree of criteria, and the messages of the view that meet it.

The tree becomes one predicate whose parts are in order of their cost: what a row of the index
answers, what the kept header answers, what only the message's text does. A message is
asked the cheap questions first, and most are out before its text is read. The search goes in slices,
each a call in a thread of its own: between them others have the threads.
"""

import datetime
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence

from popgate.mailbox.folders import Folder, MessageGone, MessageRow, Parsed
from popgate.message.dates import sent_date
from popgate.message.search import body_contains, fold, header_contains
from popgate.protocols.imap import search
from popgate.sessions.imap.selected import Selected, Spans

ROWS_A_SLICE = 4096
HEADERS_A_SLICE = 256
TEXTS_A_SLICE = 16
_ROW, _HEADER, _TEXT = range(3)


class Candidate:
    """A message that is asked. Its header is parsed and its text read when a criterion needs them."""

    __slots__ = ("_folder", "_parsed", "row")

    def __init__(self, folder: Folder, row: MessageRow, parsed: Parsed | None) -> None:
        self._folder = folder
        self._parsed = parsed
        self.row = row

    @property
    def parsed(self) -> Parsed | None:
        """None where the message is gone."""
        if self._parsed is None:
            for _, parsed in self._folder.parsed((self.row.uid,)):
                self._parsed = parsed
        return self._parsed

    def read(self, start: int, octets: int) -> Iterator[bytes]:
        return self._folder.read(self.row.uid, start, octets)


Predicate = Callable[[Candidate], bool]
Finder = Callable[[Candidate, str, bool], bool]
"""Whether the text of the message (with its header: True) has `text`; what it means is message's business."""


class Search:
    """One search over a view as it is now. `step` until it gives False; then `found` are the uids, rising.

    `numbers` in the criteria are resolved at once, for the view may change before the search ends.
    """

    def __init__(
        self,
        view: Selected,
        key: search.SearchKey,
        saved: Sequence[int],
        now: float,
        *,
        has_text: Finder,
    ) -> None:
        self._folder = view.folder
        self._view = view
        self._saved = saved
        self._now = now
        self._has_text = has_text
        self._uids = view.uids
        self._place = 0
        self.found: list[int] = []
        self.highest_modseq = 0
        self._cost, self._meets = self._compile(key)
        self._step = (ROWS_A_SLICE, HEADERS_A_SLICE, TEXTS_A_SLICE)[self._cost]
        self._narrow(key)

    def step(self) -> bool:
        """One slice; whether there is more. Blocks on the disk. Raises MailboxError."""
        batch = self._uids[self._place : self._place + self._step]
        self._place += len(batch)
        rows = self._folder.rows(batch)
        candidates: Iterator[Candidate]
        if self._cost == _ROW:
            candidates = (Candidate(self._folder, row, None) for row in rows)
        else:
            candidates = self._with_headers(list(rows))
        for candidate in candidates:
            try:
                meets = self._meets(candidate)
            except MessageGone:
                continue
            if meets:
                self.found.append(candidate.row.uid)
                self.highest_modseq = max(self.highest_modseq, candidate.row.modseq)
        return self._place < len(self._uids)

    def _with_headers(self, rows: list[MessageRow]) -> Iterator[Candidate]:
        if self._cost == _HEADER:
            parsed = dict(self._folder.parsed([row.uid for row in rows]))
            return (Candidate(self._folder, row, parsed.get(row.uid)) for row in rows)
        return (Candidate(self._folder, row, None) for row in rows)

    def _narrow(self, key: search.SearchKey) -> None:
        """Where numbers must match anyhow, look at no others."""
        keys = key.keys if isinstance(key, search.And) else (key,)
        for one in keys:
            if isinstance(one, search.Numbers):
                self._uids = _common(self._uids, self._view.at(self._spans(one)))

    def _spans(self, key: search.Numbers) -> Spans:
        return self._view.spans(key.set, self._saved, by_uid=key.uid, is_lenient=True)

    # The predicate

    def _compile(self, key: search.SearchKey) -> tuple[int, Predicate]:
        if isinstance(key, search.Not):
            cost, meets = self._compile(key.key)
            return cost, lambda candidate: not meets(candidate)
        if isinstance(key, search.Or):
            (cost, first), (more, second) = sorted(
                (self._compile(key.left), self._compile(key.right)), key=lambda part: part[0]
            )
            return max(cost, more), lambda candidate: first(candidate) or second(candidate)
        if isinstance(key, search.And):
            return self._all_of([self._compile(one) for one in key.keys])
        return self._leaf(key)

    def _all_of(self, parts: list[tuple[int, Predicate]]) -> tuple[int, Predicate]:
        parts.sort(key=lambda part: part[0])
        if len(parts) == 1:
            return parts[0]
        predicates = tuple(meets for _, meets in parts)
        cost = parts[-1][0] if parts else _ROW

        def meets_all(candidate: Candidate) -> bool:
            for meets in predicates:  # noqa: SIM110 - a generator would cost more than most of the questions
                if not meets(candidate):
                    return False
            return True

        return cost, meets_all

    def _leaf(self, key: search.SearchKey) -> tuple[int, Predicate]:
        if isinstance(key, search.HeaderHas):
            return _HEADER, _header_has(key.name, key.text)
        if isinstance(key, search.TextHas):
            return _TEXT, self._text_has(key.text, key.in_header)
        if isinstance(key, search.Day) and key.sent:
            return _HEADER, _sent(key)
        return _ROW, self._of_row(key)

    def _text_has(self, text: str, in_header: bool) -> Predicate:
        has_text = self._has_text
        return lambda candidate: has_text(candidate, text, in_header)

    def _of_row(self, key: search.SearchKey) -> Predicate:
        if isinstance(key, search.HasFlag):
            return self._has_flag(key.flag)
        if isinstance(key, search.Numbers):
            uids = self._view.at(self._spans(key))
            return lambda candidate: _holds(uids, candidate.row.uid)
        if isinstance(key, search.Day):
            return _received(key)
        if isinstance(key, search.Within):
            limit = self._now - key.seconds
            if key.relation == "older":
                return lambda candidate: candidate.row.received <= limit
            return lambda candidate: candidate.row.received >= limit
        if isinstance(key, search.Size):
            octets = key.octets
            if key.relation == "larger":
                return lambda candidate: candidate.row.octets > octets
            return lambda candidate: candidate.row.octets < octets
        if isinstance(key, search.ModSeq):
            least = key.least
            return lambda candidate: candidate.row.modseq >= least
        if isinstance(key, search.ObjectId):
            id_ = key.id
            if key.kind == "email":
                return lambda candidate: candidate.row.email_id == id_
            return lambda candidate: bool(id_) and candidate.row.thread_id == id_
        assert isinstance(key, search.All), key
        return lambda candidate: True

    def _has_flag(self, flag: str) -> Predicate:
        if flag.lower() == "\\recent":
            is_recent = self._view.is_recent
            return lambda candidate: is_recent(candidate.row.uid)
        wanted = flag.lower()
        proper = flag.title() if flag.startswith("\\") else flag

        def has(candidate: Candidate) -> bool:
            flags = candidate.row.flags
            return proper in flags or any(one.lower() == wanted for one in flags)

        return has


def _holds(uids: Sequence[int], uid: int) -> bool:
    place = bisect_left(uids, uid)
    return place < len(uids) and uids[place] == uid


def _common(some: Sequence[int], others: Sequence[int]) -> Sequence[int]:
    if len(others) == len(some):
        return some if some == others else [uid for uid in some if _holds(others, uid)]
    if len(others) > len(some):
        some, others = others, some
    return [uid for uid in others if _holds(some, uid)]


def _received(key: search.Day) -> Predicate:
    # RFC 9051 6.4.4: the day as it is, whatever the time and time zone; INTERNALDATE is told in UTC
    first = int(datetime.datetime.combine(key.day, datetime.time(), datetime.UTC).timestamp())
    if key.relation == "before":
        return lambda candidate: candidate.row.received < first
    if key.relation == "since":
        return lambda candidate: candidate.row.received >= first
    return lambda candidate: first <= candidate.row.received < first + 86400


def _header_has(name: str, text: str) -> Predicate:
    folded = fold(text)

    def has(candidate: Candidate) -> bool:
        parsed = candidate.parsed
        return parsed is not None and header_contains(parsed.header, name, folded)

    return has


def _sent(key: search.Day) -> Predicate:
    # RFC 9051 6.4.4: the day in the Date field, whatever its time and time zone
    def meets(candidate: Candidate) -> bool:
        parsed = candidate.parsed
        sent = None if parsed is None else sent_date(parsed.header)
        if sent is None:
            return False
        _, day = sent
        if key.relation == "before":
            return day < key.day
        return day >= key.day if key.relation == "since" else day == key.day

    return meets


def has_text(candidate: Candidate, text: str, in_header: bool) -> bool:
    """A Finder by the rules of popgate.message.search."""
    parsed = candidate.parsed
    if parsed is None:
        return False
    return body_contains(parsed.root, candidate.read, fold(text), in_header=in_header)
