"""One destination: what waits for it, its connections, and its rests.

A lane has up to `most_workers` workers, each with a connection of its own that serves one
message after the other and is closed a few seconds after the last. When the
destination cannot be reached the lane rests; after the rest one worker alone tries, and
only when it comes through the others follow. Nothing here is durable: what stands in
`ready` is in the queue's database too.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Protocol

from popgate.queue.routes import Route
from popgate.values.value import value

READY_MOST = 100
"""Consignments a lane keeps in memory; the rest stays in the database."""
IDLE_SECONDS = 3.0


@value
class Consignment:
    """A message for some recipients of one destination."""

    message: int
    numbers: tuple[int, ...]


class Reached(Protocol):
    """An open connection that can be used again."""

    @property
    def is_usable(self) -> bool: ...

    def close(self) -> Awaitable[None]: ...


class Lane:
    """`serve(consignment, connection)` makes one attempt, settles it, and returns the connection
    to keep (or None). `empty(lane)` is called when the last worker has ended."""

    def __init__(
        self,
        key: str,
        route: Route,
        domain: str,
        most_workers: int,
        serve: "Callable[[Lane, Consignment, Reached | None], Awaitable[Reached | None]]",
        empty: "Callable[[Lane], None]",
        idle_seconds: float = IDLE_SECONDS,
    ) -> None:
        self.key = key
        self.route = route
        self.domain = domain
        self.ready: deque[Consignment] = deque()
        self.failures = 0
        self.rests_until = 0.0  # monotonic
        self.rest_status = ""
        self._most_workers = most_workers
        self._serve = serve
        self._empty = empty
        self._idle_seconds = idle_seconds
        self._idle = 0
        self._more = asyncio.Event()
        self._workers: set[asyncio.Task[None]] = set()

    @property
    def has_room(self) -> bool:
        return len(self.ready) < READY_MOST

    @property
    def is_empty(self) -> bool:
        return not self.ready and not self._workers

    def rests(self, monotonic: float) -> bool:
        return monotonic < self.rests_until

    def offer(self, consignment: Consignment) -> None:
        self.ready.append(consignment)
        self._more.set()
        # after a failure a single worker finds out whether the destination is back
        most = 1 if self.failures else self._most_workers
        if self._idle == 0 and len(self._workers) < most:
            worker = asyncio.get_running_loop().create_task(self._work())
            self._workers.add(worker)
            worker.add_done_callback(self._ended)

    def reached(self) -> None:
        self.failures = 0
        self.rests_until = 0.0

    async def _work(self) -> None:
        connection: Reached | None = None
        try:
            while True:
                if self.ready:
                    connection = await self._serve(self, self.ready.popleft(), connection)
                elif connection is None or not await self._wait_for_more():
                    return
        finally:
            if connection is not None:
                await connection.close()

    async def _wait_for_more(self) -> bool:
        self._more.clear()
        self._idle += 1
        try:
            await asyncio.wait_for(self._more.wait(), self._idle_seconds)
        except TimeoutError:
            return bool(self.ready)
        finally:
            self._idle -= 1
        return True

    def _ended(self, worker: "asyncio.Task[None]") -> None:
        self._workers.discard(worker)
        if not worker.cancelled() and (error := worker.exception()) is not None:
            asyncio.get_running_loop().call_exception_handler(
                {"message": f"delivery to {self.key} failed", "exception": error}
            )
        if self.is_empty:
            self._empty(self)

    async def stop(self, seconds: float) -> None:
        """Let what is under way end within `seconds`, then cut it off."""
        self.ready.clear()
        self._idle_seconds = 0.0
        self._more.set()
        workers = set(self._workers)
        if workers:
            _, late = await asyncio.wait(workers, timeout=seconds)
            for worker in late:
                worker.cancel()
            if late:
                await asyncio.wait(late, timeout=5)
