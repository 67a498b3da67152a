"""How many connections may be open: for each listener, address and subnet, over all workers.

The counters lie in one buffer that all workers share. Each worker writes its own row only
and sums over all rows to decide, so there is no lock, and a dead worker's row is simply
cleared. Addresses share slots by hash: the table has a fixed size whoever knocks, and a
collision can only count too much.
"""

from popgate.values.address import ClientAddress
from popgate.values.value import value

SLOTS = 16384  # for addresses, and as many for subnets; 2 bytes each
LISTENERS = 64
_ROW = 2 * SLOTS + LISTENERS
_MOST = 65535
# A customer commonly has a whole IPv6 /48; it may have so many times what one of its /64 may.
_SITE_TIMES = 4


def buffer_size(workers: int) -> int:
    """Octets that the shared buffer needs for so many workers."""
    return 2 * _ROW * workers


@value
class ConnectionLimits:
    """Greatest numbers of simultaneous connections."""

    listener: int
    address: int
    subnet: int


class ConnectionTable:
    """The counters as one worker sees them."""

    __slots__ = ("_base", "_counts", "_rows")

    def __init__(self, buffer: memoryview, *, workers: int, worker: int) -> None:
        """`buffer`: at least `buffer_size(workers)` octets, zeroed; `worker` from 0."""
        self._counts = buffer.cast("B").cast("H") if buffer.format != "H" else buffer
        self._rows = range(0, workers * _ROW, _ROW)
        self._base = worker * _ROW
        self.clear_row(worker)

    def clear_row(self, worker: int) -> None:
        """Forget what a worker counted: it has ended."""
        base = worker * _ROW
        self._counts[base : base + _ROW] = memoryview(bytes(2 * _ROW)).cast("H")

    def admit(self, address: ClientAddress, listener: int, limits: ConnectionLimits) -> str | None:
        """Count one connection, or say which limit refuses it: `listener`, `address`, `subnet`.

        `listener` is its number from 0. A connection admitted must be released once. An IPv6
        address counts in its /64 and in its /48; both refuse as `subnet`.
        """
        counts, rows = self._counts, self._rows
        address_slot, subnet_slot, site_slot = _slots(address)
        listener_slot = 2 * SLOTS + listener % LISTENERS
        in_listener = in_address = in_subnet = in_site = 0
        for row in rows:
            in_listener += counts[row + listener_slot]
            in_address += counts[row + address_slot]
            in_subnet += counts[row + subnet_slot]
            if site_slot is not None:
                in_site += counts[row + site_slot]
        if in_listener >= limits.listener:
            return "listener"
        if in_address >= limits.address:
            return "address"
        if in_subnet >= limits.subnet or in_site >= _SITE_TIMES * limits.subnet:
            return "subnet"
        base = self._base
        if counts[base + listener_slot] == _MOST:
            return "listener"
        counts[base + listener_slot] += 1
        counts[base + address_slot] += 1
        counts[base + subnet_slot] += 1
        if site_slot is not None:
            counts[base + site_slot] += 1
        return None

    def admit_to_listener(self, listener: int, most: int) -> str | None:
        """As `admit`, whatever the address; release it by `release_from_listener`."""
        counts, slot = self._counts, 2 * SLOTS + listener % LISTENERS
        if sum(counts[row + slot] for row in self._rows) >= most or counts[self._base + slot] == _MOST:
            return "listener"
        counts[self._base + slot] += 1
        return None

    def release_from_listener(self, listener: int) -> None:
        slot = self._base + 2 * SLOTS + listener % LISTENERS
        if self._counts[slot]:
            self._counts[slot] -= 1

    def release(self, address: ClientAddress, listener: int) -> None:
        counts, base = self._counts, self._base
        address_slot, subnet_slot, site_slot = _slots(address)
        for slot in (address_slot, subnet_slot, site_slot, 2 * SLOTS + listener % LISTENERS):
            if slot is not None and counts[base + slot]:
                counts[base + slot] -= 1


class ListenerTable:
    """The same, but counting by listener alone: where mail servers ask, one address has all connections,
    and these must not use up what the clients of that address may have elsewhere."""

    __slots__ = ("_table",)

    def __init__(self, table: ConnectionTable) -> None:
        self._table = table

    def admit(self, address: ClientAddress, listener: int, limits: ConnectionLimits) -> str | None:
        return self._table.admit_to_listener(listener, limits.listener)

    def release(self, address: ClientAddress, listener: int) -> None:
        self._table.release_from_listener(listener)


def _slots(address: ClientAddress) -> tuple[int, int, int | None]:
    """Of the address, of its /24 or /64, and of its /48 (IPv6 alone)."""
    packed = address.packed
    # hash() of bytes is keyed at random when the parent process starts; its forks share the key
    if len(packed) == 4:
        return hash(packed) % SLOTS, SLOTS + hash(packed[:3]) % SLOTS, None
    return hash(packed) % SLOTS, SLOTS + hash(packed[:8]) % SLOTS, SLOTS + hash(packed[:6]) % SLOTS
