"""Which maildrops open fast enough to be opened without a thread.

Opening a small Maildir costs 70 us and handing it to a thread as much again, at every poll of
every device. But the first look at a large one, or at one that has left the page cache, can take
the disk a second, and then everybody else would wait. So the last time decides.
"""

from popgate.values.clock import Clock
from popgate.values.identity import Identity

QUICK_SECONDS = 0.004
WARM_SECONDS = 900.0
"""After so long without a login, what the last one saw may have left the page cache."""

MAX_IDENTITIES = 100_000


class OpeningTimes:
    """What the openings of this process took. Bounded: a full table begins anew."""

    __slots__ = ("_quick_at",)

    def __init__(self) -> None:
        self._quick_at: dict[Identity, float] = {}

    def is_quick(self, identity: Identity, clock: Clock) -> bool:
        """Whether the maildrop is likely to open in a fraction of a millisecond."""
        at = self._quick_at.get(identity)
        return at is not None and clock.monotonic() - at < WARM_SECONDS

    def took(self, identity: Identity, seconds: float, clock: Clock) -> None:
        """An opening took so long, and has just ended."""
        if seconds > QUICK_SECONDS:
            self._quick_at.pop(identity, None)
            return
        if len(self._quick_at) >= MAX_IDENTITIES and identity not in self._quick_at:
            self._quick_at.clear()
        self._quick_at[identity] = clock.monotonic()
