"""The grants of a server: what the sessions call.

Left side: `allow`, `renew`, `logout` (mail logins). Right side: `decide`, `charge`, `refund`
(relaying). Beside them what the administrator does: `revoke`, `list`, `sweep`. The rules
say what is right, the store keeps it, and everything that happens is an event. Calls from
sessions never raise: a store at fault gives no grant and defers the decision.

A decision and its charge are two steps, because a message is counted once it is accepted
and not while its recipients are named; `charge` decides again, under the store's lock.
"""

from collections.abc import Sequence

from popgate.grants import rules, words
from popgate.grants.grant import Decision, Grant, Terms, Usage
from popgate.grants.networks import BUILT_IN_NEVER, NetworkSet
from popgate.grants.settings import GrantSettings
from popgate.grants.store import GrantStore, StoreError
from popgate.values.address import ClientAddress
from popgate.values.clock import Clock
from popgate.values.event import Event, EventSink
from popgate.values.identity import Identity
from popgate.values.mail import MailAddress

_TOLD_AT_MOST = 1024
"""How many (grant, reason) pairs are remembered, so that an event comes once and not at every try."""
_STORE_ALARM_SECONDS = 10.0
_WRITTEN_AT_MOST = 4096
"""For how many addresses a process remembers its last login, so that most logouts read nothing."""
_LOGOUT_RENEWALS = 16
_NEVER_WRITTEN = (rules.ANONYMOUS, 0.0, 0.0)
_GrantList = list[Grant]  # inside Grants, `list` is its method


class Grants:
    """One process's access to the grants; all state that must be shared is in `store`.

    `own_addresses`: the server's own, which never get a grant. `local_domains`: where an
    identity without a domain (relay-ctrl's) has its sender address. Raises AddressError
    for a network in the settings that is none.
    """

    def __init__(
        self,
        store: GrantStore,
        settings: GrantSettings,
        clock: Clock,
        emit: EventSink,
        own_addresses: frozenset[ClientAddress] = frozenset(),
        *,
        local_domains: frozenset[str] = frozenset(),
    ) -> None:
        self._store = store
        self._settings = settings
        self._clock = clock
        self._emit_event = emit
        self._own = own_addresses
        self._local_domains = frozenset(domain.lower() for domain in local_domains)
        self._trusted = NetworkSet.parse(settings.trusted)
        self._never = NetworkSet.parse(settings.never)
        self._told: set[tuple[object, ...]] = set()
        self._store_alarm_at = float("-inf")
        self._written: dict[bytes, tuple[Identity, float, float]] = {}

    # Mail logins.

    def allow(
        self,
        address: ClientAddress,
        identity: Identity,
        protocol: str,
        terms: Terms,
        session: str,
        *,
        at: float | None = None,
        via: str = "",
    ) -> bool:
        """A completed login from `address`: True when a grant is in force for every process.

        `via`: who told of it, where it was a login at somebody else's server; for the log alone.
        `at`: when the login was, where it is heard of later (a line of a log); its window runs from
        then, and what a later login has given stays. A time to come is now. False where the
        address or the account may have no grant, or the store is at fault; an event says which.
        Never raises; the login itself stands either way.
        """
        now = self._clock.now()
        login_at = now if at is None else _past(at, now)
        refusal = None
        if self.is_never(address):
            refusal = "never"
        elif self._settings.who == "devices" and not terms.is_device:
            refusal = "not-a-device"
        elif not rules.window_seconds(terms, self._settings):
            refusal = "no-window"
        key = rules.key_address(address, self._settings)
        fresh = Grant(key, identity, protocol, login_at, login_at, login_at, terms, Usage())
        if refusal is None and at is not None and not rules.is_live(fresh, self._settings, now):
            refusal = "late"
        if refusal is not None:
            self._emit("grant.refuse", identity, address, protocol, refusal, session, via)
            return False

        outcome = _LoginOutcome()

        def change(grants: Sequence[Grant]) -> Sequence[Grant]:
            return self._with_login(grants, fresh, now, outcome)

        try:
            stored = self._store.change(key, change)
        except StoreError as error:
            self._store_fault(error, address, session)
            self._emit("grant.refuse", identity, address, protocol, "store-unavailable", session, via)
            return False
        self._tell_lapsed(outcome.lapsed)
        if outcome.others >= self._settings.max_identities_per_address:
            self._alarm_identities(address, outcome.others + 1, session)
        if outcome.refused or not any(grant.identity == identity and grant.login_at > 0 for grant in stored):
            self._emit("grant.refuse", identity, address, protocol, "too-many-identities", session, via)
            return False
        if len(self._written) >= _WRITTEN_AT_MOST:
            self._written.clear()
        due_seconds = rules.window_seconds(terms, self._settings) / _LOGOUT_RENEWALS
        self._written[address.packed] = (identity, login_at, due_seconds)
        reason = "login-again" if outcome.again else "login"
        self._emit("grant.allow", identity, address, protocol, reason, session, via)
        return True

    def renew(self, address: ClientAddress, identity: Identity, session: str) -> None:
        """The session that logged in is still open. May be called as often as one likes:
        the store is written at most four times a window. Brings nothing dead back. Never raises."""
        if self._settings.renew_while_open:
            self._renew(address, identity, session, "session-open", 4)

    def logout(
        self, address: ClientAddress, identity: Identity, session: str, *, at: float | None = None
    ) -> None:
        """The session that logged in has ended: from now on (or since `at`, as with `allow`) the window
        runs, or, with `revoke_on_logout`, the grant ends. Never raises."""
        if self._settings.revoke_on_logout:
            try:
                self.revoke(address, identity, "logout", session)
            except StoreError as error:
                self._store_fault(error, address, session)
        elif self._settings.renew_while_open:
            # What is in the store now is this login, a later one or a dead one: nothing is due.
            who, login_at, due_seconds = self._written.get(address.packed, _NEVER_WRITTEN)
            if who == identity and 0 <= self._clock.now() - login_at < due_seconds:
                return
            self._renew(address, identity, session, "session-end", _LOGOUT_RENEWALS, at)

    # Relaying.

    def is_trusted(self, address: ClientAddress) -> bool:
        """Does a `trusted` network hold the address?"""
        return address in self._trusted

    def is_never(self, address: ClientAddress) -> bool:
        """Is it an address that never gets a grant, nor may use one?"""
        return address in self._own or address in self._never or address in BUILT_IN_NEVER

    def decide(
        self,
        address: ClientAddress,
        sender: MailAddress | None,
        recipients: int,
        octets: int,
        session: str,
    ) -> Decision:
        """May `address` relay this envelope, and as whom? Counts nothing; never raises.

        `sender` None is the null reverse-path; `recipients` as many as the envelope would then
        have; `octets` 0 when unknown.
        """
        if address in self._trusted:
            return Decision("permit", "trusted", "", None)
        if self.is_never(address):
            return Decision("refuse", "never", words.never(address), None)
        try:
            grants = self._store.find(rules.key_address(address, self._settings))
        except StoreError as error:
            self._store_fault(error, address, session)
            return Decision("defer", "store-unavailable", words.unavailable(), None)
        now = self._clock.now()
        live = [grant for grant in grants if rules.is_live(grant, self._settings, now)]
        if not live:
            reason = "lapsed" if any(not rules.is_retired(grant) for grant in grants) else "no-grant"
            return Decision("refuse", reason, words.no_grant(address, self._settings), None)
        usable = rules.candidates(live, sender, self._settings, self._local_domains)
        if not usable:
            return Decision("refuse", "sender-not-bound", words.not_bound(address), None)
        usage = Usage(1, recipients, octets)
        first_reason = ""
        for grant in usable:
            reason = rules.over_quota(grant, usage, self._settings) or ""
            if not reason:
                return Decision("permit", "granted", "", grant)
            first_reason = first_reason or reason
            self._over_quota(address, grant, reason, session)
        return Decision(
            "quota", first_reason, words.quota(usable[0], first_reason, self._settings, now), None
        )

    def right(self, address: ClientAddress, session: str) -> Decision:
        """May `address` relay at all, before anything is known of an envelope? For programs that
        take the mail themselves, so nothing is counted and no sender is compared: any live grant
        with quota left serves, the last login first. Never raises."""
        settings = self._settings
        if address in self._trusted:
            return Decision("permit", "trusted", "", None)
        if self.is_never(address):
            return Decision("refuse", "never", words.never(address), None)
        try:
            grants = self._store.find(rules.key_address(address, settings))
        except StoreError as error:
            self._store_fault(error, address, session)
            return Decision("defer", "store-unavailable", words.unavailable(), None)
        now = self._clock.now()
        live = [grant for grant in grants if rules.is_live(grant, settings, now)]
        one = Usage(1, 1, 0)
        for grant in rules.in_order(live):
            if rules.over_quota(grant, one, settings) is None:
                return Decision("permit", "granted", "", grant)
        if live:
            reason = rules.over_quota(live[0], one, settings) or ""
            return Decision("quota", reason, words.quota(live[0], reason, settings, now), None)
        reason = "lapsed" if any(not rules.is_retired(grant) for grant in grants) else "no-grant"
        return Decision("refuse", reason, words.no_grant(address, settings), None)

    def right_until(self, address: ClientAddress) -> float:
        """The last moment at which `right` permits by a grant, if nobody logs in or ends it meanwhile; 0
        where no grant permits now. For whoever writes down who may relay. Raises StoreError."""
        if self.is_never(address):
            return 0.0
        settings, now, one = self._settings, self._clock.now(), Usage(1, 1, 0)
        ends = [
            rules.ends_at(grant, settings)
            for grant in self._store.find(rules.key_address(address, settings))
            if rules.is_live(grant, settings, now) and rules.over_quota(grant, one, settings) is None
        ]
        return max(ends, default=0.0)

    def charge(self, grant: Grant, usage: Usage, session: str) -> Decision:
        """Count `usage` on the grant that `decide` named, before the message is accepted.

        Check and count are one step for all processes. The grant may have gone, or its quota
        may have been used, since it was decided: then nothing is counted and the verdict says
        so. `Decision.grant` is the grant that was charged (with `sender = "any"` perhaps
        another one of the address that still has quota). Never raises.
        """
        settings, now = self._settings, self._clock.now()
        outcome: list[tuple[str, Grant | None]] = []

        def change(grants: Sequence[Grant]) -> Sequence[Grant]:
            outcome.clear()
            live = [other for other in grants if rules.is_live(other, settings, now)]
            usable = [other for other in live if other.identity == grant.identity]
            if settings.sender == "any":
                usable += [other for other in live if other.identity != grant.identity]
            for other in usable:
                reason = rules.over_quota(other, usage, settings)
                if reason is None:
                    charged = rules.with_used(other, rules.added(other.used, usage))
                    outcome[:] = [("", charged)]
                    return [charged if each is other else each for each in grants]
                outcome.append((reason, other))
            return grants

        try:
            self._store.change(grant.address, change)
        except StoreError as error:
            self._store_fault(error, grant.address, session)
            return Decision("defer", "store-unavailable", words.unavailable(), None)
        if not outcome:
            return Decision("refuse", "lapsed", words.no_grant(grant.address, settings), None)
        reason, charged = outcome[0]
        if charged is not None and not reason:
            return Decision("permit", "granted", "", charged)
        for over_reason, over in outcome:
            if over is not None:
                self._over_quota(grant.address, over, over_reason, session)
        return Decision("quota", reason, words.quota(charged or grant, reason, settings, now), None)

    def refund(self, grant: Grant, usage: Usage) -> None:
        """The message charged to `grant` was not accepted after all. Never raises."""

        def change(grants: Sequence[Grant]) -> Sequence[Grant]:
            return [
                rules.with_used(each, rules.taken_back(each.used, usage))
                if each.identity == grant.identity and each.since == grant.since
                else each
                for each in grants
            ]

        try:
            self._store.change(grant.address, change)
        except StoreError as error:
            self._store_fault(error, grant.address, "")

    # What the administrator and the timers do.

    def revoke(
        self, address: ClientAddress, identity: Identity | None, reason: str, session: str = ""
    ) -> Sequence[Grant]:
        """End the live grants of `identity` (None: of everybody) on `address`; returns them.

        Quota counts stay, so that the next login does not begin afresh. Raises StoreError.
        """
        key = rules.key_address(address, self._settings)
        settings, now = self._settings, self._clock.now()
        ended: list[Grant] = []

        def change(grants: Sequence[Grant]) -> Sequence[Grant]:
            ended.clear()
            kept = []
            for grant in grants:
                if (identity is None or grant.identity == identity) and not rules.is_retired(grant):
                    ended.append(grant)
                    if rules.still_counts(grant, settings, now):
                        kept.append(rules.retired(grant))
                else:
                    kept.append(grant)
            return kept

        self._store.change(key, change)
        live = []
        for grant in ended:
            if rules.is_live(grant, settings, now):
                live.append(grant)
                self._emit("grant.revoke", grant.identity, address, grant.protocol, reason, session)
            else:
                self._tell_lapsed([grant])
        return live

    def revoke_identity(self, identity: Identity, reason: str) -> Sequence[Grant]:
        """End all grants of `identity` (the account was disabled or its password changed);
        returns those that were live. Reads every address. Raises StoreError."""
        ended: list[Grant] = []
        for address in self._store.addresses():
            if any(
                grant.identity == identity and not rules.is_retired(grant)
                for grant in self._store.find(address)
            ):
                ended += self.revoke(address, identity, reason)
        return ended

    def list(self) -> Sequence[Grant]:
        """All live grants, in the order of their addresses, the last login first. Raises StoreError."""
        now = self._clock.now()
        return [
            grant
            for address in sorted(self._store.addresses())
            for grant in self._store.find(address)
            if rules.is_live(grant, self._settings, now)
        ]

    def sweep(self) -> None:
        """Remove what has lapsed, and litter. One process does this every minute or so; it may
        run in a thread. Never raises."""
        settings, now = self._settings, self._clock.now()
        counting: dict[ClientAddress, None] = {}

        def is_dead(grant: Grant) -> bool:
            if rules.is_live(grant, settings, now):
                return False
            if rules.still_counts(grant, settings, now):
                if not rules.is_retired(grant):
                    counting[grant.address] = None
                return False
            return True

        try:
            self._tell_lapsed(self._store.sweep(now, is_dead))
            for address in counting:
                lapsed: list[Grant] = []

                def retire(grants: Sequence[Grant], lapsed: list[Grant] = lapsed) -> Sequence[Grant]:
                    return self._without_dead(grants, now, lapsed)

                self._store.change(address, retire)
                self._tell_lapsed(lapsed)
        except StoreError as error:
            self._store_fault(error, None, "")

    # Parts of the above.

    def _with_login(
        self, grants: Sequence[Grant], fresh: Grant, now: float, outcome: "_LoginOutcome"
    ) -> Sequence[Grant]:
        """The grants of an address after a login. Pure but for `outcome`."""
        settings = self._settings
        outcome.lapsed = []
        before: Grant | None = None
        others: _GrantList = []
        for grant in grants:
            if grant.identity == fresh.identity:
                before = grant
            else:
                others.append(grant)
        outcome.again = before is not None and rules.is_live(before, settings, now)
        if before is not None and not outcome.again and not rules.is_retired(before):
            outcome.lapsed.append(before)
        if others:
            others = self._without_dead(others, now, outcome.lapsed)
        outcome.others = sum([rules.is_live(grant, settings, now) for grant in others])
        outcome.refused = (
            settings.over_identities == "refuse"
            and not outcome.again
            and outcome.others >= settings.max_identities_per_address
        )
        if outcome.refused:
            outcome.lapsed = []
            return grants
        after = rules.logged_in(before, fresh, settings)
        if outcome.again and before is not None and before.renewed_at > after.renewed_at:  # heard of late
            after = rules.with_times(
                after,
                after.since,
                max(before.login_at, after.login_at),
                max(before.renewed_at, after.renewed_at),
            )
        return [after, *others]

    def _without_dead(self, grants: Sequence[Grant], now: float, lapsed: _GrantList) -> _GrantList:
        """Drop the dead, retire those whose quota period goes on; what has just lapsed goes to `lapsed`."""
        settings = self._settings
        kept = []
        for grant in grants:
            if rules.is_live(grant, settings, now):
                kept.append(grant)
                continue
            if not rules.is_retired(grant):
                lapsed.append(grant)
            if rules.still_counts(grant, settings, now):
                kept.append(rules.retired(grant))
        return kept

    def _renew(
        self,
        address: ClientAddress,
        identity: Identity,
        session: str,
        reason: str,
        times_a_window: int,
        at: float | None = None,
    ) -> None:
        settings, now = self._settings, self._clock.now()
        renewed_at = now if at is None else _past(at, now)
        key = rules.key_address(address, settings)
        renewed: list[Grant] = []

        def is_due(grant: Grant) -> bool:
            return (
                grant.identity == identity
                and rules.is_live(grant, settings, now)
                and renewed_at - grant.renewed_at
                >= rules.window_seconds(grant.terms, settings) / times_a_window
            )

        def change(grants: Sequence[Grant]) -> Sequence[Grant]:
            renewed.clear()
            after = []
            for grant in grants:
                if is_due(grant):
                    grant = rules.with_times(grant, grant.since, grant.login_at, renewed_at)
                    renewed.append(grant)
                after.append(grant)
            return after

        try:
            if self.is_never(address) or not any(map(is_due, self._store.find(key))):
                return
            self._store.change(key, change)
        except StoreError as error:
            self._store_fault(error, address, session)
            return
        for grant in renewed:
            self._emit("grant.renew", identity, address, grant.protocol, reason, session)

    def _over_quota(self, address: ClientAddress, grant: Grant, reason: str, session: str) -> None:
        if self._is_first((grant.address, grant.identity, grant.since, reason)):
            self._emit("grant.quota", grant.identity, address, grant.protocol, reason, session)
        if self._settings.revoke_over_quota:
            try:
                self.revoke(grant.address, grant.identity, reason, session)
            except StoreError as error:
                self._store_fault(error, address, session)

    def _alarm_identities(self, address: ClientAddress, count: int, session: str) -> None:
        hour = int(self._clock.now() // 3600)
        if self._is_first((address, hour)):
            fields: dict[str, str | int | float | None] = {
                "session": session,
                "client": address.text,
                "reason": "too-many-identities",
                "identities": count,
            }
            self._emit_event(Event("grant.alarm", self._clock.now(), fields))

    def _store_fault(self, error: StoreError, address: ClientAddress | None, session: str) -> None:
        now = self._clock.monotonic()
        if now - self._store_alarm_at < _STORE_ALARM_SECONDS:
            return
        self._store_alarm_at = now
        fields = {
            "session": session or None,
            "client": address.text if address is not None else None,
            "reason": "store-unavailable",
            "detail": str(error),
        }
        self._emit_event(Event("grant.alarm", self._clock.now(), fields))

    def _tell_lapsed(self, grants: Sequence[Grant]) -> None:
        for grant in grants:
            if rules.is_retired(grant):
                continue
            fields: dict[str, str | int | float | None] = {
                "client": grant.address.text,
                "identity": str(grant.identity),
                "protocol": grant.protocol,
                "reason": "window"
                if grant.renewed_at + rules.window_seconds(grant.terms, self._settings)
                <= grant.login_at + rules.max_age_seconds(grant.terms, self._settings)
                else "max-age",
                "ended_at": rules.ends_at(grant, self._settings),
            }
            self._emit_event(Event("grant.lapse", self._clock.now(), fields))

    def _is_first(self, what: tuple[object, ...]) -> bool:
        if what in self._told:
            return False
        if len(self._told) >= _TOLD_AT_MOST:
            self._told.clear()
        self._told.add(what)
        return True

    def _emit(
        self,
        name: str,
        identity: Identity,
        address: ClientAddress,
        protocol: str,
        reason: str,
        session: str,
        via: str = "",
    ) -> None:
        fields = {
            "session": session or None,
            "client": address.text,
            "identity": str(identity),
            "protocol": protocol,
            "reason": reason,
        }
        if via:
            fields["via"] = via
        self._emit_event(Event(name, self._clock.now(), fields))


def _past(at: float, now: float) -> float:
    """A time that somebody else tells: never later than now. What is no number is very long ago."""
    return min(at, now) if at > 0 else 0.0


class _LoginOutcome:
    """What a login met in the store. `change` may run more than once, so each run sets it all."""

    __slots__ = ("again", "lapsed", "others", "refused")

    def __init__(self) -> None:
        self.again = False
        self.refused = False
        self.others = 0
        self.lapsed: list[Grant] = []
