"""Debian's logrotate on a followed log, at every moment: no line is lost, none comes twice."""

import os
import subprocess
import time
from pathlib import Path

import pytest

from popgate.integrations.logs.follow_file import FollowedFile
from popgate.integrations.logs.follow_mark import Mark
from popgate.integrations.logs.follow_trust import Writers
from support import peers

pytestmark = [pytest.mark.peer("logrotate")]

ME = Writers(frozenset({0, os.geteuid()}), frozenset({0, os.getegid()}))

KINDS = {
    "create": "create 0640",
    "nocreate": "nocreate",
    "copytruncate": "copytruncate",
    "compress": "create 0640\ncompress",
    "delaycompress": "create 0640\ncompress\ndelaycompress",
    "copytruncate, compress": "copytruncate\ncompress",
    "xz": "create 0640\ncompress\ncompresscmd /usr/bin/xz\ncompressext .xz",
    "dateext": "create 0640\ndateext\ndateformat -%Y%m%d-%s",
    "dateext, extension": "create 0640\ndateext\ndateformat -%Y%m%d-%s\nextension .log",
}


class Site:
    def __init__(self, directory: Path, kind: str) -> None:
        self.directory = directory
        self.is_dated = "dateformat" in KINDS[kind]
        log = directory / "log"
        log.mkdir(mode=0o755)
        self.path = log / "mail.log"
        self.path.touch(mode=0o640)
        self.configuration = directory / "logrotate.conf"
        self.configuration.write_text(f"{self.path} {{\nrotate 9\nmissingok\n{KINDS[kind]}\n}}\n")
        self.configuration.chmod(0o644)
        self.written: list[bytes] = []
        self.read: list[bytes] = []
        self.marks: list[Mark] = []
        self.seconds = 0.0
        self.follower: FollowedFile | None = None
        self.writer = self.open()

    def open(self) -> int:
        return os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o640)

    def write(self, lines: int) -> None:
        for _ in range(lines):
            line = b"Nov 24 11:00:00 mail pop3d: line %d\n" % len(self.written)
            self.written.append(line)
            os.write(self.writer, line)

    def rotate(self) -> None:
        if self.is_dated:
            time.sleep(1.01)  # logrotate makes no name twice
        rotated = subprocess.run(
            [
                peers.require("logrotate"),
                "--force",
                "--state",
                str(self.directory / "logrotate.state"),
                str(self.configuration),
            ],
            check=False,
            capture_output=True,
            text=True,
            env={**os.environ, "PATH": f"{os.environ['PATH']}:/usr/bin:/bin"},
        )
        assert rotated.returncode == 0, rotated.stderr

    def reopen(self) -> None:
        """What the writer does when it gets the signal."""
        os.close(self.writer)
        self.writer = self.open()

    def start(self) -> None:
        self.follower = FollowedFile(str(self.path), ME, marks=self.marks)

    def stop(self) -> None:
        assert self.follower is not None
        self.follower.close()
        self.marks = list(self.follower.marks)

    def look(self) -> None:
        assert self.follower is not None
        is_more = True
        while is_more:
            self.seconds += 0.1
            look = self.follower.look(1_800_000_000 + self.seconds, self.seconds)
            assert all(note.kind not in ("lost", "unreadable", "untrusted") for note in look.notes), (
                look.notes
            )
            self.read += look.lines.splitlines(keepends=True)
            is_more = look.is_more


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("runs", ["runs", "is restarted", "is down"])
def test_rotation(tmp_path: Path, kind: str, runs: str) -> None:
    site = Site(tmp_path, kind)
    site.start()
    site.look()
    for _ in range(3):
        site.write(5)
        if runs != "is down":
            site.look()
            site.write(3)
        if runs != "runs":
            site.stop()
        site.rotate()
        if runs == "runs" or "compress" not in KINDS[kind] or "delay" in kind:
            site.write(2)  # else they are in a file that logrotate has removed
        site.reopen()
        site.write(2)
        if runs != "runs":
            site.start()
        site.look()
        # logrotate's own copy of what it truncates is the last one that there is
        assert site.read == site.written
    site.stop()
    os.close(site.writer)
