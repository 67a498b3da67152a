"""A log file as a server writes it, and a follower that looks at it when told to."""

import os
import shutil
from pathlib import Path

from popgate.integrations.logs.follow_file import FollowedFile, Note
from popgate.integrations.logs.follow_mark import Mark
from popgate.integrations.logs.follow_trust import Writers

ME = Writers(frozenset({0, os.geteuid()}), frozenset({0, os.getegid()}))
NOW = 1_800_000_000.0


class Log:
    """A log directory, its writer, and whoever follows it."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir(exist_ok=True)
        directory.chmod(0o755)
        self.path = directory / "mail.log"
        self.writer: int | None = None
        self.number = 0
        self.written: list[bytes] = []
        self.read: list[bytes] = []
        self.notes: list[Note] = []
        self.sinces: list[float | None] = []
        self.seconds = 0.0
        self.marks: list[Mark | None] = []
        self.follower: FollowedFile | None = None

    # the writer

    def open(self, flags: int = os.O_APPEND) -> None:
        if self.writer is not None:
            os.close(self.writer)
        self.writer = os.open(self.path, os.O_WRONLY | os.O_CREAT | flags, 0o640)

    def line(self) -> bytes:
        self.number += 1
        line = b"Nov 24 11:%02d:%02d mail pop3d: line %d %s\n" % (
            self.number // 60 % 60,
            self.number % 60,
            self.number,
            b"x" * (self.number % 70),
        )
        self.written.append(line)
        return line

    def write(self, lines: int = 1) -> None:
        if self.writer is None:
            self.open()
        for _ in range(lines):
            self.raw(self.line())

    def raw(self, octets: bytes) -> None:
        if self.writer is None:
            self.open()
        assert self.writer is not None
        os.write(self.writer, octets)

    # what happens to it

    def rename(self, name: str = "mail.log.1") -> Path:
        there = self.path.with_name(name)
        os.rename(self.path, there)
        return there

    def copytruncate(self, name: str = "mail.log.1") -> Path:
        there = self.path.with_name(name)
        shutil.copy2(self.path, there)
        os.truncate(self.path, 0)
        return there

    # the follower

    def start(self, **options: object) -> None:
        self.follower = FollowedFile(str(self.path), ME, marks=self.marks, **options)

    def stop(self) -> None:
        assert self.follower is not None
        self.follower.close()
        self.marks = [Mark.from_json(mark.to_json()) for mark in self.follower.marks]
        self.follower = None

    def look(self, seconds: float = 1.0) -> list[bytes]:
        """Everything that is there now; returns what was new."""
        assert self.follower is not None
        new: list[bytes] = []
        for _ in range(1000):
            self.seconds += seconds / 10
            look = self.follower.look(NOW + self.seconds, self.seconds)
            new += look.lines.splitlines(keepends=True)
            if look.lines:
                self.sinces.append(look.since)
            self.notes += look.notes
            if not look.is_more:
                break
        else:
            raise AssertionError("it looks for ever")
        self.read += new
        return new

    def told(self) -> list[str]:
        return [note.kind for note in self.notes]
