"""The SMTP server engine: RFC 5321 and its extensions, sans-IO.

Theory of operation. `next_event` reads one command line after the other (or blocks of a
message body) and answers itself whatever is a matter of syntax and sequence. When something
must be decided by somebody else it returns an event and reads no further until `answer`; so
pipelined commands are taken in order, and nothing is ever read in a state that is not settled.
COMMANDS has a row for each verb: in which phases it may come, whether TLS must run first,
whether it ends a pipelined group, how long its line may be. A reply below 400 advances the
phase, any other leaves it. A session that breaks the rules on which the framing depends
(line ends, groups, sizes) is closed, because what follows could be read in two ways.

It knows no clock, no socket, and nobody's mailbox; those who do are on the other side of the
events. Kept whole: the state is one object, and each command reads or moves it.
"""

import binascii
import enum
import re
from collections.abc import Callable, Iterator

from popgate.protocols import sasl
from popgate.protocols.engine import MisuseError, Wait
from popgate.protocols.envelope import EnvelopeError, MailFrom, RcptTo, read_mail, read_rcpt
from popgate.protocols.lines import BareLineEnd, InputBuffer, LineTooLong
from popgate.protocols.smtp import replies
from popgate.protocols.smtp.body import BodyReader, Progress
from popgate.protocols.smtp.events import (
    Aborted,
    Authenticate,
    BodyChunk,
    BodyEnd,
    Data,
    SmtpEvent,
    StartTls,
)
from popgate.protocols.smtp.options import SmtpOptions
from popgate.protocols.smtp.replies import Reply
from popgate.values.value import value


class Phase(enum.IntEnum):
    """How far the session is; the order is that of a mail transaction."""

    NEW = 0  # no HELO or EHLO yet
    READY = 1
    SENDER = 2  # MAIL was accepted
    RECIPIENTS = 3  # and at least one RCPT
    CHUNKS = 4  # between two BDAT commands
    BODY = 5  # octets of a message are coming, by DATA or BDAT
    CLOSING = 6


# By names of our own: until Python 3.12 each look for a member through its class costs 0.13 us
_NEW, _READY, _SENDER, _RECIPIENTS, _CHUNKS, _BODY, _CLOSING = Phase
_WAIT_LOGIN, _WAIT_COMMAND, _WAIT_BODY, _WAIT_DECISION, _WAIT_TLS, _WAIT_CLOSE = Wait


LINE_LIMIT = 512  # RFC 5321 4.5.3.1.4
MAIL_LINE_LIMIT = 2048  # 512, and what SIZE, AUTH, RET, ENVID, BODY and SMTPUTF8 add
AUTH_LINE_LIMIT = 12288  # RFC 4954 4


class SmtpServer:
    """One SMTP session. `helo`, `is_extended` (EHLO, not HELO), `is_tls` and `is_authenticated`
    may be read at any time.

    `token` makes CRAM-MD5 challenges. `is_tls`: TLS runs from the first octet. The banner is
    put out at once unless `waits_to_greet`; then `greet` must be called, and a client that
    talks before that is turned away.
    """

    source: Iterator[bytes] | None = None  # SMTP has no long replies

    def __init__(
        self,
        options: SmtpOptions,
        *,
        token: Callable[[], str],
        is_tls: bool = False,
        waits_to_greet: bool = False,
    ) -> None:
        self._options = options
        self._token = token
        self._input = InputBuffer()
        self._output: list[bytes] = []
        self._phase = _NEW
        self._question: SmtpEvent | None = None  # the event that waits for its answer
        self._aborted: Aborted | None = None  # to be told before anything else
        self._exchange: sasl.Exchange | None = None
        self._is_greeted = False
        self._is_starved = False  # nothing can be done before more octets come
        self._is_ended = False  # end of file was seen
        self._starts_tls = False
        self._upgraded = False
        self._shutdown: Reply | None = None
        self._errors = 0
        self._junk = 0
        self._smtputf8 = False
        self._body: BodyReader | None = None
        self._chunk = (0, False)  # size of the BDAT chunk that is decided about; is it the last one
        self._swallow: tuple[Reply, Phase] | None = None  # drop the chunk, then reply and be there
        self.helo = ""
        self.is_extended = False
        self.is_tls = is_tls
        self.is_authenticated = False
        self.commands = 0
        self.most_lines = 0
        self.has_more = False
        self.ended_by = ""
        if not waits_to_greet:
            self.greet()

    # What the shell calls

    def greet(self) -> None:
        """Put out the banner; needed once when `waits_to_greet` was given."""
        if not self._is_greeted and self._phase is not _CLOSING:
            self._is_greeted = True
            self._output.append(self._options.banner.wire)

    def receive(self, data: bytes) -> None:
        """Take octets from the client; b"" is end of file."""
        if not data:
            self._is_ended = True
        elif self._phase is _CLOSING:
            return
        elif not self._is_greeted:
            self._close(replies.EARLY_TALK, "early-talk")  # RFC 5321 4.3.1
        elif self._starts_tls:
            self._close(None, "tls")  # plain text between the answer and the handshake
        else:
            self._input.feed(data)
        self._is_starved = False

    def next_event(self) -> SmtpEvent | None:
        """The next event; None when an answer or more octets are needed, or all is over."""
        self.has_more = False
        if self._question is not None:
            return None
        left = self.most_lines or -1
        while self._aborted is None:
            if self._is_starved or self._starts_tls or self._phase is _CLOSING:
                return None
            if self._phase is not _BODY:
                # most of the time the buffer is empty after a command
                if self._input or self._shutdown is not None:
                    if left == 0:
                        self.has_more = True
                        return None
                    left -= 1
                    event = self._read_command()
                else:
                    event = None
                    self._is_starved = True
            else:
                event = self._read_body()
            if event is not None:
                return event
            if self._is_starved and self._is_ended:
                self._close(None, "eof")
        aborted, self._aborted = self._aborted, None
        return aborted

    def answer(self, reply: Reply) -> None:
        """Answer the event last given. Raises MisuseError when none waits for an answer."""
        question = self._question
        if question is None:
            raise MisuseError("no event waits for an answer")
        self._question = None
        if isinstance(question, RcptTo):
            self._answer_rcpt(reply)
        elif isinstance(question, MailFrom):
            self._answer_mail(reply, smtputf8=question.smtputf8)
        elif isinstance(question, Data):
            self._answer_data(reply, is_chunked=question.is_chunked)
        elif isinstance(question, BodyEnd):
            self._answer_body_end(reply)
        elif isinstance(question, Authenticate):
            self._answer_authenticate(reply)
        else:
            self._answer_start_tls(reply)

    def take_output(self) -> bytes:
        """Everything to be sent now."""
        output = self._output
        if not output:
            return b""
        wire = output[0] if len(output) == 1 else b"".join(output)
        output.clear()
        return wire

    def tls_started(self) -> None:
        """TLS is up: everything the client said before is forgotten (RFC 3207 4.2)."""
        if not self._starts_tls:
            raise MisuseError("no StartTls event was answered with 220")
        self._input.clear()
        self._starts_tls = self._is_starved = False
        self._phase = _NEW
        self.helo = ""
        self.is_extended = self.is_authenticated = False
        self.is_tls = self._upgraded = True

    def shut_down(self, reply: Reply) -> None:
        """Send `reply` and close: at once between commands; when an answer is due or a body is
        coming, after that. Called a second time it waits for nothing."""
        is_busy = self._question is not None or self._phase is _BODY or self._starts_tls
        if is_busy and self._shutdown is None:
            self._shutdown = reply
        elif self._phase is not _CLOSING:
            self._question = None
            self._close(reply, "shutdown")

    @property
    def waiting_for(self) -> Wait:
        if self._phase is _CLOSING:
            return _WAIT_CLOSE
        if self._question is not None:
            return _WAIT_DECISION
        if self._starts_tls:
            return _WAIT_TLS
        return _WAIT_BODY if self._phase is _BODY else _WAIT_COMMAND

    @property
    def phase(self) -> Phase:
        return self._phase

    def body(self, block: bytes) -> None:
        raise MisuseError("SMTP has no long replies")

    def body_end(self, *, failed: bool = False) -> None:
        raise MisuseError("SMTP has no long replies")

    # Replies and the end

    def _send(self, reply: Reply) -> None:
        self._output.append(reply.wire)
        if reply.code == 421:
            self._close(None, "refused")  # RFC 5321 3.8: 421 closes the channel
        elif reply.code >= 500:
            self._errors += 1
            if self._errors >= self._options.errors:
                self._close(replies.TOO_MANY_ERRORS, "errors")

    def _close(self, reply: Reply | None, reason: str) -> None:
        if reply is not None:
            self._output.append(reply.wire)
        self.ended_by = reason
        self._end_transaction(reason)
        self._phase = _CLOSING
        self._exchange = None
        self._input.clear()

    def _end_transaction(self, reason: str | None) -> None:
        """Forget the transaction, telling so when `reason` is given and there is one."""
        is_open = _SENDER <= self._phase <= _BODY
        if self._swallow is not None:
            is_open = self._swallow[1] >= _SENDER
        if is_open and reason is not None:
            self._aborted = Aborted(reason)
        if self._phase > _READY:
            self._phase = _READY
        self._body = self._swallow = None
        self._smtputf8 = False

    def _ask(self, event: SmtpEvent) -> SmtpEvent:
        self._question = event
        return event

    # Commands

    def _read_command(self) -> SmtpEvent | None:
        if self._shutdown is not None:
            self._close(self._shutdown, "shutdown")
            return None
        try:
            line = self._take_line()
        except LineTooLong:
            self._close(replies.LINE_TOO_LONG, "line-too-long")
            return None
        except BareLineEnd:
            self._close(replies.BAD_LINE, "line-end")
            return None
        if line is None:
            return None
        if b"\0" in line:
            self._close(replies.BAD_LINE, "line-end")
            return None
        if self._exchange is not None:
            return self._read_response(self._exchange, line)
        self.commands += 1
        word, _, argument = line.partition(b" ")
        verb = word.upper()
        rule = COMMANDS.get(verb)
        if rule is None:
            self._unknown(verb)
            return None
        return self._run(rule, argument.rstrip(b" "))

    def _take_line(self) -> bytes | None:
        buffer = self._input
        if not self.commands and buffer.peek(1) == b"\x16":
            self._close(replies.FOREIGN_PROTOCOL, "foreign-protocol")  # a TLS handshake
            return None
        try:
            line = buffer.take_line(LINE_LIMIT if self._exchange is None else AUTH_LINE_LIMIT)
        except LineTooLong:
            rule = COMMANDS.get(buffer.peek(8).partition(b" ")[0].upper())
            if self._exchange is not None or rule is None or rule.line_limit == LINE_LIMIT:
                raise
            line = buffer.take_line(rule.line_limit)
        self._is_starved = line is None
        return line

    def _unknown(self, verb: bytes) -> None:
        if verb in _FOREIGN_VERBS:
            # Somebody makes a browser or a proxy talk to us; read none of it as SMTP.
            self._close(replies.FOREIGN_PROTOCOL, "foreign-protocol")
        elif verb in _UNSUPPORTED_VERBS:
            self._send(replies.NOT_IMPLEMENTED)
        else:
            self._send(replies.UNKNOWN)

    def _run(self, rule: "Rule", argument: bytes) -> SmtpEvent | None:
        if rule.ends_group and len(self._input):
            # RFC 2920 3.1. What follows was written for a state that is not reached yet.
            self._close(replies.PIPELINED, "pipelined")
            return None
        if rule.is_junk:
            self._junk += 1
            if self._junk > self._options.junk:
                self._close(replies.TOO_MUCH_JUNK, "junk")
                return None
        refusal = None
        if self._phase < rule.first and not (
            # Some devices never say HELO. After STARTTLS the client knows EHLO and owes it.
            rule.is_tolerated and self._options.tolerant and not self._upgraded
        ):
            refusal = replies.HELLO_FIRST if self._phase is _NEW else rule.early
        elif self._phase > rule.last:
            refusal = rule.late
        elif self._options.needs_tls and not self.is_tls and not rule.before_tls:
            refusal = replies.TLS_FIRST  # RFC 3207 4
        elif argument and not rule.takes_argument:
            refusal = replies.NO_ARGUMENT
        if refusal is not None:
            self._send(refusal)
            return None
        return rule.run(self, argument)

    def _hello(self, argument: bytes, *, is_extended: bool) -> None:
        name = argument.strip(b" ").decode("utf-8", "replace")
        # RFC 5321 4.1.1.1. The name is hardly ever true, so any one word will do; but
        # it goes into Received: and logs.
        is_word = bool(name) and " " not in name and name.isascii() and name.isprintable()
        if not is_word and not self._options.tolerant:
            self._send(replies.BAD_HELLO)
            return
        if self._phase is not _NEW:
            self._junk += 1
            if self._junk > self._options.junk:
                self._close(replies.TOO_MUCH_JUNK, "junk")
                return
        self._end_transaction("hello")  # RFC 5321 4.1.4
        self._phase = _READY
        self.helo = _NOT_A_NAME.sub("?", name[:255])
        self.is_extended = is_extended
        options = self._options
        if not is_extended:
            self._send(options.helo)
        else:
            self._send(options.ehlo_tls if self.is_tls else options.ehlo)

    def _helo(self, argument: bytes) -> None:
        self._hello(argument, is_extended=False)

    def _ehlo(self, argument: bytes) -> None:
        self._hello(argument, is_extended=True)

    def _mail(self, argument: bytes) -> SmtpEvent | None:
        try:
            command = read_mail(argument, tolerant=self._options.tolerant)
        except EnvelopeError as error:
            self._send(replies.reply(error.code, error.status, error.text))
            return None
        if command.size > self._options.message_bytes:
            self._send(replies.TOO_LARGE)  # RFC 1870 6.1
            return None
        return self._ask(command)

    def _rcpt(self, argument: bytes) -> SmtpEvent | None:
        try:
            command = read_rcpt(argument, smtputf8=self._smtputf8, tolerant=self._options.tolerant)
        except EnvelopeError as error:
            self._send(replies.reply(error.code, error.status, error.text))
            return None
        return self._ask(command)

    def _data(self, argument: bytes) -> SmtpEvent | None:
        return self._ask(Data(is_chunked=False))

    def _reset(self, argument: bytes) -> None:
        self._end_transaction("reset")
        self._send(replies.RESET)

    def _quit(self, argument: bytes) -> None:
        self._close(replies.QUIT, "quit")

    def _noop(self, argument: bytes) -> None:
        self._send(replies.NOOP)

    def _verify(self, argument: bytes) -> None:
        self._send(replies.VRFY)

    def _expand(self, argument: bytes) -> None:
        self._send(replies.EXPN)

    def _help(self, argument: bytes) -> None:
        self._send(_HELP)

    def _start_tls(self, argument: bytes) -> SmtpEvent | None:
        if self.is_tls:
            self._send(replies.TLS_RUNNING)
        elif not self._options.offers_tls:
            self._send(replies.TLS_NOT_OFFERED)
        else:
            return self._ask(StartTls())
        return None

    # AUTH (RFC 4954)

    def _auth(self, argument: bytes) -> SmtpEvent | None:
        options = self._options
        mechanism_octets, space, initial_octets = argument.partition(b" ")
        mechanism = mechanism_octets.decode("ascii", "replace").upper()
        initial: bytes | None = None
        if not options.mechanisms:
            refusal = replies.AUTH_NOT_OFFERED
        elif self.is_authenticated:
            refusal = replies.AUTH_TWICE
        elif not self.is_tls and not options.plaintext_login:
            refusal = replies.AUTH_NEEDS_TLS
        elif not mechanism or b" " in initial_octets:
            refusal = replies.AUTH_SYNTAX
        elif mechanism not in options.mechanisms:
            refusal = replies.AUTH_MECHANISM
        else:
            if space:
                initial = b"" if initial_octets == b"=" else sasl.decode_base64(initial_octets)
            if not space or initial is not None:
                return self._advance(
                    sasl.begin(
                        mechanism,
                        initial,
                        token=self._token,
                        hostname=options.hostname,
                        scram_keys=options.scram_keys,
                    )
                )
            refusal = replies.AUTH_BASE64
        self._send(refusal)
        return None

    def _read_response(self, exchange: sasl.Exchange, line: bytes) -> SmtpEvent | None:
        self._exchange = None
        if len(self._input):
            self._close(replies.PIPELINED, "pipelined")
        elif line == b"*":
            self._send(replies.AUTH_CANCELLED)
        elif (response := sasl.decode_base64(line)) is None:
            self._send(replies.AUTH_BASE64)
        else:
            return self._advance(exchange.respond(response))
        return None

    def _advance(self, step: sasl.Step) -> SmtpEvent | None:
        if isinstance(step, sasl.Challenge):
            self._exchange = step.exchange
            self._output.append(b"334 " + binascii.b2a_base64(step.data, newline=False) + b"\r\n")
        elif isinstance(step, sasl.Malformed):
            self._send(replies.reply(501, "5.5.2", step.reason))
        else:
            return self._ask(Authenticate(step))
        return None

    # Bodies

    def _read_body(self) -> SmtpEvent | None:
        assert self._body is not None
        got = self._body.read()
        if isinstance(got, bytes):
            return BodyChunk(got)
        if got is Progress.STARVED:
            self._is_starved = True
        elif got is Progress.COMPLETE:
            return self._finish_body()
        elif got is Progress.CHUNK:
            self._phase = _CHUNKS
            self._send(replies.CHUNK_OK)
        elif got is Progress.TOO_LARGE:
            # the rest is read for nothing, and refused at its end
            self._swallow = (replies.TOO_LARGE, _READY)
            return Aborted("too-large")
        elif got is Progress.ENDLESS:
            self._close(replies.TOO_LARGE, "too-large")
        elif got is Progress.BAD:
            self._close(replies.BAD_BODY, "line-end")
        return None

    def _finish_body(self) -> SmtpEvent | None:
        if self._swallow is None:
            return self._ask(BodyEnd())
        reply, phase = self._swallow
        if phase <= _READY:
            self._end_transaction(None)
        else:
            self._body = self._swallow = None
        self._phase = phase
        self._send(reply)
        return None

    def _new_body(self) -> BodyReader:
        options = self._options
        return BodyReader(
            self._input, message_bytes=options.message_bytes, swallow_bytes=options.swallow_bytes
        )

    def _bdat(self, argument: bytes) -> SmtpEvent | None:
        # RFC 3030 2: bdat-cmd = "BDAT" SP chunk-size [ SP end-marker ] CR LF
        found = _BDAT.fullmatch(argument)
        if found is None:
            # Nobody can tell how many octets are no commands.
            self._close(replies.BAD_CHUNK, "chunk")
            return None
        size, is_last = int(found[1]), found[2] is not None
        if size > self._options.swallow_bytes:
            self._close(replies.TOO_LARGE, "too-large")
            return None
        phase = self._phase
        body = self._body or self._new_body()
        if self._options.needs_tls and not self.is_tls:
            self._drop_chunk(size, replies.TLS_FIRST, phase)
        elif phase < _RECIPIENTS:
            refusal = (replies.HELLO_FIRST, replies.MAIL_FIRST, replies.RCPT_FIRST)[phase]
            self._drop_chunk(size, refusal, phase)
        elif not body.fits(size):
            self._drop_chunk(size, replies.TOO_LARGE, _READY)
            return Aborted("too-large")
        elif phase is _RECIPIENTS:
            self._chunk = size, is_last
            return self._ask(Data(is_chunked=True))
        else:
            body.begin_chunk(size, is_last=is_last)
            self._phase = _BODY
        return None

    def _drop_chunk(self, size: int, reply: Reply, phase: Phase) -> None:
        """RFC 3030 2: the octets of a refused chunk are no commands; drop them, then reply."""
        self._swallow = (reply, phase)
        self._body = self._new_body()
        self._body.begin_chunk(size, is_last=True, is_dropped=True)
        self._phase = _BODY

    # Answers

    def _answer_authenticate(self, reply: Reply) -> None:
        self.is_authenticated = reply.code < 400
        self._send(reply)

    def _answer_start_tls(self, reply: Reply) -> None:
        if reply.code >= 400:
            self._send(reply)
        elif len(self._input):
            self._close(replies.PIPELINED, "pipelined")
        else:
            self._send(reply)
            self._starts_tls = True

    def _answer_mail(self, reply: Reply, *, smtputf8: bool) -> None:
        if reply.code < 400:
            self._phase = _SENDER
            self._smtputf8 = smtputf8
        self._send(reply)

    def _answer_rcpt(self, reply: Reply) -> None:
        if reply.code < 400:
            self._phase = _RECIPIENTS
        self._send(reply)

    def _answer_data(self, reply: Reply, *, is_chunked: bool) -> None:
        if reply.code >= 400:
            if is_chunked:
                self._drop_chunk(self._chunk[0], reply, _READY)
            else:
                self._end_transaction(None)
                self._send(reply)
        elif is_chunked:
            size, is_last = self._chunk
            self._body = self._new_body()
            self._body.begin_chunk(size, is_last=is_last)
            self._phase = _BODY
        elif len(self._input):
            # The body came before 354 was sent: the client cannot have read our answer.
            self._close(replies.PIPELINED, "pipelined")
        else:
            self._body = self._new_body()
            self._body.begin_data()
            self._phase = _BODY
            self._send(reply)

    def _answer_body_end(self, reply: Reply) -> None:
        self._end_transaction(None)
        if reply.code < 400:
            self._junk = 0
        self._send(reply)


_NOT_A_NAME = re.compile(r"[^A-Za-z0-9._:\[\]-]")
_BDAT = re.compile(rb"([0-9]{1,20})( LAST)?", re.IGNORECASE)

_FOREIGN_VERBS = frozenset(b"GET POST PUT HEAD DELETE OPTIONS CONNECT PATCH TRACE PRI PROXY".split())
_UNSUPPORTED_VERBS = frozenset((b"ETRN", b"TURN", b"ATRN", b"SEND", b"SOML", b"SAML"))


@value
class Rule:
    """One verb. It may come from `first` to `last`; `early` and `late` answer it otherwise.

    `is_tolerated`: old devices may send it before `first`. `ends_group`: nothing may be
    pipelined behind it, because the meaning of what follows depends on the reply. `is_junk`:
    it does nothing and is counted.
    """

    run: Callable[[SmtpServer, bytes], SmtpEvent | None]
    first: Phase = _NEW
    last: Phase = _CHUNKS
    early: Reply = replies.HELLO_FIRST
    late: Reply = replies.IN_TRANSACTION
    before_tls: bool = True
    ends_group: bool = False
    takes_argument: bool = True
    is_junk: bool = False
    is_tolerated: bool = False
    line_limit: int = LINE_LIMIT


# fmt: off
COMMANDS: dict[bytes, Rule] = {
    b"HELO": Rule(SmtpServer._helo),
    b"EHLO": Rule(SmtpServer._ehlo),
    b"MAIL": Rule(SmtpServer._mail, _READY, _READY, late=replies.NESTED_MAIL,
                  before_tls=False, is_tolerated=True, line_limit=MAIL_LINE_LIMIT),
    b"RCPT": Rule(SmtpServer._rcpt, _SENDER, _RECIPIENTS, replies.MAIL_FIRST, replies.IN_CHUNKS,
                  before_tls=False, line_limit=MAIL_LINE_LIMIT),
    b"DATA": Rule(SmtpServer._data, _RECIPIENTS, _RECIPIENTS, replies.RCPT_FIRST, replies.IN_CHUNKS,
                  before_tls=False, ends_group=True, takes_argument=False),
    b"BDAT": Rule(SmtpServer._bdat),  # refuses by itself: its octets must be dropped
    b"RSET": Rule(SmtpServer._reset, takes_argument=False, is_junk=True),
    b"NOOP": Rule(SmtpServer._noop, is_junk=True),
    b"QUIT": Rule(SmtpServer._quit, takes_argument=False),
    b"VRFY": Rule(SmtpServer._verify, is_junk=True),
    b"EXPN": Rule(SmtpServer._expand, is_junk=True),
    b"HELP": Rule(SmtpServer._help, is_junk=True),
    b"STARTTLS": Rule(SmtpServer._start_tls, last=_READY, ends_group=True, takes_argument=False),
    b"AUTH": Rule(SmtpServer._auth, _READY, _READY, ends_group=True,
                  line_limit=AUTH_LINE_LIMIT),
}
# fmt: on

_HELP = replies.reply(214, "2.0.0", "commands: " + " ".join(verb.decode() for verb in COMMANDS))
