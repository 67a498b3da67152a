"""Grants in this process's memory: the reference for all stores, and what tests use.

One worker only; everything is lost at a restart, which costs each device one login.
"""

import threading
from collections.abc import Callable, Iterator, Sequence

from popgate.grants import rules
from popgate.grants.grant import Grant
from popgate.grants.store import Change
from popgate.values.address import ClientAddress


class MemoryStore:
    """A dict of addresses behind a lock."""

    def __init__(self) -> None:
        self._grants: dict[ClientAddress, tuple[Grant, ...]] = {}
        self._lock = threading.Lock()

    def find(self, address: ClientAddress) -> Sequence[Grant]:
        return self._grants.get(address, ())

    def change(self, address: ClientAddress, change: Change) -> Sequence[Grant]:
        with self._lock:
            return self._put(address, change(self._grants.get(address, ())))

    def addresses(self) -> Iterator[ClientAddress]:
        with self._lock:
            return iter(list(self._grants))

    def sweep(self, now: float, is_dead: Callable[[Grant], bool]) -> Sequence[Grant]:
        removed: list[Grant] = []
        for address in self.addresses():
            with self._lock:
                grants = self._grants.get(address, ())
                dead = [grant for grant in grants if is_dead(grant)]
                if dead:
                    self._put(address, [grant for grant in grants if grant not in dead])
                    removed += dead
        return removed

    def redate(self, delta_seconds: float) -> None:
        with self._lock:
            for address, grants in self._grants.items():
                self._grants[address] = tuple(rules.redated(grant, delta_seconds) for grant in grants)

    def close(self) -> None:
        pass

    def _put(self, address: ClientAddress, grants: Sequence[Grant]) -> Sequence[Grant]:
        kept = tuple(rules.in_order(grants))
        if kept:
            self._grants[address] = kept
        else:
            self._grants.pop(address, None)
        return kept
