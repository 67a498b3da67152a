"""Keeps map files as the grants are, in a process with an event loop.

Of all processes one writes, the one that has the lock; another (of the configuration before a reload, say)
goes on until it gives the lock up. A change of the grants is written at once; while they change all
the time, no more than half of the time is spent on writing. What has lapsed is taken out by a timer.

A map that cannot be written would let addresses relay whose time is over. Where that is so, its file is
taken away, and servers refuse for now. It does not know the grants' store: whoever makes it lends it
the questions that it asks.
"""

import asyncio
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Final, Protocol

from popgate.integrations.maps.command import MapCommand
from popgate.integrations.maps.live import CannotSay, LiveAddresses
from popgate.integrations.maps.map_file import MapError, MapFile, remove_litter
from popgate.integrations.maps.watch import DirectoryWatch
from popgate.values.address import ClientAddress
from popgate.values.clock import Clock
from popgate.values.event import Event, EventSink

LEAST_PAUSE_SECONDS: Final = 0.01
_SHARE: Final = 1.0
"""The pause after writing is that many times as long as the writing took."""
_JUST_AFTER: Final = 0.001
_LONGEST_SECONDS: Final = 1.0
_TAKE_SECONDS: Final = 0.02
_LOOK_AT_ALL_TICKS: Final = 60
_FAULT_SECONDS: Final = 60.0


class Lock(Protocol):
    """Who of several processes writes."""

    def take(self) -> bool: ...

    def give_up(self) -> None: ...


class MapWriter:
    """Writes `maps` from now on, once it has `lock`; first it clears `dropped`, which nobody wants any more.

    `directory` is where grant files lie. `stored` gives every address that has a record, `until` the
    last moment at which one may relay, 0 where it may not; both raise CannotSay.
    """

    def __init__(
        self,
        maps: Sequence[MapFile],
        dropped: Sequence[MapFile],
        directory: str,
        lock: Lock,
        *,
        stored: Callable[[], Iterable[ClientAddress]],
        until: Callable[[ClientAddress], float],
        clock: Clock,
        emit: EventSink,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._dropped = tuple(dropped)
        self._lock = lock
        self._stored = stored
        self._clock = clock
        self._emit = emit
        self._outputs = [_Output(each, self) for each in maps]
        self._watch = DirectoryWatch(directory)
        self._live = LiveAddresses(until)
        self._pending: set[ClientAddress] = set()
        self._must_look_at_all = True
        self._ticks = 0
        self._next_at = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = 0.0
        self._fault_at = float("-inf")
        self._is_writing = False
        self._take()

    @property
    def is_writing(self) -> bool:
        return self._is_writing

    def tick(self) -> None:
        """Once a second."""
        if not self._is_writing:
            return
        self._ticks += 1
        is_new = self._watch.renew()
        if is_new or not self._watch.is_told or self._ticks % _LOOK_AT_ALL_TICKS == 0:
            self._must_look_at_all = True
        self._wake_at(0.0)

    def close(self) -> None:
        """Write no more; another process may go on at once."""
        if self._timer is not None:
            self._timer.cancel()
        if self._is_writing and self._watch.fileno() >= 0:
            self._loop.remove_reader(self._watch.fileno())
        self._is_writing = False
        self._watch.close()
        for output in self._outputs:
            output.close()
        self._lock.give_up()

    def clear(self) -> None:
        """Nobody goes on: let nobody relay by the maps."""
        for output in self._outputs:
            output.write((), self._live.version + 1, is_last=True)

    # the turn of writing

    def _take(self) -> None:
        self._timer = None
        try:
            is_taken = self._lock.take()
        except OSError as fault:
            self.tell_fault("", str(fault))
            is_taken = False
        if not is_taken:
            self._timer = self._loop.call_later(_TAKE_SECONDS, self._take)
            return
        self._is_writing = True
        for each in self._dropped:
            try:
                each.write(())
            except MapError as fault:
                self.tell_fault(each.settings.path, str(fault))
                each.remove()
            each.close()
        for output in self._outputs:
            remove_litter(output.file.settings)
        self._watch.renew()
        if self._watch.fileno() >= 0:
            self._loop.add_reader(self._watch.fileno(), self._happened)
        self._update()

    def _happened(self) -> None:
        names = self._watch.changed()
        if names is None:
            self._must_look_at_all = True
            self._watch.renew()
        else:
            for name in names:
                address = ClientAddress.canonical(name)
                if address is not None:
                    self._pending.add(address)
            if not self._pending:
                return
        self._wake_at(self._next_at)

    def _wake_at(self, at: float) -> None:
        """Update at that time of the loop, or earlier where that is due already."""
        at = max(at, self._next_at)
        if self._timer is not None:
            if self._timer_at <= at:
                return
            self._timer.cancel()
        self._timer_at = at
        self._timer = self._loop.call_at(at, self._update)

    def _update(self) -> None:
        self._timer = None
        now, began = self._clock.now(), self._loop.time()
        pending, self._pending = self._pending, set()
        if self._must_look_at_all:
            try:
                self._live.look_at_all(self._stored(), now)
                self._must_look_at_all = False
            except CannotSay as fault:
                self.tell_fault("", str(fault))
                self._live.look(pending, now)
        else:
            self._live.look(pending, now)
        self._live.lapse(now)
        if self._live.fault:
            self.tell_fault("", self._live.fault)
        for output in self._outputs:
            output.write(self._live.addresses, self._live.version)
        ended = self._loop.time()
        self._next_at = ended + max(LEAST_PAUSE_SECONDS, _SHARE * (ended - began))
        in_seconds = self._live.next_end - self._clock.now() + _JUST_AFTER
        self._wake_at(ended + min(max(0.0, in_seconds), _LONGEST_SECONDS))

    # what is told

    def event(self, name: str, **fields: str | int | float | None) -> None:
        self._emit(Event(name, self._clock.now(), fields))

    def tell_fault(self, path: str, detail: str) -> None:
        now = self._clock.monotonic()
        if now - self._fault_at >= _FAULT_SECONDS:
            self._fault_at = now
            self.event("map.fault", map=path or None, detail=detail)


class _Output:
    """One map, and what was last written to it."""

    def __init__(self, file: MapFile, writer: MapWriter) -> None:
        self.file = file
        self._writer = writer
        self._written: frozenset[ClientAddress] | None = None
        self._version = -1
        self._is_at_fault = False
        settings = file.settings
        self._command = (
            MapCommand(
                settings.command,
                lambda detail: writer.event("map.command.failed", map=settings.path, detail=detail),
            )
            if settings.command
            else None
        )

    def write(self, addresses: Collection[ClientAddress], version: int, *, is_last: bool = False) -> None:
        """Make it hold `addresses`, of that version; nothing is done where it does already."""
        if self._version == version and self.file.is_as_written():
            return
        path = self.file.settings.path
        try:
            self.file.write(addresses)
        except MapError as fault:
            self._version = -1
            # what stands there may let somebody relay whose time is over
            self.file.remove()
            if not self._is_at_fault:
                self._is_at_fault = True
                self._writer.event("map.fault", map=path, detail=str(fault))
            return
        before, self._written = self._written, frozenset(addresses)
        self._version = version
        self._is_at_fault = False
        self._writer.event(
            "map.write",
            map=path,
            addresses=len(self._written),
            added=None if before is None else len(self._written - before),
            removed=None if before is None else len(before - self._written),
        )
        if self._command is not None:
            if is_last:
                self._command.run_at_end()
            else:
                self._command.run()

    def close(self) -> None:
        self.file.close()
