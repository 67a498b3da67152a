"""The whoson protocol: who is at this address? One command, one answer, by TCP or in a datagram.

    command = verb SP address [ SP user ] CRLF [ CRLF ]      or in a datagram without line ends
    verb    = "LOGIN" / "LOGOUT" / "QUERY" / "QUIT"          in either case
    answer  = ( "+" / "-" / "*" ) text CRLF CRLF             yes, no, cannot be said

Written for dial-in servers, spoken by POP3 servers and by Exim's `whoson` look-up. There is no secret
and no sender in it: whoever can send a command counts. An empty line ends a command by TCP; here the
command's own line does, and empty ones are passed over, so that a person at a terminal gets an answer.
It knows the grammar, and not what a command does.
"""

from typing import Final, Literal, cast

from popgate.protocols.questions import QuestionServer
from popgate.values.value import value

MAX_LINE_OCTETS: Final = 512
MOST_ERRORS: Final = 20
_FIELDS = {b"LOGIN": (2, 3), b"LOGOUT": (1, 2), b"QUERY": (1, 2), b"QUIT": (0, 1)}
_TEXT_AT_MOST = 400

Verb = Literal["LOGIN", "LOGOUT", "QUERY", "QUIT"]


@value
class Command:
    """`address` and `user` as they came, not looked at; "" where the verb has none."""

    verb: Verb
    address: str = ""
    user: str = ""


def read_command(line: bytes) -> Command | None:
    """One command without its line end; None for what is none. Words behind the last are passed over,
    as whosond does: clients add what they like to a login."""
    # blanks and tabs alone part words: another program may end the line at a bare CR
    words = [word for word in line.replace(b"\t", b" ").split(b" ") if word]
    verb = words[0].upper() if words else b""
    least, most = _FIELDS.get(verb, (1, -1))
    if not least <= len(words) - 1 or most < 0 or len(line) > MAX_LINE_OCTETS:
        return None
    if any(octet < 0x20 for word in words for octet in word):
        return None
    try:
        texts = [word.decode("utf-8") for word in words[1:3]]
    except UnicodeDecodeError:
        return None
    address, user, *_ = (*texts, "", "")
    return Command(cast(Verb, verb.decode("ascii")), address, user if verb == b"LOGIN" else "")


def positive(text: str) -> bytes:
    """Yes: it is done, or who is there."""
    return _answer(b"+", text)


def negative(text: str) -> bytes:
    """No: nobody is there."""
    return _answer(b"-", text)


def failure(text: str) -> bytes:
    """It cannot be said now, or was no command. Askers take it as a fault that passes."""
    return _answer(b"*", text)


def _answer(sign: bytes, text: str) -> bytes:
    printable = "".join(char if " " <= char <= "~" else "?" for char in text[:_TEXT_AT_MOST])
    return sign + printable.encode("ascii") + b"\r\n\r\n"


class WhosonServer(QuestionServer):
    """A connection. Events are Commands, never QUIT; answer with `positive`, `negative` or `failure`."""

    def __init__(self) -> None:
        super().__init__()
        self._errors = 0

    def _read(self) -> Command | None:
        while (line := self._take_line(MAX_LINE_OCTETS)) is not None:
            line = line.removesuffix(b"\r")
            if not line:
                continue
            command = read_command(line)
            if command is None:
                self._output.append(failure("that is no command"))
                self._errors += 1
                if self._errors >= MOST_ERRORS:
                    self._end("errors")
                    return None
            elif command.verb == "QUIT":
                self._output.append(positive("QUIT OK"))
                self._end("quit")
                return None
            else:
                return command
        return None
