"""The IMAP server engine: RFC 3501, 9051 and their extensions, without I/O.

Theory of operation. A command is one or more lines with literals between them. `next_event` reads
them one after the other; a command that needs a literal is gathered until it is whole, within a bound,
and then parsed (parser.py). What somebody else must decide is returned as an event, and nothing more is
read until `answer`, so pipelined commands run in the phase that the answer leaves. Only APPEND's
messages are not gathered: they go out in chunks as they come.

A refused command is over when its last octet has come, and not before: what follows a literal
that a client has announced is never taken for a command. Where that cannot be told any more (lines
too long, line ends that are none, literals beyond all bounds) the session is closed.

It knows no user, secret, message or mailbox, nor what a client has been told of them.

Kept whole: the shell's calls, the line loop and the commands all turn on the same few
attributes, and a reader who checks what may happen in which phase wants them on one page.
"""

import enum
import re
from collections.abc import Callable, Iterator

from popgate.protocols import sasl
from popgate.protocols.engine import MisuseError, Wait
from popgate.protocols.imap import capabilities
from popgate.protocols.imap.capabilities import Offer
from popgate.protocols.imap.commands import (
    AppendAbort,
    AppendChunk,
    AppendDone,
    AppendMessage,
    Authenticate,
    ClientId,
    Close,
    Compress,
    Enable,
    Fetch,
    Idle,
    IdleDone,
    ImapEvent,
    Logout,
    Select,
    StartTls,
)
from popgate.protocols.imap.compression import BrokenStream, Compression
from popgate.protocols.imap.lexer import Arguments, Context, Literal, Syntax, literal_at_end
from popgate.protocols.imap.parser import (
    parse_append_next,
    parse_append_start,
    parse_authenticate,
    parse_command,
)
from popgate.protocols.imap.replies import Reply, Status
from popgate.protocols.lines import BareLineEnd, InputBuffer, LineTooLong
from popgate.values.value import value

MOST_BEFORE_LOGIN = 8192
"""The most octets of a command before the login, its literals included."""

MOST_OF_A_COMMAND = 65536
"""The same after the login, but for the messages of APPEND."""

CHUNK = 65536
"""The most octets of an AppendChunk."""

EXTENSIONS = ("CONDSTORE", "QRESYNC", "UTF8=ACCEPT", "IMAP4REV2")
"""What ENABLE can enable."""


class Phase(enum.Enum):
    NOT_AUTHENTICATED = "not authenticated"
    AUTHENTICATED = "authenticated"
    SELECTED = "selected"
    CLOSING = "closing"  # RFC 9051 3.4 calls it the logout state


# By names of our own: until Python 3.12 each look for a member through its class costs 0.13 us
_NOT_AUTHENTICATED, _AUTHENTICATED, _SELECTED, _CLOSING = Phase
_WAIT_LOGIN, _WAIT_COMMAND, _WAIT_BODY, _WAIT_DECISION, _WAIT_TLS, _WAIT_CLOSE = Wait

Refusal = tuple[Status, bytes]


class _Gathering:
    """A command that is not whole yet. With a refusal it is only read to its end, and not kept."""

    __slots__ = ("arguments", "left", "refusal", "rule", "used", "verb")

    def __init__(self, verb: bytes, rule: "Rule | None", piece: bytes, used: int) -> None:
        self.verb = verb
        self.rule = rule
        self.arguments = Arguments([piece], [])
        self.used = used
        self.left = 0  # octets of the present literal that are still to come
        self.refusal: Refusal | None = None


class _Append:
    """An APPEND whose message is decided about or coming."""

    __slots__ = ("is_sync", "left", "message", "refusal", "used")

    def __init__(self, message: AppendMessage, is_sync: bool, used: int) -> None:
        self.message = message
        self.is_sync = is_sync
        self.used = used
        self.left = message.octets
        self.refusal: Refusal | None = None  # read to the end without telling anybody, then say this


class ImapServer:
    """One IMAP connection, as popgate.protocols.engine.Engine describes it.

    `token()` gives 128 fresh random bits as printable characters, for challenges. `scram_keys`: what
    SCRAM-SHA-256 needs, where the offer has it. The greeting is output from the beginning. While an
    event is open `tag` is its command's. `enabled`, `is_utf8`, `phase`, `is_idling` and
    `is_compressed` may be read at any time.
    """

    __slots__ = (
        "_append",
        "_awaits_tls",
        "_compression",
        "_errors",
        "_event",
        "_exchange",
        "_gathering",
        "_idle_fault",
        "_input",
        "_is_eof",
        "_is_fresh",
        "_is_tls",
        "_junk",
        "_last_words",
        "_offer",
        "_output",
        "_output_clear",
        "_reply",
        "_scram_keys",
        "_token",
        "enabled",
        "ended_by",
        "has_more",
        "is_idling",
        "most_lines",
        "octets_sent",
        "phase",
        "source",
        "tag",
    )

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
        self._is_tls = is_tls
        self._input = InputBuffer()
        self._output: list[bytes] = []
        self._output_clear = b""  # output from before compression began
        self._compression: Compression | None = None
        self._event: ImapEvent | None = None
        self._reply: tuple[ImapEvent, Reply] | None = None  # the one whose source is in progress
        self._gathering: _Gathering | None = None
        self._append: _Append | None = None
        self._exchange: sasl.Exchange | None = None
        self._idle_fault = False
        self._awaits_tls = False
        self._is_fresh = True  # nothing has come yet
        self._is_eof = False
        self._last_words: Reply | None = None
        self._errors = 0
        self._junk = 0
        self.phase = _NOT_AUTHENTICATED
        self.tag = b""
        self.enabled: frozenset[str] = frozenset()
        """What the client has enabled: members of EXTENSIONS."""
        self.is_idling = False
        """The session may `push`."""
        self.source: Iterator[bytes] | None = None
        """The long answer in progress: the shell passes its blocks to `body`."""
        self.most_lines = 0
        self.has_more = False
        self.octets_sent = 0
        """Octets of long answers."""
        self.ended_by = ""
        """Why the engine ended the session, once it has: a constant for logs, such as `quit` or `errors`."""
        # RFC 9051 7.1: spares the client a CAPABILITY
        self._output.append(b"* OK [CAPABILITY %b] IMAP server ready.\r\n" % self._capabilities)

    # The shell's side

    def receive(self, data: bytes) -> None:
        """Take bytes from the client; b"" is end of file."""
        if self.phase is _CLOSING:
            return
        if not data:
            self._is_eof = True
            return
        if self._awaits_tls:
            # RFC 9051 6.2.1: the next octets belong to TLS, and the shell takes those
            self._close("early-tls")
            return
        if self._is_fresh:
            self._is_fresh = False
            if data[0] == 0x16:  # a TLS handshake record: the client took this for an implicit TLS port
                self._close("not-imap")
                return
        if self._compression is None:
            self._input.feed(data)
        else:
            self._compression.receive(data)

    def next_event(self) -> ImapEvent | None:
        """The next event, or None: the engine needs bytes or an answer, or is done."""
        self.has_more = False
        left = self.most_lines or -1
        while (
            self._event is None
            and self.source is None
            and self.phase is not _CLOSING
            and not self._awaits_tls
        ):
            if self._last_words is not None and self._append is None:
                self.shut_down(self._last_words)
                break
            if left == 0:
                self.has_more = len(self._input) > 0 or self._is_eof or self._has_packed
                break
            left -= 1
            progress, event = self._step()
            if event is not None:
                return event
            if not progress and not self._unpack():
                if self._is_eof and self.phase is not _CLOSING:
                    self._close("eof")
                break
        return None

    def answer(self, reply: object) -> None:
        """Answer the event last given. Raises MisuseError when none is open."""
        event = self._event
        if event is None or type(reply) is not Reply:
            raise MisuseError("no event is open" if event is None else "an IMAP event takes an IMAP Reply")
        if not reply.status and type(event) not in (AppendMessage, Idle):
            raise MisuseError("only AppendMessage and Idle go on without a tagged line")
        self._event = None
        if type(event) is StartTls and reply.is_ok and len(self._input):
            self._refuse_injection()
            return
        if type(event) is Idle and not reply.status:
            # RFC 2177 3: the client waits for this before it says DONE
            self._send(b"+ idling\r\n")
        if reply.untagged:
            self._send(reply.untagged)
        if reply.source is not None:
            self.source = reply.source
            self._reply = (event, reply)
        else:
            self._end(event, reply)

    def push(self, untagged: bytes) -> None:
        """Tell an idling client what has changed: whole lines. MisuseError unless `is_idling`."""
        if not self.is_idling:
            raise MisuseError("the client does not idle")
        self._send(untagged)

    def take_output(self) -> bytes:
        """Everything to be sent now; the buffer is empty afterwards."""
        output = self._output
        if not output and not self._output_clear:
            return b""
        wire = output[0] if len(output) == 1 else b"".join(output)
        output.clear()
        if self._compression is not None:
            if wire:
                wire = self._compression.pack(wire)
            if self.is_idling:
                self._compression.rest()
        if self._output_clear:
            wire, self._output_clear = self._output_clear + wire, b""
        return wire

    def body(self, block: bytes) -> None:
        """One block of the long answer."""
        if self.source is None:
            raise MisuseError("no long answer is in progress")
        self.octets_sent += len(block)
        self._send(block)

    def body_end(self, *, failed: bool = False) -> None:
        """The long answer is complete; failed: it broke off. The client then sees no end of
        it, but the end of the connection: half a message is never taken for a whole one."""
        if self.source is None or self._reply is None:
            raise MisuseError("no long answer is in progress")
        (event, reply), self._reply, self.source = self._reply, None, None
        if failed:
            self._close("broken-message")
        else:
            self._end(event, reply)

    def tls_started(self) -> None:
        """TLS is up: all session state and buffered input is forgotten."""
        if not self._awaits_tls:
            if self.phase is _CLOSING:
                return
            raise MisuseError("the engine does not wait for TLS")
        self._awaits_tls = False
        self._is_tls = True
        self._is_eof = False
        self._input.clear()
        self.tag = b""

    def shut_down(self, reply: object) -> None:
        """Send BYE with the text of `reply` as soon as no other answer is in progress, and close.

        While a message is coming the engine waits for its end; called again, it does not.
        """
        if type(reply) is not Reply:
            raise MisuseError("an IMAP session ends with an IMAP Reply")
        if self.phase is _CLOSING:
            return
        if self._awaits_tls:
            self._close("shut-down")  # a line in clear would be taken for a part of the handshake
        elif (
            self._event is not None
            or self.source is not None
            or (self._append is not None and self._last_words is None)
        ):
            self._last_words = reply
        else:
            self._send(reply.untagged)
            self._close("shut-down", reply.text or b"The session ends.")

    @property
    def waiting_for(self) -> Wait:
        if self.phase is _CLOSING:
            return _WAIT_CLOSE
        if self._awaits_tls:
            return _WAIT_TLS
        if self._event is not None or self.source is not None:
            return _WAIT_DECISION
        if self._append is not None:
            return _WAIT_BODY
        return _WAIT_LOGIN if self.phase is _NOT_AUTHENTICATED else _WAIT_COMMAND

    # What the session may read

    @property
    def is_utf8(self) -> bool:
        """Names and strings are UTF-8 (RFC 6855 3, RFC 9051 5.1)."""
        return "UTF8=ACCEPT" in self.enabled or "IMAP4REV2" in self.enabled

    @property
    def is_compressed(self) -> bool:
        return self._compression is not None

    # What an answer changes

    def _end(self, event: ImapEvent, reply: Reply) -> None:
        """The answer is out but for its tagged line."""
        status, text = reply.status, reply.text
        if reply.ending is not None:
            status, text = reply.ending()
        if not status:
            self._go_on(event)
        elif type(event) is AppendMessage and self._append is not None and not self._append.is_sync:
            self._append.refusal = (status, text)  # the message comes all the same
        else:
            self._append = None
            self._settle(event, status, text, reply)
        if reply.closes and self.phase is not _CLOSING:
            self._close("login-failures" if type(event) is Authenticate else "refused")
        if self._last_words is not None and self._append is None:
            self.shut_down(self._last_words)

    def _go_on(self, event: ImapEvent) -> None:
        if type(event) is Idle:
            self.is_idling = True
        elif self._append is not None and self._append.is_sync:
            self._send(b"+ OK\r\n")

    def _settle(self, event: ImapEvent, status: Status, text: bytes, reply: Reply) -> None:
        """The tagged line, and the state that it leaves."""
        kind, is_ok = type(event), status == "OK"
        if self._idle_fault:
            self._idle_fault = False
            self._refuse("BAD", b"Only DONE ends IDLE.")
            return
        if is_ok:
            self._errors = 0
        if kind is Select:
            self.phase = _SELECTED if is_ok else _AUTHENTICATED
        elif is_ok and type(event) is Enable:
            self.enabled |= frozenset(event.extensions)
            self._send(b"* ENABLED " + " ".join(event.extensions).encode() + b"\r\n")
        elif is_ok and kind is ClientId:
            self._send(_ID)
        elif is_ok and kind is Close:
            self.phase = _AUTHENTICATED
        elif is_ok and kind is Authenticate:
            self.phase = _AUTHENTICATED
            self._junk = 0
            if text.startswith(b"["):
                self._send(b"* CAPABILITY %b\r\n" % self._capabilities)
            else:
                text = b"[CAPABILITY %b] %b" % (self._capabilities, text or b"Logged in.")
        elif is_ok and kind is StartTls:
            self._awaits_tls = True
        elif kind is Logout:
            self._log_out(text)
            return
        if reply.closes:
            self._send(b"" if b"* BYE " in reply.untagged else b"* BYE Closing the connection.\r\n")
        self._tagged(status, text or (b"Done." if is_ok else b"Refused."))
        if is_ok and kind is Compress:
            self._compress()

    def _compress(self) -> None:
        if len(self._input):
            # RFC 4978 3: nothing may follow before the answer; who knows whether it is compressed
            self._close("early-compression", b"Nothing may follow COMPRESS before its answer.")
            return
        self._output_clear += b"".join(self._output)
        self._output.clear()
        self._compression = Compression()

    # Reading

    @property
    def _most(self) -> int:
        return MOST_BEFORE_LOGIN if self.phase is _NOT_AUTHENTICATED else MOST_OF_A_COMMAND

    @property
    def _has_packed(self) -> bool:
        return self._compression is not None and self._compression.has_more

    def _unpack(self) -> bool:
        """Whether more compressed input became input."""
        compression = self._compression
        if compression is None or not compression.has_more or self.phase is _CLOSING:
            return False
        try:
            octets = compression.unpack()
        except BrokenStream:
            self._close("compression", b"The compressed stream is broken.")
            return False
        if octets:
            self._input.feed(octets)
        return True

    def _step(self) -> tuple[bool, ImapEvent | None]:
        """Take one line, literal or block; False when what is needed has not come yet."""
        gathering, append = self._gathering, self._append
        if append is not None and append.left:
            block = self._input.take(min(append.left, CHUNK))
            append.left -= len(block)
            return bool(block), AppendChunk(block) if block and append.refusal is None else None
        if gathering is not None and gathering.left:
            return self._take_literal(gathering), None
        used = append.used if append is not None else gathering.used if gathering is not None else 0
        try:
            line = self._input.take_line(self._most - used)
        except LineTooLong:
            self._close("line-too-long", b"Line too long.")
            return True, None
        except BareLineEnd:
            self._close("bare-line-end", b"Lines must end in CR LF.")
            return True, None
        if line is None:
            return False, None
        if append is not None:
            event = self._append_line(append, line)
        elif gathering is not None:
            event = self._gather(gathering, line)
        elif self.is_idling:
            event = self._end_idle(line)
        elif self._exchange is not None:
            event = self._respond(line)
        else:
            event = self._command(line)
        return True, event

    def _open(self, event: ImapEvent) -> ImapEvent:
        self._event = event
        return event

    def _command(self, line: bytes) -> ImapEvent | None:
        """The first line of a command."""
        tag, _, rest = line.partition(b" ")
        self.tag = tag
        verb, _, _ = rest.partition(b" ")
        arguments = rest[len(verb) :]
        verb = verb.upper()
        if verb == b"UID":
            word = arguments[1:].partition(b" ")[0]
            verb, arguments = b"UID " + word.upper(), arguments[1 + len(word) :]
        rule = RULES.get(verb)
        refusal: Refusal | None = None
        if not _TAG.fullmatch(tag):
            self.tag = b"*"  # RFC 9051 7.1.3: without a tag to name, BAD is untagged
            refusal = ("BAD", b"Every command begins with a tag.")
        elif rule is None:
            if tag in HTTP_METHODS and self.phase is _NOT_AUTHENTICATED:
                self._close("not-imap")  # a web page made a browser speak to us; it gets no answer to read
                return None
            refusal = ("BAD", b"Unknown command." if verb else b"A command must follow the tag.")
        else:
            refusal = self._check(rule, arguments)
        if b"\0" in line:
            refusal = ("BAD", b"NUL in a command.")
        if line.endswith(b"}") or refusal is None:
            gathering = _Gathering(verb, rule, arguments, len(line) + 2)
            gathering.refusal = refusal
            return self._go_through(gathering, line)
        return self._refuse(*refusal)

    def _check(self, rule: "Rule", arguments: bytes) -> Refusal | None:
        if self.phase not in rule.phases:
            return ("BAD", _WRONG_PHASE[self.phase])
        if rule.shows_password and not (self._is_tls or self._offer.plaintext_login):
            return _NEEDS_TLS
        if rule.takes is not None and rule.takes is not bool(arguments.strip(b" ")):
            return ("BAD", b"Arguments are missing." if rule.takes else b"No argument may follow.")
        if rule.is_junk and self.phase is _NOT_AUTHENTICATED:
            self._junk += 1
            if self._junk > self._offer.junk:
                return _TOO_MUCH_JUNK
        return None

    def _gather(self, gathering: _Gathering, line: bytes) -> ImapEvent | None:
        """The line behind a literal."""
        gathering.used += len(line) + 2
        if gathering.refusal is None:
            gathering.arguments.pieces.append(line)
            if b"\0" in line:
                gathering.refusal = ("BAD", b"NUL in a command.")
        return self._go_through(gathering, line)

    def _go_through(self, gathering: _Gathering, line: bytes) -> ImapEvent | None:
        """See whether a command is whole with `line`, and do it then."""
        self._gathering = None
        try:
            announced = literal_at_end(line)
        except Syntax as error:
            if line.endswith(b"+}"):
                self._tagged("BAD", error.text + b".")
                self._close("literal-too-large", b"The literal is too large.")
                return None
            return self._refuse("BAD", error.text + b".")
        if announced is None:
            if gathering.refusal is not None:
                return self._refuse(*gathering.refusal)
            assert gathering.rule is not None
            return self._run(gathering.rule, gathering.verb, gathering.arguments)
        if gathering.rule is _APPEND_RULE and gathering.refusal is None:
            try:
                message = parse_append_start(gathering.arguments, self._context)
            except Syntax as error:
                gathering.refusal = _refusal_of(error)
            else:
                if message is not None:
                    return self._offer_message(message, announced, gathering.used)
        return self._await_literal(gathering, announced)

    def _await_literal(self, gathering: _Gathering, announced: Literal) -> ImapEvent | None:
        most = self._most - gathering.used
        if gathering.refusal is not None and gathering.rule is _APPEND_RULE and self._is_logged_in:
            most = self._offer.append_limit  # it is the message, which comes whatever we say
        if announced.is_sync and (gathering.refusal is not None or announced.octets > most):
            # RFC 9051 4.3: without "+" the literal does not come, and the command is over
            return self._refuse(*(gathering.refusal or ("BAD", b"[TOOBIG] The command is too long.")))
        if announced.octets > most:
            # RFC 7888 4: nobody can hold the client back from sending it
            self._tagged("BAD", b"[TOOBIG] The command is too long.")
            self._close("literal-too-large", b"The literal is too large.")
            return None
        if gathering.refusal is None:
            gathering.used += announced.octets
        gathering.left = announced.octets
        if announced.octets == 0 and gathering.refusal is None:
            gathering.arguments.literals.append(b"")
        if announced.is_sync:
            self._send(b"+ OK\r\n")
        self._gathering = gathering
        return None

    def _take_literal(self, gathering: _Gathering) -> bool:
        if gathering.refusal is not None:
            block = self._input.take(min(gathering.left, CHUNK))
            gathering.left -= len(block)
            return bool(block)
        if len(self._input) < gathering.left:
            return False
        gathering.arguments.literals.append(self._input.take(gathering.left))
        gathering.left = 0
        return True

    def _run(self, rule: "Rule", verb: bytes, arguments: Arguments) -> ImapEvent | None:
        try:
            event = rule.run(self, verb, arguments)
        except Syntax as error:
            return self._refuse(*_refusal_of(error))
        return None if event is None else self._open(event)

    def _parse(self, verb: bytes, arguments: Arguments) -> ImapEvent | None:
        return parse_command(verb, arguments, self._context)

    # Any state

    def _capability(self, _: bytes, __: Arguments) -> ImapEvent | None:
        self._send(b"* CAPABILITY %b\r\n" % self._capabilities)
        return self._done()

    def _noop(self, verb: bytes, arguments: Arguments) -> ImapEvent | None:
        if self._is_logged_in:
            return self._parse(verb, arguments)
        return self._done()

    def _logout(self, verb: bytes, arguments: Arguments) -> ImapEvent | None:
        if self._is_logged_in:
            return self._parse(verb, arguments)
        self._log_out(b"")
        return None

    def _log_out(self, text: bytes) -> None:
        # RFC 9051 6.1.3: BYE comes before the tagged OK
        self._send(b"* BYE Logging out.\r\n")
        self._tagged("OK", text or b"Logged out.")
        self._close("quit")

    # Not authenticated

    def _starttls(self, verb: bytes, arguments: Arguments) -> ImapEvent | None:
        if self._is_tls or not self._offer.offers_tls:
            return self._refuse("BAD", b"TLS is %b." % (b"active" if self._is_tls else b"not offered here"))
        if len(self._input):
            self._refuse_injection()
            return None
        return self._parse(verb, arguments)

    def _refuse_injection(self) -> None:
        # RFC 9051 11.1: what came in clear behind STARTTLS must not count as said under TLS
        self._tagged("BAD", b"Nothing may follow STARTTLS before TLS.")
        self._close("early-tls", b"Closing the connection.")

    def _authenticate(self, _: bytes, arguments: Arguments) -> ImapEvent | None:
        mechanism, response = parse_authenticate(arguments)
        if mechanism not in capabilities.mechanisms(self._offer, self._is_tls):
            if mechanism in self._offer.mechanisms:
                return self._refuse(*_NEEDS_TLS)
            return self._refuse("NO", b"[CANNOT] No such authentication mechanism here.")
        initial: bytes | None = None
        if response is not None:
            # RFC 4959 3: "=" is an initial response of no octets
            initial = b"" if response == b"=" else sasl.decode_base64(response)
            if initial is None:
                return self._refuse("BAD", b"The initial response is not base64.")
        return self._take_step(
            sasl.begin(
                mechanism,
                initial,
                token=self._token,
                hostname=self._offer.hostname,
                scram_keys=self._scram_keys,
            )
        )

    def _respond(self, line: bytes) -> ImapEvent | None:
        exchange, self._exchange = self._exchange, None
        if line == b"*":  # RFC 9051 6.2.2
            return self._refuse("BAD", b"Authentication cancelled.")
        data = sasl.decode_base64(line)
        if data is None or exchange is None:
            return self._refuse("BAD", b"Not a base64 line.")
        event = self._take_step(exchange.respond(data))
        return None if event is None else self._open(event)

    def _take_step(self, step: sasl.Step) -> ImapEvent | None:
        if type(step) is sasl.Challenge:
            self._exchange = step.exchange
            self._send(b"+ " + sasl.encode_base64(step.data) + b"\r\n")
            return None
        if type(step) is sasl.Malformed:
            return self._refuse("BAD", b"Malformed response: " + step.reason.encode("ascii") + b".")
        assert not isinstance(step, sasl.Challenge | sasl.Malformed)
        return Authenticate(step)

    # Authenticated

    def _enable(self, verb: bytes, arguments: Arguments) -> ImapEvent | None:
        event = self._parse(verb, arguments)
        if type(event) is not Enable:
            return event
        if "UTF8=ACCEPT" in event.extensions and self.phase is _SELECTED:
            return self._refuse("BAD", b"UTF8=ACCEPT comes before SELECT.")  # RFC 6855 3
        # RFC 5161 3.1: what is not known or enabled already is not told
        new = tuple([one for one in event.extensions if one in EXTENSIONS and one not in self.enabled])
        if new:
            return Enable(new)
        self._send(b"* ENABLED\r\n")
        return self._done()

    def _parse_resync(self, verb: bytes, arguments: Arguments) -> ImapEvent | None:
        event = self._parse(verb, arguments)
        asks = event.resync is not None if type(event) is Select else type(event) is Fetch and event.vanished
        if asks and "QRESYNC" not in self.enabled:
            return self._refuse("BAD", b"QRESYNC must be enabled before.")  # RFC 7162 3.2.5, 3.2.6
        return event

    def _compress_command(self, verb: bytes, arguments: Arguments) -> ImapEvent | None:
        event = self._parse(verb, arguments)
        if self._compression is not None:
            return self._refuse("NO", b"[COMPRESSIONACTIVE] DEFLATE is active already.")  # RFC 4978 3
        return event

    def _end_idle(self, line: bytes) -> ImapEvent | None:
        # RFC 2177 3; some clients write it in small letters
        self.is_idling = False
        self._idle_fault = line.strip(b" ").upper() != b"DONE"
        return self._open(IdleDone())

    def _append_command(self, _: bytes, arguments: Arguments) -> ImapEvent | None:
        parse_append_start(arguments, self._context)  # nothing is announced, so this says what is wrong
        raise Syntax(b"A message must follow")

    def _offer_message(self, message: AppendMessage, announced: Literal, used: int) -> ImapEvent | None:
        """Ask about a message that has been announced."""
        append = _Append(message, announced.is_sync, used)
        refusal: Refusal | None = None
        if message.octets > self._offer.append_limit:
            refusal = ("NO", b"[TOOBIG] The message is larger than APPENDLIMIT.")  # RFC 7889 4
        elif message.octets == 0:
            refusal = ("NO", b"The message is empty.")  # RFC 3502 6.3.11: so a client may give up
        if refusal is None:
            self._append = append
            return self._open(message)
        return self._break_off(append, refusal, announced, is_first=message.is_first)

    def _append_line(self, append: _Append, line: bytes) -> ImapEvent | None:
        """The line behind a message: the next one, or the end."""
        append.used += len(line) + 2
        announced: Literal | None = None
        try:
            announced = literal_at_end(line)
            if append.refusal is not None:
                return self._break_off(append, append.refusal, announced, is_first=True)
            message = parse_append_next(line, append.message)
        except Syntax as error:
            is_told = append.refusal is not None
            if announced is None and line.endswith(b"+}"):
                announced = Literal(self._offer.append_limit + 1, False, False)
            refusal = append.refusal or _refusal_of(error)
            return self._break_off(append, refusal, announced, is_first=is_told)
        if message is None or announced is None:
            self._append = None
            return self._open(AppendDone())
        return self._offer_message(message, announced, append.used)

    def _break_off(
        self, append: _Append, refusal: Refusal, announced: Literal | None, *, is_first: bool
    ) -> ImapEvent | None:
        """Refuse an APPEND of which a literal is `announced`; unless `is_first` somebody has heard of
        messages before."""
        self._append = None
        if announced is None or announced.is_sync:
            self._refuse(*refusal)
        elif announced.octets > self._offer.append_limit:
            self._tagged(*refusal)
            self._close("literal-too-large", b"The literal is too large.")
        else:
            append.refusal = refusal
            append.left = announced.octets
            self._append = append
        return None if is_first else AppendAbort()

    # Shared

    @property
    def _is_logged_in(self) -> bool:
        return self.phase is _AUTHENTICATED or self.phase is _SELECTED

    @property
    def _context(self) -> Context:
        return _UTF8_CONTEXT if self.enabled and self.is_utf8 else _CONTEXT

    @property
    def _capabilities(self) -> bytes:
        if self.phase is _NOT_AUTHENTICATED:
            return capabilities.before_login(self._offer, self._is_tls)
        return capabilities.after_login(self._offer, self._compression is not None)

    def _send(self, wire: bytes) -> None:
        if wire:
            self._output.append(wire)

    def _tagged(self, status: Status, text: bytes) -> None:
        self._output.append(b"%b %b %b\r\n" % (self.tag, status.encode(), text))

    # These return None, the event that they are not, so that a command can end with them.

    def _done(self) -> ImapEvent | None:
        self._tagged("OK", b"Done.")
        return None

    def _refuse(self, status: Status, text: bytes) -> ImapEvent | None:
        self._tagged(status, text)
        self._errors += 1
        if text is _TOO_MUCH_JUNK[1]:
            self._close("junk", b"Too many commands that do nothing.")
        elif self._errors >= self._offer.errors:
            self._close("errors", b"Too many errors.")
        return None

    def _close(self, why: str, text: bytes = b"") -> None:
        """End the session; `text` is told with BYE."""
        if text:
            self._output.append(b"* BYE %b\r\n" % text)
        self.ended_by = why
        self.phase = _CLOSING
        self._exchange = self._gathering = self._append = None
        self.is_idling = self._awaits_tls = False
        self._input.clear()
        if self._compression is not None:
            self._compression.forget()


def _refusal_of(error: Syntax) -> Refusal:
    if error.code:
        return ("NO", error.code + b" " + error.text + b".")
    return ("BAD", error.text + b".")


Run = Callable[[ImapServer, bytes, Arguments], ImapEvent | None]


@value
class Rule:
    """`phases`: those in which the command may come. `takes` an argument: yes, no, or None for either.
    `is_junk`: before the login it does nothing that a client needs often. `shows_password`: it does so
    to whoever listens, unless TLS runs."""

    run: Run
    phases: frozenset[Phase]
    takes: bool | None
    is_junk: bool = False
    shows_password: bool = False


_ANY = frozenset((_NOT_AUTHENTICATED, _AUTHENTICATED, _SELECTED))
_BEFORE = frozenset((_NOT_AUTHENTICATED,))
_AFTER = frozenset((_AUTHENTICATED, _SELECTED))
_IN_MAILBOX = frozenset((_SELECTED,))


def _rules(phases: frozenset[Phase], verbs: str, *, takes: bool | None = True) -> dict[bytes, Rule]:
    """Commands whose grammar and answer are all that there is to them."""
    rule = Rule(ImapServer._parse, phases, takes)
    return {verb.strip().encode(): rule for verb in verbs.split(",")}


_APPEND_RULE = Rule(ImapServer._append_command, _AFTER, takes=True)

# fmt: off
RULES: dict[bytes, Rule] = {
    b"CAPABILITY": Rule(ImapServer._capability, _ANY, takes=False, is_junk=True),
    b"NOOP": Rule(ImapServer._noop, _ANY, takes=False, is_junk=True),
    b"LOGOUT": Rule(ImapServer._logout, _ANY, takes=False),
    b"ID": Rule(ImapServer._parse, _ANY, takes=True, is_junk=True),
    b"STARTTLS": Rule(ImapServer._starttls, _BEFORE, takes=False),
    b"AUTHENTICATE": Rule(ImapServer._authenticate, _BEFORE, takes=True),
    b"LOGIN": Rule(ImapServer._parse, _BEFORE, takes=True, shows_password=True),
    # RFC 5161 3.1 has it before SELECT, but a server need not check that
    b"ENABLE": Rule(ImapServer._enable, _AFTER, takes=True),
    b"APPEND": _APPEND_RULE,
    b"COMPRESS": Rule(ImapServer._compress_command, _AFTER, takes=True),
    b"SELECT": Rule(ImapServer._parse_resync, _AFTER, takes=True),
    b"EXAMINE": Rule(ImapServer._parse_resync, _AFTER, takes=True),
    b"UID FETCH": Rule(ImapServer._parse_resync, _IN_MAILBOX, takes=True),
    **_rules(_AFTER, "CREATE, DELETE, RENAME, SUBSCRIBE, UNSUBSCRIBE, LIST, LSUB, STATUS, "
                     "GETQUOTA, GETQUOTAROOT, SETQUOTA"),
    **_rules(_AFTER, "NAMESPACE, IDLE", takes=False),
    **_rules(_IN_MAILBOX, "CHECK, CLOSE, UNSELECT, EXPUNGE", takes=False),
    **_rules(_IN_MAILBOX, "SEARCH, SORT, THREAD, FETCH, STORE, COPY, MOVE, UID SEARCH, UID SORT, UID THREAD, "
                          "UID STORE, UID COPY, UID MOVE, UID EXPUNGE"),
}
# fmt: on

HTTP_METHODS = frozenset(b"GET POST PUT HEAD DELETE OPTIONS CONNECT TRACE PATCH PRI".split())

# RFC 9051 9: tag = 1*<any ASTRING-CHAR except "+">
_TAG = re.compile(rb'[^\x00-\x20(){%*"\\+\x7f-\xff]{1,255}')
_CONTEXT = Context()
_UTF8_CONTEXT = Context(is_utf8=True)
_ID = b'* ID ("name" "popgate")\r\n'  # RFC 2971: no version for whoever looks for an old one
_NEEDS_TLS: Refusal = ("NO", b"[PRIVACYREQUIRED] Passwords are taken only under TLS here.")
_TOO_MUCH_JUNK: Refusal = ("BAD", b"Log in.")
_WRONG_PHASE = {
    _NOT_AUTHENTICATED: b"Log in first.",
    _AUTHENTICATED: b"Not after the login, or only with a mailbox selected.",
    _SELECTED: b"Not after the login.",
}
