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
    with asyncio.Runner(loop_factory=make_loop) as runner:
        return runner.run(whole())
