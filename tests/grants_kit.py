"""What tests of grants share: a clock to turn by hand and a sink that keeps events."""

import os
from collections.abc import Callable, Sequence
from pathlib import Path

from popgate.grants import rules
from popgate.grants.grant import DEFAULT_TERMS, Grant, Terms, Usage
from popgate.values.address import ClientAddress
from popgate.values.event import Event
from popgate.values.identity import Identity

NOW = 1_700_000_000.0
ALICE = Identity("alice", "example.org")
BOB = Identity("bob", "example.org")
NAME = "203.0.113.9"
ALICE_FILE = b"USER=alice\0DOMAIN=example.org\0"
"""What relay-ctrl-allow writes for her."""


class HandClock:
    """A clock that only the test turns."""

    def __init__(self, now: float = NOW) -> None:
        self.time = now
        self.steady = 0.0

    def now(self) -> float:
        return self.time

    def monotonic(self) -> float:
        return self.steady

    def pass_seconds(self, seconds: float) -> None:
        self.time += seconds
        self.steady += seconds


class Sink:
    """An event sink that keeps what it takes."""

    def __init__(self) -> None:
        self.events: list[Event] = []

    def __call__(self, event: Event) -> None:
        self.events.append(event)

    def names(self) -> list[str]:
        return [event.name for event in self.events]

    def told(self, name: str) -> list[Event]:
        return [event for event in self.events if event.name == name]


def address(text: str = "203.0.113.9") -> ClientAddress:
    return ClientAddress.parse(text)


def grant(
    where: str = "203.0.113.9",
    identity: Identity = ALICE,
    login_at: float = NOW,
    *,
    renewed_at: float | None = None,
    since: float | None = None,
    terms: Terms = DEFAULT_TERMS,
    used: Usage | None = None,
    protocol: str = "pop3",
) -> Grant:
    return Grant(
        address(where),
        identity,
        protocol,
        login_at if since is None else since,
        login_at,
        login_at if renewed_at is None else renewed_at,
        terms,
        used or Usage(),
    )


def put(allow: Path, content: bytes, name: str = NAME, modified: float = NOW) -> Path:
    """A file of that content and date in the directory of grants."""
    file = allow / name
    file.write_bytes(content)
    os.utime(file, (modified, modified))
    return file


def used(count: int) -> Callable[[Sequence[Grant]], Sequence[Grant]]:
    """The change of a store by which the first grant has relayed so many messages."""
    return lambda grants: [rules.with_used(grants[0], Usage(count)), *grants[1:]]
