"""The delivery process: sends what is queued, sweeps lapsed grants, watches the clock."""

import asyncio
import os
import random
from collections.abc import Callable

from popgate.app import backends
from popgate.app.clock import SystemClock
from popgate.app.context import ServerContext
from popgate.app.logs import LogWriter
from popgate.app.loop import run_loop
from popgate.app.own_addresses import own_addresses
from popgate.app.runtime import fan_out
from popgate.app.supervisor import ChildPipes
from popgate.app.worker import stop_event
from popgate.grants.service import Grants
from popgate.grants.store import GrantStore, StoreError
from popgate.queue.delivery.dns import DnsResolver
from popgate.queue.delivery.runner import Runner, Site
from popgate.values.event import Event, EventSink

SWEEP_SECONDS = 60.0
STEP_SECONDS = 0.5
_TICK_SECONDS = 1.0


def run_delivery(context: ServerContext, pipes: ChildPipes) -> int:
    """Deliver until SIGTERM or the parent's end. The exit status."""
    return run_loop(lambda: _run(context, pipes))


async def _run(context: ServerContext, pipes: ChildPipes) -> int:
    config = context.config
    log = LogWriter(context.log_fd, config.log.format, asyncio.get_running_loop().call_later)
    history = backends.history(config)
    try:
        await _deliver(context, pipes, fan_out([log, history]), history.flush)
    finally:  # a process that fails says first how it came to that
        history.flush()
        log.close()
    return 0


async def _deliver(
    context: ServerContext, pipes: ChildPipes, emit: EventSink, flush_history: Callable[[], None]
) -> None:
    loop = asyncio.get_running_loop()
    config, clock = context.config, context.clock
    stop = stop_event(pipes.lifeline)
    store = backends.grant_store(config)
    grants = backends.grants(config, clock, emit, store=store)
    accounts = backends.account_database(config)
    queue = backends.queue(config, clock, emit)
    runner = Runner(
        queue,
        config.delivery,
        Site(config.hostname, frozenset(config.local_domains), own_addresses()),
        backends.recipients(config, accounts, clock),
        backends.mailboxes(config, clock, emit),
        DnsResolver(),
        random.random,
        password=backends.smarthost_password(config),
    )

    def listen() -> None:
        loop.add_reader(context.wake_read, _drain_wake, context, runner)

    # Whoever accepts mail is not heard before: a process that another keeps from delivering,
    # as the one before a reload does, would be woken with every commit, and take the word from it.
    delivering = asyncio.ensure_future(runner.run(listen))
    os.write(pipes.ready, b"r")
    os.close(pipes.ready)
    ticking = asyncio.ensure_future(_tick(context, store, grants, emit, flush_history))
    await stop.wait()
    loop.remove_reader(context.wake_read)
    await runner.stop(config.limits.drain_seconds)
    await delivering
    ticking.cancel()
    queue.close()
    accounts.close()
    store.close()


def _drain_wake(context: ServerContext, runner: Runner) -> None:
    try:
        while context.wake_read.recv(16):
            pass
    except BlockingIOError:
        pass
    runner.wake()


async def _follow_clock(clock: SystemClock, store: GrantStore, emit: EventSink) -> None:
    """When the system clock was stepped, move the grants by as much first and the server's time after."""
    step = clock.step_seconds()
    if abs(step) < STEP_SECONDS:
        return
    try:
        await asyncio.to_thread(store.redate, step)
    except StoreError as fault:
        emit(Event("clock.step.failed", clock.now(), {"detail": str(fault)}))
        return
    clock.adopt()
    emit(Event("clock.step", clock.now(), {"seconds": round(step, 3)}))


async def _tick(
    context: ServerContext, store: GrantStore, grants: Grants, emit: EventSink, flush: Callable[[], None]
) -> None:
    """Once a second: has the clock been stepped? Once a minute: remove what has lapsed."""
    until_sweep = SWEEP_SECONDS
    while True:
        await asyncio.sleep(_TICK_SECONDS)
        flush()
        await _follow_clock(context.clock, store, emit)
        until_sweep -= _TICK_SECONDS
        if until_sweep <= 0:
            until_sweep = SWEEP_SECONDS
            await asyncio.to_thread(grants.sweep)
