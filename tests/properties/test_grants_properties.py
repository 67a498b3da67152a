"""No sequence of events makes an address relay without a live login, whatever the clock does.

A machine draws logins, renewals, logouts, revocations, messages, sweeps, restarts, broken
files and steps of the clock, and holds every decision against a model that keeps only what a
reader of the specification would write on a napkin.
"""

import os
import shutil
import tempfile
from dataclasses import dataclass, replace

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from grants_kit import NOW, HandClock, Sink, address
from popgate.grants.grant import Grant, Terms, Usage
from popgate.grants.service import Grants
from popgate.grants.settings import GrantSettings
from popgate.grants.store import GrantStore
from popgate.grants.stores.directory import DirectoryStore
from popgate.grants.stores.memory import MemoryStore
from popgate.values.address import ClientAddress
from popgate.values.identity import Identity
from popgate.values.mail import MailAddress

ADDRESSES = [address("203.0.113.9"), address("203.0.113.10"), address("2001:db8::9")]
NEVER = address("127.0.0.1")
PEOPLE = [Identity(name, "example.org") for name in ("alice", "bob", "carol")]
WINDOW, SHORT, MAX_AGE, QUOTA, PEOPLE_AT_MOST = 900, 60, 3600, 3, 2

where = st.sampled_from(ADDRESSES)
who = st.sampled_from(PEOPLE)
seconds = st.sampled_from([0, 1, 2, 3, 15, 59, 60, 61, 225, 899, 900, 901, 1800, 3599, 3600, 3601, 90000])
steps = st.sampled_from([-90000, -3600, -61, -3, -2, 2, 3, 61, 3600, 90000])


@dataclass(frozen=True)
class Known:
    """What the model knows of one person at one address; wall and steady time of what happened last."""

    login: float
    renewed: float
    steady_login: float
    steady_renewed: float
    window: int
    since: float
    used: int
    is_over: bool = False  # revoked or logged out


class GrantMachine(RuleBasedStateMachine):
    """The clock is stepped, and the server notices: all recorded times are moved by the step."""

    notices_steps = True
    quota = QUOTA
    revoke_on_logout = False

    def make_store(self) -> GrantStore:
        return MemoryStore()

    @initialize()
    def begin(self) -> None:
        self.clock = HandClock()
        self.sink = Sink()
        self.known: dict[tuple[ClientAddress, Identity], Known] = {}
        self.charged: list[tuple[Grant, tuple[ClientAddress, Identity]]] = []
        self.settings = GrantSettings(
            window_seconds=WINDOW,
            max_age_seconds=MAX_AGE,
            quota_messages=self.quota,
            max_identities_per_address=PEOPLE_AT_MOST,
            revoke_on_logout=self.revoke_on_logout,
        )
        self.store = self.make_store()
        self.grants = self.service()

    def service(self) -> Grants:
        return Grants(self.store, self.settings, self.clock, self.sink)

    # The model.

    def is_live(self, key: tuple[ClientAddress, Identity]) -> bool:
        known, now = self.known.get(key), self.clock.now()
        return (
            known is not None
            and not known.is_over
            and known.renewed - 2 <= now <= known.renewed + known.window
            and known.login - 2 <= now <= known.login + MAX_AGE
        )

    def live_at(self, here: ClientAddress) -> list[Identity]:
        return [person for person in PEOPLE if self.is_live((here, person))]

    # What happens.

    @rule(here=where, person=who, window=st.sampled_from([None, SHORT]))
    def log_in(self, here: ClientAddress, person: Identity, window: int | None) -> None:
        others = [each for each in self.live_at(here) if each != person]
        granted = self.grants.allow(here, person, "pop3", Terms(window_seconds=window), "s")
        if self.notices_steps:
            assert granted is (len(others) < PEOPLE_AT_MOST or self.is_live((here, person)))
        if granted:
            now, before = self.clock.now(), self.known.get((here, person))
            in_period = before is not None and before.since <= now + 2 and now <= before.since + MAX_AGE
            since, used = (min(before.since, now), before.used) if before and in_period else (now, 0)
            steady = self.clock.monotonic()
            self.known[here, person] = Known(now, now, steady, steady, window or WINDOW, since, used)

    @rule(person=who)
    def log_in_from_an_address_that_never_gets_a_grant(self, person: Identity) -> None:
        assert not self.grants.allow(NEVER, person, "pop3", Terms(), "s")

    @rule(here=where, person=who)
    def stay_open(self, here: ClientAddress, person: Identity) -> None:
        was_live = self.is_live((here, person))
        self.grants.renew(here, person, "s")
        self.learn_renewal(here, person, was_live)

    @rule(here=where, person=who, times=st.integers(2, 20))
    def stay_open_for_hours(self, here: ClientAddress, person: Identity, times: int) -> None:
        for _ in range(times):
            self.clock.pass_seconds(225)
            self.stay_open(here, person)

    @rule(here=where, person=who)
    def log_out(self, here: ClientAddress, person: Identity) -> None:
        was_live = self.is_live((here, person))
        self.grants.logout(here, person, "s")
        if self.revoke_on_logout:
            self.end(here, person)
        else:
            self.learn_renewal(here, person, was_live)

    def learn_renewal(self, here: ClientAddress, person: Identity, was_live: bool) -> None:
        """Whether a renewal writes is its own affair (it may skip most); that it may is the model's."""
        for grant in self.store.find(here):
            if grant.identity == person and grant.renewed_at == self.clock.now() and was_live:
                known = self.known[here, person]
                if known.renewed != grant.renewed_at:
                    self.known[here, person] = replace(
                        known, renewed=self.clock.now(), steady_renewed=self.clock.monotonic()
                    )

    @rule(here=where, person=who)
    def revoke(self, here: ClientAddress, person: Identity) -> None:
        was_live = self.is_live((here, person))
        revoked = bool(self.grants.revoke(here, person, "test"))
        assert revoked is was_live or (was_live and not self.notices_steps)
        self.end(here, person)

    @rule(person=who)
    def disable(self, person: Identity) -> None:
        live = {here for here in ADDRESSES if self.is_live((here, person))}
        revoked = {grant.address for grant in self.grants.revoke_identity(person, "disabled")}
        assert revoked == live or (revoked < live and not self.notices_steps)
        for here in ADDRESSES:
            self.end(here, person)

    def end(self, here: ClientAddress, person: Identity) -> None:
        if (here, person) in self.known:
            self.known[here, person] = replace(self.known[here, person], is_over=True)

    @rule(here=where, person=who)
    def send(self, here: ClientAddress, person: Identity) -> None:
        decision = self.grants.decide(here, MailAddress(person.user, person.domain), 1, 0, "s")
        if decision.grant is None:
            return
        charged = self.grants.charge(decision.grant, Usage(1, 1, 1), "s")
        assert charged.verdict == "permit" and charged.grant is not None
        assert charged.grant.identity == person
        known = self.known[here, person]
        self.known[here, person] = replace(known, used=known.used + 1)
        assert not self.quota or known.used < self.quota
        self.charged.append((charged.grant, (here, person)))

    @precondition(lambda self: self.charged)
    @rule()
    def take_back(self) -> None:
        grant, key = self.charged.pop()
        before = {each.identity: each.used.messages for each in self.store.find(key[0])}
        self.grants.refund(grant, Usage(1, 1, 1))
        for each in self.store.find(key[0]):
            if each.identity == key[1] and each.used.messages < before[key[1]]:
                known = self.known[key]
                self.known[key] = replace(known, used=known.used - 1)

    @rule(length=seconds)
    def wait(self, length: int) -> None:
        self.clock.pass_seconds(length)

    @rule()
    def sweep(self) -> None:
        self.grants.sweep()

    @rule()
    def restart(self) -> None:
        self.grants = self.service()

    @rule(step=steps)
    def step_the_clock(self, step: int) -> None:
        self.clock.time += step
        if self.notices_steps:
            self.store.redate(float(step))
            for key, known in self.known.items():
                self.known[key] = replace(
                    known, login=known.login + step, renewed=known.renewed + step, since=known.since + step
                )
            self.charged.clear()  # such a grant is no longer to be found under its `since`

    # What must hold.

    @invariant()
    def relays_by_a_live_login_alone(self) -> None:
        if not hasattr(self, "grants"):
            return
        now, steady = self.clock.now(), self.clock.monotonic()
        for here in ADDRESSES:
            for person in PEOPLE:
                decision = self.grants.decide(here, MailAddress(person.user, person.domain), 1, 0, "s")
                if not self.is_live((here, person)):
                    assert decision.verdict == "refuse", (here, person, now)
                    continue
                known = self.known[here, person]
                within = not self.quota or known.used < self.quota
                if self.notices_steps:  # then the wall clock means as much as the steady one
                    assert decision.verdict == ("permit" if within else "quota")
                    assert steady - known.steady_renewed <= known.window
                    assert steady - known.steady_login <= MAX_AGE
            stranger = self.grants.decide(here, MailAddress("mallory", "example.org"), 1, 0, "s")
            assert stranger.verdict == "refuse"
        assert self.grants.decide(NEVER, None, 1, 0, "s").verdict == "refuse"

    @invariant()
    def lists_what_lives(self) -> None:
        if hasattr(self, "grants"):
            listed = {(grant.address, grant.identity) for grant in self.grants.list()}
            live = {(here, person) for here in ADDRESSES for person in self.live_at(here)}
            assert listed == live or (listed < live and not self.notices_steps)

    @invariant()
    def tells_every_end_once(self) -> None:
        if hasattr(self, "sink"):
            begun = sum(event.fields["reason"] == "login" for event in self.sink.told("grant.allow"))
            ended = len(self.sink.told("grant.lapse")) + len(self.sink.told("grant.revoke"))
            assert ended <= begun


class DirectoryMachine(GrantMachine):
    """The same on files, which also break and are touched."""

    def make_store(self) -> GrantStore:
        self.path = tempfile.mkdtemp(prefix="grants-")
        self.links = 0
        return DirectoryStore(self.path)

    def teardown(self) -> None:
        if hasattr(self, "path"):
            self.store.close()
            shutil.rmtree(self.path)

    @rule()
    def restart_with_the_store(self) -> None:
        self.store.close()
        self.store = DirectoryStore(self.path)
        self.grants = self.service()

    @rule(
        here=where, how=st.sampled_from(["truncate", "preload", "touch", "symlink", "fifo", "link", "remove"])
    )
    def break_a_file(self, here: ClientAddress, how: str) -> None:
        name = os.path.join(self.path, here.text)
        if not os.path.isfile(name):
            return
        with open(name, "rb") as file:
            content = file.read()
        if how == "truncate":
            os.truncate(name, len(content) - 1)
        elif how == "preload":
            with open(name, "wb") as out:
                out.write(b"LD_PRELOAD=/tmp/x.so\0" + content)
        elif how == "touch":
            os.utime(name, (self.clock.now() + 1_000_000, self.clock.now() + 1_000_000))
        elif how == "symlink":
            os.rename(name, os.path.join(self.path, "elsewhere"))
            os.symlink("elsewhere", name)
        elif how == "link":
            self.links += 1
            os.link(name, os.path.join(self.path, f"second{self.links}"))
        else:
            os.unlink(name)
            if how == "fifo":
                os.mkfifo(name)
        for person in PEOPLE:
            self.known.pop((here, person), None)
        self.charged.clear()


class UnnoticedStepsMachine(DirectoryMachine):
    """The clock is stepped while no server runs, or nobody notices.

    A grant that had lapsed by the wrong time may be gone by the right one: that only refuses.
    """

    notices_steps = False
    quota = 0  # when a period began is then anybody's guess


class RevokeOnLogoutMachine(DirectoryMachine):
    """Sites that end a grant with its session."""

    revoke_on_logout = True


EFFORT = settings(max_examples=40, stateful_step_count=40, deadline=None)
for machine in (GrantMachine, DirectoryMachine, UnnoticedStepsMachine, RevokeOnLogoutMachine):
    machine.TestCase.settings = EFFORT

TestMemory = GrantMachine.TestCase
TestDirectory = DirectoryMachine.TestCase
TestUnnoticedSteps = UnnoticedStepsMachine.TestCase
TestRevokeOnLogout = RevokeOnLogoutMachine.TestCase

assert NOW > 90000 * 100, "steps of the clock never reach the epoch"
