"""Learns of the end of each program without a zombie and without a poll.

Each program has a process descriptor (pidfd) in the event loop. SIGCHLD would not do: the
process has other children, for whom other threads wait, and a general wait would take
their status away.
"""

import asyncio
import os
import signal
from collections.abc import Callable

Ended = Callable[[int], None]
"""Called once, with the status as wait(2) gives it."""


class Children:
    """The programs that run. Belongs to one event loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._running: dict[int, tuple[int, Ended]] = {}

    def __len__(self) -> int:
        return len(self._running)

    def watch(self, pid: int, ended: Ended) -> None:
        """Call `ended` when the child `pid` has ended."""
        try:
            watch = os.pidfd_open(pid)
        except OSError:  # no descriptor is free: `poll` will find out
            watch = -1
        self._running[pid] = (watch, ended)
        if watch >= 0:
            self._loop.add_reader(watch, self._reap, pid)

    def poll(self) -> None:
        """Look after those whose end nobody reports. Call it every second or so."""
        for pid in [pid for pid, (watch, _) in self._running.items() if watch < 0]:
            self._reap(pid)

    def terminate(self, pid: int) -> None:
        """Ask it to end. It is not reaped yet, so the number is still its own."""
        if pid in self._running:
            try:
                os.kill(pid, signal.SIGTERM)
            except (ProcessLookupError, PermissionError):
                pass  # it has become another user: it ends when it likes

    def forget(self) -> None:
        """Stop watching all; they go on without us."""
        for watch, _ in self._running.values():
            self._unwatch(watch)
        self._running.clear()

    def _reap(self, pid: int) -> None:
        watch, ended = self._running[pid]
        try:
            reaped, status = os.waitpid(pid, os.WNOHANG)
        except ChildProcessError:
            reaped, status = pid, 0
        if not reaped:
            return
        self._unwatch(watch)
        del self._running[pid]
        ended(status)

    def _unwatch(self, watch: int) -> None:
        if watch >= 0:
            self._loop.remove_reader(watch)
            os.close(watch)
