"""Decides for one POP3 connection: who logs in, what is read, what is removed.

The order of a login is the point of the product: the proof is checked, the maildrop is locked,
the grant is written where every SMTP process sees it, and only then does the client read +OK.
A login that finds its maildrop in use is not completed and grants nothing.

Blocking calls of the mailbox go through `runtime.run`. A connection can be lost while one of them
runs, so whoever is last to know closes the maildrop: `closed`, the coroutine that waits for the
call, or the call itself.
"""

from collections.abc import Awaitable, Callable, Iterator
from typing import cast

from popgate.auth.authenticator import (
    Authenticator,
    AuthResult,
    Denied,
    Login,
    MaybeLater,
    ScramAuthenticator,
    Unavailable,
)
from popgate.mailbox.mailbox import MailboxError, Mailboxes, MailboxInUse, Maildrop
from popgate.protocols.pop3 import replies
from popgate.protocols.pop3.events import (
    ApopCredentials,
    Authenticate,
    Credentials,
    Pop3Event,
    Quit,
    Retrieve,
    StartTls,
)
from popgate.protocols.pop3.replies import Reply
from popgate.protocols.pop3.server import Offer, Pop3Server
from popgate.protocols.sasl import FindScramKeys
from popgate.sessions.credentials import check, mechanism_of
from popgate.sessions.login import LoginGrants, LoginThrottle, SessionLogin, name_for_log
from popgate.sessions.opening_times import OpeningTimes
from popgate.sessions.session import CloseReason, Peer, Runtime, UserSessions
from popgate.values.event import Event
from popgate.values.value import value

READ_INLINE_OCTETS = 65536
"""A message of one block is read at once; a thread costs more than the read."""


@value
class Pop3Policy(Offer):
    """What a listener offers and allows. `tick_seconds`: how often a grant is renewed while its session is
    open (0: never); it must be well below the site's window. An account with a shorter window of
    its own is renewed as much more often."""

    failures_before_close: int = 3
    tick_seconds: float = 20.0


class Pop3Services:
    """Whom the sessions of one process ask; `openings` is theirs in common. `scram_keys` is None where the
    authenticator knows no SCRAM."""

    __slots__ = ("authenticator", "grants", "mailboxes", "openings", "scram_keys", "throttle", "users")

    def __init__(
        self,
        authenticator: Authenticator,
        mailboxes: Mailboxes,
        grants: LoginGrants,
        throttle: LoginThrottle,
        users: UserSessions,
    ) -> None:
        self.authenticator = authenticator
        self.mailboxes = mailboxes
        self.grants = grants
        self.throttle = throttle
        self.users = users
        self.openings = OpeningTimes()
        self.scram_keys: FindScramKeys | None = (
            authenticator.scram_keys if isinstance(authenticator, ScramAuthenticator) else None
        )


class Pop3Session:
    """The deciding side of one POP3 connection; see popgate.sessions.session.Session."""

    def __init__(self, peer: Peer, policy: Pop3Policy, runtime: Runtime, services: Pop3Services) -> None:
        self._peer = peer
        self._policy = policy
        self._runtime = runtime
        self._services = services
        self._is_tls = peer.is_tls
        self._login = SessionLogin(peer, runtime, services.grants, services.throttle, services.users)
        self._protocol: str | None = None
        self._maildrop: Maildrop | None = None
        self._is_in_thread = False
        self._is_closed = False
        self._retrieved: set[int] = set()
        self._removed = 0
        self._fault: str | None = None  # of the mailbox; may be set in a thread, is told when all is over
        self.tick_seconds = policy.tick_seconds
        self.engine = Pop3Server(policy, runtime.token, is_tls=peer.is_tls, scram_keys=services.scram_keys)

    def decide(self, event: Pop3Event) -> Reply | Awaitable[Reply]:
        """The reply to an event of the engine, or an awaitable of it."""
        if type(event) is Authenticate:
            return self._authenticate(event.credentials)
        if type(event) is Retrieve:
            return self._retrieve(event.index, event.body_lines)
        if type(event) is Quit:
            return self._quit(event.deleted)
        if type(event) is StartTls:
            return replies.START_TLS
        raise TypeError(f"{event!r} is no POP3 event")

    def tls_started(self, version: str, cipher: str) -> None:
        self._is_tls = True

    def tick(self) -> None:
        self._login.renew()

    def timeout_reply(self) -> Reply:
        return replies.TIMED_OUT

    def shutdown_reply(self) -> Reply:
        return replies.SHUTTING_DOWN

    def closed(self, reason: CloseReason) -> None:
        """Release the maildrop; without QUIT nothing is removed (RFC 1939 6)."""
        if self._is_closed:
            return
        self._is_closed = True
        if not self._is_in_thread:
            self._release()
        self._login.end()
        self._emit(
            "pop3.close",
            identity=self._login.identity,
            protocol=self._protocol,
            # For the shell every end that the engine chose is a "quit"
            reason=(self.engine.ended_by or reason) if reason == "quit" else reason,
            retrieved=len(self._retrieved),
            deleted=self._removed,
            octets=self.engine.octets_sent,
            fault=self._fault,
        )

    # Login

    def _authenticate(self, credentials: Credentials) -> Reply | Awaitable[Reply]:
        return self._login.prove(
            credentials.name,
            lambda: self._check(credentials),
            lambda result: self._conclude(credentials, result),
        )

    def _check(self, credentials: Credentials) -> MaybeLater:
        authenticator = self._services.authenticator
        if type(credentials) is ApopCredentials:
            return authenticator.check_apop(credentials.name, credentials.challenge, credentials.digest)
        assert not isinstance(credentials, ApopCredentials)
        return check(authenticator, credentials)

    def _conclude(self, credentials: Credentials, result: AuthResult) -> Reply | Awaitable[Reply]:
        if type(result) is Login:
            if self._is_closed:  # while the proof was checked; nobody would release the maildrop
                return replies.MAILDROP_UNAVAILABLE
            if not self._login.admit(credentials.name, result):
                self._login_failed(credentials, "too-many-sessions")
                return replies.TOO_MANY_SESSIONS
            if not result.has_mailbox:
                return self._complete(credentials, result)
            if self._services.openings.is_quick(result.identity, self._runtime.clock):
                return self._open(credentials, result)
            return self._open_in_thread(credentials, result)
        if type(result) is Denied:
            # The same for an unknown name, a wrong password and a disabled account
            self._login_failed(credentials, result.reason)
            return self._login.refuse(
                credentials.name, replies.DENIED, replies.DENIED_FOR_GOOD, self._policy.failures_before_close
            )
        assert isinstance(result, Unavailable)
        self._login_failed(credentials, "unavailable", result.detail)
        return replies.LOGIN_UNAVAILABLE

    def _open(self, credentials: Credentials, login: Login) -> Reply:
        clock = self._runtime.clock
        began = clock.monotonic()
        try:
            self._maildrop = self._services.mailboxes.open_maildrop(login.identity)
        except MailboxError as error:
            return self._not_open(credentials, error)
        self._services.openings.took(login.identity, clock.monotonic() - began, clock)
        return self._complete(credentials, login)

    async def _open_in_thread(self, credentials: Credentials, login: Login) -> Reply:
        clock = self._runtime.clock

        def open_() -> float:
            began = clock.monotonic()
            self._maildrop = self._services.mailboxes.open_maildrop(login.identity)
            if self._is_closed:
                self._release()  # nobody waits for it any more
            return clock.monotonic() - began

        try:
            took_seconds = cast(float, await self._in_thread(open_))
        except MailboxError as error:
            return self._not_open(credentials, error)
        self._services.openings.took(login.identity, took_seconds, clock)
        if self._is_closed:
            return replies.MAILDROP_UNAVAILABLE  # nobody reads it; what matters is that no grant is made
        return self._complete(credentials, login)

    def _not_open(self, credentials: Credentials, error: MailboxError) -> Reply:
        self._login.uncount()
        if isinstance(error, MailboxInUse):
            self._login_failed(credentials, "in-use", str(error))
            return replies.IN_USE
        self._login_failed(credentials, "mailbox", str(error))
        return replies.MAILDROP_UNAVAILABLE

    def _complete(self, credentials: Credentials, login: Login) -> Reply:
        """The grant is visible to every process before the reply exists."""
        is_apop = type(credentials) is ApopCredentials
        protocol = "apop" if is_apop else "pop3"
        messages = self._maildrop.messages if self._maildrop is not None else ()
        self._protocol = protocol
        self._login.complete(login, protocol)
        self.tick_seconds = self._login.tick_seconds(self.tick_seconds)
        self._emit(
            "pop3.login",
            identity=self._login.identity,
            protocol=protocol,
            mechanism=_mechanism(credentials),
            tls="yes" if self._is_tls else "no",
            messages=len(messages),
        )
        return Reply(replies.LOGGED_IN, messages=messages)

    def _login_failed(self, credentials: Credentials, reason: str, detail: str | None = None) -> None:
        self._emit(
            "pop3.login.failed",
            name=name_for_log(credentials.name),
            mechanism=_mechanism(credentials),
            reason=reason,
            detail=detail,
        )

    # The maildrop

    def _retrieve(self, index: int, body_lines: int | None) -> Reply | Awaitable[Reply]:
        if self._maildrop is None:
            return replies.MESSAGE_UNAVAILABLE
        if self._maildrop.messages[index].octets <= READ_INLINE_OCTETS:
            return self._read(self._maildrop, index, body_lines)
        return self._read_in_thread(self._maildrop, index, body_lines)

    async def _read_in_thread(self, maildrop: Maildrop, index: int, body_lines: int | None) -> Reply:
        return cast(Reply, await self._in_thread(lambda: self._read(maildrop, index, body_lines)))

    def _read(self, maildrop: Maildrop, index: int, body_lines: int | None) -> Reply:
        # The first block is read before +OK: a message that is gone must be -ERR
        try:
            blocks = maildrop.read(index, body_lines)
            first = next(blocks, b"")
        except MailboxError as error:
            self._fault = str(error)
            return replies.MESSAGE_UNAVAILABLE
        if body_lines is None:
            self._retrieved.add(index)
            wire = b"+OK %d octets\r\n" % maildrop.messages[index].octets
        else:
            wire = b"+OK\r\n"
        return Reply(wire, source=self._watched(first, blocks))

    def _watched(self, first: bytes, blocks: Iterator[bytes]) -> Iterator[bytes]:
        """The blocks; a failure on the way is kept for the log, and the shell breaks the reply off."""
        yield first
        try:
            yield from blocks
        except MailboxError as error:
            self._fault = str(error)
            raise

    def _quit(self, deleted: tuple[int, ...]) -> Reply | Awaitable[Reply]:
        if self._maildrop is None:
            return replies.BYE
        if not deleted and not self._retrieved:
            self._release()
            return replies.BYE
        return self._update(self._maildrop, deleted)

    async def _update(self, maildrop: Maildrop, deleted: tuple[int, ...]) -> Reply:
        """RFC 1939 6, the UPDATE state. The lock goes before the answer: a client that comes
        back at once finds the maildrop free."""
        seen = sorted(self._retrieved.difference(deleted))

        def update() -> int:
            try:
                left = len(maildrop.remove(deleted)) if deleted else 0
                if seen:
                    maildrop.mark_seen(seen)
                return left
            finally:
                self._release()

        try:
            left = cast(int, await self._in_thread(update))
        except MailboxError as error:
            self._fault = str(error)
            return replies.NOT_ALL_REMOVED
        self._removed = len(deleted) - left
        if left:
            self._fault = f"{left} deleted messages could not be removed"
            return replies.NOT_ALL_REMOVED
        return replies.BYE

    async def _in_thread(self, call: Callable[[], object]) -> object:
        self._is_in_thread = True
        try:
            return await self._runtime.run(call)
        finally:
            self._is_in_thread = False
            if self._is_closed:
                self._release()

    def _release(self) -> None:
        if self._maildrop is not None:
            maildrop, self._maildrop = self._maildrop, None
            try:
                maildrop.close()
            except MailboxError as error:
                self._fault = str(error)

    # Events

    def _emit(self, event: str, /, **fields: str | int | None) -> None:
        fields["session"] = self._peer.session
        fields["client"] = self._peer.client.text
        self._runtime.emit(Event(event, self._runtime.clock.now(), fields))


def _mechanism(credentials: Credentials) -> str:
    return "APOP" if isinstance(credentials, ApopCredentials) else mechanism_of(credentials)
