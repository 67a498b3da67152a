"""Tells when names in directories change: how an idle IMAP session learns of new mail.

A popgate.mailbox.folders.ChangeNotices on the event loop, one inotify instance for a worker. What
happens within GATHER_SECONDS is told once: a delivery is a link, an unlink and a rename. The kernel
gives each user so many watches and no more (fs.inotify.max_user_watches); a directory that gets none
is looked at every POLL_SECONDS instead, which costs a descriptor and a microsecond.

Changes that another machine makes in a shared file system nobody tells of; its sessions see them at
their next command.
"""

import asyncio
import os
import time
from collections.abc import Callable

from popgate.servers.inotify import Inotify
from popgate.values.clock import Clock
from popgate.values.event import Event, EventSink

GATHER_SECONDS = 0.05
POLL_SECONDS = 5.0
_TICK_NS = 20_000_000
"""Times of files move in steps of up to 10 ms, so a directory that changed just before it was looked at
may change again and keep its time."""


class DirectoryNotices:
    """Made and used on the thread of a running loop."""

    def __init__(self, clock: Clock, emit: EventSink, *, poll_seconds: float = POLL_SECONDS) -> None:
        self._clock = clock
        self._emit = emit
        self._poll_seconds = poll_seconds
        self._loop = asyncio.get_running_loop()
        self._inotify: Inotify | None = None
        self._watches: dict[int, set[_Watch]] = {}
        self._polled: set[_Polled] = set()
        self._polling: asyncio.TimerHandle | None = None
        self._gathering: asyncio.TimerHandle | None = None
        self._has_told = False
        self._is_closed = False

    def watch(self, directory: int, changed: Callable[[], None]) -> Callable[[], None]:
        """See ChangeNotices. `changed` is never called before this returns, nor after what it returns."""
        watch = _Watch(changed)
        try:
            number = self._add(directory)
        except OSError as fault:
            self._poll_instead(watch, directory, fault)
            return lambda: self._end_polled(watch)
        self._watches.setdefault(number, set()).add(watch)
        return lambda: self._end(number, watch)

    def close(self) -> None:
        """Nobody is told anything any more."""
        self._is_closed = True
        for timer in (self._gathering, self._polling):
            if timer is not None:
                timer.cancel()
        if self._inotify is not None:
            self._loop.remove_reader(self._inotify.fd)
            self._inotify.close()
            self._inotify = None
        self._watches.clear()
        for polled in self._polled:
            polled.close()
        self._polled.clear()

    def _add(self, directory: int) -> int:
        if self._inotify is None:
            self._inotify = Inotify()
            self._loop.add_reader(self._inotify.fd, self._gather)
        return self._inotify.add(directory)

    def _end(self, number: int, watch: "_Watch") -> None:
        watch.changed = None
        those = self._watches.get(number)
        if those is None or watch not in those:
            return
        those.discard(watch)
        if not those:
            del self._watches[number]
            if self._inotify is not None:
                self._inotify.remove(number)

    # inotify

    def _gather(self) -> None:
        """Something happened; look a moment later at all that did."""
        assert self._inotify is not None
        self._loop.remove_reader(self._inotify.fd)
        self._gathering = self._loop.call_later(GATHER_SECONDS, self._tell)

    def _tell(self) -> None:
        inotify = self._inotify
        assert inotify is not None
        changed, ended, is_lost = inotify.read()
        self._loop.add_reader(inotify.fd, self._gather)
        for number in tuple(self._watches) if is_lost else changed:
            for watch in self._watches.get(number, ()):
                self._loop.call_soon(watch.call)
        for number in ended:
            self._watches.pop(number, None)  # who watched it has been told, and finds it gone

    # without inotify

    def _poll_instead(self, watch: "_Watch", directory: int, fault: OSError) -> None:
        self._polled.add(_Polled(watch, os.dup(directory)))
        if not self._has_told:
            self._has_told = True
            self._emit(Event("mailbox.notices.polled", self._clock.now(), {"detail": fault.strerror}))
        if self._polling is None:
            self._polling = self._loop.call_later(self._poll_seconds, self._poll)

    def _poll(self) -> None:
        self._polling = None
        for polled in self._polled:
            if polled.has_changed():
                self._loop.call_soon(polled.watch.call)
        if self._polled:
            self._polling = self._loop.call_later(self._poll_seconds, self._poll)

    def _end_polled(self, watch: "_Watch") -> None:
        watch.changed = None
        for polled in self._polled:
            if polled.watch is watch:
                self._polled.discard(polled)
                polled.close()
                return


class _Watch:
    __slots__ = ("changed",)

    def __init__(self, changed: Callable[[], None]) -> None:
        self.changed: Callable[[], None] | None = changed

    def call(self) -> None:
        if self.changed is not None:  # it may have ended since this was put into the loop's queue
            self.changed()


class _Polled:
    """A directory that is looked at; its own descriptor, for the name may lead elsewhere by then."""

    __slots__ = ("_descriptor", "_is_fresh", "_seen", "watch")

    def __init__(self, watch: _Watch, descriptor: int) -> None:
        self.watch = watch
        self._descriptor = descriptor
        self._seen = 0
        self._is_fresh = False
        self.has_changed()

    def has_changed(self) -> bool:
        was, was_fresh = self._seen, self._is_fresh
        self._seen = os.fstat(self._descriptor).st_mtime_ns
        self._is_fresh = abs(time.time_ns() - self._seen) < _TICK_NS
        return was_fresh or self._seen != was

    def close(self) -> None:
        os.close(self._descriptor)
