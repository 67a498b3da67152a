"""How many sessions each user has open, over all workers: the limit beside those of addresses.

As in `popgate.servers.limits` the counters lie in one buffer that all workers share, each writes
its own row only, and the row of a dead worker is cleared. Users share slots by hash, so the
table has a fixed size; a collision can only count too much.
"""

from popgate.values.identity import Identity

SLOTS = 65536  # 2 octets each
_MOST = 65535


def buffer_size(workers: int) -> int:
    """Octets that the shared buffer needs for so many workers."""
    return 2 * SLOTS * workers


class UserSessionTable:
    """The counters as one worker sees them; a popgate.sessions.session.UserSessions."""

    __slots__ = ("_base", "_counts", "_most", "_rows")

    def __init__(self, buffer: memoryview, *, workers: int, worker: int, most: int) -> None:
        """`buffer`: at least `buffer_size(workers)` octets, zeroed; `worker` from 0; `most`
        sessions of one user at the same time."""
        self._counts = buffer.cast("B").cast("H") if buffer.format != "H" else buffer
        self._rows = range(0, workers * SLOTS, SLOTS)
        self._base = worker * SLOTS
        self._most = most
        self.clear_row(worker)

    def clear_row(self, worker: int) -> None:
        """Forget what a worker counted: it has ended."""
        base = worker * SLOTS
        self._counts[base : base + SLOTS] = memoryview(bytes(2 * SLOTS)).cast("H")

    def enter(self, identity: Identity) -> bool:
        slot = _slot(identity)
        own = self._counts[self._base + slot]
        if own == _MOST or sum([self._counts[row + slot] for row in self._rows]) >= self._most:
            return False
        self._counts[self._base + slot] = own + 1
        return True

    def leave(self, identity: Identity) -> None:
        index = self._base + _slot(identity)
        if self._counts[index]:
            self._counts[index] -= 1


def _slot(identity: Identity) -> int:
    # hash() of text is keyed at random when the parent process starts; its forks share the key
    return hash(identity) % SLOTS
