"""The POP3 server engine: RFC 1939, 2449, 2595, 3206, 5034 and 6856, without I/O.

A session is in AUTHORIZATION until a login is answered with +OK, then in TRANSACTION until
QUIT. One row a command says in which of the two it may come and whether it takes an
argument; a method then does the rest, and returns an event where somebody else must decide.
While an event is open nothing more is read, so pipelined commands run in the state that the
answer leaves, and no earlier.

The engine is strict about lines and lenient about what small devices get wrong in them:
lower-case commands and spaces at the end of a line. It knows no user, secret or mailbox.

Kept whole: the shell's calls, the line loop and the commands all turn on the same few
attributes, and a reader who checks what may happen in which state wants them on one page.
"""

import enum
from collections.abc import Callable, Iterator

from popgate.protocols import sasl
from popgate.protocols.engine import MisuseError, Wait
from popgate.protocols.lines import BareLineEnd, InputBuffer, LineTooLong
from popgate.protocols.pop3.events import (
    ApopCredentials,
    Authenticate,
    Pop3Event,
    Quit,
    Retrieve,
    StartTls,
)
from popgate.protocols.pop3.maildrop import LINES_IN_A_PIECE, MaildropView
from popgate.protocols.pop3.replies import BYE, Reply
from popgate.protocols.pop3.stuffing import DotStuffer
from popgate.values.value import value

MAX_LINE = 255  # RFC 2449 4, CRLF counted
MAX_DIGITS = 10
SMALL_OUTPUT = 65536
"""Listings go straight into the output only while it holds less than this."""


@value
class Offer:
    """What the connections of a listener are offered.

    `offers_tls`: STLS is; `apop`: APOP, SCRAM and CRAM-MD5 are; `plaintext_login`: passwords are taken
    without TLS. `errors` refused and `junk` idle commands close the session.
    """

    hostname: str
    offers_tls: bool = False
    plaintext_login: bool = False
    apop: bool = False
    errors: int = 20
    junk: int = 100


class Phase(enum.Enum):
    AUTHORIZATION = "authorization"
    TRANSACTION = "transaction"
    CLOSING = "closing"


# By names of our own: until Python 3.12 each look for a member through its class costs 0.13 us
_AUTHORIZATION, _TRANSACTION, _CLOSING = Phase
_WAIT_LOGIN, _WAIT_COMMAND, _WAIT_BODY, _WAIT_DECISION, _WAIT_TLS, _WAIT_CLOSE = Wait


class Pop3Server:
    """One POP3 connection, as popgate.protocols.engine.Engine describes it.

    `token()` gives 128 fresh random bits as printable characters; it is called where a
    challenge is made, so at once with APOP. `scram_keys`: see popgate.protocols.sasl; without it SCRAM
    is not offered. The greeting is output from the beginning.
    """

    _maildrop: MaildropView  # from the login on
    _stuffer: DotStuffer  # while there is a source

    def __init__(
        self,
        offer: Offer,
        token: Callable[[], str],
        *,
        is_tls: bool = False,
        scram_keys: sasl.FindScramKeys | None = None,
    ) -> None:
        self._offer = offer
        self._token = token
        self._scram_keys = scram_keys
        self._input = InputBuffer()
        self._output: list[bytes] = []
        self._output_octets = 0
        self._phase = _AUTHORIZATION
        self._event: Pop3Event | None = None
        self._is_tls = is_tls
        self._awaits_tls = False
        self._is_fresh = True  # nothing has come yet
        self._is_eof = False
        self._name: str | None = None
        self._exchange: sasl.Exchange | None = None
        self._is_utf8 = False
        self.source: Iterator[bytes] | None = None
        """The message or listing in progress: the shell passes its blocks to `body`."""
        self._last_words: Reply | None = None
        self._errors = 0
        self._junk = 0
        self.most_lines = 0
        self.has_more = False
        self.octets_sent = 0
        """Octets of messages sent, before dot-stuffing; of long listings too."""
        self.ended_by = ""
        """Why the engine ended the session, once it has: a constant for logs, such as `quit` or `errors`."""
        self._challenge = b""
        if offer.apop:
            # RFC 1939 7: msg-id syntax, different each time; no clock or process id to guess from
            self._challenge = f"<{token()}@{offer.hostname}>".encode("ascii", "replace")
            self._send(b"+OK POP3 server ready " + self._challenge + b"\r\n")
        else:
            self._send(b"+OK POP3 server ready\r\n")

    # The shell's side

    def receive(self, data: bytes) -> None:
        """Take bytes from the client; b"" is end of file."""
        if self._phase is _CLOSING:
            return
        if not data:
            self._is_eof = True
            return
        if self._awaits_tls:
            # RFC 2595 4: the next octets belong to TLS, and the shell takes those
            self._close("early-tls")
            return
        if self._is_fresh:
            self._is_fresh = False
            if data[0] == 0x16:  # a TLS handshake record: the client took this for an implicit TLS port
                self._close("not-pop3")
                return
        self._input.feed(data)

    def next_event(self) -> Pop3Event | None:
        """The next event, or None: the engine needs bytes or an answer, or is done."""
        self.has_more = False
        left = self.most_lines or -1
        while (
            self._event is None
            and self.source is None
            and self._phase is not _CLOSING
            and not self._awaits_tls
        ):
            if left == 0:
                self.has_more = len(self._input) > 0 or self._is_eof
                break
            left -= 1
            try:
                line = self._input.take_line(sasl.MAX_LINE if self._exchange else MAX_LINE)
            except LineTooLong:
                self._close("line-too-long", b"-ERR Line too long.\r\n")
                break
            except BareLineEnd:
                self._close("bare-line-end", b"-ERR Lines must end in CR LF.\r\n")
                break
            if line is None:
                if self._is_eof:
                    self._close("eof")
                break
            event = self._continue(line) if self._exchange else self._command(line)
            if event is not None:
                self._event = event
                return event
        return None

    def answer(self, reply: object) -> None:
        """Answer the event last given. Raises MisuseError when none is open."""
        event = self._event
        if event is None or type(reply) is not Reply:
            raise MisuseError("no event is open" if event is None else "a POP3 event takes a POP3 Reply")
        self._event = None
        if type(event) is StartTls and reply.is_ok and len(self._input):
            self._refuse_injection()
            return
        self._send(reply.wire)
        if type(event) is Quit:
            self._close("quit")
        elif reply.closes:
            self._close("login-failures" if type(event) is Authenticate else "refused")
        elif reply.is_ok:
            self._apply(event, reply)
        if self._last_words is not None and self.source is None:
            self.shut_down(self._last_words)

    def take_output(self) -> bytes:
        """Everything to be sent now; the buffer is empty afterwards."""
        output = self._output
        if not output:
            return b""
        wire = output[0] if len(output) == 1 else b"".join(output)
        output.clear()
        self._output_octets = 0
        return wire

    def body(self, block: bytes) -> None:
        """One block of the long reply, framed into the output."""
        if self.source is None:
            raise MisuseError("no long reply is in progress")
        self.octets_sent += len(block)
        self._send(self._stuffer.block(block))

    def body_end(self, *, failed: bool = False) -> None:
        """The long reply is complete; failed: it broke off. The client then sees no end of
        it, but the end of the connection: half a message is never taken for a whole one."""
        if self.source is None:
            raise MisuseError("no long reply is in progress")
        self.source = None
        if failed:
            self._close("broken-message")
            return
        self._send(self._stuffer.end())
        if self._last_words is not None:
            self.shut_down(self._last_words)

    def tls_started(self) -> None:
        """TLS is up: all session state and buffered input is forgotten."""
        if not self._awaits_tls:
            if self._phase is _CLOSING:
                return
            raise MisuseError("the engine does not wait for TLS")
        self._awaits_tls = False
        self._is_tls = True
        self._input.clear()
        self._name = None
        self._is_utf8 = False
        self._is_eof = False

    def shut_down(self, reply: object) -> None:
        """Send `reply` as soon as no other reply is in progress, and close."""
        if type(reply) is not Reply:
            raise MisuseError("a POP3 session ends with a POP3 Reply")
        if self._phase is _CLOSING:
            return
        if self._awaits_tls:
            self._close("shut-down")  # a line in clear would be taken for a part of the handshake
        elif self._event is None and self.source is None:
            self._close("shut-down", reply.wire)
        else:
            self._last_words = reply

    @property
    def waiting_for(self) -> Wait:
        if self._phase is _CLOSING:
            return _WAIT_CLOSE
        if self._awaits_tls:
            return _WAIT_TLS
        if self._event is not None or self.source is not None:
            return _WAIT_DECISION
        return _WAIT_COMMAND if self._phase is _TRANSACTION else _WAIT_LOGIN

    # What an answer changes

    def _apply(self, event: Pop3Event, reply: Reply) -> None:
        if type(event) is Authenticate:
            self._phase = _TRANSACTION
            self._maildrop = MaildropView(reply.messages)
            self._junk = 0
        elif type(event) is Retrieve:
            self._junk = 0
            self._start_body(reply.source if reply.source is not None else iter(()))
        else:
            self._awaits_tls = True

    def _start_body(self, source: Iterator[bytes]) -> None:
        self.source = source
        self._stuffer = DotStuffer()

    # Lines

    def _command(self, line: bytes) -> Pop3Event | None:
        verb, _, argument = line.partition(b" ")
        rule = RULES.get(verb) or RULES.get(verb.upper())
        if rule is None:
            if verb in HTTP_METHODS:
                self._close("not-pop3")  # a web page made a browser speak to us; it gets no answer to read
                return None
            return self._refuse(b"-ERR Unknown command.\r\n")
        if rule.phase is not None and rule.phase is not self._phase:
            return self._refuse(_WRONG_PHASE[self._phase])
        if not rule.keeps_spaces:
            argument = argument.strip(b" ")
        if b"\0" in argument or (rule.takes is not None and rule.takes is not bool(argument)):
            return self._refuse(rule.usage)
        if rule.is_junk:
            self._junk += 1
            if self._junk > self._offer.junk:
                self._close("junk", b"-ERR Too many commands that do nothing.\r\n")
                return None
        return rule.run(self, argument)

    def _continue(self, line: bytes) -> Pop3Event | None:
        exchange = self._exchange
        self._exchange = None
        if line == b"*":  # RFC 5034 4
            return self._refuse(b"-ERR Authentication cancelled.\r\n")
        data = sasl.decode_base64(line)
        if data is None or exchange is None:
            return self._refuse(b"-ERR Not a base64 line.\r\n")
        return self._take_step(exchange.respond(data))

    def _take_step(self, step: sasl.Step) -> Pop3Event | None:
        if type(step) is sasl.Challenge:
            self._exchange = step.exchange
            return self._say(b"+ " + sasl.encode_base64(step.data) + b"\r\n")
        if type(step) is sasl.Malformed:
            return self._refuse(b"-ERR Malformed response: " + step.reason.encode("ascii") + b".\r\n")
        assert not isinstance(step, sasl.Challenge | sasl.Malformed)
        return Authenticate(step)

    # Commands in AUTHORIZATION

    def _user(self, argument: bytes) -> Pop3Event | None:
        if not self._takes_passwords:
            return self._refuse(_NEEDS_TLS)
        # A name in another character set is nobody's, and told nothing else than any other
        name = argument.decode("utf-8", "replace")
        if not name.isprintable():
            return self._refuse(b"-ERR A user name holds no control characters.\r\n")
        self._name = name
        return self._say(b"+OK Now the password.\r\n")

    def _pass(self, argument: bytes) -> Pop3Event | None:
        if not self._takes_passwords:
            return self._refuse(_NEEDS_TLS)
        name, self._name = self._name, None
        if name is None:
            return self._refuse(b"-ERR USER comes first.\r\n")
        return Authenticate(sasl.PlainCredentials("PASS", name, argument))

    def _apop(self, argument: bytes) -> Pop3Event | None:
        if not self._challenge:
            return self._refuse(b"-ERR APOP is not offered here.\r\n")
        self._name = None
        name_octets, _, digest = argument.rpartition(b" ")
        name = name_octets.strip(b" ").decode("utf-8", "replace")
        if not name or not name.isprintable() or not sasl.is_md5_hex(digest):
            return self._refuse(b"-ERR Usage: APOP name digest, in 32 lower-case hexadecimal digits\r\n")
        return Authenticate(ApopCredentials(name, self._challenge, digest))

    def _auth(self, argument: bytes) -> Pop3Event | None:
        mechanisms = self._mechanisms
        if not argument:
            # Older than RFC 5034, and some clients still ask this way
            return self._say(b"+OK\r\n" + b"".join([m.encode() + b"\r\n" for m in mechanisms]) + b".\r\n")
        self._name = None
        mechanism_octets, has_initial, initial_line = argument.partition(b" ")
        mechanism = mechanism_octets.decode("ascii", "replace").upper()
        if mechanism not in mechanisms:
            if mechanism in sasl.PLAINTEXT_MECHANISMS:
                return self._refuse(_NEEDS_TLS)
            return self._refuse(b"-ERR No such authentication mechanism here.\r\n")
        initial: bytes | None = None
        if has_initial:
            # RFC 5034 4: "=" is an initial response of no octets
            initial = b"" if initial_line == b"=" else sasl.decode_base64(initial_line)
            if initial is None:
                return self._refuse(b"-ERR Not a base64 line.\r\n")
        return self._take_step(
            sasl.begin(
                mechanism,
                initial,
                token=self._token,
                hostname=self._offer.hostname,
                scram_keys=self._scram_keys,
            )
        )

    def _stls(self, _: bytes) -> Pop3Event | None:
        if self._is_tls or not self._offer.offers_tls:
            return self._refuse(
                b"-ERR TLS is already active.\r\n" if self._is_tls else b"-ERR TLS is not offered here.\r\n"
            )
        if self._is_utf8:
            return self._refuse(b"-ERR STLS comes before UTF8.\r\n")  # RFC 6856 2.1
        if len(self._input):
            self._refuse_injection()
            return None
        return StartTls()

    def _refuse_injection(self) -> None:
        # RFC 2595 4: what came in clear behind STLS must not count as said under TLS
        self._close("early-tls", b"-ERR Nothing may follow STLS before TLS.\r\n")

    def _utf8(self, _: bytes) -> Pop3Event | None:
        self._is_utf8 = True
        return self._say(b"+OK UTF8 enabled.\r\n")

    # Commands in TRANSACTION

    def _stat(self, _: bytes) -> Pop3Event | None:
        # RFC 1939 5: "+OK" nn mm
        return self._say(b"+OK %d %d\r\n" % (self._maildrop.count, self._maildrop.octets))

    def _list(self, argument: bytes) -> Pop3Event | None:
        maildrop = self._maildrop
        if not argument:
            status = b"+OK %d messages (%d octets)\r\n" % (maildrop.count, maildrop.octets)
            return self._send_listing(status, maildrop.scan_listing())
        number = self._number(argument)
        if number:
            self._send(b"+OK %d %d\r\n" % (number, maildrop.entry(number).octets))
        return None

    def _uidl(self, argument: bytes) -> Pop3Event | None:
        maildrop = self._maildrop
        if not argument:
            return self._send_listing(b"+OK\r\n", maildrop.unique_id_listing())
        number = self._number(argument)
        if number:
            self._send(b"+OK %d %s\r\n" % (number, maildrop.entry(number).uid.encode("ascii", "replace")))
        return None

    def _send_listing(self, status: bytes, pieces: Iterator[bytes]) -> Pop3Event | None:
        # A million messages, or many LISTs in one packet, must not fill the memory: what is
        # long, or comes on top of much, waits until the shell has sent what is there.
        self._send(status)
        if len(self._maildrop) <= LINES_IN_A_PIECE and self._output_octets < SMALL_OUTPUT:
            for piece in pieces:
                self._send(piece)
            self._send(b".\r\n")
        else:
            self._start_body(pieces)
        return None

    def _retr(self, argument: bytes) -> Pop3Event | None:
        number = self._number(argument)
        return Retrieve(number - 1, None) if number else None

    def _top(self, argument: bytes) -> Pop3Event | None:
        number_octets, _, lines = argument.partition(b" ")
        lines = lines.lstrip(b" ")
        if not lines.isdigit() or len(lines) > MAX_DIGITS:
            return self._refuse(b"-ERR Usage: TOP number lines\r\n")
        number = self._number(number_octets)
        return Retrieve(number - 1, int(lines)) if number else None

    def _dele(self, argument: bytes) -> Pop3Event | None:
        number = self._number(argument)
        if number:
            self._maildrop.delete(number)
            self._send(b"+OK Message %d deleted.\r\n" % number)
        return None

    def _number(self, argument: bytes) -> int:
        """The message that `argument` names; 0 when there is none, and the client has been told."""
        if not argument.isdigit() or len(argument) > MAX_DIGITS:
            self._refuse(b"-ERR A message number is needed.\r\n")
            return 0
        number = int(argument)
        if not self._maildrop.has(number):
            self._refuse(b"-ERR No such message.\r\n")
            return 0
        return number

    def _rset(self, _: bytes) -> Pop3Event | None:
        self._maildrop.reset()
        return self._say(b"+OK\r\n")

    # Commands in both

    def _noop(self, _: bytes) -> Pop3Event | None:
        return self._say(b"+OK\r\n")

    def _capa(self, _: bytes) -> Pop3Event | None:
        # RFC 2449 5 and 6
        lines = [b"+OK", b"TOP", b"UIDL", b"RESP-CODES", b"AUTH-RESP-CODE", b"PIPELINING", b"EXPIRE NEVER"]
        if self._takes_passwords:
            lines.append(b"USER")
        mechanisms = self._mechanisms
        if mechanisms:
            lines.append(b"SASL " + " ".join(mechanisms).encode())  # RFC 5034 3
        if self._phase is _AUTHORIZATION and self._offer.offers_tls and not self._is_tls:
            lines.append(b"STLS")  # RFC 2595 4
        lines += (b"UTF8", b"IMPLEMENTATION popgate", b".\r\n")
        return self._say(b"\r\n".join(lines))

    def _quit(self, _: bytes) -> Pop3Event | None:
        if self._phase is _TRANSACTION:
            return Quit(self._maildrop.deleted)
        self._close("quit", BYE.wire)
        return None

    # Shared

    @property
    def _takes_passwords(self) -> bool:
        return self._is_tls or self._offer.plaintext_login

    @property
    def _mechanisms(self) -> tuple[str, ...]:
        plain = sasl.PLAINTEXT_MECHANISMS if self._takes_passwords else ()
        if not self._offer.apop:
            return plain
        return plain + sasl.secret_mechanisms(has_scram=self._scram_keys is not None)

    def _send(self, wire: bytes) -> None:
        if wire:
            self._output.append(wire)
            self._output_octets += len(wire)

    # Both return None, the event that they are not, so that a command can end with them.

    def _say(self, wire: bytes) -> Pop3Event | None:
        self._send(wire)
        return None

    def _refuse(self, wire: bytes) -> Pop3Event | None:
        self._errors += 1
        if self._errors >= self._offer.errors:
            self._close("errors", b"-ERR Too many errors.\r\n")
        else:
            self._send(wire)
        return None

    def _close(self, why: str, wire: bytes = b"") -> None:
        self._send(wire)
        self.ended_by = why
        self._phase = _CLOSING
        self._exchange = None
        self._awaits_tls = False
        self._input.clear()


@value
class Rule:
    """`phase`: the only one in which the command may come, None for both. `takes` an argument:
    yes, no, or None for either. `is_junk`: it does nothing that a client needs often.
    `keeps_spaces`: those around the argument belong to it."""

    run: Callable[[Pop3Server, bytes], Pop3Event | None]
    phase: Phase | None
    takes: bool | None
    is_junk: bool
    usage: bytes
    keeps_spaces: bool


def _rule(
    run: Callable[[Pop3Server, bytes], Pop3Event | None],
    phase: Phase | None,
    usage: str,
    *,
    takes: bool | None = False,
    is_junk: bool = False,
    keeps_spaces: bool = False,
) -> tuple[bytes, Rule]:
    usage_line = f"-ERR Usage: {usage}\r\n".encode()
    return usage.split()[0].encode(), Rule(run, phase, takes, is_junk, usage_line, keeps_spaces)


# fmt: off
RULES: dict[bytes, Rule] = dict([
    _rule(Pop3Server._user, _AUTHORIZATION, "USER name", takes=True),
    # RFC 1939 7: spaces may be a part of the password
    _rule(Pop3Server._pass, _AUTHORIZATION, "PASS password", takes=True, keeps_spaces=True),
    _rule(Pop3Server._apop, _AUTHORIZATION, "APOP name digest", takes=True),
    _rule(Pop3Server._auth, _AUTHORIZATION, "AUTH [mechanism [response]]", takes=None),
    _rule(Pop3Server._stls, _AUTHORIZATION, "STLS"),
    _rule(Pop3Server._utf8, _AUTHORIZATION, "UTF8", is_junk=True),  # RFC 6856 2.1
    _rule(Pop3Server._stat, _TRANSACTION, "STAT"),
    _rule(Pop3Server._list, _TRANSACTION, "LIST [number]", takes=None),
    _rule(Pop3Server._uidl, _TRANSACTION, "UIDL [number]", takes=None),
    _rule(Pop3Server._retr, _TRANSACTION, "RETR number", takes=True),
    _rule(Pop3Server._top,  _TRANSACTION, "TOP number lines", takes=True),
    _rule(Pop3Server._dele, _TRANSACTION, "DELE number", takes=True),
    _rule(Pop3Server._rset, _TRANSACTION, "RSET", is_junk=True),
    _rule(Pop3Server._noop, _TRANSACTION, "NOOP", is_junk=True),
    _rule(Pop3Server._capa, None, "CAPA", is_junk=True),
    _rule(Pop3Server._quit, None, "QUIT"),
])
# fmt: on

HTTP_METHODS = frozenset(b"GET POST PUT HEAD DELETE OPTIONS CONNECT TRACE PATCH PRI".split())

_WRONG_PHASE = {
    _AUTHORIZATION: b"-ERR Log in first.\r\n",
    _TRANSACTION: b"-ERR Not after login.\r\n",
}
_NEEDS_TLS = b"-ERR Passwords are taken only under TLS here.\r\n"
