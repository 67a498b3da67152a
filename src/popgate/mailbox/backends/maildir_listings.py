"""What was found in Maildirs, kept for as long as their directories do not change.

A device polls every minute and finds what it found before. Reading two directories and the
state of every file in them is most of what an opening costs, and all of it where there are
thousands. A message comes and goes by a name in `new` or `cur`, and that moves the
directory's time; so a listing holds while the times of both are what they were. Whoever sets
them back, as some copying programs do, cannot set back the time of that.

A directory may change twice in one tick of the kernel's clock. So nothing is kept of one
that changed in the last seconds before it was read. What a listing says of a file is looked at
again when the file is opened, as ever.
"""

from collections import OrderedDict
from typing import Final, Generic, TypeVar

from popgate.files.disk import DirectoryStamp
from popgate.mailbox.backends.maildir_folder import Folder
from popgate.values.identity import Identity

SETTLED_SECONDS: Final = 2
MAX_MESSAGES: Final = 50_000

Stamp = tuple[DirectoryStamp, DirectoryStamp]
_T = TypeVar("_T")


class Listings(Generic[_T]):
    """The listings of one process, at most MAX_MESSAGES messages in all, the last used ones."""

    def __init__(self) -> None:
        self._kept: OrderedDict[Identity, tuple[Stamp, int, _T]] = OrderedDict()
        self._messages = 0

    def get(self, identity: Identity, stamp: Stamp) -> _T | None:
        """What was kept with that very `stamp`."""
        kept = self._kept.get(identity)
        if kept is None or kept[0] != stamp:
            return None
        self._kept.move_to_end(identity)
        return kept[2]

    def keep(self, identity: Identity, stamp: Stamp, messages: int, listing: _T, now: float) -> None:
        """Keep what was read after `stamp` was taken."""
        (_, new_at, _), (_, cur_at, _) = stamp
        settled_at = (now - SETTLED_SECONDS) * 1e9
        if not new_at < settled_at > cur_at or messages > MAX_MESSAGES:
            return
        before = self._kept.pop(identity, None)
        if before is not None:
            self._messages -= before[1]
        self._kept[identity] = stamp, messages, listing
        self._messages += messages
        while self._messages > MAX_MESSAGES or len(self._kept) > MAX_MESSAGES:
            _, (_, count, _) = self._kept.popitem(last=False)
            self._messages -= count


def stamp_of(folder: Folder) -> Stamp:
    """What a change of the Maildir changes. Raises OSError."""
    return folder.stamp("new"), folder.stamp("cur")
