"""Memory that the parent maps before it forks, so that all processes of one server share it."""

import mmap
import time
from collections.abc import Callable

STEP_SECONDS = 0.5


class SharedMemory:
    """Anonymous shared maps, each given out as a memoryview."""

    def __init__(self) -> None:
        self._maps: list[mmap.mmap] = []

    def allocate(self, octets: int) -> memoryview:
        """A zeroed buffer of at least so many octets."""
        area = mmap.mmap(-1, max(octets, mmap.PAGESIZE))
        self._maps.append(area)
        return memoryview(area)[:octets]


class SharedClock:
    """Unix time that runs with the monotonic clock, the same in all processes of the server.

    A step of the system clock therefore changes nothing at once: no grant becomes longer or
    shorter. `adopt_step` lets one process move the stored grants first and the clock after.
    """

    def __init__(self, buffer: memoryview) -> None:
        """`buffer`: 8 shared octets."""
        self._offset = buffer.cast("d")
        self._offset[0] = time.time() - time.monotonic()

    def now(self) -> float:
        return time.monotonic() + self._offset[0]

    def monotonic(self) -> float:
        return time.monotonic()

    def adopt_step(self, redate: Callable[[float], None]) -> float:
        """Follow the system clock. Returns the seconds it was stepped by, 0.0 if it was not.

        `redate(delta_seconds)` moves what was recorded by the old clock.
        """
        delta = time.time() - self.now()
        if abs(delta) < STEP_SECONDS:
            self._offset[0] += delta / 10  # follow slow drift without a visible step
            return 0.0
        redate(delta)
        self._offset[0] += delta
        return delta
