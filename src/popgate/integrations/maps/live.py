"""Which addresses may relay now, and when the next of them may not any more.

It knows no store: `until` says how long an address may relay by what is stored now (0: it may not). Where
that cannot be said, the address keeps what was known of it, until its time is over.
"""

import heapq
from collections.abc import Callable, Collection, Iterable

from popgate.values.address import ClientAddress


class CannotSay(Exception):
    """What is stored cannot be read now; the text says why."""


class LiveAddresses:
    """`until` may raise CannotSay; `fault` has its text, "" while all is well."""

    def __init__(self, until: Callable[[ClientAddress], float]) -> None:
        self._until = until
        self._ends: dict[ClientAddress, float] = {}
        self._due: list[tuple[float, bytes]] = []
        self._unsure: set[ClientAddress] = set()
        self.fault = ""
        self.version = 0
        """Another number once the addresses are others."""

    @property
    def addresses(self) -> Collection[ClientAddress]:
        return self._ends.keys()

    def look(self, addresses: Iterable[ClientAddress], now: float) -> None:
        """Look at these again, and at those that could not be looked at before."""
        wanted = {*addresses, *self._unsure}
        self._unsure.clear()
        self.fault = ""
        for address in wanted:
            self._look_at(address, now)

    def look_at_all(self, stored: Iterable[ClientAddress], now: float) -> None:
        """The same for all that are stored, and for all that were known."""
        self.look({*stored, *self._ends}, now)

    def lapse(self, now: float) -> None:
        """Look again at those whose time is over by `now`."""
        while self._due and self._due[0][0] < now:
            end, packed = heapq.heappop(self._due)
            address = ClientAddress(packed)
            if self._ends.get(address) == end:
                self._look_at(address, now)

    @property
    def next_end(self) -> float:
        """The earliest moment that may be the last for some address; infinite without one."""
        return self._due[0][0] if self._due else float("inf")

    def _look_at(self, address: ClientAddress, now: float) -> None:
        before = self._ends.get(address, 0.0)
        try:
            end = self._until(address)
        except CannotSay as fault:
            self.fault = str(fault)
            self._unsure.add(address)
            end = before
        if end < now or not end:
            self.version += self._ends.pop(address, None) is not None
        elif end != before:
            self.version += not before
            self._ends[address] = end
            heapq.heappush(self._due, (end, address.packed))
            if len(self._due) > 64 + 4 * len(self._ends):
                self._due = [(end, address.packed) for address, end in self._ends.items()]
                heapq.heapify(self._due)
