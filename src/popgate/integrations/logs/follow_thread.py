"""The thread of one source: looks, hands over what it saw, remembers how far it came, waits.

A thread, because a file on a disk that stands still stops whoever reads it, and that must not be
the loop of the mail sessions. It is a daemon: nothing can end it while it hangs in the kernel, and
the process need not wait for it.

Order: what was seen is turned into grants before its place is written down. So a crash repeats
lines and never leaves one out; a repeated line grants nothing that it has not granted.
"""

import threading
from collections.abc import Callable, Sequence

from popgate.integrations.logs.follow_file import Note
from popgate.integrations.logs.follow_source import Batch, MakeSource, Source
from popgate.integrations.logs.follow_state import State, StateFile
from popgate.integrations.logs.follow_watch import Wakeup
from popgate.integrations.open_sessions import OpenSession
from popgate.values.clock import Clock

SAVE_SECONDS = 1.0
SESSIONS_SAVED_A_SECOND = 5000
"""Writing down many sessions takes its time, so it is done the less often the more there are."""
_REFRESH_SECONDS = 3600.0
"""A state of yesterday is not believed, so that of a quiet log is written anew."""
_FAULT_SECONDS = 60.0
_DEFECT_SECONDS = 5.0

Deliver = Callable[[Batch], Sequence[OpenSession]]
"""Called in the thread; returns when all was turned into grants, with the sessions that are open then."""
Restore = Callable[[Sequence[OpenSession]], None]
"""Called in the thread with the sessions that were open when the state was saved."""


class FollowThread:
    """Follows one source from `start` to `stop`. `ended` is called in the thread at its end."""

    def __init__(
        self,
        name: str,
        make: MakeSource,
        state_file: StateFile | None,
        *,
        clock: Clock,
        restore: Restore,
        deliver: Deliver,
        ended: Callable[[], None],
    ) -> None:
        self._name = name
        self._make = make
        self._state_file = state_file
        self._clock = clock
        self._restore = restore
        self._deliver = deliver
        self._ended = ended
        self._wakeup = Wakeup()
        self._stopping = threading.Event()
        self._is_abandoned = False
        self._saved: object = None
        self._saved_at = self._written_at = float("-inf")
        self._fault_at = float("-inf")
        self._sessions: Sequence[OpenSession] = ()
        self.caught_up_at = float("-inf")
        """Monotonic time of the last look that found nothing more. Any thread may read it."""
        self._thread = threading.Thread(target=self._run, name=f"follow {name}"[:60], daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Ask it to end soon; from any thread."""
        self._stopping.set()
        self._wakeup.wake()

    def abandon(self) -> None:
        """It has not ended: whatever it still does, it must no longer write its state."""
        self._is_abandoned = True

    @property
    def is_stopping(self) -> bool:
        return self._stopping.is_set()

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                self._follow()
            except Exception as defect:  # never may one line end the following
                self._tell(Note("defect", f"{type(defect).__name__}: {defect}"))
                self._stopping.wait(_DEFECT_SECONDS)
        self._ended()
        self._wakeup.close()

    def _follow(self) -> None:
        now = self._clock.now()
        state = self._state_file.read(now) if self._state_file is not None else None
        source = self._make(None if state is None else state.place)
        try:
            if state is not None:
                self._restore(state.sessions)
            while not self._stopping.is_set():
                self._turn(source)
            self._save(source)
        finally:
            source.close()

    def _turn(self, source: Source) -> None:
        batch = source.look(self._clock.now(), self._clock.monotonic())
        if batch.seen or batch.notes:
            self._sessions = self._deliver(batch)
        if not batch.is_more:
            self.caught_up_at = self._clock.monotonic()
        pause_seconds = max(SAVE_SECONDS, len(self._sessions) / SESSIONS_SAVED_A_SECOND)
        if self._clock.monotonic() - self._saved_at >= pause_seconds:
            self._save(source)
        if not batch.is_more and not self._stopping.is_set():
            source.wait(self._wakeup)

    def _save(self, source: Source) -> None:
        self._saved_at = self._clock.monotonic()
        place, sessions = source.place(), tuple(self._sessions)
        if self._state_file is None or self._is_abandoned:
            return
        if (place, sessions) == self._saved and self._saved_at - self._written_at < _REFRESH_SECONDS:
            return
        try:
            self._state_file.write(State(place, sessions), self._clock.now())
            self._saved, self._written_at = (place, sessions), self._saved_at
        except OSError as fault:
            if self._saved_at - self._fault_at >= _FAULT_SECONDS:
                self._fault_at = self._saved_at
                self._tell(Note("forgetful", f"the place cannot be remembered: {fault}"))

    def _tell(self, note: Note) -> None:
        self._deliver(Batch((), False, True, (note,)))
