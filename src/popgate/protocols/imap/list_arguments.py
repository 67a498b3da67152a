"""The grammar of LIST and of STATUS items (RFC 9051 6.3.9, RFC 5258, RFC 5819, RFC 6154)."""

from collections.abc import Callable

from popgate.protocols.imap.commands import List
from popgate.protocols.imap.lexer import Context, Cursor, Syntax
from popgate.protocols.imap.mailbox_names import BadName, decode_name, decode_pattern

MAX_PATTERNS = 50
_MAX_OPTIONS = 20

_STATUS_ITEMS = frozenset(
    (
        b"MESSAGES",
        b"RECENT",
        b"UIDNEXT",
        b"UIDVALIDITY",
        b"UNSEEN",
        b"DELETED",
        b"SIZE",
        b"HIGHESTMODSEQ",
        b"APPENDLIMIT",
        b"MAILBOXID",
        b"DELETED-STORAGE",
    )
)
_SELECT_OPTIONS = frozenset((b"SUBSCRIBED", b"REMOTE", b"RECURSIVEMATCH", b"SPECIAL-USE"))
_RETURN_OPTIONS = frozenset((b"SUBSCRIBED", b"CHILDREN", b"SPECIAL-USE", b"STATUS"))


def read_mailbox(cursor: Cursor, context: Context) -> str:
    """A mailbox's name. Raises Syntax."""
    octets = cursor.astring()
    try:
        return decode_name(octets, is_utf8=context.is_utf8)
    except BadName as error:
        raise bad_name(error) from error


def bad_name(error: BadName) -> Syntax:
    return Syntax(b"Mailbox name: " + str(error).encode("ascii"), b"[CANNOT]")


def read_status_items(cursor: Cursor) -> tuple[str, ...]:
    """In parentheses, each once, upper-case. Raises Syntax."""
    return tuple(_read_options(cursor, _STATUS_ITEMS, b"Unknown STATUS item"))


def read_list(cursor: Cursor, context: Context) -> List:
    """LIST, from behind its verb. Raises Syntax."""
    cursor.space()
    is_extended = cursor.peek() == 0x28
    select: list[str] = []
    if is_extended:
        select = _read_options(cursor, _SELECT_OPTIONS, b"Unknown LIST selection option", may_be_empty=True)
        cursor.space()
        # RFC 5258 3.1: it modifies another option, and REMOTE is not one that it can
        if "RECURSIVEMATCH" in select and not {"SUBSCRIBED", "SPECIAL-USE"} & set(select):
            raise Syntax(b"RECURSIVEMATCH needs another selection option")
    reference = read_mailbox(cursor, context)
    cursor.space()
    patterns: list[str] = []

    def pattern() -> None:
        patterns.append(_read_pattern(cursor, context))

    if cursor.peek() == 0x28:
        is_extended = True
        cursor.list_of(pattern, MAX_PATTERNS)
    else:
        pattern()
    returns: list[str] = []
    status: tuple[str, ...] = ()
    if cursor.has_more():
        is_extended = True
        returns, status = _read_return_options(cursor)
    return List(
        reference,
        tuple(dict.fromkeys(patterns)),
        select=frozenset(select),
        returns=frozenset(returns),
        status=status,
        is_extended=is_extended,
    )


def read_lsub(cursor: Cursor, context: Context) -> List:
    """LSUB (RFC 3501 6.3.9), from behind its verb. Raises Syntax."""
    cursor.space()
    reference = read_mailbox(cursor, context)
    cursor.space()
    return List(reference, (_read_pattern(cursor, context),), is_lsub=True)


def _read_pattern(cursor: Cursor, context: Context) -> str:
    octets = cursor.list_mailbox()
    try:
        return decode_pattern(octets, is_utf8=context.is_utf8)
    except BadName as error:
        raise bad_name(error) from error


def _read_return_options(cursor: Cursor) -> tuple[list[str], tuple[str, ...]]:
    if not cursor.comes(b"RETURN"):
        raise Syntax(b"Unexpected argument")
    cursor.space()
    status: list[str] = []

    def one(option: bytes) -> None:
        if option == b"STATUS":  # RFC 5819 2
            cursor.space()
            status[:] = read_status_items(cursor)

    returns = _read_options(
        cursor, _RETURN_OPTIONS, b"Unknown LIST return option", may_be_empty=True, behind=one
    )
    return returns, tuple(status)


def _read_options(
    cursor: Cursor,
    known: frozenset[bytes],
    otherwise: bytes,
    *,
    may_be_empty: bool = False,
    behind: Callable[[bytes], None] = lambda option: None,
) -> list[str]:
    """Words of `known` in parentheses, each once. `behind` reads what follows a word."""
    options: dict[str, None] = {}

    def one() -> None:
        option = cursor.word()
        if option not in known:
            raise Syntax(otherwise)
        options[option.decode("ascii")] = None
        behind(option)

    cursor.list_of(one, _MAX_OPTIONS, may_be_empty=may_be_empty)
    return list(options)
