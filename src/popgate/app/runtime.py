"""What a process lends its sessions: clock, threads, randomness, and where events go."""

import asyncio
import base64
import os
import threading
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from popgate.sessions.session import Runtime
from popgate.values.clock import Clock
from popgate.values.event import Event, EventSink

_THREADS = 16


class Tokens:
    """Random tokens of 128 bits from a pool, since one system call for each costs more than the rest."""

    def __init__(self) -> None:
        self._pool = ""
        self._offset = 0

    def __call__(self) -> str:
        """22 characters of base64url: a little more than 128 bits."""
        offset = self._offset
        if offset + 22 > len(self._pool):
            self._pool, offset = base64.urlsafe_b64encode(os.urandom(4092)).decode("ascii"), 0
        self._offset = offset + 22
        return self._pool[offset : offset + 22]


def fan_out(sinks: Sequence[EventSink]) -> EventSink:
    """One sink that passes each event to all of `sinks`, always in the thread of the running loop.

    Mailboxes and the queue report from their threads too.
    """
    loop = asyncio.get_running_loop()
    home = threading.get_ident()

    def emit(event: Event) -> None:
        if threading.get_ident() != home:
            try:
                loop.call_soon_threadsafe(emit, event)
            except RuntimeError:  # the loop has ended; so has everybody who listens
                pass
            return
        for sink in sinks:
            sink(event)

    return emit


def make_runtime(clock: Clock, emit: EventSink, executor: ThreadPoolExecutor | None = None) -> Runtime:
    """A Runtime on the running loop."""
    loop = asyncio.get_running_loop()
    threads = executor or ThreadPoolExecutor(_THREADS, thread_name_prefix="popgate")

    def run(function: Callable[[], object]) -> Awaitable[object]:
        return loop.run_in_executor(threads, function)

    spawned: set[asyncio.Task[None]] = set()  # the loop itself keeps tasks by weak references alone

    def spawn(coroutine: Coroutine[Any, Any, None]) -> None:
        task = loop.create_task(coroutine)
        spawned.add(task)
        task.add_done_callback(spawned.discard)

    return Runtime(clock, emit, asyncio.sleep, run, Tokens(), spawn)
