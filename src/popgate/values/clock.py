"""The clock as a parameter. The real ones are made in popgate.app."""

from typing import Protocol


class Clock(Protocol):
    """Time for one server.

    `now()` is Unix time in seconds; in a running server it does not follow steps of the
    system clock. `monotonic()` only ever grows and is for durations.
    """

    def now(self) -> float: ...

    def monotonic(self) -> float: ...
