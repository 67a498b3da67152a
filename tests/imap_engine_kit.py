"""ImapServer with a scripted session behind it: it knows one user, one mailbox, and tells what it was asked.

Replies depend on nothing but the events, so that two runs with the same octets must give the same output.
"""

from collections.abc import Iterator
from typing import Any

from popgate.protocols.engine import Wait
from popgate.protocols.imap import commands
from popgate.protocols.imap.capabilities import Offer
from popgate.protocols.imap.replies import GO_ON, Reply
from popgate.protocols.imap.server import ImapServer
from popgate.protocols.sasl import PlainCredentials

SECRET = b"secret"
BODY = b"From: ann@example.org\r\n\r\n" + b"x" * 100 + b"\r\n"


class Script:
    """Answers: ann's password is SECRET; only INBOX and mailboxes in `Mail/` exist; nothing can be
    deleted; FETCH is a long answer in blocks of `block` octets."""

    def __init__(self, block: int = 65536) -> None:
        self.block = block
        self.events: list[commands.ImapEvent] = []
        self.appended: list[bytearray] = []
        self.announced: list[int] = []
        self.stored: list[bytes] = []
        self.is_appending = False

    def decide(self, event: Any) -> Reply | None:
        if type(event) is commands.AppendChunk:
            assert self.is_appending
            self.appended[-1] += event.data
            assert event.data
            return None
        self.events.append(event)
        if type(event) is commands.AppendAbort:
            assert self.is_appending
            self.is_appending = False
            self.appended.clear()
            return None
        answer = getattr(self, "on_" + type(event).__name__.lower(), None)
        return answer(event) if answer is not None else Reply("OK", type(event).__name__.encode() + b" done.")

    def on_authenticate(self, event: commands.Authenticate) -> Reply:
        credentials = event.credentials
        if type(credentials) is PlainCredentials and credentials.password == SECRET:
            return Reply("OK", b"Welcome.")
        return Reply("NO", b"[AUTHENTICATIONFAILED] No such name and password.")

    def on_select(self, event: commands.Select) -> Reply:
        if event.mailbox != "INBOX":
            return Reply("NO", b"[NONEXISTENT] No such mailbox.")
        return Reply("OK", b"[READ-WRITE] Selected.", b"* 3 EXISTS\r\n* OK [UIDVALIDITY 1] Valid.\r\n")

    def on_delete(self, event: commands.Delete) -> Reply:
        return Reply("NO", b"[CANNOT] Nothing can be deleted.")

    def on_fetch(self, event: commands.Fetch) -> Reply:
        wire = b"* 1 FETCH (BODY[] {%d}\r\n%b)\r\n" % (len(BODY), BODY)
        blocks = (wire[at : at + self.block] for at in range(0, len(wire), self.block))
        return Reply("OK", source=blocks, ending=lambda: ("OK", b"Fetched."))

    def on_appendmessage(self, event: commands.AppendMessage) -> Reply:
        assert self.is_appending is not event.is_first
        if event.mailbox != "INBOX":
            self.is_appending = False
            self.appended.clear()
            return Reply("NO", b"[TRYCREATE] No such mailbox.")
        if event.is_first:
            self.appended.clear()
            self.announced.clear()
        self.announced.append(event.octets)
        self.is_appending = True
        self.appended.append(bytearray())
        return GO_ON

    def on_appenddone(self, event: commands.AppendDone) -> Reply:
        assert self.is_appending
        self.is_appending = False
        assert [len(message) for message in self.appended] == self.announced
        self.stored += [bytes(message) for message in self.appended]
        sizes = b" ".join([b"%d" % len(message) for message in self.appended])
        return Reply("OK", b"[APPENDUID 1 9] Stored " + sizes + b".", b"* 4 EXISTS\r\n")

    def on_idle(self, event: commands.Idle) -> Reply:
        return Reply("", untagged=b"* 5 EXISTS\r\n")


class Talk:
    """A connection: octets in, octets out."""

    def __init__(self, script: Script | None = None, *, is_tls: bool = False, **offer: Any) -> None:
        self.script = Script() if script is None else script
        self.engine = ImapServer(Offer("mail.example.org", **offer), lambda: "token", is_tls=is_tls)
        self.greeting = self.engine.take_output()

    @property
    def is_closing(self) -> bool:
        return self.engine.waiting_for is Wait.CLOSE

    def send(self, data: bytes) -> bytes:
        self.engine.receive(data)
        return b"".join(self._pump())

    def _pump(self) -> Iterator[bytes]:
        engine = self.engine
        while True:
            event = engine.next_event()
            if event is not None:
                reply = self.script.decide(event)
                if reply is not None:
                    engine.answer(reply)
            elif engine.source is not None:
                for block in engine.source:
                    engine.body(block)
                    yield engine.take_output()
                engine.body_end()
            elif not engine.has_more:
                break
            yield engine.take_output()
        yield engine.take_output()

    def named(self, kind: type) -> list[Any]:
        return [event for event in self.script.events if type(event) is kind]


def logged_in(script: Script | None = None, **offer: Any) -> Talk:
    talk = Talk(script, is_tls=True, **offer)
    assert b" OK " in talk.send(b"l LOGIN ann secret\r\n")
    return talk


def selected(script: Script | None = None, **offer: Any) -> Talk:
    talk = logged_in(script, **offer)
    assert b"s OK " in talk.send(b"s SELECT INBOX\r\n")
    return talk
