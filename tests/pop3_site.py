"""A site in memory for tests of POP3: accounts, maildrops, grants, a throttle; a shell without sockets."""

import asyncio
import hashlib
import hmac
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace

from popgate.auth.authenticator import AuthResult, Denied, Login, MaybeLater, Unavailable
from popgate.grants.grant import DEFAULT_TERMS, Terms
from popgate.mailbox.mailbox import MailboxError, MailboxInUse, Message
from popgate.protocols.engine import Wait
from popgate.protocols.pop3.replies import Reply
from popgate.sessions.pop3 import Pop3Policy, Pop3Services, Pop3Session
from popgate.sessions.session import Peer, Runtime
from popgate.values.address import ClientAddress
from popgate.values.event import Event
from popgate.values.identity import Identity
from support.users import Users

CLIENT = ClientAddress.parse("203.0.113.9")
TOKEN = "AbCdEfGhIjKlMnOpQrStUv"
ANN = Identity("ann", "example.org")
PRINTER = Identity("printer", "example.org")
SECRETS = {"ann@example.org": b"sesame open", "printer@example.org": b"0000"}

SMALL = b"Subject: one\r\n\r\nHello.\r\n"
DOTTED = b"Subject: dots\r\n\r\n.\r\n..\r\n.text\r\ntext.\r\n"
LONG = b"Subject: long\r\n\r\n" + b"".join(b".line %d\r\n" % number for number in range(9000))


@dataclass
class TestClock:
    __test__ = False
    time: float = 1_000_000.0

    def now(self) -> float:
        return self.time

    def monotonic(self) -> float:
        return self.time


@dataclass
class Accounts:
    """Authenticator. `is_later`: every answer is an awaitable; `is_down`: none is known."""

    is_later: bool = False
    is_down: bool = False
    terms: Terms = DEFAULT_TERMS
    asked: list[str] = field(default_factory=list)
    while_asked: Callable[[], None] = lambda: None

    def _result(self, name: str, is_right: bool) -> MaybeLater:
        self.asked.append(name)
        self.while_asked()
        result: AuthResult
        if self.is_down:
            result = Unavailable("the database is locked")
        elif name not in SECRETS:
            result = Denied("unknown")
        elif not is_right:
            result = Denied("password")
        else:
            result = Login(Identity.parse(name), self.terms, has_mailbox=not name.startswith("printer"))
        return self._soon(result) if self.is_later else result

    async def _soon(self, result: AuthResult) -> AuthResult:
        await asyncio.sleep(0)
        return result

    def check_password(self, name: str, password: bytes) -> MaybeLater:
        return self._result(name, SECRETS.get(name) == password)

    def check_apop(self, name: str, challenge: bytes, digest: bytes) -> MaybeLater:
        secret = SECRETS.get(name, b"nobody")
        wanted = hashlib.md5(challenge + secret).hexdigest().encode()
        return self._result(name, wanted == digest)

    def check_cram_md5(self, name: str, challenge: bytes, digest: bytes) -> MaybeLater:
        wanted = hmac.new(SECRETS.get(name, b"nobody"), challenge, "md5").hexdigest().encode()
        return self._result(name, wanted == digest)

    def close(self) -> None:
        return None


class Drop:
    """Maildrop over a list of messages in CRLF form. What stands in `vanished` cannot be used."""

    def __init__(self, boxes: "Boxes", identity: Identity) -> None:
        self._boxes, self._identity = boxes, identity
        self._bodies = list(boxes.mail.get(identity, {}).items())
        self.messages: Sequence[Message] = [Message(uid, len(body)) for uid, body in self._bodies]
        self.closes = 0

    def read(self, index: int, body_lines: int | None = None) -> Iterator[bytes]:
        uid, body = self._bodies[index]
        if uid in self._boxes.vanished:
            raise MailboxError(f"{uid} is no regular file")
        if body_lines is not None:
            head, _, text = body.partition(b"\r\n\r\n")
            lines = text.split(b"\r\n")[:-1][:body_lines]
            body = head + b"\r\n\r\n" + b"".join(line + b"\r\n" for line in lines)
        for start in range(0, len(body), self._boxes.block):
            if start and uid in self._boxes.breaks:
                raise MailboxError(f"{uid} cannot be read to its end")
            yield body[start : start + self._boxes.block]

    def remove(self, indexes: Iterable[int]) -> Sequence[int]:
        if self._boxes.is_down:
            raise MailboxError("input/output error")
        left = []
        for index in indexes:
            uid = self._bodies[index][0]
            if uid in self._boxes.vanished or self.closes:
                left.append(index)
            else:
                del self._boxes.mail[self._identity][uid]
        return left

    def mark_seen(self, indexes: Iterable[int]) -> None:
        self._boxes.seen.extend(self._bodies[index][0] for index in indexes)

    def close(self) -> None:
        self.closes += 1
        self._boxes.open.discard(self._identity)


class Boxes:
    """Mailboxes."""

    def __init__(self, bodies: Sequence[bytes] = (SMALL, DOTTED)) -> None:
        self.mail = {ANN: {f"uid-{number}": body for number, body in enumerate(bodies, 1)}}
        self.open: set[Identity] = set()
        self.vanished: set[str] = set()
        self.breaks: set[str] = set()
        self.seen: list[str] = []
        self.block = 65536
        self.is_down = False
        self.while_opening: Callable[[], None] = lambda: None

    def open_maildrop(self, identity: Identity) -> Drop:
        if self.is_down:
            raise MailboxError("input/output error")
        if identity in self.open:
            raise MailboxInUse(f"{identity}")
        self.open.add(identity)
        self.while_opening()
        return Drop(self, identity)

    def deliver(self, identity: Identity, body: Iterable[bytes]) -> str:
        raise NotImplementedError


@dataclass
class GrantBook:
    """LoginGrants that write down what they are told, in order."""

    told: list[tuple[str, str, str]] = field(default_factory=list)
    allows: bool = True

    def allow(
        self, address: ClientAddress, identity: Identity, protocol: str, terms: Terms, session: str
    ) -> bool:
        self.told.append(("allow", f"{address} {identity} {protocol}", session))
        return self.allows

    def renew(self, address: ClientAddress, identity: Identity, session: str) -> None:
        self.told.append(("renew", f"{address} {identity}", session))

    def logout(self, address: ClientAddress, identity: Identity, session: str) -> None:
        self.told.append(("logout", f"{address} {identity}", session))

    @property
    def granted(self) -> list[str]:
        return [what for verb, what, _ in self.told if verb == "allow"]


@dataclass
class Patience:
    """LoginThrottle: a second for the first failure of a name, then twice as long."""

    failures: dict[str, int] = field(default_factory=dict)
    before: float = 0.0

    def wait_before_seconds(self, client: ClientAddress, name: str) -> float:
        return self.before

    def delay_seconds(self, client: ClientAddress, name: str) -> float:
        count = self.failures.get(name, 0)
        return 2.0 ** (count - 1) if count else 0.0

    def failed(self, client: ClientAddress, name: str) -> None:
        self.failures[name] = self.failures.get(name, 0) + 1

    def succeeded(self, client: ClientAddress, name: str) -> None:
        self.failures.pop(name, None)


class Site:
    """Everything that a session needs, and the sessions themselves."""

    def __init__(self, policy: Pop3Policy | None = None, bodies: Sequence[bytes] = (SMALL, DOTTED)) -> None:
        self.clock = TestClock()
        self.accounts = Accounts()
        self.boxes = Boxes(bodies)
        self.grants = GrantBook()
        self.throttle = Patience()
        self.events: list[Event] = []
        self.slept: list[float] = []
        self.threads = 0
        self.opens_quickly = True
        self.run: Callable[[Callable[[], object]], Awaitable[object]] = self._run
        self.token: Callable[[], str] = lambda: TOKEN
        self.users = Users()
        self.services = Pop3Services(self.accounts, self.boxes, self.grants, self.throttle, self.users)
        self.policy = policy or Pop3Policy("mail.example.org", plaintext_login=True)
        self._sessions = 0

    def with_policy(self, **changes: object) -> "Site":
        self.policy = replace(self.policy, **changes)  # type: ignore[arg-type]
        return self

    async def _sleep(self, seconds: float) -> None:
        self.slept.append(seconds)

    async def _run(self, call: Callable[[], object]) -> object:
        self.threads += 1
        await asyncio.sleep(0)
        result = call()
        await asyncio.sleep(0)
        return result

    def session(self, *, is_tls: bool = False, client: ClientAddress = CLIENT) -> Pop3Session:
        self._sessions += 1
        self.services.openings.took(ANN, 0.0 if self.opens_quickly else 1.0, self.clock)
        return self.session_for(Peer(f"S{self._sessions}", client, 40000, "192.0.2.1:110", is_tls))

    def session_for(self, peer: Peer) -> Pop3Session:
        runtime = Runtime(self.clock, self.events.append, self._sleep, self.run, self.token)
        return Pop3Session(peer, self.policy, runtime, self.services)

    def talk(self, *, is_tls: bool = False) -> "Talk":
        return Talk(self.session(is_tls=is_tls))

    def named(self, name: str) -> list[Event]:
        return [event for event in self.events if event.name == name]


class Talk:
    """A shell without a socket: what the client sends in, what it would read out."""

    def __init__(self, session: Pop3Session) -> None:
        self.session = session
        self.engine = session.engine
        self.greeting = self.engine.take_output()

    def send(self, data: bytes) -> bytes:
        """Feed `data`, let every decision be made, and return the output."""
        self.engine.receive(data)
        return self.pump()

    def pump(self) -> bytes:
        output = []
        while True:
            event = self.engine.next_event()
            if event is not None:
                decision = self.session.decide(event)
                self.engine.answer(decision if isinstance(decision, Reply) else _run(decision))
            elif self.engine.source is not None:
                output.append(self.engine.take_output())
                self._copy(self.engine.source, output)
            else:
                break
        output.append(self.engine.take_output())
        return b"".join(output)

    def _copy(self, source: Iterator[bytes], output: list[bytes]) -> None:
        try:
            for block in source:
                self.engine.body(block)
                output.append(self.engine.take_output())
        except MailboxError:
            self.engine.body_end(failed=True)
        else:
            self.engine.body_end()

    def start_tls(self) -> None:
        assert self.engine.waiting_for is Wait.TLS
        self.engine.tls_started()
        self.session.tls_started("TLSv1.3", "TLS_AES_128_GCM_SHA256")

    def login(self) -> bytes:
        return self.send(b"USER ann@example.org\r\nPASS sesame open\r\n")

    @property
    def is_closing(self) -> bool:
        return self.engine.waiting_for is Wait.CLOSE


def _run(decision: Awaitable[Reply]) -> Reply:
    """Drive a decision to its end without an event loop: the site only ever yields."""
    awaiting = decision.__await__()
    while True:
        try:
            next(awaiting)
        except StopIteration as end:
            reply = end.value
            assert isinstance(reply, Reply)
            return reply
