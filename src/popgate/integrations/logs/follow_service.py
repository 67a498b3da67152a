"""Follows logs in a process with an event loop: what the threads see becomes grants and events.

Of all workers one follows at a time, the one that has the lock; the others try to take it now and then.
Where each source is read to, and the sessions that are open, are remembered in a directory that
belongs to the server alone, so whoever follows next goes on from there.

Grants are made in the loop's own thread, a few at a time, so that a log that is caught up with leaves
the mail sessions of the process their turns; meanwhile the source's thread waits. It does not know
the grants' store nor the accounts: whoever makes it lends it both.
"""

import asyncio
import os
import threading
from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

from popgate.files.held import HeldFile
from popgate.grants.grant import Terms
from popgate.grants.rules import MAX_WINDOW_SECONDS
from popgate.grants.settings import GrantSettings
from popgate.integrations.heard_grants import HeardGrants, ViaGrants
from popgate.integrations.logs.follow_file import Note
from popgate.integrations.logs.follow_source import Batch, MakeSource
from popgate.integrations.logs.follow_state import StateFile
from popgate.integrations.logs.follow_thread import FollowThread
from popgate.integrations.logs.records import LoginSeen, LogoutSeen, Seen
from popgate.integrations.open_sessions import OpenSession, OpenSessions, SessionGrants
from popgate.values.address import ClientAddress
from popgate.values.clock import Clock
from popgate.values.event import Event, EventSink
from popgate.values.identity import Identity
from popgate.values.value import value

SEEN_A_TURN = 32
_TAKE_SECONDS = 0.2
_STOP_SECONDS = 2.0
_STILL_SECONDS = 10.0
_LATE_SECONDS = 60.0
_FAULT_SECONDS = 60.0


@value
class FollowSpec:
    """One log to follow. `name` is the source's name in events and its identity over restarts;
    `protocols` are those whose logins count."""

    name: str
    make: MakeSource
    protocols: frozenset[str]


class Lock(Protocol):
    """See popgate.files.held.HeldFile."""

    def take(self) -> bool: ...

    def is_held(self) -> bool: ...

    def give_up(self) -> None: ...


class LogFollowers:
    """All followed logs of one process. `directory` None: nothing is remembered, and nobody else follows."""

    def __init__(
        self,
        specs: Sequence[FollowSpec],
        directory: str | None,
        *,
        grants: ViaGrants,
        settings: GrantSettings,
        terms: Callable[[Identity], Terms],
        clock: Clock,
        emit: EventSink,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._specs = tuple(specs)
        self._directory = directory
        self._lock: Lock = _NoLock() if directory is None else HeldFile(os.path.join(directory, "lock"))
        self._clock = clock
        self._emit = emit
        self._followers = [
            _Follower(
                self,
                spec,
                lambda grants: OpenSessions(grants, settings, clock, terms),
                grants,
            )
            for spec in specs
        ]
        self._timer: asyncio.TimerHandle | None = None
        self._deadline = float("inf")
        self._is_closed = False
        self._fault_at = float("-inf")
        self._take()

    # what a server does with its listeners

    @property
    def connections(self) -> Sequence[object]:
        """What a stopping server still waits for: threads that write down where they are."""
        if self._loop.time() >= self._deadline:
            return ()
        return [follower for follower in self._followers if follower.thread is not None]

    def close(self) -> None:
        """Stop; let another process go on as soon as all is written down."""
        if self._is_closed:
            return
        self._is_closed = True
        if self._timer is not None:
            self._timer.cancel()
        self._deadline = self._loop.time() + _STOP_SECONDS
        self._timer = self._loop.call_later(_STOP_SECONDS, self._give_up)
        for follower in self._followers:
            follower.stop()
        self._ended_all()

    def tick(self) -> None:
        """Once a second."""
        for follower in self._followers:
            follower.tick()
        is_following = any(follower.thread is not None for follower in self._followers)
        if is_following and not self._is_closed and not self._lock.is_held():
            self._fault("the lock was removed; it is made anew")
            for follower in self._followers:
                follower.stop()
            self._lock.give_up()
            self._timer = self._loop.call_later(_TAKE_SECONDS, self._take)

    def drain(self, *, is_last: bool = False) -> None:
        """Nothing more than `close`."""

    def abort(self, reason: str = "shutdown") -> None:
        """Nothing more than `close`."""

    # following

    def _take(self) -> None:
        self._timer = None
        is_taken = False
        if all(follower.thread is None for follower in self._followers):  # those of before have ended
            try:
                if self._directory is not None:
                    os.makedirs(self._directory, 0o700, exist_ok=True)
                is_taken = self._lock.take()
            except OSError as fault:
                self._fault(f"{fault.filename or self._directory}: {fault.strerror}")
        if not is_taken:
            self._timer = self._loop.call_later(_TAKE_SECONDS, self._take)
            return
        for follower in self._followers:
            follower.start(self._directory)

    def ended(self, follower: "_Follower") -> None:
        follower.thread = None
        if self._is_closed:
            self._ended_all()

    def _ended_all(self) -> None:
        if not any(follower.thread is not None for follower in self._followers):
            self._give_up()

    def _give_up(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for follower in self._followers:
            follower.abandon()
        self._lock.give_up()

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        return self._loop

    @property
    def clock(self) -> Clock:
        return self._clock

    def holds_elsewhere(self, follower: "_Follower", address: ClientAddress, identity: Identity) -> bool:
        return any(
            other is not follower and other.sessions.holds(address, identity) for other in self._followers
        )

    def event(self, name: str, **fields: str | int | float | None) -> None:
        self._emit(Event(name, self._clock.now(), fields))

    def _fault(self, detail: str) -> None:
        now = self._clock.monotonic()
        if now - self._fault_at >= _FAULT_SECONDS:
            self._fault_at = now
            self.event("follow.error", reason="lock", detail=detail)


class _NoLock:
    def take(self) -> bool:
        return True

    def is_held(self) -> bool:
        return True

    def give_up(self) -> None:
        pass


class _Follower:
    """One source: its thread, its sessions, its part of the events. All but what says otherwise runs in the
    loop's thread."""

    def __init__(
        self,
        service: LogFollowers,
        spec: FollowSpec,
        make_sessions: Callable[[SessionGrants], OpenSessions],
        grants: ViaGrants,
    ) -> None:
        self._service = service
        self._spec = spec
        self._make_sessions = make_sessions
        self._grants = _SharedGrants(self, service, grants, spec.name)
        self.sessions = make_sessions(self._grants)
        self.thread: FollowThread | None = None
        self._late = 0
        self._late_since = 0.0

    def start(self, directory: str | None) -> None:
        self.sessions = self._make_sessions(self._grants)
        self.thread = FollowThread(
            self._spec.name,
            self._spec.make,
            None if directory is None else StateFile(directory, self._spec.name),
            clock=self._service.clock,
            restore=self._restore_from_thread,
            deliver=self._deliver_from_thread,
            ended=self._ended_in_thread,
        )
        self._service.event("follow.start", source=self._spec.name)
        self.thread.start()

    def stop(self) -> None:
        if self.thread is not None and not self.thread.is_stopping:
            self.thread.stop()
            self._tell_late()
            self._service.event("follow.stop", source=self._spec.name)

    def abandon(self) -> None:
        if self.thread is not None:
            self.thread.abandon()
            self.thread = None

    def tick(self) -> None:
        now = self._service.clock.monotonic()
        # ends that have happened may stand in what is not read yet
        if self.thread is not None and now - self.thread.caught_up_at < _STILL_SECONDS:
            self.sessions.tick()
        if self._late and now - self._late_since >= _LATE_SECONDS:
            self._tell_late()

    # called in the source's thread

    def _ended_in_thread(self) -> None:
        self._call(lambda: self._service.ended(self))

    def _restore_from_thread(self, sessions: Sequence[OpenSession]) -> None:
        self._call(lambda: self.sessions.restore(sessions))

    def _deliver_from_thread(self, batch: Batch) -> Sequence[OpenSession]:
        done = threading.Event()
        open_now: list[OpenSession] = []

        def finish() -> None:
            open_now.extend(self.sessions.saved())
            done.set()

        self._call(lambda: self._begin(batch, finish))
        thread = self.thread
        while not done.wait(1.0):
            if thread is None or thread.is_stopping or self._service.loop.is_closed():
                done.wait(_STOP_SECONDS)
                break
        return open_now

    def _call(self, function: Callable[[], None]) -> None:
        try:
            self._service.loop.call_soon_threadsafe(function)
        except RuntimeError:
            pass  # the loop has ended, and with it everybody who listens

    # in the loop's thread again

    def _begin(self, batch: Batch, finish: Callable[[], None]) -> None:
        if not batch.is_complete:
            self.sessions.forget("")
        for note in batch.notes:
            self._note(note)
        self._some(iter(batch.seen), finish)

    def _some(self, seen: Iterable[Seen], finish: Callable[[], None]) -> None:
        rest = iter(seen)
        for _ in range(SEEN_A_TURN):
            one = next(rest, None)
            if one is None:
                finish()
                return
            self._see(one)
        self._service.loop.call_soon(self._some, rest, finish)

    def _see(self, seen: Seen) -> None:
        if seen.protocol not in self._spec.protocols:
            return
        key = seen.session or None
        if isinstance(seen, LoginSeen):
            self._login(seen, key)
        else:
            self._logout(seen, key)

    def _login(self, seen: LoginSeen, key: str | None) -> None:
        now = self._service.clock.now()
        outcome = "late"
        if now - seen.at <= MAX_WINDOW_SECONDS:
            outcome = self.sessions.login(seen.address, seen.identity, seen.protocol, key, at=seen.at)
        if outcome == "late":
            if not self._late:
                self._late_since = self._service.clock.monotonic()
            self._late += 1
            return
        age = round(now - seen.at)
        self._service.event(
            "follow.login",
            source=self._spec.name,
            session=key,
            client=seen.address.text,
            identity=str(seen.identity),
            protocol=seen.protocol,
            pattern=seen.pattern,
            program=seen.program,
            pid=seen.pid or None,
            reason="granted" if outcome == "granted" else "no-grant",
            age_seconds=age if age > 1 else None,
        )

    def _logout(self, seen: LogoutSeen, key: str | None) -> None:
        ended = self.sessions.logout(key, seen.address, seen.identity, at=seen.at)
        if ended is not None:
            self._service.event(
                "follow.logout",
                source=self._spec.name,
                session=key,
                client=ended.address.text,
                identity=str(ended.identity),
                protocol=ended.protocol,
                open_seconds=max(0, round(seen.at - ended.since)),
            )

    def _note(self, note: Note) -> None:
        if note.kind == "found":
            self._service.event("follow.recovered", source=self._spec.name, detail=note.detail)
        elif note.kind in ("rotated", "truncated"):
            self._service.event("follow.rotated", source=self._spec.name, reason=note.kind)
        else:
            self._service.event("follow.error", source=self._spec.name, reason=note.kind, detail=note.detail)

    def _tell_late(self) -> None:
        if self._late:
            self._service.event("follow.late", source=self._spec.name, count=self._late)
            self._late = 0


class _SharedGrants(HeardGrants):
    """The grants for one source. Where a user has sessions open in another log too, the end of the last one
    in this log is not the end."""

    def __init__(self, follower: _Follower, service: LogFollowers, grants: ViaGrants, name: str) -> None:
        super().__init__(grants, name)
        self._follower = follower
        self._service = service

    def logout(
        self, address: ClientAddress, identity: Identity, session: str, *, at: float | None = None
    ) -> None:
        if not self._service.holds_elsewhere(self._follower, address, identity):
            super().logout(address, identity, session, at=at)
