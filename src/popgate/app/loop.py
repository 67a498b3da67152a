"""Runs a coroutine on uvloop, or on asyncio's own loop where uvloop is not installed."""

import asyncio
import gc
from collections.abc import Awaitable, Callable
from typing import TypeVar

_T = TypeVar("_T")


def run_loop(main: Callable[[], Awaitable[_T]]) -> _T:
    """Run `main()` to its end in a new loop."""
    try:
        import uvloop

        make_loop: Callable[[], asyncio.AbstractEventLoop] | None = uvloop.new_event_loop
    except ImportError:
        make_loop = None

    async def whole() -> _T:
        return await main()

    gc.freeze()  # what the parent loaded never dies; leave it out of every collection
    # A session makes hundreds of objects and hardly a cycle; looking for cycles at each 700
    # of them cost a tenth of all CPU, and a few thousand more in memory are nothing.
    gc.set_threshold(20_000, 20, 20)
    with asyncio.Runner(loop_factory=make_loop) as runner:
        return runner.run(whole())
