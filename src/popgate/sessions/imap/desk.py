"""The commands of a client that has logged in, on its folders. All calls block on the disk.

One thread at a time: the session sees to that, with `guard` where an idle client is told something while
its next command comes. It knows nothing of the login, the connection or the grant.
"""

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import chain

from popgate.mailbox.folders import Account, Draft, FolderState, NoSuchFolder, Placed
from popgate.mailbox.mailbox import MailboxError
from popgate.protocols.imap import answers
from popgate.protocols.imap import commands as imap
from popgate.protocols.imap import sequence as sets
from popgate.protocols.imap.fetch import Attribute
from popgate.protocols.imap.replies import Reply, Status
from popgate.protocols.imap.search import SearchKey, asks_for_modseq
from popgate.sessions.imap import ordering
from popgate.sessions.imap.dialect import Dialect
from popgate.sessions.imap.fetching import Fetching
from popgate.sessions.imap.listing import Listing, status_line
from popgate.sessions.imap.refusals import is_fault, refusal
from popgate.sessions.imap.searching import Search, has_text
from popgate.sessions.imap.selected import FolderLost, NoSuchMessage, Selected
from popgate.values.clock import Clock

_NOTHING: Mapping[int, int] = {}
_MAY_CREATE = (imap.AppendMessage, imap.AppendDone, imap.Copy)
QUOTA_ROOT = ""
_UNSEEN_LOOK = 1000
_SPECIAL_USES = frozenset(("\\Archive", "\\Drafts", "\\Junk", "\\Sent", "\\Trash"))
"""\\All and \\Flagged would be views of other mailboxes, which are not kept."""


class Desk:
    """`view` is the selected folder; `unsaid` what the client is still to be told of it. `tell_fault` hears
    what an administrator should know of: the client reads only that the mailbox cannot be used."""

    def __init__(
        self, account: Account, clock: Clock, append_limit: int, tell_fault: Callable[[MailboxError], None]
    ) -> None:
        self._tell_fault = tell_fault
        self._account = account
        self._clock = clock
        self._append_limit = append_limit
        self._dialect = Dialect()
        self._saved: Sequence[int] = ()  # RFC 5182: uids
        self._drafts: list[tuple[Draft, frozenset[str], int]] = []
        self._target = ""
        self._fault: MailboxError | None = None  # of the message that is coming
        self._seeking: Search | None = None
        self.view: Selected | None = None
        self.guard = threading.Lock()
        self.unsaid = b""

    def do(self, event: imap.ImapEvent, tag: bytes) -> Reply:
        """The reply to one command."""
        with self.guard:
            try:
                return _DO[type(event)](self, event, tag)
            except NoSuchMessage:
                return _NO_SUCH_MESSAGE
            except MailboxError as error:
                return self._refused(error, creates=isinstance(event, _MAY_CREATE))

    def _refused(self, error: MailboxError, *, creates: bool = False) -> Reply:
        if is_fault(error):
            self._tell_fault(error)
        return refusal(error, creates=creates)

    def seek(self, event: "imap.Search | imap.Sort | imap.Thread", tag: bytes) -> Reply | None:
        """A slice of a search; None while there is more of it, then the reply. Whoever calls lets others
        have the thread in between: a search of long texts would keep it for minutes."""
        with self.guard:
            try:
                if self._seeking is None:
                    self._seeking = self._begin_search(event.key)
                if self._seeking.step():
                    return None
            except (MailboxError, NoSuchMessage) as error:
                self._seeking = None
                if not isinstance(event, imap.Thread) and "SAVE" in (event.returns or ()):
                    self._saved = ()  # RFC 5182 2.1
                if isinstance(error, NoSuchMessage):
                    return _NO_SUCH_MESSAGE
                return self._refused(error)
        return self.do(event, tag)

    def look(self) -> None:
        """Put what is new into `unsaid`. Raises MailboxError when the selected folder is gone."""
        with self.guard:
            self.unsaid += self._news(may_expunge=True)

    def close(self) -> None:
        """Safe to call twice."""
        with self.guard:
            self._leave()
            self.forget_drafts()
            self._account.close()

    def _told(
        self,
        untagged: bytes = b"",
        text: bytes = b"",
        *,
        status: Status = "OK",
        may_expunge: bool = True,
        with_uid: bool = False,
        told: Mapping[int, int] = _NOTHING,
    ) -> Reply:
        """What was asked is done, so it is OK whatever has become of the selected folder: a client that reads
        NO after its message was stored stores it again."""
        try:
            news = self._news(may_expunge=may_expunge, with_uid=with_uid, told=told)
        except MailboxError:
            return Reply(status, text, untagged=untagged + _LOST, closes=True)
        return Reply(status, text, untagged=untagged + news)

    def _news(
        self, *, may_expunge: bool, with_uid: bool = False, told: Mapping[int, int] = _NOTHING
    ) -> bytes:
        """Raises FolderLost, NoSuchFolder. After a fault that may pass, as a full disk, a later command tells
        what has changed."""
        if self.view is None:
            return b""
        try:
            return self.view.news(self._dialect, may_expunge=may_expunge, with_uid=with_uid, told=told)
        except (FolderLost, NoSuchFolder):
            raise
        except MailboxError as error:
            self._tell_fault(error)
            return b""

    # Folders

    def _noop(self, event: imap.Noop, _: bytes) -> Reply:
        return self._told()

    def _enable(self, event: imap.Enable, _: bytes) -> Reply:
        self._dialect.enable(event.extensions)
        return Reply("OK")

    def _create(self, event: imap.Create, _: bytes) -> Reply:
        if len(event.special_use) > 1 or not _SPECIAL_USES.issuperset(event.special_use):
            return Reply("NO", b"[USEATTR] A mailbox cannot have that use here.")  # RFC 6154 3
        info = self._account.create(event.mailbox, event.special_use[0] if event.special_use else "")
        return Reply("OK", b"[MAILBOXID (%b)] Created." % info.id.encode("ascii", "replace"))  # RFC 8474 4.1

    def _delete(self, event: imap.Delete, _: bytes) -> Reply:
        self._account.delete(event.mailbox)
        return Reply("OK")

    def _rename(self, event: imap.Rename, _: bytes) -> Reply:
        self._account.rename(event.mailbox, event.new)
        return self._told()

    def _subscribe(self, event: imap.Subscribe, _: bytes) -> Reply:
        self._account.subscribe(event.mailbox, subscribed=not event.not_any_more)
        return Reply("OK")

    def _list(self, event: imap.List, _: bytes) -> Reply:
        listing = Listing(
            self._account, event, is_utf8=self._dialect.is_utf8, append_limit=self._append_limit
        )
        return self._told(b"".join(listing.lines()))

    def _namespace(self, event: imap.Namespace, _: bytes) -> Reply:
        return Reply("OK", untagged=answers.namespace_line(is_utf8=self._dialect.is_utf8))

    def _status(self, event: imap.Status, _: bytes) -> Reply:
        if "HIGHESTMODSEQ" in event.items:
            self._dialect.condstore = True  # RFC 7162 3.1
        line = status_line(
            self._account,
            event.mailbox,
            event.items,
            is_utf8=self._dialect.is_utf8,
            append_limit=self._append_limit,
        )
        return self._told(line)

    def _get_quota(self, event: imap.GetQuota, _: bytes) -> Reply:
        if event.root not in (None, QUOTA_ROOT):
            return Reply("NO", b"[NONEXISTENT] There is no such quota root.")
        lines = b""
        if event.mailbox is not None:
            self._account.state(event.mailbox)
            # Nothing here bounds a mailbox but the disk, so it belongs to no root (RFC 9208 4.2.2)
            return Reply(
                "OK", untagged=answers.quota_root_line(event.mailbox, (), is_utf8=self._dialect.is_utf8)
            )
        return Reply("OK", untagged=lines + answers.quota_line(QUOTA_ROOT, ()))

    def _set_quota(self, event: imap.SetQuota, _: bytes) -> Reply:
        return Reply("NO", b"[NOPERM] Only the administrator sets quotas.")

    # APPEND

    def _append_message(self, event: imap.AppendMessage, _: bytes) -> Reply:
        if event.is_first:
            self.forget_drafts()
            self._account.state(event.mailbox)
            self._target = event.mailbox
        when = event.date[0] if event.date is not None else int(self._clock.now())
        self._drafts.append((self._account.draft(), frozenset(event.flags), when))
        return Reply("")

    def write(self, data: bytes) -> None:
        """More of the message that is coming. What is wrong with it is told at its end."""
        with self.guard:
            if self._fault is None and self._drafts:
                try:
                    self._drafts[-1][0].write(data)
                except MailboxError as error:
                    self._fault = error

    def _append_done(self, event: imap.AppendDone, _: bytes) -> Reply:
        try:
            if self._fault is not None:
                raise self._fault
            for draft, _flags, _when in self._drafts:
                draft.finish()
            placed = self._account.append(self._target, self._drafts)
        finally:
            self.forget_drafts()
        return self._told(
            text=b"[APPENDUID %d %b] Stored." % (placed.uid_validity, answers.in_order(placed.target))
        )

    def forget_drafts(self) -> None:
        drafts, self._drafts, self._fault = self._drafts, [], None
        for draft, _flags, _when in drafts:
            try:
                draft.discard()
            except MailboxError:
                pass  # it is swept away later, as what a crash leaves

    # Selecting

    def _select(self, event: imap.Select, _: bytes) -> Reply:
        was_selected = self.view is not None
        self._leave()
        if event.condstore or event.resync is not None:
            self._dialect.condstore = True
        view = Selected(self._account.open(event.mailbox), is_read_only=event.read_only)
        try:
            state = view.begin()
        except MailboxError:
            view.folder.close()
            raise
        self.view = view
        # RFC 9051 6.3.2: what follows is told of another mailbox
        closed = answers.ok_line(b"CLOSED", b"The mailbox before is left.") if was_selected else b""
        lines = closed + self._selected(view, state)
        if event.resync is not None:
            lines += self._resync(view, event.resync)
        return Reply(
            "OK", b"[READ-ONLY] Selected." if event.read_only else b"[READ-WRITE] Selected.", untagged=lines
        )

    def _selected(self, view: Selected, state: FolderState) -> bytes:
        dialect = self._dialect
        lines = [
            answers.flags_line(view.known_flags),
            view.permanent_flags(),
            answers.exists_line(len(view)),
            answers.ok_line(b"UIDVALIDITY %d" % state.uid_validity, b"UIDs are valid."),
            answers.ok_line(b"UIDNEXT %d" % state.uid_next, b"The next UID."),
            answers.ok_line(b"HIGHESTMODSEQ %d" % state.highest_modseq, b"The latest change."),
            answers.ok_line(b"MAILBOXID (%b)" % state.id.encode("ascii", "replace"), b"Its own id."),
        ]
        if dialect.is_rev2:
            lines.append(answers.list_line((), view.name, is_utf8=True))  # RFC 9051 6.3.2
        else:
            lines.insert(3, answers.recent_line(view.recent_count))
            if state.unseen:
                first = _first_unseen(view, state.unseen)
                if first:
                    code = b"UNSEEN %d" % view.number(first)
                    lines.insert(4, answers.ok_line(code, b"The first unseen message."))
        return b"".join(lines)

    def _resync(self, view: Selected, known: imap.Resync) -> bytes:
        """RFC 7162 3.2.5: what has changed since the client was here last."""
        if known.uid_validity != view.uid_validity:
            return b""
        changes = view.folder.changes(known.modseq)
        vanished: Sequence[int] = [uid for uid in changes.vanished if not view.number(uid)]
        if known.known_uids is not None:
            vanished = [uid for uid in vanished if _in_set(uid, known.known_uids)]
        lines = [answers.vanished_line(vanished, earlier=True)]
        for row in changes.changed:
            number = view.number(row.uid)
            if number and (known.known_uids is None or _in_set(row.uid, known.known_uids)):
                lines.append(view.flags_line(number, row, self._dialect, with_uid=True))
        return b"".join(lines)

    def _close(self, event: imap.Close, _: bytes) -> Reply:
        view = self.view
        if view is not None and not event.keeps_deleted and not view.is_read_only:
            view.folder.expunge()
        self._leave()
        return Reply("OK")

    def _leave(self) -> None:
        view, self.view = self.view, None
        self._saved, self.unsaid = (), b""
        if view is not None:
            view.folder.close()

    # The selected folder

    def _selected_view(self) -> Selected:
        if self.view is None:
            raise NoSuchFolder("no folder is selected")
        return self.view

    def _uids(self, wanted: sets.Sequence, *, by_uid: bool) -> Sequence[int]:
        view = self._selected_view()
        return view.at(view.spans(wanted, self._saved, by_uid=by_uid))

    def _expunge(self, event: imap.Expunge, _: bytes) -> Reply:
        view = self._selected_view()
        if view.is_read_only:
            return _READ_ONLY
        view.folder.expunge(None if event.uids is None else self._uids(event.uids, by_uid=True))
        reply = self._told()
        if not self._dialect.condstore or reply.closes:
            return reply
        text = b"[HIGHESTMODSEQ %d] Expunged." % view.modseq  # RFC 7162 3.1.2
        return Reply("OK", text, untagged=reply.untagged)

    def _fetch(self, event: imap.Fetch, _: bytes) -> Reply:
        view = self._selected_view()
        uids = self._uids(event.set, by_uid=event.uid)
        lines, rows, items = b"", None, event.items
        if event.changed_since is not None:
            self._dialect.condstore = True
            if Attribute("modseq") not in items:
                items = (*items, Attribute("modseq"))  # RFC 7162 3.1.4.1
            changes = view.folder.changes(event.changed_since)
            if event.vanished:
                gone = [uid for uid in changes.vanished if not view.number(uid) and _holds(event.set, uid)]
                lines = answers.vanished_line(gone, earlier=True)
            wanted = set(uids)
            rows = [row for row in changes.changed if row.uid in wanted]
            uids = [row.uid for row in rows]
        fetching = Fetching(
            view,
            items,
            self._dialect,
            self._clock.monotonic,
            with_uid=event.uid or (event.changed_since is not None and self._dialect.qresync),
        )
        blocks = fetching.blocks(uids, rows)
        first = next(blocks, b"")
        second = next(blocks, None)
        if second is None:  # as nearly always: all of it
            status, text = _fetched(fetching)
            return self._told(
                lines + first,
                text,
                status=status,
                may_expunge=event.uid,
                with_uid=event.uid,
                told=fetching.told,
            )
        rest = self._guarded(chain((first, second), blocks))
        return Reply("OK", untagged=lines, source=rest, ending=lambda: _fetched(fetching))

    def _guarded(self, blocks: Iterator[bytes]) -> Iterator[bytes]:
        while True:
            with self.guard:
                block = next(blocks, None)
            if block is None:
                return
            yield block

    def _store(self, event: imap.Store, _: bytes) -> Reply:
        view = self._selected_view()
        if view.is_read_only:
            return _READ_ONLY
        if event.unchanged_since is not None:
            self._dialect.condstore = True
        uids = self._uids(event.set, by_uid=event.uid)
        stored = view.folder.store(uids, event.operation, frozenset(event.flags), event.unchanged_since)
        lines, told = [], {}
        with_uid = event.uid or self._dialect.tells_uid
        for row in stored.rows:
            told[row.uid] = row.modseq
            if event.silent and not self._dialect.condstore:
                continue
            # RFC 7162 3.1.3: MODSEQ is told after .SILENT too
            number = view.number(row.uid)
            lines.append(
                view.flags_line(number, row, self._dialect, with_uid=with_uid, with_flags=not event.silent)
            )
        text = b""
        if stored.modified:
            refused = stored.modified if event.uid else view.numbers(stored.modified)
            text = b"[MODIFIED %b] Changed meanwhile." % answers.compact(refused)
        status: Status = "OK"
        if stored.gone and not event.uid:
            status, text = "NO", b"[EXPUNGEISSUED] Some messages are gone."
        return self._told(
            b"".join(lines), text, status=status, may_expunge=event.uid, with_uid=event.uid, told=told
        )

    def _copy(self, event: imap.Copy, _: bytes) -> Reply:
        view = self._selected_view()
        if event.is_move and view.is_read_only:
            return _READ_ONLY
        uids = self._uids(event.set, by_uid=event.uid)
        if not uids:
            return self._told(text=b"There was nothing to do.")
        placed = (view.folder.move if event.is_move else view.folder.copy)(uids, event.mailbox)
        code = _copyuid(placed)
        if not event.is_move:
            return self._told(text=code + b"Copied.", may_expunge=event.uid)
        # RFC 6851 4.3: COPYUID comes before the messages go
        untagged = b"* OK " + code + b"Moved.\r\n" if code else b""
        return self._told(untagged)

    # Searching

    def _begin_search(self, key: SearchKey) -> Search:
        if asks_for_modseq(key):
            self._dialect.condstore = True
        return Search(self._selected_view(), key, self._saved, self._clock.now(), has_text=has_text)

    def _sought(self) -> Search:
        """The search that `seek` has brought to its end."""
        search, self._seeking = self._seeking, None
        assert search is not None
        return search

    def _search(self, event: imap.Search, tag: bytes) -> Reply:
        search = self._sought()
        modseq = search.highest_modseq if asks_for_modseq(event.key) and search.found else None
        returns = event.returns
        if returns is None and self._dialect.is_rev2:
            returns = frozenset(("ALL",))  # RFC 9051 6.4.4: no untagged SEARCH any more
        found = self._named(search.found, by_uid=event.uid)
        if returns is None:
            return self._told(answers.search_line(found, modseq=modseq), may_expunge=event.uid)
        return self._extended(event.uid, returns, search.found, found, tag, modseq)

    def _sort(self, event: imap.Sort, tag: bytes) -> Reply:
        search, view = self._sought(), self._selected_view()
        modseq = search.highest_modseq if asks_for_modseq(event.key) and search.found else None
        uids = ordering.sort(view.folder, search.found, event.sort_keys, view.number)
        found = uids if event.uid else [view.number(uid) for uid in uids]
        if event.returns is None:
            return self._told(answers.sort_line(found, modseq=modseq), may_expunge=event.uid)
        return self._extended(event.uid, event.returns, uids, found, tag, modseq)

    def _thread(self, event: imap.Thread, _: bytes) -> Reply:
        search, view = self._sought(), self._selected_view()
        told = ordering.thread(
            view.folder, search.found, event.algorithm, view.number, by_uid=event.uid
        ).encode("ascii")
        return self._told(b"* THREAD%b%b\r\n" % (b" " if told else b"", told), may_expunge=event.uid)

    def _named(self, uids: Sequence[int], *, by_uid: bool) -> Sequence[int]:
        return uids if by_uid else self._selected_view().numbers(uids)

    def _extended(
        self,
        by_uid: bool,
        returns: frozenset[str],
        uids: Sequence[int],
        found: Sequence[int],
        tag: bytes,
        modseq: int | None,
    ) -> Reply:
        """RFC 4731, RFC 5182. `found` are `uids` as the answer names them, in the same order."""
        if "SAVE" in returns:
            ends = [uids[0]] * ("MIN" in returns) + [uids[-1]] * ("MAX" in returns) if uids else []
            # RFC 5182 2.4: MIN and MAX alone save no more than they tell
            is_few = bool(returns & {"MIN", "MAX"}) and not returns & {"ALL", "COUNT"}
            self._saved = tuple(sorted(set(ends if is_few else uids)))
        if not returns - {"SAVE"}:
            return self._told(may_expunge=by_uid)
        line = answers.esearch_line(
            tag,
            uid=by_uid,
            least=found[0] if "MIN" in returns and found else None,
            greatest=found[-1] if "MAX" in returns and found else None,
            numbers=answers.in_order(found) if "ALL" in returns else b"",
            count=len(found) if "COUNT" in returns else None,
            modseq=modseq,
        )
        return self._told(line, may_expunge=by_uid)


_NO_SUCH_MESSAGE = Reply("BAD", b"There is no message of that number.")

_READ_ONLY = Reply("NO", b"[READ-ONLY] The mailbox was opened to be read.")

_LOST = b"* BYE [UNAVAILABLE] The mailbox is no longer what was selected.\r\n"

_DO: "Mapping[type, Callable[..., Reply]]" = {
    imap.Noop: Desk._noop,
    imap.Enable: Desk._enable,
    imap.Select: Desk._select,
    imap.Create: Desk._create,
    imap.Delete: Desk._delete,
    imap.Rename: Desk._rename,
    imap.Subscribe: Desk._subscribe,
    imap.List: Desk._list,
    imap.Namespace: Desk._namespace,
    imap.Status: Desk._status,
    imap.AppendMessage: Desk._append_message,
    imap.AppendDone: Desk._append_done,
    imap.GetQuota: Desk._get_quota,
    imap.SetQuota: Desk._set_quota,
    imap.Close: Desk._close,
    imap.Expunge: Desk._expunge,
    imap.Search: Desk._search,
    imap.Sort: Desk._sort,
    imap.Thread: Desk._thread,
    imap.Fetch: Desk._fetch,
    imap.Store: Desk._store,
    imap.Copy: Desk._copy,
}


def _fetched(fetching: Fetching) -> tuple[Status, bytes]:
    if fetching.has_unknown_encoding:
        return "NO", b"[UNKNOWN-CTE] A part has an encoding that is not known."  # RFC 3516 4.3
    if fetching.has_missed:
        return "OK", b"[EXPUNGEISSUED] Some messages are gone."
    return "OK", b"Fetched."


def _first_unseen(view: Selected, unseen: int) -> int:
    """The uid of the first of so many; 0 where looking for it would cost more than the rest of a SELECT
    (RFC 3501 7.1: then the client assumes nothing). It is nearly always among the first or the last."""
    uids = view.uids
    last = [row.uid for row in view.folder.rows(uids[-_UNSEEN_LOOK:]) if "\\Seen" not in row.flags]
    if len(last) >= unseen:
        return last[-unseen]
    return next((row.uid for row in view.folder.rows(uids[:_UNSEEN_LOOK]) if "\\Seen" not in row.flags), 0)


def _copyuid(placed: Placed) -> bytes:
    if not placed.target:
        return b""
    return b"[COPYUID %d %b %b] " % (
        placed.uid_validity,
        answers.in_order(placed.source),
        answers.in_order(placed.target),
    )


def _in_set(uid: int, wanted: sets.SequenceSet) -> bool:
    for one, other in wanted.ranges:
        low, high = (one or sets.MAX_NUMBER), (other or sets.MAX_NUMBER)
        if min(low, high) <= uid <= max(low, high):
            return True
    return False


def _holds(wanted: sets.Sequence, uid: int) -> bool:
    return isinstance(wanted, sets.SequenceSet) and _in_set(uid, wanted)
