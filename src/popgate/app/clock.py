"""The real clock: Unix time that runs evenly, whatever is done to the system clock.

Grants, retries and caches must not be lengthened or shortened when somebody sets the
time. So `now()` is the system's time at the start plus what has passed since, and a step
is taken over only by `adopt`, once whoever keeps recorded times has moved them too.
"""

import mmap
import time

# Time that also passes while the machine sleeps; elsewhere than on Linux there is none.
_EVEN_CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


class SystemClock:
    """A values.clock.Clock. Made before the workers are forked, it is one clock for all of
    them: they share the memory that holds the difference to the system's even clock."""

    def __init__(self) -> None:
        self._difference = memoryview(mmap.mmap(-1, 8)).cast("d")
        self._difference[0] = _system_difference()

    def now(self) -> float:
        return time.clock_gettime(_EVEN_CLOCK) + self._difference[0]

    monotonic = staticmethod(time.monotonic)

    def step_seconds(self) -> float:
        """How far the system clock has been set forward (back: negative) since this clock
        last agreed with it. Slow corrections move both clocks and do not count."""
        return _system_difference() - self._difference[0]

    def adopt(self) -> float:
        """Follow the system clock from now on, in every process; returns the step in seconds."""
        step = self.step_seconds()
        self._difference[0] += step
        return step


def _system_difference() -> float:
    return time.time() - time.clock_gettime(_EVEN_CLOCK)
