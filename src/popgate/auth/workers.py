"""Threads for slow checks: hashes, and programs that check passwords.

Bounded twice: as many at work as there are threads, and a limited number waiting, so that a
flood of guesses makes some logins "try again later" instead of making the server grow.
Equal checks that come while one is at work share it. A check that nobody waits for any more,
because its clients hung up, leaves the queue.
"""

import asyncio
import os
from collections.abc import Callable, Coroutine
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Generic, TypeVar, cast

_T = TypeVar("_T")


class Overloaded(Exception):
    """More checks wait than may wait."""


class _Job(Generic[_T]):
    __slots__ = ("future", "waiters")

    def __init__(self, future: "Future[_T]") -> None:
        self.future = future
        self.waiters = 0


class Workers:
    """Runs functions in up to `threads` threads; at most `most_waiting` more wait for one.

    A hash holds 19 MiB while it is at work, so the processes of one server share the cores out
    among them: `threads` is the number of cores divided by theirs, at least one.
    `run` is called on the event loop's thread only.
    """

    def __init__(self, threads: int | None = None, most_waiting: int = 256, name: str = "auth") -> None:
        self._threads = threads or os.cpu_count() or 1
        self._most = self._threads + most_waiting
        self._name = name
        self._pool: ThreadPoolExecutor | None = None  # made at the first use: after a fork, not before
        self._jobs: dict[bytes, _Job[Any]] = {}

    def run(self, key: bytes, work: Callable[[], _T]) -> Coroutine[Any, Any, _T]:
        """An awaitable of what `work` returns or raises; equal keys at one time share one run.

        Raises Overloaded at once when the queue is full.
        """
        job = cast("_Job[_T] | None", self._jobs.get(key))
        if job is None:
            if len(self._jobs) >= self._most:
                raise Overloaded
            if self._pool is None:
                self._pool = ThreadPoolExecutor(self._threads, thread_name_prefix=self._name)
            job = _Job(self._pool.submit(work))
            self._jobs[key] = job
            job.future.add_done_callback(lambda future: self._finished(key))
        job.waiters += 1
        return _wait(job)

    def _finished(self, key: bytes) -> None:
        self._jobs.pop(key, None)

    def close(self) -> None:
        """Drop what waits; what is at work ends by itself."""
        if self._pool is not None:
            self._pool.shutdown(wait=False, cancel_futures=True)
            self._pool = None


async def _wait(job: _Job[_T]) -> _T:
    try:
        # The shield: one client that hangs up must not cancel what another waits for.
        return await asyncio.shield(asyncio.wrap_future(job.future))
    except asyncio.CancelledError:
        job.waiters -= 1
        if job.waiters == 0:
            job.future.cancel()
        raise
