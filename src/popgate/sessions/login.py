"""The login of a mail session, whatever its protocol: patience, the number of sessions, the grant.

The order is the point of the product: the proof is checked, the session gets what it is for (the
protocol's business), the grant is written where every SMTP process sees it, and only then
does an answer exist. It knows no protocol: answers are whatever its caller makes them.
"""

from collections.abc import Awaitable, Callable
from typing import Protocol, TypeVar

from popgate.auth.authenticator import AuthResult, Denied, Login, MaybeLater, Unavailable
from popgate.grants.grant import Terms
from popgate.sessions.patience import answer_after
from popgate.sessions.session import Peer, Runtime, UserSessions
from popgate.values.address import ClientAddress
from popgate.values.identity import Identity

_Answer = TypeVar("_Answer")
_AT_HAND = (Login, Denied, Unavailable)  # of what an authenticator returns, all that is not to be awaited


class LoginGrants(Protocol):
    """What a login needs of popgate.grants; nothing here raises."""

    def allow(
        self, address: ClientAddress, identity: Identity, protocol: str, terms: Terms, session: str
    ) -> bool: ...

    def renew(self, address: ClientAddress, identity: Identity, session: str) -> None: ...

    def logout(self, address: ClientAddress, identity: Identity, session: str) -> None: ...


class LoginThrottle(Protocol):
    """Counts failed logins over all sessions and says how long to wait, in seconds."""

    def wait_before_seconds(self, client: ClientAddress, name: str) -> float: ...

    def delay_seconds(self, client: ClientAddress, name: str) -> float: ...

    def failed(self, client: ClientAddress, name: str) -> None: ...

    def succeeded(self, client: ClientAddress, name: str) -> None: ...


class SessionLogin:
    """Who one mail session belongs to. `login` is set by `complete` and stays for the closing event."""

    __slots__ = (
        "_asked_at",
        "_counted",
        "_failures",
        "_grants",
        "_is_granted",
        "_peer",
        "_runtime",
        "_throttle",
        "_users",
        "login",
    )

    def __init__(
        self,
        peer: Peer,
        runtime: Runtime,
        grants: LoginGrants,
        throttle: LoginThrottle,
        users: UserSessions,
    ) -> None:
        self._peer = peer
        self._runtime = runtime
        self._grants = grants
        self._throttle = throttle
        self._users = users
        self._failures = 0
        self._asked_at = 0.0  # when the client gave its proof
        self._counted: Identity | None = None  # whose session this is for the limit of them
        self._is_granted = False
        self.login: Login | None = None

    def prove(
        self,
        name: str,
        check: Callable[[], MaybeLater],
        conclude: "Callable[[AuthResult], _Answer | Awaitable[_Answer]]",
    ) -> "_Answer | Awaitable[_Answer]":
        """Have the proof of `name` checked when it may be, and the result concluded: at once where both
        can be."""
        self._asked_at = self._runtime.clock.monotonic()
        wait_seconds = self._throttle.wait_before_seconds(self._peer.client, name)
        if wait_seconds > 0:
            return self._prove_later(wait_seconds, check, conclude)
        result = check()
        if isinstance(result, _AT_HAND):
            return conclude(result)
        return _conclude_later(result, conclude)

    async def _prove_later(
        self,
        wait_seconds: float,
        check: Callable[[], MaybeLater],
        conclude: "Callable[[AuthResult], _Answer | Awaitable[_Answer]]",
    ) -> _Answer:
        await self._runtime.sleep(wait_seconds)
        result = check()
        return await _conclude_later(result, conclude)

    def admit(self, name: str, login: Login) -> bool:
        """The proof is right. False, and the login must not be completed: too many sessions are open."""
        self._throttle.succeeded(self._peer.client, name)
        if not self._users.enter(login.identity):
            return False
        self._counted = login.identity
        return True

    def refuse(
        self, name: str, answer: _Answer, last: _Answer, failures_before_close: int
    ) -> "_Answer | Awaitable[_Answer]":
        """The proof is wrong: `answer`, or `last` when that was one too many, after the delay it costs."""
        self._failures += 1
        self._throttle.failed(self._peer.client, name)
        delay_seconds = self._throttle.delay_seconds(self._peer.client, name)
        is_last = self._failures >= failures_before_close
        return answer_after(delay_seconds, self._asked_at, last if is_last else answer, self._runtime)

    def complete(self, login: Login, protocol: str) -> None:
        """The grant is visible to every process when this returns."""
        self.login = login
        self._is_granted = self._grants.allow(
            self._peer.client, login.identity, protocol, login.terms, self._peer.session
        )

    def tick_seconds(self, most: float) -> float:
        """How often to renew: an account with a short window of its own is renewed in time for it."""
        window_seconds = self.login.terms.window_seconds if self.login is not None else None
        return most if window_seconds is None else min(most, window_seconds / 4)

    def renew(self) -> None:
        if self._is_granted and self.login is not None:
            self._grants.renew(self._peer.client, self.login.identity, self._peer.session)

    def uncount(self) -> None:
        """The session is no longer one of its user's. Safe to call twice."""
        if self._counted is not None:
            identity, self._counted = self._counted, None
            self._users.leave(identity)

    def end(self) -> None:
        """The session is over."""
        self.uncount()
        if self._is_granted and self.login is not None:
            self._grants.logout(self._peer.client, self.login.identity, self._peer.session)

    @property
    def identity(self) -> str | None:
        """For events."""
        return None if self.login is None else str(self.login.identity)


async def _conclude_later(
    result: MaybeLater, conclude: "Callable[[AuthResult], _Answer | Awaitable[_Answer]]"
) -> _Answer:
    known = result if isinstance(result, _AT_HAND) else await result
    answer = conclude(known)
    return await answer if isinstance(answer, Awaitable) else answer


def name_for_log(name: str) -> str:
    """A name that somebody typed: bounded, and nothing in it that a terminal or a log reader obeys."""
    return "".join([char if " " < char < "\x7f" else "?" for char in name[:64]])
