"""From a complete command's octets to the value that a session answers.

Without state: phases, tags, and which extensions are enabled or offered are the engine's to know.
"""

from popgate.protocols.imap.commands import AppendMessage, ImapEvent
from popgate.protocols.imap.lexer import Arguments, Context, Cursor, Syntax


def parse_command(verb: bytes, arguments: Arguments, context: Context) -> ImapEvent:
    """The command as a value of `commands`. `verb` is upper-case, `UID FETCH` and its like with one space.

    Not for APPEND (`parse_append_start`), AUTHENTICATE (`parse_authenticate`) and CAPABILITY. ENABLE gives
    all names that the client wrote, upper-case, each once, known or not; the engine narrows them.
    UID FETCH's items do not hold `uid` unless the client wrote it.
    Raises Syntax: also for a verb that is not one.
    """
    raise Syntax(b"Unknown command")


def parse_authenticate(arguments: Arguments) -> tuple[str, bytes | None]:
    """AUTHENTICATE: the mechanism, upper-case, and the initial response (RFC 4959) still in base64: b"=" is
    an empty one, None is none. Raises Syntax."""
    raise Syntax(b"Unknown command")


def parse_append_start(arguments: Arguments, context: Context) -> AppendMessage | None:
    """APPEND up to the announcement of its first message.

    `arguments` are the pieces so far, the last one ends in an announcement whose octets have not come, so
    there is one literal less than announcements. None: that literal is the mailbox's name, gather it
    and ask again. Raises Syntax: also where no message is announced.
    """
    Cursor(arguments)
    raise Syntax(b"Unknown command")


def parse_append_next(piece: bytes, previous: AppendMessage) -> AppendMessage | None:
    """What follows the octets of `previous` in the same APPEND: the next message (RFC 3502) that `piece`
    announces at its end, or None: the command is complete. Raises Syntax."""
    raise Syntax(b"Unknown command")


__all__ = [
    "Arguments",
    "Context",
    "Syntax",
    "parse_append_next",
    "parse_append_start",
    "parse_authenticate",
    "parse_command",
]
