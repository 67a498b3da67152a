"""An SMTP session on an engine with everything around it in memory, and how to talk to it."""

import random
from collections.abc import Awaitable, Callable, Iterable
from typing import TypeVar

from popgate.auth.authenticator import (
    AuthResult,
    Denied,
    LocalRecipient,
    Login,
    LookupUnavailable,
    Unavailable,
)
from popgate.grants.grant import DEFAULT_TERMS, Decision, Grant, Terms, Usage
from popgate.protocols.engine import Wait
from popgate.protocols.smtp import Reply
from popgate.queue.queue import Envelope, QueueError
from popgate.sessions.session import Peer, Runtime
from popgate.sessions.smtp import RelayGrants, SmtpPolicy, SmtpServices, SmtpSession
from popgate.values.address import ClientAddress
from popgate.values.event import Event
from popgate.values.identity import Identity
from popgate.values.mail import MailAddress
from support.users import Users

CLIENT = ClientAddress.parse("203.0.113.9")
ALICE = Identity("alice", "example.org")
NOW = 1_700_000_000.0


class ManualClock:
    def __init__(self) -> None:
        self.seconds = NOW

    def now(self) -> float:
        return self.seconds

    def monotonic(self) -> float:
        return self.seconds


class FakeGrants:
    """`grant` permits everything; `charges` and `refunds` are what was counted."""

    def __init__(self) -> None:
        self.grant: Grant | None = None
        self.verdict: Decision | None = None
        self.charge_verdict: Decision | None = None
        self.asked: list[tuple[MailAddress | None, int, int]] = []
        self.charges: list[Usage] = []
        self.refunds: list[Usage] = []

    def allow(self, terms: Terms = DEFAULT_TERMS) -> None:
        self.grant = Grant(CLIENT, ALICE, "pop3", NOW, NOW, NOW, terms, Usage())

    def decide(self, address, sender, recipients, octets, session) -> Decision:
        self.asked.append((sender, recipients, octets))
        if self.verdict is not None:
            return self.verdict
        if self.grant is None:
            return Decision("refuse", "no-grant", f"relaying denied for [{address}]", None)
        return Decision("permit", "granted", "", self.grant)

    def charge(self, grant: Grant, usage: Usage, session: str) -> Decision:
        if self.charge_verdict is not None:
            return self.charge_verdict
        self.charges.append(usage)
        return Decision("permit", "granted", "", grant)

    def refund(self, grant: Grant, usage: Usage) -> None:
        self.refunds.append(usage)


_T = TypeVar("_T")


class FakeIncoming:
    def __init__(self, intake: "FakeIntake", queue_id: str) -> None:
        self.queue_id = queue_id
        self.octets = 0
        self.is_aborted = self.is_committed = False
        self._intake = intake
        self._blocks: list[bytes] = []

    def write(self, chunk: bytes) -> Awaitable[None] | None:
        if self._intake.fail_write is not None:
            raise self._intake.fail_write
        self.octets += len(chunk)
        if self._intake.keeps:
            self._blocks.append(chunk)
        return self._later() if self._intake.is_slow else None

    async def _later(self) -> None:
        if self._intake.fail_later is not None:
            raise self._intake.fail_later

    async def commit(self, envelope: Envelope, conclude: Callable[[QueueError | None], _T]) -> _T:
        if self._intake.fail_commit is not None:
            return conclude(self._intake.fail_commit)
        assert not self.is_aborted
        self.is_committed = True
        self._intake.accepted.append((envelope, b"".join(self._blocks)))
        return conclude(None)

    def abort(self) -> None:
        self.is_aborted = True


class FakeIntake:
    def __init__(self) -> None:
        self.accepted: list[tuple[Envelope, bytes]] = []
        self.incoming: list[FakeIncoming] = []
        self.fail_receive: QueueError | None = None
        self.fail_write: QueueError | None = None
        self.fail_later: QueueError | None = None
        self.fail_commit: QueueError | None = None
        self.is_slow = False
        self.keeps = True

    def receive(self) -> FakeIncoming:
        if self.fail_receive is not None:
            raise self.fail_receive
        incoming = FakeIncoming(self, f"Q{len(self.incoming) + 1}")
        self.incoming.append(incoming)
        return incoming


class FakeAuthenticator:
    """Knows alice@example.org with the password `secret`; every CRAM-MD5 digest of only `a` is hers."""

    def __init__(self) -> None:
        self.is_slow = False
        self.is_down = False
        self.asked: list[str] = []
        self.terms = DEFAULT_TERMS
        self.while_asked: Callable[[], None] = lambda: None

    def check_password(self, name: str, password: bytes):
        return self._maybe_later(name, password == b"secret")

    def check_apop(self, name: str, challenge: bytes, digest: bytes):
        raise AssertionError("SMTP has no APOP")

    def check_cram_md5(self, name: str, challenge: bytes, digest: bytes):
        return self._maybe_later(name, digest == b"a" * 32)

    def _maybe_later(self, name: str, is_right: bool):
        self.asked.append(name)
        self.while_asked()
        result: AuthResult
        if self.is_down:
            result = Unavailable("database is locked")
        elif name != str(ALICE):
            result = Denied("unknown")
        elif is_right:
            result = Login(ALICE, self.terms)
        else:
            result = Denied("password")
        return self._later(result) if self.is_slow else result

    async def _later(self, result: AuthResult) -> AuthResult:
        return result

    def close(self) -> None:
        pass


class FakeRecipients:
    def __init__(self) -> None:
        self.names = {"alice@example.org", "bob@example.org", "postmaster@example.org"}
        self.is_down = False

    def resolve(self, address: MailAddress) -> LocalRecipient | None:
        if self.is_down:
            raise LookupUnavailable
        name = f"{address.local.lower().partition('+')[0]}@{address.domain}"
        return LocalRecipient((Identity.parse(name),)) if name in self.names else None


class FakeThrottle:
    def __init__(self) -> None:
        self.failures = 0
        self.before = 0.0

    def wait_before_seconds(self, client: ClientAddress, name: str) -> float:
        return self.before

    def delay_seconds(self, client: ClientAddress, name: str) -> float:
        return float(self.failures)

    def failed(self, client: ClientAddress, name: str) -> None:
        self.failures += 1

    def succeeded(self, client: ClientAddress, name: str) -> None:
        self.failures = 0


class Dialogue:
    """A session and all that it asks; `say` sends octets and gives what came back."""

    def __init__(
        self,
        policy: SmtpPolicy | None = None,
        *,
        is_tls: bool = False,
        client: str = CLIENT.text,
        grants: RelayGrants | None = None,
    ) -> None:
        self.clock = ManualClock()
        self.events: list[Event] = []
        self.sleeps: list[float] = []
        self.grants = FakeGrants()
        self.intake = FakeIntake()
        self.authenticator = FakeAuthenticator()
        self.recipients = FakeRecipients()
        self.throttle = FakeThrottle()
        self.users = Users()
        self.policy = policy or SmtpPolicy("mx.example.org")
        self.session = SmtpSession(
            Peer("S1", ClientAddress.parse(client), 40000, "192.0.2.1:25", is_tls),
            self.policy,
            Runtime(self.clock, self.events.append, self._sleep, self._run, lambda: "token"),
            SmtpServices(
                self.authenticator,
                self.recipients,
                grants or self.grants,
                self.intake,
                self.throttle,
                frozenset(("example.org",)),
                self.users,
            ),
        )
        self.engine = self.session.engine

    async def _sleep(self, seconds: float) -> None:
        self.sleeps.append(seconds)

    async def _run(self, function: Callable[[], object]) -> object:
        return function()

    def say(self, octets: bytes, *, end: bool = False) -> bytes:
        if octets:
            self.engine.receive(octets)
        if end:
            self.engine.receive(b"")
        self.pump()
        return self.engine.take_output()

    def pump(self) -> None:
        while (event := self.engine.next_event()) is not None:
            answer = self.session.decide(event)
            if answer is not None and not isinstance(answer, Reply):
                answer = finish(answer)
            if answer is not None:
                assert isinstance(answer, Reply)
                self.engine.answer(answer)

    def say_cut(self, octets: bytes, cuts: Iterable[int]) -> bytes:
        out = b""
        start = 0
        for cut in [*cuts, len(octets)]:
            if cut > start:
                out += self.say(octets[start:cut])
                start = cut
        return out

    def start_tls(self) -> None:
        assert self.engine.waiting_for is Wait.TLS
        self.engine.tls_started()
        self.session.tls_started("TLSv1.3", "TLS_AES_128_GCM_SHA256")

    def log_in(self) -> None:
        assert self.say(b"AUTH PLAIN AGFsaWNlQGV4YW1wbGUub3JnAHNlY3JldA==\r\n").startswith(b"235")

    @property
    def is_closed(self) -> bool:
        return self.engine.waiting_for is Wait.CLOSE

    def names(self) -> list[str]:
        return [event.name for event in self.events]


def finish(awaitable: Awaitable[Reply | None]) -> Reply | None:
    """Run a coroutine that waits for nothing real."""
    steps = awaitable.__await__()
    try:
        next(steps)
    except StopIteration as stop:
        return stop.value
    raise AssertionError("it waits for something outside")


def byte_by_byte(octets: bytes) -> range:
    return range(1, len(octets))


def random_cuts(octets: bytes, seed: int) -> list[int]:
    source = random.Random(seed)
    return (
        sorted(source.randrange(1, len(octets) + 1) for _ in range(source.randrange(1, 6))) if octets else []
    )
