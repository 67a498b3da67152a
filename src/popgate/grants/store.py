"""The interface that every grant store obeys; tests/contract holds its suite."""

from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

from popgate.grants.grant import Grant
from popgate.values.address import ClientAddress

Change = Callable[[Sequence[Grant]], Sequence[Grant]]
"""Takes all grants of an address and returns what they shall be. Pure; may be called again."""


class StoreError(Exception):
    """The store cannot be read or written now. Whoever asked must refuse with 4xx."""


class GrantStore(Protocol):
    """Grants by address. All calls are synchronous and short (tens of microseconds).

    A record that cannot be understood does not exist. The store knows nothing of windows
    and quotas: the rules decide what is alive.
    """

    def find(self, address: ClientAddress) -> Sequence[Grant]:
        """All recorded grants of `address`, lapsed ones too, the last login first.

        Raises StoreError where the store itself is at fault.
        """
        ...

    def change(self, address: ClientAddress, change: Change) -> Sequence[Grant]:
        """Replace the grants of `address` by `change(grants)`, atomically against every
        other process, and return what is stored now. An empty result removes the address.
        When it returns, every process sees the result. Raises StoreError.
        """
        ...

    def addresses(self) -> Iterator[ClientAddress]:
        """Every address that has a record, in no order; addresses that come or go
        meanwhile may or may not be seen. Raises StoreError."""
        ...

    def sweep(self, now: float, is_dead: Callable[[Grant], bool]) -> Sequence[Grant]:
        """Remove dead grants and litter (stale temporary files, what is no grant);
        return the removed grants. `now` in Unix seconds. Raises StoreError."""
        ...

    def redate(self, delta_seconds: float) -> None:
        """The system clock was stepped by `delta_seconds`: move all recorded times by it."""
        ...

    def close(self) -> None: ...
