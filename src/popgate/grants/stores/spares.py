"""Files that changed grant files were exchanged for, kept for a while to be written again.

ext4 gives no inode out again for a minute after its file was removed, and whoever creates a
file first looks at all of those: at a thousand changes a second a new file took 1 ms instead
of 0.03. So a change writes its content into a file that an earlier change has replaced, and
nothing is created or removed (docs/decisions/0003).

A reader may have such a file still open. Ours look at the name again after they read, so they
are never given another address's grant. relay-ctrl's programs do not; for them a file rests for
a second between its two uses, and they read it in the microseconds after they opened it.

A spare has a temporary file's name, so whoever tidies the directory may remove it at any time.
"""

import os
from collections import deque
from typing import Final

REST_SECONDS: Final = 1.0
MOST: Final = 2048


class Spares:
    """The spares of one process; a fork begins with none, for two may not write the same file."""

    def __init__(self) -> None:
        self._resting: deque[tuple[float, str, os.stat_result]] = deque()
        self._owner = 0

    def take(self, now: float) -> tuple[str, os.stat_result] | None:
        """Name and state of a file that has rested long enough; None: create one."""
        resting = self._resting
        if not resting or self._owner != os.getpid() or now - resting[0][0] < REST_SECONDS:
            return None
        _, name, state = resting.popleft()
        return name, state

    def keep(self, name: str, state: os.stat_result, now: float) -> bool:
        """Take over the file `name`; False when there are enough of them. `now` never goes back."""
        pid = os.getpid()
        if self._owner != pid:
            self._resting.clear()
            self._owner = pid
        if len(self._resting) >= MOST:
            return False
        self._resting.append((now, name, state))
        return True

    def give_up(self) -> list[str]:
        """The names of all that were kept by this process; nothing is kept any more."""
        names = [name for _, name, _ in self._resting] if self._owner == os.getpid() else []
        self._resting.clear()
        return names
