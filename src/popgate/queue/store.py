"""The durable queue of one site: the intake side, and the life of its files.

One SQLite database holds envelopes, recipients and bodies up to 64 KiB; larger bodies
are files beside it. 250 after DATA means that the row was committed with
synchronous=FULL and, before it, the file and its name were fsync'd. Open it after a
fork, never before: neither SQLite nor the writing thread survives one.
"""

import os
import sqlite3
from collections.abc import Callable
from concurrent.futures import Executor, ThreadPoolExecutor
from typing import TYPE_CHECKING, TypeVar

from popgate.files.disk import Disk
from popgate.queue import queue_id
from popgate.queue.bodies import BodyFile, BodyFiles
from popgate.queue.database import BODIES, Connect, Database, as_queue_error, connect
from popgate.queue.incoming import IncomingMessage
from popgate.queue.queue import QueueError
from popgate.queue.writer import GroupWriter
from popgate.values.clock import Clock
from popgate.values.event import EventSink

if TYPE_CHECKING:
    import asyncio

_T = TypeVar("_T")

DELIVERY_LOCK = "delivery.lock"
FILE_THREADS = 4
MAX_OPEN = 10000
"""Messages on their way in at the same time, in this process."""


class SqliteQueue:
    """Implements queue.queue.Intake.

    `directory` is made when it is missing (mode 0700). `accepted` is called in the event loop
    after each message that came into the queue, to wake a delivery in the same process;
    others notice by themselves. Raises QueueError when the queue cannot be opened.
    """

    def __init__(
        self,
        directory: str,
        disk: Disk,
        clock: Clock,
        emit: EventSink,
        *,
        accepted: Callable[[], None] | None = None,
        connect: Connect = connect,
    ) -> None:
        self.directory = directory
        self.clock = clock
        self.emit = emit
        self.accepted = accepted
        self._disk = disk
        try:
            os.makedirs(directory, mode=0o700, exist_ok=True)
            self._fd = disk.open_directory(directory)
            self.bodies = BodyFiles(disk, self._fd, BODIES)
            database = Database(directory, connect)
            disk.sync_directory(self._fd)
            first = database.perform(self._take_block)
        except OSError as error:
            raise QueueError(f"{directory}: {error.strerror or error}") from error
        self._threads = ThreadPoolExecutor(FILE_THREADS, thread_name_prefix="queue-file")
        self._next, self._end = first, first + queue_id.BLOCK
        self._next_block: int | None = None
        self._is_asking = False
        self._is_waking = False
        self._open: set[IncomingMessage] = set()
        self.writer = GroupWriter(database)

    def receive(self) -> IncomingMessage:
        if len(self._open) >= MAX_OPEN:
            raise QueueError(f"{MAX_OPEN} messages are being received already")
        number = self.take_number()
        message = IncomingMessage(self, number, queue_id.to_text(number))
        self._open.add(message)
        return message

    def take_number(self) -> int:
        """A number that no message of this queue has had or will have."""
        if self._next >= self._end:
            if self._next_block is None:
                raise QueueError("no queue id is free")  # the database did not answer for long
            self._next, self._end = self._next_block, self._next_block + queue_id.BLOCK
            self._next_block = None
        number = self._next
        self._next += 1
        if self._end - self._next < queue_id.BLOCK // 2 and self._next_block is None and not self._is_asking:
            self._is_asking = True
            self.writer.submit(self._take_block).add_done_callback(self._block_taken)
        return number

    def _take_block(self, connection: sqlite3.Connection) -> int:
        recorded = connection.execute("SELECT next FROM sequence").fetchone()[0]
        first = queue_id.next_block(recorded, self.clock.now())
        connection.execute("UPDATE sequence SET next = ?", (first + queue_id.BLOCK,))
        return first

    def _block_taken(self, future: "asyncio.Future[int]") -> None:
        self._is_asking = False
        if not future.cancelled() and future.exception() is None:
            self._next_block = future.result()

    # What an IncomingMessage asks for

    @property
    def threads(self) -> Executor:
        return self._threads

    def create_body(self, name: str) -> BodyFile:
        return self.bodies.create(name)

    def submit(self, work: Callable[[sqlite3.Connection], _T]) -> "asyncio.Future[_T]":
        future = self.writer.submit(work)
        if self.accepted is not None:
            future.add_done_callback(self._wake)
        return future

    def _wake(self, future: "asyncio.Future[_T]") -> None:
        """Once for all messages of a commit: their futures end in one turn of the loop."""
        if not self._is_waking:
            self._is_waking = True
            future.get_loop().call_soon(self._wake_now)

    def _wake_now(self) -> None:
        self._is_waking = False
        if self.accepted is not None:
            self.accepted()

    def now(self) -> float:
        return self.clock.now()

    def forget(self, message: IncomingMessage) -> None:
        self._open.discard(message)

    def lock_delivery(self) -> int | None:
        """Become the one process that delivers; None while another is it."""
        try:
            return self._disk.lock(DELIVERY_LOCK, self._fd)
        except BlockingIOError:
            return None
        except OSError as error:
            raise as_queue_error(error) from error

    def unlock_delivery(self, lock: int) -> None:
        self._disk.close(lock)

    def close(self) -> None:
        """Commit what waits and close the files. Blocks; messages not yet committed are lost
        to the queue, and none of their clients was told otherwise. Safe to call twice."""
        self.writer.close()
        self._threads.shutdown(wait=True)
        self.bodies.close()
        if self._fd >= 0:
            self._disk.close(self._fd)
            self._fd = -1
