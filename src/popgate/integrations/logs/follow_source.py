"""A log file as a source of logins: lines from the file, logins from the lines, and how old they are.

A line's own time counts where it has one that can be true. A line without a time, or from the
future, was written after the last look at the file, so it counts from there; where nobody knows when
that was, it counts from the year 1970, and gives nothing.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Protocol

from popgate.integrations.logs.follow_file import FollowedFile, Note
from popgate.integrations.logs.follow_mark import Mark
from popgate.integrations.logs.follow_watch import FileWatch, Wakeup
from popgate.integrations.logs.recogniser import Recogniser
from popgate.integrations.logs.records import Seen
from popgate.values.value import value

AHEAD_SECONDS = 2.0
LONG_AGO = 1.0
"""As a time: 1970. Nothing that was then is still in force."""


@value
class Batch:
    """What one look gave. `is_more`: look again at once. `is_complete` False: ends of sessions may
    have been missed."""

    seen: tuple[Seen, ...]
    is_more: bool
    is_complete: bool
    notes: tuple[Note, ...]


class Source(Protocol):
    """Where logins are seen. Lives in one thread, may block there; no method raises."""

    def look(self, now: float, monotonic: float) -> Batch: ...

    def wait(self, wakeup: Wakeup) -> None:
        """Until there may be something to see, or `wakeup`."""
        ...

    def place(self) -> Mapping[str, object]:
        """For `State.place`: how far it was read."""
        ...

    def close(self) -> None: ...


class FileSource:
    """A followed file and who recognises its lines."""

    def __init__(self, path: str, file: FollowedFile, recogniser: Recogniser) -> None:
        self._file = file
        self._recogniser = recogniser
        self._watch = FileWatch(path)
        self._is_watched = False

    def look(self, now: float, monotonic: float) -> Batch:
        look = self._file.look(now, monotonic)
        if look.notes or not self._is_watched:
            self._is_watched = True
            self._watch.renew()
        seen: Sequence[Seen] = ()
        if look.lines:
            seen = self._recogniser.feed_block(look.lines, now)
        is_complete, self._file.is_complete = self._file.is_complete, True
        return Batch(
            tuple(dated(one, now, look.since) for one in seen), look.is_more, is_complete, look.notes
        )

    def wait(self, wakeup: Wakeup) -> None:
        self._watch.wait(wakeup)

    def place(self) -> Mapping[str, object]:
        return {"marks": [mark.to_json() for mark in self._file.marks]}

    def close(self) -> None:
        self._file.close()
        self._watch.close()


def marks_of(place: Mapping[str, object]) -> Sequence[Mark]:
    """The marks in a file's place; empty where one of them is none."""
    documents = place.get("marks")
    marks = [Mark.from_json(one) for one in documents] if isinstance(documents, list) else []
    known = [mark for mark in marks if mark is not None]
    return known if len(known) == len(marks) else ()


def dated(seen: Seen, now: float, since: float | None) -> Seen:
    """`seen` at a time at which it can have been. The recogniser gives `now` to a line without a time."""
    if seen.at == now or seen.at > now + AHEAD_SECONDS:
        return replace(seen, at=LONG_AGO if since is None else since)
    return seen


MakeSource = Callable[[Mapping[str, object] | None], Source]
"""Makes a source that goes on at a remembered place; called in the source's thread."""
