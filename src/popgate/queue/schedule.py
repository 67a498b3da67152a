"""When delivery is tried again, and when it is given up. Pure: time and chance are given.

A message waits `first_retry_seconds`, then twice as long each time up to
`max_retry_seconds`, all with a jitter of a fifth so that a burst does not come back as
one. The last attempt is made when the lifetime ends; it is over after that one.
A destination that cannot be reached at all rests too, and its messages with it,
without an attempt being counted for each.
"""

from collections.abc import Callable

from popgate.queue.settings import DeliverySettings

JITTER = 0.2
FIRST_REST_SECONDS = 30.0
LONGEST_REST_SECONDS = 1800.0


class Schedule:
    """`chance()` gives a number from 0 to below 1."""

    def __init__(self, settings: DeliverySettings, chance: Callable[[], float]) -> None:
        self._first = float(settings.first_retry_seconds)
        self._longest = float(max(settings.first_retry_seconds, settings.max_retry_seconds))
        self._lifetime = float(settings.lifetime_seconds)
        self._chance = chance

    def next_attempt_at(self, attempts: int, created_at: float, now: float) -> float | None:
        """When to try again after the `attempts`th attempt (from 1) failed at `now`;
        None when the message has had its time."""
        if self.is_over(created_at, now):
            return None
        wait = self._jitter(_doubled(self._first, attempts - 1, self._longest))
        return now + min(wait, self.ends_at(created_at, now) - now)

    def is_over(self, created_at: float, now: float) -> bool:
        return now >= self.ends_at(created_at, now)

    def ends_at(self, created_at: float, now: float) -> float:
        """When the message will have had its time."""
        # A message of tomorrow (the clock was set back) lives its time from now, not longer.
        return min(created_at, now) + self._lifetime

    def rest_seconds(self, failures: int) -> float:
        """How long a destination rests after it could not be reached `failures` times on end (from 1)."""
        first = min(FIRST_REST_SECONDS, self._first)
        return self._jitter(_doubled(first, failures - 1, min(LONGEST_REST_SECONDS, self._longest)))

    def _jitter(self, seconds: float) -> float:
        return seconds * (1 - JITTER + 2 * JITTER * self._chance())


def _doubled(first: float, times: int, most: float) -> float:
    return min(first * 2.0 ** min(max(times, 0), 64), most)
