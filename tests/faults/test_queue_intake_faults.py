"""Disk errors and kills while messages come in."""

import asyncio
import errno
import os
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from contract.test_queue_intake import accept, open_queue, stored
from popgate.files.real import RealDisk
from popgate.queue.database import Database, connect
from popgate.queue.queue import QueueError
from support.fault_disk import FaultDisk


class FaultyDisk(RealDisk):
    """Fails one kind of call, and says whether a descriptor was used again after its fsync failed."""

    __slots__ = ("call", "code", "failed", "used_after")

    def __init__(self, call: str, code: int) -> None:
        self.call, self.code = call, code
        self.failed: set[int] = set()
        self.used_after: list[str] = []

    def _fail(self, call: str, fd: int = -1) -> None:
        if fd in self.failed and call in ("sync", "write"):
            self.used_after.append(call)
        if call == self.call:
            self.failed.add(fd)
            raise OSError(self.code, os.strerror(self.code))

    def create(self, name: str, dir_fd: int, mode: int = 0o600) -> int:
        self._fail("create")
        return super().create(name, dir_fd, mode)

    def write(self, fd: int, data: bytes) -> None:
        self._fail("write", fd)
        super().write(fd, data)

    def sync(self, fd: int) -> None:
        self._fail("sync", fd)
        super().sync(fd)

    def close(self, fd: int) -> None:
        self.failed.discard(fd)
        super().close(fd)

    def lock(self, name: str, dir_fd: int) -> int:
        self._fail("lock")
        return super().lock(name, dir_fd)


@pytest.mark.parametrize("call", ["create", "write", "sync", "lock"])
@pytest.mark.parametrize("code", [errno.EIO, errno.ENOSPC])
async def test_a_disk_error_refuses_the_message_and_keeps_nothing(
    tmp_path: Path, call: str, code: int
) -> None:
    disk = FaultyDisk(call, code)
    queue = open_queue(tmp_path, disk=disk)
    with pytest.raises(QueueError) as caught:
        await accept(queue, b"x" * 500_000)
    assert caught.value.is_full == (code == errno.ENOSPC)
    assert disk.used_after == []
    disk.call = ""
    name = await accept(queue, b"y" * 500_000)
    await asyncio.sleep(0.05)
    queue.close()
    assert stored(tmp_path) == {name: b"y" * 500_000}
    assert os.listdir(tmp_path / "bodies") == [name]


class FaultyConnection(sqlite3.Connection):
    fail_commits = False
    opened = 0

    def execute(self, sql: str, *parameters: Any) -> sqlite3.Cursor:
        if sql == "COMMIT" and FaultyConnection.fail_commits:
            error = sqlite3.OperationalError("disk I/O error")
            error.sqlite_errorcode = sqlite3.SQLITE_IOERR_FSYNC
            raise error
        return super().execute(sql, *parameters)


def faulty_connect(path: str) -> sqlite3.Connection:
    FaultyConnection.opened += 1
    return sqlite3.connect(path, isolation_level=None, check_same_thread=False, factory=FaultyConnection)


@pytest.mark.parametrize("octets", [100, 500_000])
async def test_a_failed_commit_refuses_all_of_it_and_is_not_tried_again(tmp_path: Path, octets: int) -> None:
    FaultyConnection.opened, FaultyConnection.fail_commits = 0, False
    queue = open_queue(tmp_path, connect=faulty_connect)
    try:
        FaultyConnection.fail_commits = True
        results = await asyncio.gather(
            *[accept(queue, b"x" * octets) for _ in range(5)], return_exceptions=True
        )
        assert all(isinstance(result, QueueError) and not result.is_full for result in results)
    finally:
        FaultyConnection.fail_commits = False
    name = await accept(queue, b"y")
    assert FaultyConnection.opened >= 2, "the connection whose commit failed was used again"
    queue.close()
    assert stored(tmp_path) == {name: b"y"}
    assert os.listdir(tmp_path / "bodies") == []


async def test_a_full_database_is_told_as_full(tmp_path: Path) -> None:
    """With SQLite's own limit, so the error is the library's, not a double's."""
    limit = 40

    def small(path: str) -> sqlite3.Connection:
        connection = connect(path)
        connection.execute(f"PRAGMA max_page_count = {limit}")
        return connection

    queue = open_queue(tmp_path, connect=small)
    kept = {}
    with pytest.raises(QueueError) as caught:
        for number in range(100):
            body = b"%d" % number * 5000
            kept[await accept(queue, body)] = body
    assert caught.value.is_full
    assert kept
    queue.close()
    assert stored(tmp_path) == kept


_WRITER = """
import asyncio, os, sys
sys.path[:0] = [{tests!r}, {src!r}]
from pathlib import Path
from contract.test_queue_intake import accept, open_queue

async def main():
    queue = open_queue(Path({path!r}))
    out = sys.stdout
    async def session(number):
        round = 0
        while True:
            octets = 200_000 if (number + round) % 7 == 0 else 3000
            fill = b"%08d" % (number * 100_000 + round)
            name = await accept(queue, fill * (octets // 8))
            os.write(1, b"%s %s %d\\n" % (name.encode(), fill, octets // 8))
            round += 1
    await asyncio.gather(*[session(number) for number in range(10)])

asyncio.run(main())
"""


def test_every_acknowledged_message_survives_a_kill(tmp_path: Path) -> None:
    tests = Path(__file__).parent.parent
    code = _WRITER.format(tests=str(tests), src=str(tests.parent / "src"), path=str(tmp_path))
    acknowledged: dict[str, bytes] = {}
    for round_ in range(4):
        writers = [subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) for _ in range(2)]
        time.sleep(1.0 + round_ * 0.07)
        for writer in writers:
            writer.send_signal(signal.SIGKILL)
        for writer in writers:
            output, _ = writer.communicate()
            for line in output.splitlines(keepends=True):
                if line.endswith(b"\n"):
                    name, fill, times = line.split()
                    acknowledged[name.decode()] = fill * int(times)
    assert len(acknowledged) > 20
    found = stored(tmp_path)
    missing = [name for name, body in acknowledged.items() if found.get(name) != body]
    assert missing == []


async def test_the_body_is_durable_under_its_name_before_the_row_is_committed(tmp_path: Path) -> None:
    steps: list[str] = []
    disk = FaultDisk(RealDisk(), before=lambda operation: steps.append(operation.verb))

    class Recording(sqlite3.Connection):
        def execute(self, sql: str, *parameters: Any) -> sqlite3.Cursor:
            if sql == "COMMIT":
                steps.append("COMMIT")
            return super().execute(sql, *parameters)

    def recording_connect(path: str) -> sqlite3.Connection:
        return sqlite3.connect(path, isolation_level=None, check_same_thread=False, factory=Recording)

    queue = open_queue(tmp_path, disk=disk, connect=recording_connect)
    steps.clear()
    await accept(queue, b"x" * 300_000)
    commit = steps.index("COMMIT")
    assert steps.index("create") < max(index for index, step in enumerate(steps) if step == "write")
    assert steps[:commit][-3:] == ["sync", "close", "sync_directory"]
    assert "write" not in steps[steps.index("sync") :]
    queue.close()


def test_the_log_is_synced_at_every_commit(tmp_path: Path) -> None:
    connection = connect(str(tmp_path / "x.sqlite"))
    assert connection.execute("PRAGMA synchronous").fetchone() == (2,)  # FULL
    assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    connection.close()


async def test_opening_the_queue_again_keeps_the_locks_of_who_has_it_open(tmp_path: Path) -> None:
    """POSIX locks of a process go when it closes any descriptor of the file (SQLite's "How to
    corrupt", 2.2). Then another process would take itself for the last and delete the log under us."""
    queue = open_queue(tmp_path)
    again = Database(str(tmp_path))
    first = await accept(queue, b"first")
    code = "import sqlite3, sys; c = sqlite3.connect(sys.argv[1]); c.execute('DELETE FROM sequence WHERE 0')"
    code += "; c.close()"
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "queue.sqlite")], check=True)
    assert (tmp_path / "queue.sqlite-wal").exists()
    second = await accept(queue, b"second")
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "queue.sqlite")], check=True)
    assert set(stored(tmp_path)) == {first, second}
    again.close()
    queue.close()
