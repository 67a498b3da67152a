"""Open sessions, carried from a worker that ends to the one that takes its place.

At a reload the new worker is there before the old one ends, so it looks for what the old one leaves
for a while. After a restart it looks once more: what was left longer than FRESH_SECONDS ago says
nothing, because nobody heard of the ends in between.
"""

from typing import Final

from popgate.integrations.logs.follow_state import State, StateFile
from popgate.integrations.open_sessions import OpenSessions
from popgate.values.clock import Clock

FRESH_SECONDS: Final = 30.0
LOOK_SECONDS: Final = 60.0
"""How long a new worker looks: longer than the old one may take to hear that it shall end."""


class CarriedSessions:
    """Call `tick` once a second, and `leave` when the worker is told to end."""

    def __init__(self, sessions: OpenSessions, directory: str, clock: Clock) -> None:
        self._sessions = sessions
        self._file = StateFile(directory, "dovecot-sessions")
        self._clock = clock
        self._look_until = clock.monotonic() + LOOK_SECONDS
        self._take()

    def tick(self) -> None:
        if self._clock.monotonic() < self._look_until:
            self._take()

    def leave(self) -> None:
        """For who comes next. Nothing is lost but renewals where it cannot be written."""
        self._look_until = 0.0
        self._write(State({"left_at": self._clock.now()}, tuple(self._sessions.saved())))

    def _take(self) -> None:
        now = self._clock.now()
        state = self._file.read(now)
        left_at = None if state is None else state.place.get("left_at")
        if state is None or not isinstance(left_at, int | float) or not now - FRESH_SECONDS <= left_at <= now:
            return
        self._sessions.restore(state.sessions)
        self._look_until = 0.0
        self._write(State({}, ()))

    def _write(self, state: State) -> None:
        try:
            self._file.write(state, self._clock.now())
        except OSError:
            pass  # a full disk; the sessions that are open then are forgotten, as after a crash
