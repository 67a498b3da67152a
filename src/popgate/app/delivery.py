"""The delivery process: sends what is queued, sweeps lapsed grants, watches the clock."""

import asyncio
import os

from popgate.app import backends
from popgate.app.context import ServerContext
from popgate.app.logs import LogWriter
from popgate.app.loop import run_loop
from popgate.app.own_addresses import own_addresses
from popgate.app.runtime import fan_out
from popgate.app.supervisor import ChildPipes
from popgate.app.worker import stop_event
from popgate.grants.store import GrantStore, StoreError
from popgate.values.event import Event, EventSink

SWEEP_SECONDS = 60.0
_CLOCK_SECONDS = 1.0


def run_delivery(context: ServerContext, pipes: ChildPipes) -> int:
    """Deliver until SIGTERM or the parent's end. The exit status."""
    return run_loop(lambda: _run(context, pipes))


async def _run(context: ServerContext, pipes: ChildPipes) -> int:
    loop = asyncio.get_running_loop()
    config, clock = context.config, context.clock
    log = LogWriter(context.log_fd, config.log.format, loop.call_soon)
    history = backends.history(config)
    emit = fan_out([log, history])
    stop = stop_event(pipes.lifeline)
    store = backends.grant_store(config)
    grants = backends.grants(config, clock, emit, store=store, own_addresses=own_addresses())
    os.write(pipes.ready, b"r")
    os.close(pipes.ready)
    tasks = [
        asyncio.ensure_future(_watch_clock(context, store, emit)),
        asyncio.ensure_future(_sweep(grants.sweep, history.flush)),
    ]
    await stop.wait()
    for task in tasks:
        task.cancel()
    store.close()
    history.flush()
    log.flush()
    return 0
