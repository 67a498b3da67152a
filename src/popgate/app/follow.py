"""Followed logs: what the configuration says, joined with grants and accounts."""

import os
from collections.abc import Callable

from popgate.app.ucspi import account_terms
from popgate.auth.account import Account
from popgate.config import Config
from popgate.grants.service import Grants
from popgate.integrations.logs.follow_open import follow_spec
from popgate.integrations.logs.follow_service import FollowSpec, LogFollowers
from popgate.values.clock import Clock
from popgate.values.event import EventSink


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
