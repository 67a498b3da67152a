"""From a complete command's octets to the value that a session answers.

Without state: phases, tags, and which extensions are enabled or offered are the engine's to know.
One table row a verb; the grammars of their own size have modules of their own.
"""

import re
from collections.abc import Callable
from typing import Literal

from popgate.protocols import sasl
from popgate.protocols.imap.append_arguments import parse_append_next, parse_append_start
from popgate.protocols.imap.charsets import decoder
from popgate.protocols.imap.commands import (
    Authenticate,
    ClientId,
    Close,
    Compress,
    Copy,
    Create,
    Delete,
    Enable,
    Expunge,
    Fetch,
    GetQuota,
    Idle,
    ImapEvent,
    Logout,
    Namespace,
    Noop,
    Rename,
    Resync,
    Search,
    Select,
    SetQuota,
    Sort,
    StartTls,
    Status,
    Store,
    Subscribe,
    Thread,
)
from popgate.protocols.imap.fetch_items import read_items
from popgate.protocols.imap.flags import read_flags
from popgate.protocols.imap.lexer import MAX_NUMBER64, Arguments, Context, Cursor, Syntax
from popgate.protocols.imap.list_arguments import read_list, read_lsub, read_mailbox, read_status_items
from popgate.protocols.imap.search_criteria import read_criteria, read_sort_keys
from popgate.protocols.imap.sequence import SequenceSet
from popgate.protocols.imap.sequence_sets import read_numbers, read_sequence

_Parse = Callable[[Cursor, Context], ImapEvent]

MAX_ID_FIELDS = 30  # RFC 2971 3.3
_MAX_NAMES = 100  # of ENABLE
_MAX_PARAMETERS = 20
_SPECIAL_USE = re.compile(rb"\\[A-Za-z]{1,50}")
_BASE64 = re.compile(rb"[A-Za-z0-9+/]*={0,2}")


def parse_command(verb: bytes, arguments: Arguments, context: Context) -> ImapEvent:
    """The command as a value of `commands`. `verb` is upper-case, `UID FETCH` and its like with one space.

    Not for APPEND (`parse_append_start`), AUTHENTICATE (`parse_authenticate`) and CAPABILITY. ENABLE gives
    all names that the client wrote, upper-case, each once, known or not; the engine narrows them.
    UID FETCH's items do not hold `uid` unless the client wrote it.
    Raises Syntax: also for a verb that is not one.
    """
    parse = _VERBS.get(verb)
    if parse is None:
        raise Syntax(b"Unknown command")
    cursor = Cursor(arguments)
    event = parse(cursor, context)
    cursor.finish()
    return event


def parse_authenticate(arguments: Arguments) -> tuple[str, bytes | None]:
    """AUTHENTICATE: the mechanism, upper-case, and the initial response (RFC 4959) still in base64: b"=" is
    an empty one, None is none. Raises Syntax."""
    cursor = Cursor(arguments)
    cursor.space()
    mechanism = cursor.atom().decode("ascii").upper()
    initial = None
    if cursor.has_more():
        found = cursor.match(_BASE64)
        initial = found[0] if found else b""
        if not initial:
            raise Syntax(b"Initial response is not base64")
    cursor.finish()
    return mechanism, initial


def _bare(event: ImapEvent) -> _Parse:
    return lambda cursor, context: event


# Any state, not authenticated


def _id(cursor: Cursor, context: Context) -> ImapEvent:
    fields: list[tuple[str, str]] = []

    def one() -> None:
        name = cursor.string()
        cursor.space()
        text = b"" if cursor.comes(b"NIL") else cursor.string()
        fields.append((name.decode("utf-8", "replace"), text.decode("utf-8", "replace")))

    cursor.space()
    if not cursor.comes(b"NIL"):
        cursor.list_of(one, MAX_ID_FIELDS, may_be_empty=True)
    return ClientId(tuple(fields))


def _login(cursor: Cursor, context: Context) -> ImapEvent:
    cursor.space()
    name = _text(cursor)
    cursor.space()
    password = cursor.astring()
    # A name or password that nobody has is a wrong one, not one that is not in the grammar.
    is_name = 0 < len(name.encode("utf-8")) <= sasl.MAX_NAME and name.isprintable()
    if not is_name or not 0 < len(password) <= sasl.MAX_PASSWORD:
        raise Syntax(b"Wrong name or password", b"[AUTHENTICATIONFAILED]")
    return Authenticate(sasl.PlainCredentials("LOGIN", name, password), command=True)


# Authenticated


def _enable(cursor: Cursor, context: Context) -> ImapEvent:
    cursor.space()
    names: dict[str, None] = {}
    for _ in range(_MAX_NAMES):
        names[cursor.atom().decode("ascii").upper()] = None
        if not cursor.has_more():
            return Enable(tuple(names))
    raise Syntax(b"List is too long", b"[LIMIT]")


def _select(cursor: Cursor, context: Context, *, read_only: bool = False) -> ImapEvent:
    cursor.space()
    mailbox = read_mailbox(cursor, context)
    condstore = False
    resync: Resync | None = None

    def parameter() -> None:
        nonlocal condstore, resync
        if cursor.comes(b"CONDSTORE"):
            condstore = True
        elif cursor.comes(b"QRESYNC") and resync is None:
            cursor.space()
            resync = _read_resync(cursor)
        else:
            raise Syntax(b"Unknown SELECT parameter")

    if cursor.has_more():
        cursor.list_of(parameter, _MAX_PARAMETERS)
    return Select(mailbox, read_only, condstore, resync)


def _read_resync(cursor: Cursor) -> Resync:
    """RFC 7162 3.2.5: `(uidvalidity modseq [known-uids] [(numbers uids)])`."""
    cursor.expect(b"(")
    uid_validity = cursor.number(1)
    cursor.space()
    modseq = cursor.number(1, MAX_NUMBER64)
    known: SequenceSet | None = None
    numbers: SequenceSet | None = None
    uids: SequenceSet | None = None
    has_space = cursor.spaces()
    if has_space and cursor.peek() not in (0x28, 0x29):
        known = read_numbers(cursor, has_star=False)
        has_space = cursor.spaces()
    if has_space and cursor.take(b"("):
        numbers = read_numbers(cursor, has_star=False)
        cursor.space()
        uids = read_numbers(cursor, has_star=False)
        cursor.spaces()
        cursor.expect(b")")
        cursor.spaces()
    cursor.expect(b")")
    return Resync(uid_validity, modseq, known, numbers, uids)


def _create(cursor: Cursor, context: Context) -> ImapEvent:
    cursor.space()
    mailbox = read_mailbox(cursor, context)
    special_use: list[str] = []

    def use() -> None:
        found = cursor.match(_SPECIAL_USE)
        if not found:
            raise Syntax(b"Special use expected")
        special_use.append(found[0].decode("ascii"))

    def parameter() -> None:
        if special_use or not cursor.comes(b"USE"):  # RFC 6154 3
            raise Syntax(b"Unknown CREATE parameter")
        cursor.space()
        cursor.list_of(use, _MAX_PARAMETERS, may_be_empty=True)

    if cursor.has_more():
        cursor.list_of(parameter, _MAX_PARAMETERS)
    return Create(mailbox, tuple(special_use))


def _delete(cursor: Cursor, context: Context) -> ImapEvent:
    cursor.space()
    return Delete(read_mailbox(cursor, context))


def _rename(cursor: Cursor, context: Context) -> ImapEvent:
    cursor.space()
    mailbox = read_mailbox(cursor, context)
    cursor.space()
    return Rename(mailbox, read_mailbox(cursor, context))


def _subscribe(cursor: Cursor, context: Context, *, not_any_more: bool = False) -> ImapEvent:
    cursor.space()
    return Subscribe(read_mailbox(cursor, context), not_any_more)


def _status(cursor: Cursor, context: Context) -> ImapEvent:
    cursor.space()
    mailbox = read_mailbox(cursor, context)
    cursor.space()
    return Status(mailbox, read_status_items(cursor))


def _get_quota(cursor: Cursor, context: Context) -> ImapEvent:
    cursor.space()
    return GetQuota(_text(cursor), None)


def _get_quota_root(cursor: Cursor, context: Context) -> ImapEvent:
    cursor.space()
    return GetQuota(None, read_mailbox(cursor, context))


def _set_quota(cursor: Cursor, context: Context) -> ImapEvent:
    def resource() -> None:
        cursor.atom()
        cursor.space()
        cursor.number(0, MAX_NUMBER64)

    cursor.space()
    root = _text(cursor)
    cursor.space()
    cursor.list_of(resource, _MAX_PARAMETERS, may_be_empty=True)
    return SetQuota(root)


def _compress(cursor: Cursor, context: Context) -> ImapEvent:
    cursor.space()
    if not cursor.comes(b"DEFLATE"):  # RFC 4978 5
        raise Syntax(b"Unknown compression")
    return Compress()


def _text(cursor: Cursor) -> str:
    """An astring that is neither a mailbox nor a password."""
    try:
        return cursor.astring().decode("utf-8")
    except UnicodeDecodeError as error:
        raise Syntax(b"Text is not UTF-8") from error


# Selected


def _uid_expunge(cursor: Cursor, context: Context) -> ImapEvent:
    cursor.space()
    return Expunge(read_sequence(cursor))


def _search(cursor: Cursor, context: Context, *, uid: bool = False) -> ImapEvent:
    cursor.space()
    returns = _read_returns(cursor, (b"MIN", b"MAX", b"ALL", b"COUNT", b"SAVE"))
    charset = None
    if cursor.comes(b"CHARSET"):
        cursor.space()
        charset = cursor.astring()
        cursor.space()
    key = read_criteria(cursor, decoder(charset, is_utf8=context.is_utf8))
    return Search(key, uid, returns)


def _sort(cursor: Cursor, context: Context, *, uid: bool = False) -> ImapEvent:
    cursor.space()
    returns = _read_returns(cursor, (b"MIN", b"MAX", b"ALL", b"COUNT"))  # RFC 5267 2
    sort_keys = read_sort_keys(cursor)
    cursor.space()
    charset = cursor.astring()
    cursor.space()
    key = read_criteria(cursor, decoder(charset, is_utf8=context.is_utf8))
    return Sort(sort_keys, key, uid, returns)


def _read_returns(cursor: Cursor, known: tuple[bytes, ...]) -> frozenset[str] | None:
    """RFC 4731 3.1 RETURN, with the space behind it; None: there is none."""
    if not cursor.comes(b"RETURN"):
        return None
    returns: set[str] = set()

    def one() -> None:
        option = cursor.word()
        if option not in known:
            raise Syntax(b"Unknown RETURN option")
        returns.add(option.decode("ascii"))

    cursor.space()
    cursor.list_of(one, _MAX_PARAMETERS, may_be_empty=True)
    cursor.space()
    return frozenset(returns or ("ALL",))


def _thread(cursor: Cursor, context: Context, *, uid: bool = False) -> ImapEvent:
    cursor.space()
    algorithm = cursor.word()
    if algorithm not in (b"ORDEREDSUBJECT", b"REFERENCES"):
        raise Syntax(b"Unknown THREAD algorithm")
    cursor.space()
    charset = cursor.astring()
    cursor.space()
    key = read_criteria(cursor, decoder(charset, is_utf8=context.is_utf8))
    return Thread(algorithm.decode("ascii"), key, uid)


def _fetch(cursor: Cursor, context: Context, *, uid: bool = False) -> ImapEvent:
    cursor.space()
    numbers = read_sequence(cursor)
    cursor.space()
    items = read_items(cursor)
    changed_since: int | None = None
    vanished = False

    def modifier() -> None:
        nonlocal changed_since, vanished
        if changed_since is None and cursor.comes(b"CHANGEDSINCE"):
            cursor.space()
            changed_since = cursor.number(0, MAX_NUMBER64)
        elif cursor.comes(b"VANISHED"):
            vanished = True
        else:
            raise Syntax(b"Unknown FETCH modifier")

    if cursor.has_more():
        cursor.list_of(modifier, _MAX_PARAMETERS)
    if vanished and (not uid or changed_since is None):  # RFC 7162 3.2.6
        raise Syntax(b"VANISHED needs UID FETCH and CHANGEDSINCE")
    return Fetch(numbers, items, uid, changed_since, vanished)


_OPERATIONS: dict[bytes, Literal["replace", "add", "remove"]] = {b"": "replace", b"+": "add", b"-": "remove"}


def _store(cursor: Cursor, context: Context, *, uid: bool = False) -> ImapEvent:
    cursor.space()
    numbers = read_sequence(cursor)
    cursor.space()
    unchanged_since: int | None = None

    def modifier() -> None:
        nonlocal unchanged_since
        if unchanged_since is not None or not cursor.comes(b"UNCHANGEDSINCE"):
            raise Syntax(b"Unknown STORE modifier")
        cursor.space()
        unchanged_since = cursor.number(0, MAX_NUMBER64)

    if cursor.peek() == 0x28:
        cursor.list_of(modifier, _MAX_PARAMETERS)
        cursor.space()
    sign = b"+" if cursor.take(b"+") else b"-" if cursor.take(b"-") else b""
    silent = cursor.comes(b"FLAGS.SILENT")
    if not silent and not cursor.comes(b"FLAGS"):
        raise Syntax(b"Unknown STORE item")
    cursor.space()
    flags = read_flags(cursor, may_be_bare=True)
    return Store(numbers, _OPERATIONS[sign], flags, silent, uid, unchanged_since)


def _copy(cursor: Cursor, context: Context, *, uid: bool = False, is_move: bool = False) -> ImapEvent:
    cursor.space()
    numbers = read_sequence(cursor)
    cursor.space()
    return Copy(numbers, read_mailbox(cursor, context), uid, is_move)


_VERBS: dict[bytes, _Parse] = {
    b"NOOP": _bare(Noop()),
    b"LOGOUT": _bare(Logout()),
    b"ID": _id,
    b"STARTTLS": _bare(StartTls()),
    b"LOGIN": _login,
    b"ENABLE": _enable,
    b"SELECT": _select,
    b"EXAMINE": lambda cursor, context: _select(cursor, context, read_only=True),
    b"CREATE": _create,
    b"DELETE": _delete,
    b"RENAME": _rename,
    b"SUBSCRIBE": _subscribe,
    b"UNSUBSCRIBE": lambda cursor, context: _subscribe(cursor, context, not_any_more=True),
    b"LIST": read_list,
    b"LSUB": read_lsub,
    b"NAMESPACE": _bare(Namespace()),
    b"STATUS": _status,
    b"IDLE": _bare(Idle()),
    b"GETQUOTA": _get_quota,
    b"GETQUOTAROOT": _get_quota_root,
    b"SETQUOTA": _set_quota,
    b"COMPRESS": _compress,
    b"CHECK": _bare(Noop(is_check=True)),
    b"CLOSE": _bare(Close()),
    b"UNSELECT": _bare(Close(keeps_deleted=True)),
    b"EXPUNGE": _bare(Expunge()),
    b"UID EXPUNGE": _uid_expunge,
    b"SEARCH": _search,
    b"UID SEARCH": lambda cursor, context: _search(cursor, context, uid=True),
    b"SORT": _sort,
    b"UID SORT": lambda cursor, context: _sort(cursor, context, uid=True),
    b"THREAD": _thread,
    b"UID THREAD": lambda cursor, context: _thread(cursor, context, uid=True),
    b"FETCH": _fetch,
    b"UID FETCH": lambda cursor, context: _fetch(cursor, context, uid=True),
    b"STORE": _store,
    b"UID STORE": lambda cursor, context: _store(cursor, context, uid=True),
    b"COPY": _copy,
    b"UID COPY": lambda cursor, context: _copy(cursor, context, uid=True),
    b"MOVE": lambda cursor, context: _copy(cursor, context, is_move=True),
    b"UID MOVE": lambda cursor, context: _copy(cursor, context, uid=True, is_move=True),
}

__all__ = [
    "Arguments",
    "Context",
    "Syntax",
    "parse_append_next",
    "parse_append_start",
    "parse_authenticate",
    "parse_command",
]
