"""A site in memory for tests of ImapSession, and a shell without sockets."""

import re
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from pop3_site import CLIENT, TOKEN, Accounts, GrantBook, Patience, TestClock
from popgate.mailbox.backends.folders_memory import MemoryAccounts
from popgate.mailbox.mailbox import MailboxError
from popgate.protocols.engine import Wait
from popgate.protocols.imap.replies import Reply
from popgate.sessions.imap.session import ImapPolicy, ImapServices, ImapSession
from popgate.sessions.session import Peer, Runtime
from popgate.values.event import Event
from support.users import Users

LETTER = b"From: bob@example.org\r\nSubject: one\r\n\r\nHello.\r\n"


class Site:
    """What the sessions share."""

    def __init__(self) -> None:
        self.clock = TestClock()
        self.accounts = Accounts()
        self.folders = MemoryAccounts()
        self.grants = GrantBook()
        self.throttle = Patience()
        self.users = Users()
        self.events: list[Event] = []
        self.spawned: list[Coroutine[Any, Any, None]] = []
        self.services = ImapServices(self.accounts, self.folders, self.grants, self.throttle, self.users)
        self.runs = 0  # calls that blocked a thread
        self._sessions = 0

    async def _sleep(self, seconds: float) -> None:
        self.clock.time += seconds

    async def _run(self, call: Callable[[], object]) -> object:
        self.runs += 1
        return call()

    def talk(self) -> "Talk":
        self._sessions += 1
        runtime = Runtime(
            self.clock, self.events.append, self._sleep, self._run, lambda: TOKEN, self.spawned.append
        )
        peer = Peer(f"S{self._sessions}", CLIENT, 40000, "192.0.2.1:143")
        policy = ImapPolicy("mail.example.org", plaintext_login=True)
        return Talk(self, ImapSession(peer, policy, runtime, self.services))

    def settle(self) -> None:
        while self.spawned:
            _drive(self.spawned.pop(0))


class Talk:
    """One client: what it sends in, what it would read out."""

    def __init__(self, site: Site, session: ImapSession) -> None:
        self._site = site
        self.session = session
        self.engine = session.engine
        self._tags = 0
        session.wake = lambda: True
        self.greeting = self.engine.take_output()

    def send(self, data: bytes) -> bytes:
        self.engine.receive(data)
        while True:
            event = self.engine.next_event()
            if event is not None:
                decision = self.session.decide(event)
                reply = decision if decision is None or isinstance(decision, Reply) else _drive(decision)
                if isinstance(reply, Reply):
                    self.engine.answer(reply)
            elif self.engine.source is not None:
                source = self.engine.source
                try:
                    for block in source:
                        self.engine.body(block)
                except MailboxError:
                    self.engine.body_end(failed=True)
                else:
                    self.engine.body_end()
            else:
                break
        self._site.settle()
        return self.engine.take_output()

    def do(self, command: bytes) -> bytes:
        """A whole command; the output must end with its tagged line."""
        self._tags += 1
        tag = b"a%d" % self._tags
        output = self.send(tag + b" " + command + b"\r\n")
        assert re.search(rb"(?:^|\r\n)" + tag + rb" (?:OK|NO|BAD) [^\r\n]*\r\n\Z", output), output
        return output

    def append(self, mailbox: bytes = b"INBOX", letter: bytes = LETTER, flags: bytes = b"") -> bytes:
        return self.do(b"APPEND %b %b{%d+}\r\n%b" % (mailbox, flags, len(letter), letter))

    def login(self) -> bytes:
        return self.do(b'LOGIN ann@example.org "sesame open"')

    def take(self) -> bytes:
        """What was pushed to it."""
        self._site.settle()
        return self.engine.take_output()

    @property
    def is_closing(self) -> bool:
        return self.engine.waiting_for is Wait.CLOSE


def _drive(decision: Awaitable[Any]) -> Any:
    """To its end without an event loop: the site never waits."""
    awaiting = decision.__await__()
    try:
        while True:
            next(awaiting)
    except StopIteration as end:
        return end.value
