"""systemd's journal as a source of logins, read by a journalctl that follows it.

Any user can write any text into the journal, under any program's name. Who it was, journald itself
notes in fields that no program can set (`_SYSTEMD_UNIT`, `_UID`, `_COMM`), and the patterns believe
only these (`Pattern.may_come_from`). The time is journald's too.

The place is the cursor of the last entry that was read; before the first one it is a time. A
journalctl that ends is started again, later and later while it keeps ending.
"""

import json
import os
import select
import subprocess
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from typing import IO

from popgate.integrations.logs.follow_file import Note
from popgate.integrations.logs.follow_source import Batch, dated
from popgate.integrations.logs.follow_watch import POLL_SECONDS, Wakeup
from popgate.integrations.logs.recogniser import Recogniser
from popgate.integrations.logs.records import Seen
from popgate.integrations.logs.syntaxes import journal_record

FIRST_PAUSE_SECONDS = 1.0
LONGEST_PAUSE_SECONDS = 60.0
BLOCK_OCTETS = 1 << 16
LONGEST_ENTRY = 1 << 17
_ENTRIES_A_LOOK = 500
_CURSOR_AT_MOST = 1024
_FIELDS = (
    "MESSAGE,SYSLOG_IDENTIFIER,SYSLOG_PID,_PID,_UID,_COMM,_SYSTEMD_UNIT,_HOSTNAME,_SOURCE_REALTIME_TIMESTAMP"
)


class JournalSource:
    """The entries of the programs named `programs`, from `place` on, or since `since` (Unix time)."""

    def __init__(
        self,
        recogniser: Recogniser,
        programs: Sequence[str],
        *,
        place: Mapping[str, object] | None,
        since: float,
        command: Sequence[str] = ("journalctl",),
    ) -> None:
        self._recogniser = recogniser
        self._programs = tuple(programs)
        self._command = tuple(command)
        self._cursor, self._since = _place(place, since)
        self._child: _Child | None = None
        self._entries: deque[bytes] = deque()
        self._start_at = float("-inf")
        self._started_at = 0.0
        self._pause_seconds = FIRST_PAUSE_SECONDS
        self._fault = ""

    def look(self, now: float, monotonic: float) -> Batch:
        notes: list[Note] = []
        if self._child is None and not self._entries and monotonic >= self._start_at:
            self._start(monotonic, notes)
        if self._child is not None and not self._entries:
            self._entries.extend(self._child.read())
        seen: list[Seen] = []
        for _ in range(min(_ENTRIES_A_LOOK, len(self._entries))):
            seen += self._entry(self._entries.popleft(), now)
        child = self._child
        if child is not None:
            if child.is_at_end and not self._entries:
                self._end(monotonic, notes)
            elif child.complaint:
                self._tell(child.complaint, notes)
            elif self._fault and monotonic - self._started_at >= LONGEST_PAUSE_SECONDS:
                self._fault, self._pause_seconds = "", FIRST_PAUSE_SECONDS
                notes.append(Note("found", "the journal is followed again"))
        return Batch(tuple(seen), bool(self._entries), True, tuple(notes))

    def wait(self, wakeup: Wakeup) -> None:
        poll = select.poll()
        poll.register(wakeup.fileno(), select.POLLIN)
        if self._child is not None:
            for descriptor in self._child.descriptors:
                poll.register(descriptor, select.POLLIN)
        poll.poll(POLL_SECONDS * 1000)
        wakeup.drain()

    def place(self) -> Mapping[str, object]:
        return {"cursor": self._cursor, "since": self._since}

    def close(self) -> None:
        if self._child is not None:
            self._child.close()
            self._child = None

    def _entry(self, line: bytes, now: float) -> Iterator[Seen]:
        try:
            fields = json.loads(line)
        except (ValueError, RecursionError):
            return
        if not isinstance(fields, dict):
            return
        record = journal_record(fields)
        if record is not None and record.at is not None:
            self._since = min(record.at, now)
            yield from (dated(one, now, None) for one in self._recogniser.feed_record(record, now))
        cursor = fields.get("__CURSOR")
        if isinstance(cursor, str) and 0 < len(cursor) <= _CURSOR_AT_MOST:
            self._cursor = cursor

    def _start(self, monotonic: float, notes: list[Note]) -> None:
        self._started_at = monotonic
        where = f"--after-cursor={self._cursor}" if self._cursor else f"--since=@{int(self._since)}"
        names = [f"SYSLOG_IDENTIFIER={name}" for name in self._programs]
        commands = [f"_COMM={name}" for name in self._programs]
        arguments = [
            "--follow",
            "--no-tail",
            "--no-pager",
            "--output=json",
            f"--output-fields={_FIELDS}",
            where,
            *names,
            "+",
            *commands,
        ]
        try:
            self._child = _Child([*self._command, *arguments])
        except OSError as fault:
            self._tell(f"{self._command[0]} cannot be started: {fault.strerror}", notes)
            self._pause(monotonic)

    def _end(self, monotonic: float, notes: list[Note]) -> None:
        child, self._child = self._child, None
        assert child is not None
        status = child.close()
        if self._cursor and status and "cursor" in child.complaint.lower():
            self._cursor = ""  # of a journal that is no longer there
        self._tell(child.complaint or f"journalctl ended with status {status}", notes)
        if monotonic - self._started_at >= LONGEST_PAUSE_SECONDS:
            self._pause_seconds = FIRST_PAUSE_SECONDS
        self._pause(monotonic)

    def _pause(self, monotonic: float) -> None:
        self._start_at = monotonic + self._pause_seconds
        self._pause_seconds = min(2 * self._pause_seconds, LONGEST_PAUSE_SECONDS)

    def _tell(self, complaint: str, notes: list[Note]) -> None:
        if complaint != self._fault:
            self._fault = complaint
            remedy = ""
            if "permission" in complaint.lower() or "not seeing messages" in complaint:
                remedy = "; let popgate's user read it: usermod -a -G systemd-journal USER"
            notes.append(Note("journal", complaint + remedy))


def _place(place: Mapping[str, object] | None, since: float) -> tuple[str, float]:
    """Cursor ("" where there is none) and time."""
    if place is None:
        return "", since
    cursor, then = place.get("cursor"), place.get("since")
    if not isinstance(cursor, str) or len(cursor) > _CURSOR_AT_MOST or not cursor.isprintable():
        cursor = ""
    return cursor, float(then) if isinstance(then, int | float) and then > 0 else since


class _Child:
    """A journalctl that runs. `complaint` is what it said on standard error, in short."""

    def __init__(self, command: Sequence[str]) -> None:
        """Raises OSError."""
        self._process = subprocess.Popen(  # noqa: S603  nothing of it is from outside
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**os.environ, "LC_ALL": "C", "SYSTEMD_COLORS": "0"},
            start_new_session=True,  # a Ctrl-C in the server's terminal is for the server
        )
        for pipe in self._pipes:
            os.set_blocking(pipe.fileno(), False)
        self._rest = b""
        self._is_within = False
        self.is_at_end = False
        self._said = b""
        self._has_said_all = False

    @property
    def _pipes(self) -> tuple[IO[bytes], IO[bytes]]:
        process = self._process
        assert process.stdout is not None and process.stderr is not None
        return process.stdout, process.stderr

    @property
    def descriptors(self) -> Sequence[int]:
        """Where something may come; not those that have ended, which are always ready."""
        out, err = self._pipes
        return [out.fileno()] if self._has_said_all else [out.fileno(), err.fileno()]

    @property
    def complaint(self) -> str:
        text = " ".join(self._said.decode("utf-8", "replace").split())
        return "".join([char if char.isprintable() else "?" for char in text])[:300]

    def read(self) -> Sequence[bytes]:
        """The whole lines that wait."""
        out, err = self._pipes
        with suppress(BlockingIOError):
            said = os.read(err.fileno(), BLOCK_OCTETS)
            self._has_said_all = not said
            self._said = (self._said + said)[-1000:]
        try:
            block = os.read(out.fileno(), BLOCK_OCTETS)
        except BlockingIOError:
            return ()
        self.is_at_end = not block
        *lines, self._rest = (self._rest + block).split(b"\n")
        if self._is_within and lines:
            self._is_within = False
            del lines[0]
        if len(self._rest) > LONGEST_ENTRY:
            self._rest, self._is_within = b"", True
        return lines

    def close(self) -> int:
        """End it; its exit status."""
        process = self._process
        process.terminate()
        try:
            process.wait(1.0)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        for pipe in self._pipes:
            pipe.close()
        return process.returncode
