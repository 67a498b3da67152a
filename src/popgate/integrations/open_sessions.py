"""The sessions of other people's servers, counted: a grant lasts while its user has one open.

Our own POP3 session renews its grant by itself. Of a session in another server we hear that it
began and, where that server tells, that it ended; between the two the grant is renewed here, and
its window runs from the end of the last session that its user has open at that address.

An end may never be heard of (a lost line, a killed server). So a session counts at most as long as
its protocol's bound, and all tables are bounded; what is forgotten just lets the window run.

This is one process's memory: whoever hears of beginnings must hear of their ends too, or carry them
over by `saved` and `restore`. It knows neither logs nor requests, and it reads no clock of its own.
"""

import heapq
from collections.abc import Callable, Iterable, Mapping
from typing import Final, Literal, Protocol

from popgate.grants import rules
from popgate.grants.grant import Terms
from popgate.grants.settings import GrantSettings
from popgate.values.address import ClientAddress
from popgate.values.clock import Clock
from popgate.values.identity import Identity
from popgate.values.value import value

OPEN_AT_MOST: Final = 65536
OPEN_AT_MOST_A_HOLDER: Final = 100
"""Sessions of one identity at one address; one more makes the oldest be forgotten."""
RENEWALS_A_TICK: Final = 500
_RENEWAL_SECONDS = 20.0
_KEY_AT_MOST = 200

SESSION_SECONDS: Final[Mapping[str, float]] = {"pop3": 3600.0}
"""How long a session of a protocol counts whose end is not heard of; others: as long as a login may
count at all (IMAP clients idle for days). Nobody reads mail by POP3 for an hour."""

Outcome = Literal["granted", "refused", "late"]
"""late: the login was heard of when its window was over, so it gives nothing."""


class SessionGrants(Protocol):
    """The grants as this module asks them; popgate.grants.service.Grants is one."""

    def allow(
        self,
        address: ClientAddress,
        identity: Identity,
        protocol: str,
        terms: Terms,
        session: str,
        *,
        at: float | None = None,
    ) -> bool: ...

    def renew(self, address: ClientAddress, identity: Identity, session: str) -> None: ...

    def logout(
        self, address: ClientAddress, identity: Identity, session: str, *, at: float | None = None
    ) -> None: ...


@value
class OpenSession:
    """One session that has begun and not ended. `key` names it: the server's own id for it, or its
    process (`host program pid`); `since` and `until` are Unix seconds."""

    key: str
    address: ClientAddress
    identity: Identity
    protocol: str
    since: float
    until: float


class OpenSessions:
    """Logins and logouts that are heard of, turned into grants. No method raises.

    `terms` says what a login of an identity is good for. Call `tick` about once a second.
    """

    def __init__(
        self,
        grants: SessionGrants,
        settings: GrantSettings,
        clock: Clock,
        terms: Callable[[Identity], Terms],
        *,
        session_seconds: Mapping[str, float] = SESSION_SECONDS,
        most: int = OPEN_AT_MOST,
    ) -> None:
        self._grants = grants
        self._settings = settings
        self._clock = clock
        self._terms = terms
        self._session_seconds = session_seconds
        self._most = most
        self._sessions: dict[str, OpenSession] = {}
        self._holders: dict[tuple[ClientAddress, Identity], _Holder] = {}
        self._due: list[tuple[float, int, _Holder]] = []
        self._serial = 0
        self.forgotten = 0

    def __len__(self) -> int:
        return len(self._sessions)

    def login(
        self,
        address: ClientAddress,
        identity: Identity,
        protocol: str,
        key: str | None,
        *,
        session: str = "",
        at: float | None = None,
    ) -> Outcome:
        """A completed login. `key` is None where nobody will tell of the end: then the window alone
        counts, and `session` is its name in the log. `at`: when it was, where that is known and not now."""
        now = self._clock.now()
        since = now if at is None else min(at, now)
        terms = self._terms(identity)
        window_seconds = rules.window_seconds(terms, self._settings)
        if window_seconds and since + window_seconds < now:
            return "late"
        if key is not None and not 0 < len(key) <= _KEY_AT_MOST:
            key = None
        if key is not None:
            # A process number that comes again says that the session before has ended unheard
            self._drop(key)
        is_granted = self._grants.allow(address, identity, protocol, terms, key or session, at=at)
        if not is_granted:
            return "refused"
        if key is not None and self._settings.renew_while_open:
            seconds = rules.max_age_seconds(terms, self._settings)
            until = since + min(seconds, self._session_seconds.get(protocol, seconds))
            self._open(OpenSession(key, address, identity, protocol, since, until), window_seconds)
        return "granted"

    def logout(
        self,
        key: str | None,
        address: ClientAddress | None = None,
        identity: Identity | None = None,
        *,
        at: float | None = None,
    ) -> OpenSession | None:
        """A session has ended; returns it where it was known. `address` and `identity`, where they are
        told, must be those of the login: a process number may have another owner by now.

        Of a session that nobody knows (it began before we listened) the end still counts where all
        is told, unless its user has others open there.
        """
        known = self._sessions.get(key) if key is not None else None
        if known is not None:
            if address not in (None, known.address) or identity not in (None, known.identity):
                return None
            self._drop(known.key)
            address, identity = known.address, known.identity
        if address is None or identity is None:
            return None
        if self._holder_key(address, identity) not in self._holders:
            self._grants.logout(address, identity, key or "", at=at)
        return known

    def holds(self, address: ClientAddress, identity: Identity) -> bool:
        """Has this identity a session open at that address?"""
        return self._holder_key(address, identity) in self._holders

    def resume(self, address: ClientAddress, identity: Identity, protocol: str, key: str) -> None:
        """A session that was told to have ended goes on after all (a server that puts idle ones to sleep
        tells it so). Gives no grant: it renews what is still live."""
        now = self._clock.now()
        seconds = rules.max_age_seconds(self._terms(identity), self._settings)
        self.restore((OpenSession(key, address, identity, protocol, now, now + seconds),))
        self._grants.renew(address, identity, key)

    def tick(self) -> None:
        """Renew what is due, forget what is too old. Do not call it while ends that have happened are
        still to be read."""
        now = self._clock.now()
        renewals = 0
        while renewals < RENEWALS_A_TICK and self._due and self._due[0][0] <= now:
            _, _, holder = heapq.heappop(self._due)
            holder.is_scheduled = False
            key = self._live_key(holder, now)
            if key is None:
                continue
            self._grants.renew(holder.address, holder.identity, key)
            self._schedule(holder, now)
            renewals += 1

    def saved(self) -> list[OpenSession]:
        """All that are open, for another process to `restore`."""
        return list(self._sessions.values())

    def restore(self, sessions: Iterable[OpenSession]) -> None:
        """What another process has `saved`, all of whose ends we shall hear of. Gives no grant: it only
        renews what is still live."""
        now = self._clock.now()
        if not self._settings.renew_while_open:
            return
        for session in sessions:
            if session.since <= now < session.until and session.key not in self._sessions:
                window_seconds = rules.window_seconds(self._terms(session.identity), self._settings)
                self._open(session, window_seconds)

    def forget(self, prefix: str) -> None:
        """Sessions whose key begins so will not be told of any more: their windows run."""
        for key in [key for key in self._sessions if key.startswith(prefix)]:
            self._drop(key)

    def _holder_key(self, address: ClientAddress, identity: Identity) -> tuple[ClientAddress, Identity]:
        """Addresses that share a grant (`ipv6_prefix`) share its sessions."""
        return rules.key_address(address, self._settings), identity

    def _open(self, session: OpenSession, window_seconds: float) -> None:
        while len(self._sessions) >= self._most:
            self._forget_one(next(iter(self._sessions)))
        holder_key = self._holder_key(session.address, session.identity)
        holder = self._holders.get(holder_key)
        if holder is None:
            holder = self._holders[holder_key] = _Holder(session.address, session.identity)
        elif len(holder.keys) >= OPEN_AT_MOST_A_HOLDER:
            self._forget_one(next(iter(holder.keys)))
        self._sessions[session.key] = session
        holder.keys[session.key] = None
        holder.interval = min(_RENEWAL_SECONDS, window_seconds / 4)
        if not holder.is_scheduled:
            self._schedule(holder, self._clock.now())

    def _schedule(self, holder: "_Holder", now: float) -> None:
        self._serial += 1
        holder.is_scheduled = True
        heapq.heappush(self._due, (now + holder.interval, self._serial, holder))

    def _live_key(self, holder: "_Holder", now: float) -> str | None:
        """One of the sessions that keep the grant, after the too old ones are forgotten."""
        for key in list(holder.keys):
            if self._sessions[key].until > now:
                return key
            self._forget_one(key)
        return None

    def _forget_one(self, key: str) -> None:
        self.forgotten += 1
        self._drop(key)

    def _drop(self, key: str) -> None:
        session = self._sessions.pop(key, None)
        if session is None:
            return
        holder_key = self._holder_key(session.address, session.identity)
        holder = self._holders[holder_key]
        del holder.keys[key]
        if not holder.keys:
            del self._holders[holder_key]


class _Holder:
    """Who has sessions open where; `keys` in the order in which they began."""

    __slots__ = ("address", "identity", "interval", "is_scheduled", "keys")

    def __init__(self, address: ClientAddress, identity: Identity) -> None:
        self.address = address
        self.identity = identity
        self.keys: dict[str, None] = {}
        self.interval = _RENEWAL_SECONDS
        self.is_scheduled = False
