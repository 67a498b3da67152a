"""A clock that stands still until a test moves it."""


class ManualClock:
    """Obeys popgate.values.clock.Clock.

    `advance` lets time pass; `step` sets the wall clock, as an administrator or NTP does,
    while the monotonic time stays where it is.
    """

    def __init__(self, now: float = 1_800_000_000.0, monotonic: float = 1000.0) -> None:
        self._now = now
        self._monotonic = monotonic

    def now(self) -> float:
        return self._now

    def monotonic(self) -> float:
        return self._monotonic

    def advance(self, seconds: float) -> None:
        if seconds < 0:
            raise ValueError("time passes forwards; use step for a wall clock that jumps")
        self._now += seconds
        self._monotonic += seconds

    def step(self, seconds: float) -> None:
        self._now += seconds
