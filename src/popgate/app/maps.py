"""Map files: what the configuration says, joined with the grants. A process of its own writes them."""

import asyncio
import os
import select
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager

from popgate.app import backends
from popgate.app.context import ServerContext
from popgate.app.logs import LogWriter
from popgate.app.loop import run_loop
from popgate.app.own_addresses import own_addresses
from popgate.app.runtime import fan_out
from popgate.app.supervisor import ChildPipes
from popgate.app.worker import stop_event
from popgate.config import Config
from popgate.files.held import HeldFile
from popgate.grants.service import Grants
from popgate.grants.store import GrantStore, StoreError
from popgate.integrations.maps.command import run_now
from popgate.integrations.maps.live import CannotSay, LiveAddresses
from popgate.integrations.maps.map_file import MapError, MapFile
from popgate.integrations.maps.open import open_map
from popgate.integrations.maps.settings import MapSettings
from popgate.integrations.maps.writer import MapWriter
from popgate.values.address import ClientAddress
from popgate.values.clock import Clock
from popgate.values.event import Event, EventSink


def run_maps(context: ServerContext, dropped: Sequence[MapSettings], pipes: ChildPipes) -> int:
    """Write the maps until SIGTERM or the parent's end. `dropped`: those of the configuration before, which
    this one has not. The exit status."""
    return run_loop(lambda: _run(context, dropped, pipes))


async def _run(context: ServerContext, dropped: Sequence[MapSettings], pipes: ChildPipes) -> int:
    loop = asyncio.get_running_loop()
    config, clock = context.config, context.clock
    log = LogWriter(context.log_fd, config.log.format, loop.call_later)
    emit = fan_out([log])
    stop = stop_event(pipes.lifeline)
    store = backends.grant_store(config)
    directory = config.grant_directory
    assert directory is not None  # config check says so
    answers = _Answers(config, store, clock, emit)
    writer = MapWriter(
        [open_map(settings) for settings in config.map],
        [open_map(settings) for settings in dropped],
        directory,
        HeldFile(config.map_lock),
        stored=answers.stored,
        until=answers.until,
        clock=clock,
        emit=emit,
    )
    os.write(pipes.ready, b"r")
    os.close(pipes.ready)
    while not stop.is_set():
        try:
            await asyncio.wait_for(stop.wait(), 1.0)
        except TimeoutError:
            writer.tick()
    if writer.is_writing and _is_orphan(pipes):
        writer.clear()  # nobody is there who would start us again
    writer.close()
    store.close()
    log.flush()
    return 0


def _is_orphan(pipes: ChildPipes) -> bool:
    return bool(select.select([pipes.lifeline], [], [], 0)[0])


class _Answers:
    """The grants as the maps' writer asks them. What they are asked is no event."""

    def __init__(self, config: Config, store: GrantStore, clock: Clock, emit: EventSink) -> None:
        self._store = store
        # a /64 is no key of a map, see config.maps
        self._takes_ipv6 = config.grants.ipv6_prefix == 128
        self._grants: Grants = backends.grants(
            config, clock, emit, store=store, own_addresses=own_addresses()
        )

    def stored(self) -> Iterable[ClientAddress]:
        try:
            return list(self._store.addresses())
        except StoreError as fault:
            raise CannotSay(str(fault)) from fault

    def until(self, address: ClientAddress) -> float:
        if address.is_ipv6 and not self._takes_ipv6:
            return 0.0
        try:
            return self._grants.right_until(address)
        except StoreError as fault:
            raise CannotSay(str(fault)) from fault


def write_maps(config: Config, clock: Clock, tell: Callable[[str], None]) -> int:
    """Write every map as the grants are now; how many addresses they hold. Raises MapError, StoreError."""
    with closing(backends.grant_store(config)) as store:
        answers = _Answers(config, store, clock, lambda event: None)
        live = LiveAddresses(answers.until)
        try:
            live.look_at_all(answers.stored(), clock.now())
        except CannotSay as fault:
            raise StoreError(str(fault)) from fault
        if live.fault:
            raise StoreError(live.fault)
    for settings in config.map:
        with _opened(settings) as file:
            file.write(live.addresses)
            if settings.command:
                run_now(settings.command, tell)
    return len(live.addresses)


def clear_maps(settings: Sequence[MapSettings], clock: Clock, emit: EventSink) -> None:
    """Let nobody relay by these maps any more. Never raises."""
    for each in settings:
        try:
            with _opened(each) as file:
                try:
                    file.write(())
                except MapError:
                    file.remove()
                    raise
        except MapError as fault:
            emit(Event("map.fault", clock.now(), {"map": each.path, "detail": str(fault)}))
        else:
            emit(Event("map.clear", clock.now(), {"map": each.path}))
        if each.command:
            run_now(each.command, _command_teller(each, clock, emit))


def _command_teller(settings: MapSettings, clock: Clock, emit: EventSink) -> Callable[[str], None]:
    def tell(detail: str) -> None:
        emit(Event("map.command.failed", clock.now(), {"map": settings.path, "detail": detail}))

    return tell


def maps_that_hold(config: Config, address: ClientAddress) -> list[tuple[MapSettings, bool | str]]:
    """Every map with whether it holds `address`, or why that cannot be said."""
    found: list[tuple[MapSettings, bool | str]] = []
    for settings in config.map:
        try:
            with _opened(settings) as file:
                found.append((settings, file.holds(address)))
        except MapError as fault:
            found.append((settings, str(fault)))
    return found


@contextmanager
def _opened(settings: MapSettings) -> Iterator[MapFile]:
    file = open_map(settings)
    try:
        yield file
    finally:
        file.close()
