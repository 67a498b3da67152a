"""Followed logs: what the configuration says, joined with grants and accounts; and a follower on its own."""

import asyncio
import os
import signal
from collections.abc import Callable
from contextlib import closing

from popgate.app import backends
from popgate.app.clock import SystemClock
from popgate.app.logs import LogWriter
from popgate.app.loop import run_loop
from popgate.app.own_addresses import own_addresses
from popgate.app.ucspi import account_terms
from popgate.auth.account import Account
from popgate.config import Config
from popgate.grants.grant import DEFAULT_TERMS, Terms
from popgate.grants.service import Grants
from popgate.grants.settings import GrantSettings
from popgate.grants.store import GrantStore
from popgate.grants.stores.directory import DirectoryStore
from popgate.integrations.logs.follow_open import follow_spec
from popgate.integrations.logs.follow_service import FollowSpec, LogFollowers
from popgate.integrations.logs.settings import FollowSettings
from popgate.values.clock import Clock
from popgate.values.event import Event, EventSink
from popgate.values.identity import Identity

_LONGEST_SECONDS = 2592000


def follow_specs(config: Config, clock: Clock) -> list[FollowSpec]:
    """Of every [[follow]]. Raises FollowError."""
    domain = config.local_domains[0] if config.local_domains else ""
    return [follow_spec(settings, domain, clock) for settings in config.follow]


def open_followers(
    config: Config,
    *,
    grants: Grants,
    account: Callable[[str], Account],
    clock: Clock,
    emit: EventSink,
) -> LogFollowers | None:
    """Follow in this process what is to be followed; None where nothing is."""
    specs = follow_specs(config, clock)
    if not specs:
        return None
    return LogFollowers(
        specs,
        config.follow_directory,
        grants=grants,
        settings=config.grants,
        terms=lambda identity: account_terms(account, identity),
        clock=clock,
        emit=emit,
    )


def make_follow_directory(config: Config) -> None:
    """Where the places in the logs are remembered. Raises OSError."""
    if config.follow:
        os.makedirs(config.follow_directory, 0o700, exist_ok=True)


def follow_for_site(config: Config, follow: FollowSettings, state_directory: str | None) -> int:
    """Follow one log for the grants of a configuration, until a signal ends it; the exit status.
    Raises FollowError, StoreError, AccountStoreError."""
    with (
        closing(backends.account_database(config)) as accounts,
        closing(backends.grant_store(config)) as store,
        closing(backends.history(config)) as history,
    ):
        domain = config.local_domains[0] if config.local_domains else ""
        return _follow_alone(
            follow,
            domain,
            state_directory,
            store=store,
            settings=config.grants,
            terms=lambda identity: account_terms(accounts.get, identity),
            log=LogWriter(2, config.log.format),
            keep=history,
            flush=history.flush,
        )


def follow_for_directory(
    path: str, window_seconds: int, follow: FollowSettings, state_directory: str | None
) -> int:
    """Follow one log for a directory of grants, relay-ctrl's say, with no configuration.
    Raises FollowError, StoreError."""
    # as long as the window: relay-ctrl's programs know no other end
    settings = GrantSettings(
        window_seconds=window_seconds, max_age_seconds=_LONGEST_SECONDS, sender="any", never=[]
    )
    with closing(DirectoryStore(path, file_mode=0o644, counts_all_where_closed=True)) as store:
        return _follow_alone(
            follow,
            "",
            state_directory,
            store=store,
            settings=settings,
            terms=lambda identity: DEFAULT_TERMS,
            log=LogWriter(2, "logfmt"),
            keep=lambda event: None,
            flush=lambda: None,
        )


def _follow_alone(
    follow: FollowSettings,
    default_domain: str,
    state_directory: str | None,
    *,
    store: GrantStore,
    settings: GrantSettings,
    terms: Callable[[Identity], Terms],
    log: EventSink,
    keep: EventSink,
    flush: Callable[[], None],
) -> int:
    clock = SystemClock()

    def emit(event: Event) -> None:
        log(event)
        keep(event)

    spec = follow_spec(follow, default_domain, clock)
    grants = Grants(store, settings, clock, emit, own_addresses())

    async def run() -> int:
        loop = asyncio.get_running_loop()
        stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop.set)
        followers = LogFollowers(
            [spec], state_directory, grants=grants, settings=settings, terms=terms, clock=clock, emit=emit
        )
        while not stop.is_set():
            try:
                await asyncio.wait_for(stop.wait(), 1.0)
            except TimeoutError:
                followers.tick()
                clock.adopt()  # the grants are dated as other programs' are, by the system's clock
                flush()
        followers.close()
        while True:
            if not followers.connections:
                break
            await asyncio.sleep(0.01)
        flush()
        return 0

    return run_loop(run)
