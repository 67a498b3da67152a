"""The grammar of APPEND: what stands before each of its messages (RFC 9051 6.3.12, RFC 3502, RFC 6855 4)."""

from popgate.protocols.imap.commands import AppendMessage
from popgate.protocols.imap.dates import read_date_time
from popgate.protocols.imap.flags import read_flags
from popgate.protocols.imap.lexer import Arguments, Context, Cursor, Literal, Syntax, literal_at_end
from popgate.protocols.imap.list_arguments import read_mailbox


def parse_append_start(arguments: Arguments, context: Context) -> AppendMessage | None:
    """APPEND up to the announcement of its first message.

    `arguments` are the pieces so far, the last one ends in an announcement whose octets have not come, so
    there is one literal less than announcements. None: that literal is the mailbox's name, gather it
    and ask again. Raises Syntax: also where no message is announced.
    """
    last = arguments.pieces[-1]
    announced = literal_at_end(last)
    if announced is None:
        raise Syntax(b"Missing message literal")
    cursor = Cursor(Arguments([*arguments.pieces[:-1], last[: announced.start]], arguments.literals))
    cursor.space()
    if cursor.is_at_end:
        if announced.is_binary:
            raise Syntax(b"Binary literal not allowed here")
        return None
    mailbox = read_mailbox(cursor, context)
    return _read_message(cursor, announced, mailbox, is_first=True)


def parse_append_next(piece: bytes, previous: AppendMessage) -> AppendMessage | None:
    """What follows the octets of `previous` in the same APPEND: the next message (RFC 3502) that `piece`
    announces at its end, or None: the command is complete. Raises Syntax."""
    announced = literal_at_end(piece)
    cursor = Cursor(Arguments([piece if announced is None else piece[: announced.start]], []))
    if previous.is_utf8:
        cursor.expect(b")")
    if announced is None:
        cursor.finish()
        return None
    return _read_message(cursor, announced, previous.mailbox, is_first=False)


def _read_message(cursor: Cursor, announced: Literal, mailbox: str, *, is_first: bool) -> AppendMessage:
    """From the space before the flags, date or message up to the announcement."""
    cursor.space()
    flags: tuple[str, ...] = ()
    date = None
    if cursor.peek() == 0x28:
        flags = read_flags(cursor)
        cursor.space()
    if cursor.peek() == 0x22:
        date = read_date_time(cursor)
        cursor.space()
    is_utf8 = cursor.comes(b"UTF8")
    if is_utf8:  # RFC 6855 4: "UTF8" SP "(" literal8 ")"
        cursor.space()
        cursor.expect(b"(")
        if not announced.is_binary:
            raise Syntax(b"UTF8 needs a binary literal")
    if not cursor.is_at_end:
        raise Syntax(b"Message literal expected")
    return AppendMessage(
        mailbox,
        flags,
        date,
        announced.octets,
        is_first=is_first,
        is_binary=announced.is_binary,
        is_utf8=is_utf8,
    )
