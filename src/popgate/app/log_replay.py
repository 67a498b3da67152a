"""What the logins in an old log would have granted: the real rules, a store in memory, and a clock that
shows the log's own times."""

from collections.abc import Callable, Sequence

from popgate.config import Config
from popgate.grants import rules
from popgate.grants.grant import Grant, Terms
from popgate.grants.service import Grants
from popgate.grants.settings import GrantSettings
from popgate.grants.stores.memory import MemoryStore
from popgate.integrations.logs import LoginSeen, Seen
from popgate.integrations.logs.times import AHEAD_SECONDS
from popgate.integrations.open_sessions import RENEWALS_A_TICK, OpenSessions
from popgate.values.address import ClientAddress
from popgate.values.event import Event
from popgate.values.identity import Identity

_SWEEP_SECONDS = 3600.0


class Window:
    """A time during which an address would have had the right to relay, by one identity's logins.
    `until` is None while it lasts."""

    __slots__ = ("address", "identity", "logins", "protocol", "since", "until")

    def __init__(self, address: ClientAddress, identity: str, protocol: str, since: float) -> None:
        self.address = address
        self.identity = identity
        self.protocol = protocol
        self.since = since
        self.until: float | None = None
        self.logins = 1


class LogReplay:
    """Takes what a Recogniser sees, in the order of time, and keeps the windows.

    `windows` holds all of them by their beginning; `refused` counts logins that gave nothing, by reason.
    """

    def __init__(
        self,
        settings: GrantSettings,
        terms: Callable[[Identity], Terms],
        *,
        own_addresses: frozenset[ClientAddress] = frozenset(),
        local_domains: frozenset[str] = frozenset(),
    ) -> None:
        self._settings = settings
        self._clock = _LogClock()
        self._store = MemoryStore()
        self._grants = Grants(
            self._store, settings, self._clock, self._hear, own_addresses, local_domains=local_domains
        )
        self._sessions = OpenSessions(self._grants, settings, self._clock, terms)
        self._live: dict[tuple[ClientAddress, str], Window] = {}
        self._swept_at = 0.0
        self.windows: list[Window] = []
        self.refused: dict[str, int] = {}
        self.logins = 0
        self.logouts = 0

    @classmethod
    def of_site(
        cls, config: Config, terms: Callable[[Identity], Terms], own_addresses: frozenset[ClientAddress]
    ) -> "LogReplay":
        return cls(
            config.grants,
            terms,
            own_addresses=own_addresses,
            local_domains=frozenset(config.local_domains),
        )

    def take(self, seen: Seen, latest: float = float("inf")) -> None:
        """One login or logout. One that is out of order counts at the time that it names; one of later
        than a day after `latest`, when the log ended, does not count."""
        if seen.at > latest + AHEAD_SECONDS:
            self.refused["future"] = self.refused.get("future", 0) + 1
            return
        self.advance(seen.at)
        at = seen.at if seen.at < self._clock.now() else None
        if isinstance(seen, LoginSeen):
            self.logins += 1
            before = len(self.windows)
            outcome = self._sessions.login(
                seen.address, seen.identity, seen.protocol, seen.session or None, at=at
            )
            if len(self.windows) > before:
                self.windows[-1].since = seen.at
            if outcome == "late":
                self.refused["late"] = self.refused.get("late", 0) + 1
        else:
            self.logouts += 1
            self._sessions.logout(seen.session or None, seen.address, seen.identity, at=at)

    def advance(self, at: float) -> None:
        """Let the time pass until `at`, with the renewals of open sessions that are due on the way."""
        clock = self._clock
        if not clock.at:
            clock.at = self._swept_at = at
        step = self._settings.window_seconds / 4
        while len(self._sessions) and clock.at + step < at:
            clock.at += step
            for _ in range(len(self._sessions) // RENEWALS_A_TICK + 1):
                self._sessions.tick()
        clock.at = max(clock.at, at)
        if clock.at - self._swept_at > _SWEEP_SECONDS:
            self._swept_at = clock.at
            self._grants.sweep()

    def finish(self) -> Sequence[Window]:
        """All windows. Those that were open when the log ended have the end that they then had."""
        self._grants.sweep()
        for grant in self.live():
            window = self._live.get((grant.address, str(grant.identity)))
            if window is not None:
                window.until = rules.ends_at(grant, self._settings)
        return self.windows

    def live(self) -> Sequence[Grant]:
        """The grants that are live at the time that has been reached."""
        return self._grants.list()

    @property
    def now(self) -> float:
        return self._clock.at

    def _hear(self, event: Event) -> None:
        fields = event.fields
        if "client" not in fields:
            return
        client = rules.key_address(ClientAddress.parse(str(fields["client"])), self._settings)
        key = (client, str(fields.get("identity")))
        if event.name == "grant.allow":
            window = self._live.get(key)
            if window is None or fields.get("reason") == "login":
                window = Window(*key, str(fields.get("protocol")), event.at)
                self._live[key] = window
                self.windows.append(window)
            else:
                window.logins += 1
        elif event.name in ("grant.lapse", "grant.revoke"):
            window = self._live.pop(key, None)
            if window is not None:
                window.until = float(fields.get("ended_at") or event.at)
        elif event.name == "grant.refuse":
            reason = str(fields.get("reason"))
            self.refused[reason] = self.refused.get(reason, 0) + 1


class _LogClock:
    """Shows the time that the log has reached."""

    def __init__(self) -> None:
        self.at = 0.0

    def now(self) -> float:
        return self.at

    def monotonic(self) -> float:
        return self.at
