"""Reads what is appended to a log file, through every way in which logs are rotated.

Theory of operation. One descriptor is open on the log. What is read ends at a line end, and the
place that was reached is always the beginning of a line: half a line is read again until
it is whole, and half a line that stays so is never handed on, since a cut address is another address.
After each reading to the end the name is looked at. Is it another file, then the log was renamed: its
writer may write into the old one until it is told to open its log anew, so the old one is
followed too until it is still for a while. Does the file no longer hold before our place what we
read there, then it was truncated or written anew, and is read from its beginning. What was
written while nobody looked (a restart, a disk that stood still) is found again in the rotated
files by a `Mark`. A file of which nobody knows how far it was read is begun at its end.

All calls block, so they are made in a thread; nothing here knows time but by a parameter. No method
raises: what goes wrong is a `Note`, and the next look tries again.
"""

import os
from collections import deque
from collections.abc import Iterator, Sequence
from typing import Literal

from popgate.integrations.logs.follow_mark import HEAD_OCTETS, TAIL_OCTETS, Mark
from popgate.integrations.logs.follow_rotated import newer_than, rest_of
from popgate.integrations.logs.follow_trust import NotTrusted, Writers, open_trusted
from popgate.values.value import value

BLOCK_OCTETS = 1 << 18
LONGEST_LINE = 1 << 14
STILL_SECONDS = 60.0
"""How long a file that was rotated away must not grow until nobody is thought to write it."""
OLD_AT_MOST = 4
RECHECK_SECONDS = 10.0
CAUGHT_UP_OCTETS = 1 << 28
"""Of a log that was never read and is to be read from its beginning, so much at its end."""

NoteKind = Literal[
    "rotated",
    "truncated",
    "lost",
    "found",
    "missing",
    "untrusted",
    "unreadable",
    "journal",
    "forgetful",
    "defect",
]


@value
class Note:
    """Something about the file that is worth telling. lost: lines were written that nobody has read."""

    kind: NoteKind
    detail: str


@value
class Look:
    """`lines`: whole lines with their line ends, or nothing. All were written after `since` (Unix time),
    None where nobody knows. `is_more`: look again at once."""

    lines: bytes
    since: float | None
    is_more: bool
    notes: tuple[Note, ...]


class FollowedFile:
    """The log at `path`, from `marks` on (the file's own is the last, before it those of files that were
    rotated away), or from its end (`start`: or its beginning) where there are none."""

    def __init__(
        self,
        path: str,
        writers: Writers,
        *,
        marks: Sequence[Mark] = (),
        start: Literal["end", "beginning"] = "end",
    ) -> None:
        self._path = path
        self._writers = writers
        self._marks = tuple(marks)
        self._start: Literal["end", "beginning"] = start
        self._backlog: deque[_Lines] = deque()
        self._old: list[_Open] = []
        self._current: _Open | None = None
        self._notes: list[Note] = []
        self._fault = ""
        self._looked_at: float | None = None
        self._was_untrusted = False
        self._checked_at = float("-inf")
        self.is_complete = True
        """False once lines may have been missed, so that ends of sessions may have been too."""

    @property
    def marks(self) -> tuple[Mark, ...]:
        """From where another process would have to go on; empty before anything was read."""
        if self._backlog or self._current is None:
            return self._marks
        return tuple(file.mark() for file in [*self._old, self._current])

    def look(self, now: float, monotonic: float) -> Look:
        """The next lines. `now` is Unix time, `monotonic` is for durations."""
        lines, since, is_more = b"", None, False
        try:
            lines, since, is_more = self._look(now, monotonic)
        except NotTrusted as fault:
            self._leave()
            self._set_fault("untrusted", str(fault))
        except OSError as fault:
            self._marks = self.marks
            self._close_all()
            self._set_fault("unreadable", f"{fault.filename or self._path}: {fault.strerror or fault}")
        notes, self._notes = tuple(self._notes), []
        return Look(lines, since, is_more, notes)

    def close(self) -> None:
        """`marks` stay right."""
        self._marks = self.marks
        self._close_all()

    # One look

    def _look(self, now: float, monotonic: float) -> tuple[bytes, float | None, bool]:
        while self._backlog:
            block = next(self._backlog[0], None)
            if block is not None:
                return block, None, True
            self._backlog.popleft()
        for old in list(self._old):
            since = old.since
            block, is_end = self._read(old, now, monotonic)
            if block:
                return block, since, True
            if is_end and monotonic - old.grew_at > STILL_SECONDS:
                self._old.remove(old)
                old.close()
        if self._current is None:
            self._open(now, monotonic)
            if self._current is None or self._backlog:
                return b"", None, bool(self._backlog)
        current = self._current
        since = current.since
        block, is_end = self._read(current, now, monotonic)
        if self._backlog:  # it was truncated, and its copy holds what we had not read
            return b"", None, True
        is_replaced = is_end and self._look_at_name(now, monotonic)
        return block, since, is_replaced or not is_end

    def _read(self, file: "_Open", now: float, monotonic: float) -> tuple[bytes, bool]:
        """The next lines of a file, and whether they were its last for now."""
        state = os.fstat(file.descriptor)
        self._writers.check_file(state, self._path)
        file.modified_ns = state.st_mtime_ns
        if not file.is_as_read():
            self._truncated(file, now)
            return b"", False
        block, is_end = file.read(monotonic)
        if is_end:
            file.since = now
            self._looked_at = now
        return block, is_end

    def _truncated(self, file: "_Open", now: float) -> None:
        self._notes.append(Note("truncated", f"{self._path} was truncated; it is read from its beginning"))
        mark, marks = file.mark(), self.marks
        file.begin_anew()
        found = rest_of(self._path, mark, self._writers)
        if found is not None:
            self._marks = marks
            self._backlog.append(_Lines(found[0], is_within=mark.is_within))

    def _look_at_name(self, now: float, monotonic: float) -> bool:
        """Has another file taken the name? Then it is opened."""
        current = self._current
        assert current is not None
        try:
            state = os.stat(self._path)
        except FileNotFoundError:
            self._set_fault("missing", f"{self._path} is not there; what is still written to it is read")
            if os.fstat(current.descriptor).st_nlink == 0 and monotonic - current.grew_at > STILL_SECONDS:
                self._marks = (current.mark(),)
                self._current = None
                current.close()
            return False
        if (state.st_dev, state.st_ino) == (current.device, current.inode):
            if monotonic - self._checked_at >= RECHECK_SECONDS:
                self._checked_at = monotonic
                os.close(open_trusted(self._path, self._writers))
            self._set_fault("found", "")
            return False
        descriptor = open_trusted(self._path, self._writers)
        newer = _Open(descriptor, monotonic)
        if (newer.device, newer.inode) == (current.device, current.inode):
            newer.close()
            return False
        newer.since = self._looked_at
        known = {newer.inode, current.inode, *(old.inode for old in self._old)}
        last_ns = os.fstat(current.descriptor).st_mtime_ns
        between = newer_than(self._path, last_ns, known, self._writers)
        if between:
            self._marks = self.marks
            self._backlog.extend(_Lines(blocks) for blocks in between)
        self._old.append(current)
        while len(self._old) > OLD_AT_MOST:
            self._old.pop(0).close()
        self._current = newer
        self._set_fault("found", "")
        self._notes.append(Note("rotated", f"{self._path} is a new file"))
        return True

    # Opening

    def _open(self, now: float, monotonic: float) -> None:
        """Open the log where it is, at the place that was reached before; before that comes what is left
        of the files that it was."""
        try:
            descriptor = open_trusted(self._path, self._writers)
        except FileNotFoundError:
            self._set_fault("missing", f"{self._path} is not there")
            if not self._marks and not self._was_untrusted:
                self._start = "beginning"  # when it comes, all of it is new
            self._looked_at = now
            return
        file = _Open(descriptor, monotonic)
        self._checked_at = monotonic
        try:
            self._place(file)
        except BaseException:
            file.close()
            raise
        self._current = file
        self._was_untrusted = False
        self._set_fault("found", "")

    def _place(self, file: "_Open") -> None:
        file.since = self._looked_at
        if not self._marks:
            if file.since is not None and self._start == "beginning":
                return  # it was not there then
            size = os.fstat(file.descriptor).st_size
            if self._start == "end":
                file.begin_at(size)
            elif size > CAUGHT_UP_OCTETS:
                file.begin_at(size - CAUGHT_UP_OCTETS)
            return
        known, last_ns = {file.inode}, None
        for mark in self._marks:
            if mark.fits(file.read_at):
                file.begin_at(mark.offset, is_within=mark.is_within)
                return
            if mark.offset == 0:  # whatever was written later is new
                last_ns = mark.modified_ns
                continue
            found = rest_of(self._path, mark, self._writers)
            last_ns = None
            if found is not None:
                blocks, rotated = found
                self._backlog.append(_Lines(blocks, is_within=mark.is_within))
                known.add(rotated.state.st_ino)
                last_ns = rotated.state.st_mtime_ns
        if last_ns is None:
            self.is_complete = False
            self._notes.append(
                Note("lost", f"what was written to {self._path} before it was rotated is nowhere to be found")
            )
            return
        later = newer_than(self._path, last_ns, known, self._writers)
        self._backlog.extend(_Lines(blocks) for blocks in later)

    # Ends

    def _leave(self) -> None:
        """Somebody else can write the file: what stands there from here to where that has changed
        is nothing to go by."""
        self._close_all()
        self._marks = ()
        self._start = "end"
        self._looked_at = None
        self._was_untrusted = True
        self.is_complete = False

    def _close_all(self) -> None:
        for file in [*self._old, *([self._current] if self._current is not None else [])]:
            file.close()
        for lines in self._backlog:
            lines.close()
        self._old, self._current = [], None
        self._backlog.clear()

    def _set_fault(self, kind: NoteKind, text: str) -> None:
        """Tell once of what goes on."""
        if text != self._fault:
            if text or self._fault:
                self._notes.append(Note(kind, text or f"{self._path} can be read again"))
            self._fault = text


class _Open:
    """An open log file and the place in it. `since`: everything beyond was written after that time."""

    def __init__(self, descriptor: int, monotonic: float) -> None:
        self.descriptor = descriptor
        state = os.fstat(descriptor)
        self.device, self.inode, self.modified_ns = state.st_dev, state.st_ino, state.st_mtime_ns
        self.grew_at = monotonic
        self.since: float | None = None
        self.begin_anew()

    def begin_anew(self) -> None:
        self._offset = 0
        self._head = b""
        self._tail = b""
        self._is_within = False

    def begin_at(self, offset: int, *, is_within: bool | None = None) -> None:
        """`is_within` None: the line that goes on there is left out."""
        if is_within is None:
            begin = max(0, offset - LONGEST_LINE)
            before = self.read_at(begin, offset - begin)
            end = before.rfind(b"\n") + 1
            is_within = end == 0 and begin > 0
            offset = begin + (len(before) if is_within else end)
        self._is_within = is_within
        self._go_to(offset)

    def read_at(self, offset: int, octets: int) -> bytes:
        return os.pread(self.descriptor, octets, offset)

    def mark(self) -> Mark:
        return Mark.of(
            self.device,
            self.inode,
            self._offset,
            self._head,
            self._tail,
            is_within=self._is_within,
            modified_ns=self.modified_ns,
        )

    def is_as_read(self) -> bool:
        """Does the file still hold what was read last?"""
        tail = self._tail
        return self.read_at(self._offset - len(tail), len(tail)) == tail

    def read(self, monotonic: float) -> tuple[bytes, bool]:
        """The next whole lines, and whether there are no more now."""
        block = self.read_at(self._offset, BLOCK_OCTETS)
        is_end = len(block) < BLOCK_OCTETS
        if block.startswith(b"\0") and not self._is_within:
            return b"", not self._pass_hole(block)
        end = block.rfind(b"\n") + 1
        if end == 0:
            if len(block) <= LONGEST_LINE and not self._is_within:
                return b"", True  # half a line, or nothing
            self._is_within = True
            end = len(block)
            lines = b""
        else:
            lines = block[:end]
            if self._is_within:
                self._is_within = False
                lines = lines[lines.index(b"\n") + 1 :]
        if end:
            self._advance(block[:end], monotonic)
        if b"\0" in lines:  # of a file system that lost what was written last before the power failed
            lines = b"".join([line.lstrip(b"\0") for line in lines.splitlines(keepends=True)])
        return lines, is_end

    def _advance(self, block: bytes, monotonic: float) -> None:
        self._offset += len(block)
        self._head += block[: HEAD_OCTETS - len(self._head)]
        self._tail = (self._tail + block[-TAIL_OCTETS:])[-TAIL_OCTETS:]
        self.grew_at = monotonic

    def _go_to(self, offset: int) -> None:
        self._offset = offset
        self._head = self.read_at(0, min(offset, HEAD_OCTETS))
        begin = max(0, offset - TAIL_OCTETS)
        self._tail = self.read_at(begin, offset - begin)

    def _pass_hole(self, block: bytes) -> bool:
        """Where a log was truncated under a writer that goes on where it was, zeros stand before the first
        line, as many as the log had octets. True when there is something to read behind them."""
        zeros = len(block) - len(block.lstrip(b"\0"))
        offset = self._offset + zeros
        if zeros == len(block):
            try:
                offset = max(offset, os.lseek(self.descriptor, self._offset, os.SEEK_DATA))
            except OSError:
                return False  # there is nothing but zeros yet
            if len(block) < BLOCK_OCTETS:
                return False
        self._go_to(offset)
        return True

    def close(self) -> None:
        os.close(self.descriptor)


class _Lines:
    """The whole lines of a file that is read in blocks and will not grow. Half a line at its end is none."""

    def __init__(self, blocks: Iterator[bytes], *, is_within: bool = False) -> None:
        self._blocks = blocks
        self._is_within = is_within
        self._rest = b""

    def __next__(self) -> bytes:
        for block in self._blocks:
            lines, newline, self._rest = (self._rest + block).rpartition(b"\n")
            lines += newline
            if self._is_within and newline:
                self._is_within = False
                lines = lines[lines.index(b"\n") + 1 :]
            if len(self._rest) > LONGEST_LINE:
                self._rest, self._is_within = b"", True
            if lines:
                return lines
        raise StopIteration

    def __iter__(self) -> "_Lines":
        return self

    def close(self) -> None:
        close = getattr(self._blocks, "close", None)
        if close is not None:
            close()
