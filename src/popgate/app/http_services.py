"""Listeners that speak HTTP: what the configuration says, joined with grants and sessions."""

from collections.abc import Callable, Sequence

from popgate.app.context import BoundListener
from popgate.app.ucspi import account_terms
from popgate.auth.account import Account
from popgate.config import Config
from popgate.grants.service import Grants
from popgate.integrations.dovecot.carried import CarriedSessions
from popgate.integrations.dovecot.logins import DovecotLogins
from popgate.integrations.dovecot.reports import LoginReports
from popgate.integrations.heard_grants import HeardGrants
from popgate.integrations.open_sessions import OpenSessions
from popgate.servers.settings import ListenerSettings
from popgate.sessions.http import HttpPolicy, HttpSession, Refusals, Route
from popgate.sessions.http.decisions import DecideRequests
from popgate.sessions.relay import RelayDesk
from popgate.sessions.session import Peer, Runtime, Session

BUSY_REPLY = (
    b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
)


class HttpServices:
    """What the HTTP listeners of one worker have in common; call `tick` once a second, `leave` when it
    is told to end. `hears_dovecot`: it is the worker that Dovecot's listeners are served by."""

    def __init__(
        self,
        config: Config,
        runtime: Runtime,
        grants: Grants,
        account: Callable[[str], Account],
        *,
        hears_dovecot: bool,
    ) -> None:
        self._config = config
        self._runtime = runtime
        self._grants = grants
        self._heard = HeardGrants(grants, "dovecot")
        self._sessions = OpenSessions(
            self._heard, config.grants, runtime.clock, lambda identity: account_terms(account, identity)
        )
        counts = any(listener.session_ends for listener in config.listener)
        self._carried = (
            CarriedSessions(self._sessions, config.data_dir, runtime.clock)
            if hears_dovecot and counts
            else None
        )

    def tick(self) -> None:
        if self._carried is not None:
            self._carried.tick()
        self._sessions.tick()

    def leave(self) -> None:
        """Leave the open sessions to the worker that takes the place of this one."""
        if self._carried is not None:
            self._carried.leave()

    def for_listener(self, bound: BoundListener) -> Callable[[Peer], Session]:
        """The function that makes a session for a connection to this listener."""
        settings, runtime = bound.settings, self._runtime
        policy = HttpPolicy(self._config.hostname, bound.key, errors=self._config.limits.errors)
        routes, refusals = self._routes(settings), Refusals(settings.service, runtime)
        return lambda peer: HttpSession(peer, policy, runtime, routes, refusals)

    def _routes(self, settings: ListenerSettings) -> Sequence[Route]:
        if settings.service == "http":
            desk = RelayDesk(settings.service, self._grants, self._runtime)
            return DecideRequests(desk, self._config.grants).routes
        local = self._config.local_domains
        domain = settings.default_domain or (local[0] if local else "")
        logins = DovecotLogins(self._heard, self._sessions, domain, tells_ends=settings.session_ends)
        return LoginReports(logins).routes
