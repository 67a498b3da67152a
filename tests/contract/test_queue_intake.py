"""The accepting side of the queue: what commit promises, and at what price."""

import asyncio
import errno
import fcntl
import os
import sqlite3
import time
import zlib
from pathlib import Path
from typing import Any

import pytest

from popgate.files.real import RealDisk
from popgate.queue import queue_id, writer
from popgate.queue.database import Database
from popgate.queue.incoming import OUTSTANDING, SPILL_OCTETS
from popgate.queue.queue import Envelope, Incoming, QueueError, Recipient, raised
from popgate.queue.store import SqliteQueue
from popgate.queue.writer import MOST_WAIT_SECONDS, TURNS
from popgate.values.address import ClientAddress
from popgate.values.mail import MailAddress

SENDER = MailAddress("printer", "example.org")
ENVELOPE = Envelope(
    sender=SENDER,
    recipients=(
        Recipient(MailAddress("you", "example.net"), is_local=False, notify=("FAILURE", "DELAY")),
        Recipient(MailAddress("me", "example.org"), is_local=True, orcpt="rfc822;me@example.org"),
    ),
    client=ClientAddress.parse("192.0.2.7"),
    identity="printer@example.org",
    session="s1",
    helo="printer.example.org",
    envid="e1",
    ret="HDRS",
    needs_smtputf8=True,
    is_8bit=True,
)


class ManualClock:
    def __init__(self, now: float = 1_800_000_000.0) -> None:
        self.time = now

    def now(self) -> float:
        return self.time

    def monotonic(self) -> float:
        return self.time


def open_queue(path: Path, **options: Any) -> SqliteQueue:
    return SqliteQueue(
        str(path),
        options.pop("disk", RealDisk()),
        options.pop("clock", ManualClock()),
        lambda event: None,
        **options,
    )


def stored(path: Path) -> dict[str, bytes]:
    """What lies in the queue, read without any of its code: queue id to body."""
    connection = sqlite3.connect(path / "queue.sqlite")
    found = {}
    for number, octets, crc, body in connection.execute("SELECT id, octets, crc, body FROM message"):
        name = queue_id.to_text(number)
        if body is None:
            body = (path / "bodies" / name).read_bytes()
        assert len(body) == octets
        assert zlib.crc32(body) == crc
        found[name] = body
    connection.close()
    return found


async def accept(queue: SqliteQueue, body: bytes, block: int = 65536, envelope: Envelope = ENVELOPE) -> str:
    message = queue.receive()
    for start in range(0, len(body), block):
        waiting = message.write(body[start : start + block])
        if waiting is not None:
            await waiting
    assert message.octets == len(body)
    await message.commit(envelope, raised)
    return message.queue_id


@pytest.mark.parametrize("octets", [0, 1, 4096, SPILL_OCTETS, SPILL_OCTETS + 1, 1_000_000])
async def test_what_is_committed_is_there_whole(tmp_path: Path, octets: int) -> None:
    body = (os.urandom(512).hex().encode() + b"\r\n") * (octets // 1026 + 1)
    queue = open_queue(tmp_path)
    name = await accept(queue, body[:octets], block=50_000)
    queue.close()
    assert stored(tmp_path) == {name: body[:octets]}
    assert os.listdir(tmp_path / "bodies") == ([name] if octets > SPILL_OCTETS else [])


async def test_the_envelope_is_kept(tmp_path: Path) -> None:
    queue = open_queue(tmp_path)
    await accept(queue, b"x\r\n")
    queue.close()
    connection = sqlite3.connect(tmp_path / "queue.sqlite")
    assert connection.execute(
        "SELECT sender_local, sender_domain, client, identity, session, helo, envid, ret,"
        " needs_smtputf8, is_8bit FROM message"
    ).fetchall() == [
        (
            "printer",
            "example.org",
            "192.0.2.7",
            "printer@example.org",
            "s1",
            "printer.example.org",
            "e1",
            "HDRS",
            1,
            1,
        )
    ]
    assert connection.execute(
        "SELECT number, local, domain, is_local, notify, orcpt, state, attempts FROM recipient"
    ).fetchall() == [
        (0, "you", "example.net", 0, "FAILURE,DELAY", "", "pending", 0),
        (1, "me", "example.org", 1, "", "rfc822;me@example.org", "pending", 0),
    ]
    connection.close()


async def test_nothing_is_kept_of_an_aborted_message(tmp_path: Path) -> None:
    queue = open_queue(tmp_path)
    small, large = queue.receive(), queue.receive()
    small.write(b"x\r\n")
    waiting = large.write(b"x" * 400_000)
    small.abort()
    large.abort()
    if waiting is not None:
        await waiting
    with pytest.raises(QueueError):
        await small.commit(ENVELOPE, raised)
    kept = await accept(queue, b"kept\r\n")
    await asyncio.sleep(0.05)
    queue.close()
    assert stored(tmp_path) == {kept: b"kept\r\n"}
    assert os.listdir(tmp_path / "bodies") == []


async def test_abort_after_commit_does_nothing(tmp_path: Path) -> None:
    queue = open_queue(tmp_path)
    message = queue.receive()
    message.write(b"x\r\n")
    committing = message.commit(ENVELOPE, raised)
    message.abort()
    await committing
    message.abort()
    queue.close()
    assert list(stored(tmp_path)) == [message.queue_id]


async def test_what_is_concluded_is_on_disk(tmp_path: Path) -> None:
    for octets in (100, 200_000):
        queue = open_queue(tmp_path)
        message = queue.receive()
        waiting = message.write(b"x" * octets)
        if waiting is not None:
            await waiting

        def conclude(error: QueueError | None, name: str = message.queue_id) -> str:
            assert error is None
            return name if name in stored(tmp_path) else "it is not there"

        assert await asyncio.wait_for(message.commit(ENVELOPE, conclude), 10) == message.queue_id
        queue.close()


async def test_a_commit_is_concluded_once_though_nobody_waits(tmp_path: Path) -> None:
    queue = open_queue(tmp_path)
    concluded: list[QueueError | None] = []
    complaints: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: complaints.append(context))
    message = queue.receive()
    message.write(b"x\r\n")
    waiting = asyncio.ensure_future(message.commit(ENVELOPE, concluded.append))
    waiting.cancel()
    again = message.commit(ENVELOPE, concluded.append)  # refused: it is spent
    await again
    while len(concluded) < 2:
        await asyncio.sleep(0.001)
    queue.close()
    assert isinstance(concluded[0], QueueError)
    assert concluded[1] is None
    assert not complaints
    assert list(stored(tmp_path)) == [message.queue_id]


async def test_a_defect_in_a_conclusion_comes_to_whoever_waits(tmp_path: Path) -> None:
    queue = open_queue(tmp_path)

    def conclude(error: QueueError | None) -> None:
        raise ZeroDivisionError

    message = queue.receive()
    message.write(b"x\r\n")
    with pytest.raises(ZeroDivisionError):
        await asyncio.wait_for(message.commit(ENVELOPE, conclude), 10)
    queue.close()


async def test_messages_that_gather_share_a_commit(tmp_path: Path) -> None:
    queue = open_queue(tmp_path)
    before = queue.writer.commits
    await asyncio.gather(*[accept(queue, b"x" * 100) for _ in range(200)])
    commits = queue.writer.commits - before
    queue.close()
    assert len(stored(tmp_path)) == 200
    assert commits < 50


async def test_messages_of_neighbouring_turns_share_a_commit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer, "MOST_WAIT_SECONDS", 60.0)  # on a machine that stands still as well
    queue = open_queue(tmp_path)
    before = queue.writer.commits
    accepting = []
    for _ in range(TURNS - 2):
        accepting.append(asyncio.ensure_future(accept(queue, b"x" * 100)))
        await asyncio.sleep(0)
        time.sleep(0.002)  # the writing thread could run
    await asyncio.gather(*accepting)
    commits = queue.writer.commits - before
    queue.close()
    assert len(stored(tmp_path)) == TURNS - 2
    assert commits == 1


async def test_long_turns_do_not_add_up(tmp_path: Path) -> None:
    """A loop that is busy with something else for long in each turn lets a message wait for one."""
    queue = open_queue(tmp_path)
    accepting = asyncio.ensure_future(accept(queue, b"x" * 100))
    turns = 0
    while not accepting.done():
        await asyncio.sleep(0)
        time.sleep(2 * MOST_WAIT_SECONDS)
        turns += 1
    queue.close()
    assert turns < TURNS  # one or two until it is handed over, and the rest until we hear of it


async def test_close_writes_what_waits_for_its_turns(tmp_path: Path) -> None:
    queue = open_queue(tmp_path)
    accepting = asyncio.ensure_future(accept(queue, b"x" * 100))
    await asyncio.sleep(0)
    queue.close()
    name = await asyncio.wait_for(accepting, 5)
    assert list(stored(tmp_path)) == [name]


async def test_messages_that_come_while_another_process_commits_share_the_next_commit(tmp_path: Path) -> None:
    queue = open_queue(tmp_path)
    other = Database(str(tmp_path))
    before = queue.writer.commits
    with other.turn():
        accepting = [asyncio.ensure_future(accept(queue, b"first"))]
        await asyncio.sleep(0.05)  # the writing thread has it in hand, and waits for its turn
        accepting += [asyncio.ensure_future(accept(queue, b"x" * 100)) for _ in range(20)]
        await asyncio.sleep(0.05)
        assert not any(one.done() for one in accepting)
    await asyncio.gather(*accepting)
    commits = queue.writer.commits - before
    queue.close()
    other.close()
    assert len(stored(tmp_path)) == 21
    assert commits == 1


async def test_a_lock_that_cannot_be_taken_refuses_the_message_and_not_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    queue = open_queue(tmp_path)

    def no_lock(fd: int, operation: int) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    with monkeypatch.context() as patch:
        patch.setattr(fcntl, "flock", no_lock)
        with pytest.raises(QueueError):
            await accept(queue, b"refused")
    name = await accept(queue, b"taken")
    queue.close()
    assert list(stored(tmp_path)) == [name]


async def test_a_failing_work_does_not_take_its_neighbours_with_it(tmp_path: Path) -> None:
    queue = open_queue(tmp_path)

    def fails(connection: sqlite3.Connection) -> None:
        connection.execute("UPDATE sequence SET next = 0")
        raise ValueError("at fault")

    bad = queue.writer.submit(fails)
    names = await asyncio.gather(*[accept(queue, b"x") for _ in range(5)])
    with pytest.raises(ValueError, match="at fault"):
        await bad
    assert await queue.writer.submit(lambda c: c.execute("SELECT next FROM sequence").fetchone()[0]) > 0
    queue.close()
    assert sorted(stored(tmp_path)) == sorted(names)


async def test_a_fast_writer_of_a_large_body_is_asked_to_wait(tmp_path: Path) -> None:
    queue = open_queue(tmp_path)
    message = queue.receive()
    asked = [message.write(b"x" * 65536) for _ in range(20)]
    assert asked[0] is None
    assert any(waiting is not None for waiting in asked[: OUTSTANDING // 65536 + 2])
    for waiting in asked:
        if waiting is not None:
            await waiting
    await message.commit(ENVELOPE, raised)
    queue.close()
    assert stored(tmp_path) == {message.queue_id: b"x" * 65536 * 20}


async def received(queue: SqliteQueue) -> Incoming:
    """The next message; while the disk is busy the next block of ids may be late."""
    for _ in range(1000):
        try:
            return queue.receive()
        except QueueError:
            await asyncio.sleep(0.01)
    raise AssertionError("no block of ids came in ten seconds")


async def test_queue_ids_are_never_used_again(tmp_path: Path) -> None:
    """Neither after a restart nor after the clock was set back by ten years."""
    seen: list[str] = []
    for now in (1_800_000_000.0, 1_800_000_000.0, 1_500_000_000.0):
        queue = open_queue(tmp_path, clock=ManualClock(now))
        other = open_queue(tmp_path, clock=ManualClock(now))
        for _ in range(3 * queue_id.BLOCK):
            message = await received(queue)
            seen.append(message.queue_id)
            message.abort()
            if len(seen) % 1000 == 0:
                await asyncio.sleep(0)  # the next block is asked for in advance
        seen.append(other.receive().queue_id)
        queue.close()
        other.close()
    assert len(set(seen)) == len(seen)
    assert all((name.isalnum() and name.islower()) or name.isdigit() for name in seen)


def test_queue_ids_sort_as_their_numbers() -> None:
    numbers = [0, 1, 29, 30, 10**6, 1_800_000_000_000_000, 30**11 - 1]
    texts = [queue_id.to_text(number) for number in numbers]
    assert texts == sorted(texts)
    assert [queue_id.to_number(text) for text in texts] == numbers
    assert queue_id.to_number("../../etc/p") is None
    assert queue_id.to_number("") is None


async def test_a_database_of_another_version_is_refused(tmp_path: Path) -> None:
    connection = sqlite3.connect(tmp_path / "queue.sqlite")
    connection.execute("PRAGMA user_version = 7")
    connection.close()
    with pytest.raises(QueueError, match="version 7"):
        open_queue(tmp_path)


async def test_a_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    (tmp_path / "queue.sqlite").write_bytes(b"garbage " * 1000)
    with pytest.raises(QueueError):
        open_queue(tmp_path)


async def test_nobody_else_can_read_the_queue(tmp_path: Path) -> None:
    queue = open_queue(tmp_path / "queue")
    await accept(queue, b"x" * 100_000)
    for path in [tmp_path / "queue", *(tmp_path / "queue").rglob("*")]:
        assert path.stat().st_mode & 0o077 == 0, path
    queue.close()


async def test_accepted_is_called_for_each_message(tmp_path: Path) -> None:
    calls: list[int] = []
    queue = open_queue(tmp_path, accepted=lambda: calls.append(1))
    await accept(queue, b"x")
    await asyncio.sleep(0)
    queue.close()
    assert calls


def test_it_works_with_uvloop(tmp_path: Path) -> None:
    uvloop = pytest.importorskip("uvloop")

    async def run() -> list[str]:
        queue = open_queue(tmp_path)
        names = await asyncio.gather(*[accept(queue, b"x" * size) for size in (1, 200_000, 5)])
        queue.close()
        return list(names)

    names = uvloop.run(run())
    assert sorted(stored(tmp_path)) == sorted(names)
