"""SMTP replies, built once and shared.

The text of a reply may quote what a client or a store said, so the builder lets nothing but
printable ASCII through and bounds each line; no reply can be split into two.
"""

from popgate.values.value import value

MAX_LINE = 512  # RFC 5321 4.5.3.1.5, CRLF counted


@value
class Reply:
    """`code` decides what the engine does next (below 400: it advances; 421: it closes);
    `wire` is what the client reads."""

    code: int
    wire: bytes


def reply(code: int, status: str, *lines: str) -> Reply:
    """Make a reply of one or more lines. `status`: RFC 3463's x.y.z, or "" where there is none."""
    prefix = f"{status} " if status else ""
    most = MAX_LINE - 6 - len(prefix)
    texts = [printable(line)[:most] for line in lines] or [""]
    wire = "".join(f"{code}-{prefix}{text}\r\n" for text in texts[:-1])
    return Reply(code, f"{wire}{code} {prefix}{texts[-1]}\r\n".encode("ascii"))


def printable(text: str) -> str:
    """`text` with `?` for everything that is not printable ASCII."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(char if " " <= char <= "~" else "?" for char in text)


# Answers that mean "go on"; the session gives them for the events of the same names.
OK = reply(250, "2.0.0", "ok")
SENDER_OK = reply(250, "2.1.0", "sender ok")
RECIPIENT_OK = reply(250, "2.1.5", "recipient ok")
START_BODY = reply(354, "", "go ahead, end with a line of one dot")
START_TLS = reply(220, "2.0.0", "ready to start TLS")
AUTHENTICATED = reply(235, "2.7.0", "authenticated")

# Answers of the engine's own.
QUIT = reply(221, "2.0.0", "bye")
RESET = OK
NOOP = OK
VRFY = reply(252, "2.5.0", "not told here; send mail and see")  # RFC 5321 3.5.3
EXPN = reply(502, "5.7.0", "lists are not expanded")
CHUNK_OK = reply(250, "2.0.0", "chunk received")

UNKNOWN = reply(500, "5.5.1", "unknown command")
NOT_IMPLEMENTED = reply(502, "5.5.1", "not implemented")
NO_ARGUMENT = reply(501, "5.5.4", "no argument is taken")
LINE_TOO_LONG = reply(500, "5.5.6", "line too long")
BAD_LINE = reply(500, "5.5.2", "a line ends in CRLF and holds no CR, LF or NUL")
BAD_BODY = reply(554, "5.6.0", "the message holds a bare CR, a bare LF or a NUL")
FOREIGN_PROTOCOL = reply(554, "5.5.1", "this is SMTP")
BAD_HELLO = reply(501, "5.5.4", "a host name is needed")
HELLO_FIRST = reply(503, "5.5.1", "send EHLO first")
NESTED_MAIL = reply(503, "5.5.1", "one transaction at a time; end it or send RSET")
MAIL_FIRST = reply(503, "5.5.1", "send MAIL first")
RCPT_FIRST = reply(503, "5.5.1", "no valid recipients; send RCPT first")
IN_TRANSACTION = reply(503, "5.5.1", "not inside a mail transaction")
IN_CHUNKS = reply(503, "5.5.1", "after BDAT only BDAT or RSET")
TOO_LARGE = reply(552, "5.3.4", "message too large")
BAD_CHUNK = reply(501, "5.5.4", "syntax: BDAT octets [LAST]")
EARLY_TALK = reply(554, "5.5.0", "you talked before the greeting")
PIPELINED = reply(554, "5.5.0", "nothing may follow this command before its reply")
TLS_FIRST = reply(530, "5.7.0", "send STARTTLS first")
TLS_NOT_OFFERED = reply(502, "5.5.1", "TLS is not offered")
TLS_RUNNING = reply(503, "5.5.1", "TLS is already running")
AUTH_NOT_OFFERED = reply(503, "5.5.1", "authentication is not offered")
AUTH_NEEDS_TLS = reply(538, "5.7.11", "encryption is needed for authentication; send STARTTLS first")
AUTH_TWICE = reply(503, "5.5.1", "already authenticated")
AUTH_SYNTAX = reply(501, "5.5.4", "syntax: AUTH mechanism [initial-response]")
AUTH_MECHANISM = reply(504, "5.5.4", "unknown mechanism")
AUTH_CANCELLED = reply(501, "5.7.0", "authentication cancelled")
AUTH_BASE64 = reply(501, "5.5.2", "bad base64")
TOO_MANY_ERRORS = reply(421, "4.7.0", "too many errors")
TOO_MUCH_JUNK = reply(421, "4.7.0", "too many commands that do nothing")
NO_DECISION = reply(451, "4.3.0", "temporary local problem")
