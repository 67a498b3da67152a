"""The services that commands work with, opened and closed."""

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from popgate.app.backends import AccountDatabase
    from popgate.config import Config
    from popgate.grants.service import Grants
    from popgate.values.event import Event


@contextlib.contextmanager
def account_database(config: "Config") -> "Iterator[AccountDatabase]":
    """The accounts of the site. Raises AccountStoreError."""
    from popgate.app import backends

    with contextlib.closing(backends.account_database(config)) as database:
        yield database


@contextlib.contextmanager
def grants_service(config: "Config", events: "list[Event] | None" = None) -> "Iterator[Grants]":
    """The grants of the site; what happens to them goes into the history, and to `events`.
    Raises StoreError."""
    from popgate.app import backends
    from popgate.app.clock import SystemClock
    from popgate.app.own_addresses import own_addresses

    with (
        contextlib.closing(backends.grant_store(config)) as store,
        contextlib.closing(backends.history(config)) as history,
    ):

        def emit(event: "Event") -> None:
            history(event)
            if events is not None:
                events.append(event)

        yield backends.grants(config, SystemClock(), emit, store=store, own_addresses=own_addresses())
