"""LIST, LSUB and STATUS: which folders there are, and how much is in them.

RFC 9051 6.3.9, RFC 5258 (selection and return options), RFC 5819 (STATUS in LIST), RFC 6154 (special uses).
"""

from collections.abc import Iterable, Iterator, Sequence

from popgate.mailbox.folders import Account, FolderInfo, FolderState
from popgate.mailbox.mailbox import MailboxError
from popgate.protocols.imap import answers
from popgate.protocols.imap import commands as imap
from popgate.sessions.imap.patterns import DELIMITER, Pattern
from popgate.values.value import value


@value
class _Row:
    """One line to come. `matched` by a child only: told for its `child_info` alone."""

    info: FolderInfo
    has_children: bool
    child_info: tuple[str, ...] = ()


class Listing:
    """One LIST or LSUB. `append_limit`: for RETURN (STATUS (APPENDLIMIT))."""

    def __init__(self, account: Account, command: imap.List, *, is_utf8: bool, append_limit: int) -> None:
        self._account = account
        self._command = command
        self._is_utf8 = is_utf8
        self._append_limit = append_limit

    def lines(self) -> Iterator[bytes]:
        """Asks the disk."""
        command = self._command
        if command.patterns == ("",) and not command.is_extended:
            # RFC 9051 6.3.9: the delimiter and the root of the reference
            yield answers.list_line(("\\Noselect",), "", is_utf8=self._is_utf8, is_lsub=command.is_lsub)
            return
        folders = self._account.folders()
        rows = self._subscribed(folders) if command.is_lsub else self._listed(folders)
        for row in rows:
            yield self._line(row)
            if command.status and row.info.exists:
                yield self._status(row.info.name)

    def _patterns(self) -> list[Pattern]:
        reference = self._command.reference
        return [Pattern(reference + text) for text in self._command.patterns]

    def _listed(self, folders: Sequence[FolderInfo]) -> Iterator[_Row]:
        command = self._command
        patterns = self._patterns()
        recursive = "RECURSIVEMATCH" in command.select
        parents = _parents(folders)
        below = self._selected_below(folders) if recursive else {}
        for info in folders:
            if not any(pattern.matches(info.name) for pattern in patterns):
                continue
            is_selected = self._is_selected(info, info.name in parents)
            child_info = below.get(info.name, ())
            if is_selected or child_info:
                yield _Row(info, info.name in parents, child_info)

    def _is_selected(self, info: FolderInfo, is_parent: bool) -> bool:
        select = self._command.select
        if "SUBSCRIBED" in select and not info.is_subscribed:
            return False
        if "SPECIAL-USE" in select and not info.special_use:
            return False
        # A name that is only subscribed to is no folder, but with SUBSCRIBED it is told (RFC 5258 3.1)
        return "SUBSCRIBED" in select or info.exists or is_parent

    def _selected_below(self, folders: Sequence[FolderInfo]) -> dict[str, tuple[str, ...]]:
        """RFC 5258 3.5 CHILDINFO: what of the criteria is met below each name."""
        met: dict[str, tuple[str, ...]] = {}
        if "SUBSCRIBED" not in self._command.select:
            return met
        for info in folders:
            if info.is_subscribed:
                for parent in _above(info.name):
                    met[parent] = ("SUBSCRIBED",)
        return met

    def _subscribed(self, folders: Sequence[FolderInfo]) -> Iterator[_Row]:
        """RFC 3501 6.3.9 LSUB: with `%`, a name whose child alone is subscribed to is told as \\Noselect."""
        patterns = self._patterns()
        told: dict[str, _Row] = {}
        for info in folders:
            if not info.is_subscribed:
                continue
            if any(pattern.matches(info.name) for pattern in patterns):
                told[info.name] = _Row(info, has_children=False)
                continue
            for parent in _above(info.name):
                if parent not in told and any(pattern.matches(parent) for pattern in patterns):
                    told[parent] = _Row(FolderInfo(parent, exists=False), has_children=True)
        for name in sorted(told):
            yield told[name]

    def _line(self, row: _Row) -> bytes:
        command, info = self._command, row.info
        attributes: list[str] = []
        if command.is_lsub:
            if not info.exists and not info.is_subscribed:
                attributes.append("\\Noselect")
            return answers.list_line(attributes, info.name, is_utf8=self._is_utf8, is_lsub=True)
        if not info.exists:
            # RFC 9051 7.3.1: \NonExistent implies \Noselect, but who knows RFC 3501 alone knows the latter
            attributes += ["\\NonExistent", "\\Noselect"] if command.is_extended else ["\\Noselect"]
        attributes.append("\\HasChildren" if row.has_children else "\\HasNoChildren")
        wants_subscribed = "SUBSCRIBED" in command.returns or "SUBSCRIBED" in command.select
        if info.is_subscribed and wants_subscribed:
            attributes.append("\\Subscribed")
        if info.special_use:
            attributes.append(info.special_use)
        return answers.list_line(attributes, info.name, is_utf8=self._is_utf8, child_info=row.child_info)

    def _status(self, name: str) -> bytes:
        try:
            return status_line(
                self._account,
                name,
                self._command.status,
                is_utf8=self._is_utf8,
                append_limit=self._append_limit,
            )
        except MailboxError:
            return b""  # RFC 5819 2: a folder that has no status by now is told without


def status_line(
    account: Account, name: str, items: Iterable[str], *, is_utf8: bool, append_limit: int
) -> bytes:
    """RFC 9051 6.3.11. Raises NoSuchFolder, MailboxError."""
    state = account.state(name)
    told: list[tuple[str, int | str | None]] = []
    for item in items:
        if item == "RECENT":
            told.append((item, _recent(account, name, state)))
        elif item == "APPENDLIMIT":
            told.append((item, append_limit))
        else:
            told.append((item, getattr(state, _FIELDS[item])))
    return answers.status_line(name, told, is_utf8=is_utf8)


_FIELDS = {
    "MESSAGES": "messages",
    "UIDNEXT": "uid_next",
    "UIDVALIDITY": "uid_validity",
    "UNSEEN": "unseen",
    "DELETED": "deleted",
    "SIZE": "octets",  # RFC 8438
    "HIGHESTMODSEQ": "highest_modseq",
    "MAILBOXID": "id",  # RFC 8474
    "DELETED-STORAGE": "deleted_octets",  # RFC 9208 4.1.4
}


def _recent(account: Account, name: str, state: FolderState) -> int:
    if state.recent_from >= state.uid_next or not state.messages:
        return 0
    folder = account.open(name)
    try:
        folder.refresh()
        return sum(uid >= state.recent_from for uid in folder.uids())
    finally:
        folder.close()


def _above(name: str) -> Iterator[str]:
    at = name.find(DELIMITER)
    while at > 0:
        yield name[:at]
        at = name.find(DELIMITER, at + 1)


def _parents(folders: Sequence[FolderInfo]) -> set[str]:
    """Names that have a folder below them; one that is only subscribed to is none."""
    parents: set[str] = set()
    for info in folders:
        if info.exists:
            parents.update(_above(info.name))
    return parents
