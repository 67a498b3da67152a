"""Decides for one IMAP connection: who logs in, what is answered, what an idle client is told.

The order of a login is that of POP3: the proof is checked, the folders are opened, the grant is written
where every SMTP process sees it, and only then does the client read OK.

What blocks runs in threads, one at a time for each session (`Desk.guard`). A connection can be lost while one
of them runs, so the folders are closed by a thread too, behind it.
"""

from collections.abc import Awaitable, Callable
from typing import cast

from popgate.auth.authenticator import (
    Authenticator,
    AuthResult,
    Denied,
    Login,
    ScramAuthenticator,
    Unavailable,
)
from popgate.mailbox.folders import Account, Accounts
from popgate.mailbox.mailbox import MailboxError
from popgate.protocols.imap import commands as imap
from popgate.protocols.imap.capabilities import Offer
from popgate.protocols.imap.replies import Reply
from popgate.protocols.imap.server import ImapServer
from popgate.protocols.sasl import Credentials, FindScramKeys
from popgate.sessions.credentials import check, mechanism_of
from popgate.sessions.imap.desk import Desk
from popgate.sessions.imap.without_mailbox import answer_without_mailbox
from popgate.sessions.login import LoginGrants, LoginThrottle, SessionLogin, name_for_log
from popgate.sessions.session import CloseReason, Peer, Runtime, UserSessions
from popgate.values.event import Event
from popgate.values.value import value

_DENIED = Reply("NO", b"[AUTHENTICATIONFAILED] The name or the password is wrong.")
_DENIED_FOR_GOOD = Reply("NO", _DENIED.text, closes=True)
_LOGIN_UNAVAILABLE = Reply("NO", b"[UNAVAILABLE] Logins cannot be checked now, try again later.")
_NO_MAILBOX = Reply("NO", b"[UNAVAILABLE] The mailbox cannot be opened now, try again later.")
_TOO_MANY_SESSIONS = Reply("NO", b"[LIMIT] Too many sessions of this user are open.")
_TIMED_OUT = Reply("NO", b"Nothing was said for too long.")
_SHUTTING_DOWN = Reply("NO", b"[UNAVAILABLE] The server is shutting down.")
_LOST = Reply("NO", b"[UNAVAILABLE] The mailbox is no longer what was selected.")
_OK = Reply("OK")
_STILL_HERE = b"* OK Still here.\r\n"
SAY_SECONDS = 120.0
"""After so long without news an idle client is told that there are none."""

_AT_ONCE = (imap.StartTls, imap.Logout, imap.ClientId, imap.Compress)


@value
class ImapPolicy(Offer):
    """What a listener offers and allows. `tick_seconds`: as in Pop3Policy."""

    failures_before_close: int = 3
    tick_seconds: float = 20.0


class ImapServices:
    """Whom the sessions of one process ask."""

    __slots__ = ("accounts", "authenticator", "grants", "scram_keys", "throttle", "users")

    def __init__(
        self,
        authenticator: Authenticator,
        accounts: Accounts,
        grants: LoginGrants,
        throttle: LoginThrottle,
        users: UserSessions,
    ) -> None:
        self.authenticator = authenticator
        self.accounts = accounts
        self.grants = grants
        self.throttle = throttle
        self.users = users
        self.scram_keys: FindScramKeys | None = (
            authenticator.scram_keys if isinstance(authenticator, ScramAuthenticator) else None
        )


class ImapSession:
    """The deciding side of one IMAP connection; see popgate.sessions.session.PushingSession."""

    __slots__ = (
        "_desk",
        "_fault",
        "_is_behind",
        "_is_closed",
        "_is_telling",
        "_is_tls",
        "_login",
        "_peer",
        "_policy",
        "_runtime",
        "_said_at",
        "_services",
        "_unwatch",
        "engine",
        "tick_seconds",
        "wake",
    )

    def __init__(self, peer: Peer, policy: ImapPolicy, runtime: Runtime, services: ImapServices) -> None:
        self._peer = peer
        self._policy = policy
        self._runtime = runtime
        self._services = services
        self._login = SessionLogin(peer, runtime, services.grants, services.throttle, services.users)
        self._desk: Desk | None = None
        self._fault: str | None = None  # of the mailbox, as last told
        self._is_tls = peer.is_tls
        self._unwatch: Callable[[], None] | None = None
        self._is_telling = False
        self._is_behind = False  # something has changed since the client was last told
        self._is_closed = False
        self._said_at = 0.0  # when an idle client was last told something
        self.tick_seconds = policy.tick_seconds
        self.wake: Callable[[], bool] = _nobody
        self.engine = ImapServer(policy, runtime.token, is_tls=peer.is_tls, scram_keys=services.scram_keys)

    def decide(self, event: imap.ImapEvent) -> "Reply | Awaitable[Reply | None] | None":
        """The reply to an event of the engine, or an awaitable of it."""
        kind = type(event)
        if kind in _AT_ONCE:
            return _OK
        if isinstance(event, imap.Authenticate):
            return self._authenticate(event.credentials)
        desk = self._desk
        if desk is None:
            return answer_without_mailbox(event, self._policy.append_limit)
        if isinstance(event, imap.AppendChunk):
            data = event.data
            return cast(Awaitable[None], self._runtime.run(lambda: desk.write(data)))
        if isinstance(event, imap.AppendAbort):
            return cast(Awaitable[None], self._runtime.run(desk.forget_drafts))
        if isinstance(event, imap.Idle):
            return self._idle(desk)
        if isinstance(event, imap.IdleDone):
            self._end_watch()
            return self._end_idle(desk)
        tag = self.engine.tag
        if isinstance(event, imap.Search | imap.Sort | imap.Thread):
            return self._search(desk, event, tag)
        return cast(Awaitable[Reply], self._runtime.run(lambda: desk.do(event, tag)))

    async def _search(self, desk: Desk, event: "imap.Search | imap.Sort | imap.Thread", tag: bytes) -> Reply:
        while True:
            reply = await self._runtime.run(lambda: desk.seek(event, tag))
            if reply is not None or self._is_closed:
                return cast(Reply, reply or _OK)  # nobody waits for the answer of one that is closed

    # Login

    def _authenticate(self, credentials: Credentials) -> "Reply | Awaitable[Reply]":
        return self._login.prove(
            credentials.name,
            lambda: check(self._services.authenticator, credentials),
            lambda result: self._conclude(credentials, result),
        )

    def _conclude(self, credentials: Credentials, result: AuthResult) -> "Reply | Awaitable[Reply]":
        if isinstance(result, Login):
            if self._is_closed:  # while the proof was checked; no grant is made for nobody
                return _LOGIN_UNAVAILABLE
            if not self._login.admit(credentials.name, result):
                self._login_failed(credentials, "too-many-sessions")
                return _TOO_MANY_SESSIONS
            if not result.has_mailbox:
                return self._complete(credentials, result)
            return self._open(credentials, result)
        if isinstance(result, Denied):
            # The same for an unknown name, a wrong password and a disabled account
            self._login_failed(credentials, result.reason)
            return self._login.refuse(
                credentials.name, _DENIED, _DENIED_FOR_GOOD, self._policy.failures_before_close
            )
        assert isinstance(result, Unavailable)
        self._login_failed(credentials, "unavailable", result.detail)
        return _LOGIN_UNAVAILABLE

    async def _open(self, credentials: Credentials, login: Login) -> Reply:
        try:
            account = cast(
                Account,
                await self._runtime.run(lambda: self._services.accounts.open_account(login.identity)),
            )
        except MailboxError as error:
            self._login.uncount()
            self._login_failed(credentials, "mailbox", str(error))
            return _NO_MAILBOX
        if self._is_closed:
            await self._runtime.run(account.close)
            return _LOGIN_UNAVAILABLE
        self._desk = Desk(account, self._runtime.clock, self._policy.append_limit, self._faulty)
        return self._complete(credentials, login)

    def _complete(self, credentials: Credentials, login: Login) -> Reply:
        """The grant is visible to every process before the reply exists."""
        self._login.complete(login, "imap")
        self.tick_seconds = self._login.tick_seconds(self.tick_seconds)
        self._emit(
            "imap.login",
            identity=self._login.identity,
            mechanism=mechanism_of(credentials),
            tls="yes" if self._is_tls else "no",
        )
        return _OK

    def _login_failed(self, credentials: Credentials, reason: str, detail: str | None = None) -> None:
        self._emit(
            "imap.login.failed",
            name=name_for_log(credentials.name),
            mechanism=mechanism_of(credentials),
            reason=reason,
            detail=detail,
        )

    def _faulty(self, error: MailboxError) -> None:
        """Any thread calls. A client that tries again and again must not fill the log."""
        detail = str(error)
        if detail != self._fault:
            self._fault = detail
            self._emit("imap.fault", identity=self._login.identity, detail=detail)

    # IDLE

    async def _idle(self, desk: Desk) -> Reply:
        self._said_at = self._runtime.clock.monotonic()
        if desk.view is not None:
            try:
                # before the look, so that nothing falls between the two
                self._unwatch = desk.view.folder.watch(self._changed)
            except OSError:
                pass  # the client hears of changes at its next command
        return await self._news(desk, Reply(""))

    async def _end_idle(self, desk: Desk) -> Reply:
        # Behind what may be told at the moment, which then belongs to this answer
        return await self._news(desk, _OK)

    async def _news(self, desk: Desk, reply: Reply) -> Reply:
        try:
            await self._runtime.run(desk.look)
        except MailboxError:
            self._end_watch()
            return Reply("NO", _LOST.text, closes=True)
        unsaid, desk.unsaid = desk.unsaid, b""
        return Reply(reply.status, reply.text, untagged=unsaid)

    def _changed(self) -> None:
        self._is_behind = True
        if not self._is_telling and not self._is_closed and self._desk is not None and self.engine.is_idling:
            self._is_telling = True
            self._runtime.spawn(self._tell(self._desk))

    def can_push(self) -> None:
        self._changed()

    async def _tell(self, desk: Desk) -> None:
        """While the client idles and reads: what is new, until it knows everything."""
        try:
            while self._is_behind and self.engine.is_idling and self.wake():
                self._is_behind = False
                await self._runtime.run(desk.look)
                if self._is_closed:
                    return
                if desk.unsaid and self.engine.is_idling:
                    unsaid, desk.unsaid = desk.unsaid, b""
                    self.engine.push(unsaid)
                    self._said_at = self._runtime.clock.monotonic()
                    self.wake()
        except MailboxError:
            if not self._is_closed and self.engine.is_idling:
                self.engine.shut_down(_LOST)
                self.wake()
        finally:
            self._is_telling = False

    def _end_watch(self) -> None:
        unwatch, self._unwatch = self._unwatch, None
        if unwatch is not None:
            unwatch()

    # The shell's side

    def tls_started(self, version: str, cipher: str) -> None:
        self._is_tls = True

    def tick(self) -> None:
        self._login.renew()
        now = self._runtime.clock.monotonic()
        # Nothing said is nothing lost: only what is sent finds out that the client's machine is gone
        if self.engine.is_idling and now - self._said_at >= SAY_SECONDS and self.wake():
            self._said_at = now
            self.engine.push(_STILL_HERE)
            self.wake()

    def timeout_reply(self) -> Reply:
        return _TIMED_OUT

    def shutdown_reply(self) -> Reply:
        return _SHUTTING_DOWN

    def closed(self, reason: CloseReason) -> None:
        """Give the folders back and let the grant's window run."""
        if self._is_closed:
            return
        self._is_closed = True
        self._end_watch()
        self._login.end()
        self._emit(
            "imap.close",
            identity=self._login.identity,
            # For the shell every end that the engine chose is a "quit"
            reason=(self.engine.ended_by or reason) if reason == "quit" else reason,
            octets=self.engine.octets_sent,
        )
        if self._desk is not None:
            self._runtime.spawn(self._close(self._desk))

    async def _close(self, desk: Desk) -> None:
        await self._runtime.run(desk.close)

    def _emit(self, event: str, /, **fields: "str | int | float | None") -> None:
        peer, now = self._peer, self._runtime.clock.now()
        self._runtime.emit(Event(event, now, {"session": peer.session, "client": peer.client.text, **fields}))


def _nobody() -> bool:
    return False
