"""One message on its way in: in memory while it is small, then in a file.

States: collecting, then spilling once it is larger than SPILL_OCTETS, then committed or
failed. While spilling, one thread at a time writes what has gathered; when more than
OUTSTANDING octets wait for the disk, `write` asks the caller to wait.
"""

import asyncio
import sqlite3
import zlib
from collections.abc import Awaitable, Callable
from concurrent.futures import Executor
from typing import Protocol, TypeVar

from popgate.queue import rows
from popgate.queue.bodies import BodyFile
from popgate.queue.database import as_queue_error
from popgate.queue.queue import Envelope, QueueError

_T = TypeVar("_T")

SPILL_OCTETS = 65536
"""The largest body that lies in the database itself."""
OUTSTANDING = 262144


class Desk(Protocol):
    """What a message needs of the queue it goes into."""

    @property
    def threads(self) -> Executor: ...

    def create_body(self, queue_id: str) -> BodyFile: ...

    def submit(self, work: Callable[[sqlite3.Connection], None]) -> "asyncio.Future[None]": ...

    def now(self) -> float: ...

    def forget(self, message: "IncomingMessage") -> None:
        """The message is spent."""
        ...


class IncomingMessage:
    """Implements queue.queue.Incoming. All methods are called in the event loop."""

    __slots__ = (
        "_chunks",
        "_desk",
        "_error",
        "_file",
        "_number",
        "_outstanding",
        "_state",
        "_task",
        "_waiter",
        "octets",
        "queue_id",
    )

    def __init__(self, desk: Desk, number: int, queue_id: str) -> None:
        self.queue_id = queue_id
        self.octets = 0
        self._number = number
        self._desk = desk
        self._chunks: list[bytes] = []
        self._outstanding = 0  # octets in _chunks and in the thread's hands
        self._file: BodyFile | None = None
        self._task: asyncio.Task[None] | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._error: QueueError | None = None
        self._state = "collecting"

    def write(self, chunk: bytes) -> Awaitable[None] | None:
        if self._error is not None:
            raise self._error
        if self._state not in ("collecting", "spilling"):
            raise QueueError("the message is spent")
        self.octets += len(chunk)
        self._chunks.append(bytes(chunk))
        if self.octets <= SPILL_OCTETS:
            return None
        self._state = "spilling"
        self._outstanding += len(chunk)
        if self._task is None:
            self._outstanding = self.octets
            self._task = asyncio.get_running_loop().create_task(self._spill())
        elif self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._spill())
        if self._outstanding <= OUTSTANDING:
            return None
        if self._waiter is None or self._waiter.done():
            self._waiter = asyncio.get_running_loop().create_future()
        return self._wait(self._waiter)

    async def _wait(self, waiter: "asyncio.Future[None]") -> None:
        await asyncio.shield(waiter)
        if self._error is not None:
            raise self._error

    async def _spill(self) -> None:
        """Write what has gathered until nothing is left."""
        loop = asyncio.get_running_loop()
        while self._chunks and self._error is None:
            data = b"".join(self._chunks)
            self._chunks.clear()
            try:
                await loop.run_in_executor(self._desk.threads, self._write_file, data)
            except Exception as error:
                self._error = as_queue_error(error)
                await self._discard()
            self._outstanding -= len(data)
            is_drained = self._error is not None or self._outstanding <= OUTSTANDING // 2
            if is_drained and self._waiter is not None and not self._waiter.done():
                self._waiter.set_result(None)

    def _write_file(self, data: bytes) -> None:
        if self._file is None:
            self._file = self._desk.create_body(self.queue_id)
        self._file.write(data)

    def commit(self, envelope: Envelope, conclude: Callable[[QueueError | None], _T]) -> Awaitable[_T]:
        return _concluded(self._commit(envelope), conclude)

    def _commit(self, envelope: Envelope) -> "asyncio.Future[None]":
        if self._error is not None or self._state not in ("collecting", "spilling"):
            return self._refuse(self._error or QueueError("the message is spent"))
        spilling = self._state == "spilling"
        self._state = "committing"
        if spilling:
            # A task, not a coroutine: once begun it ends, even if the caller is cancelled.
            return asyncio.get_running_loop().create_task(self._commit_file(envelope))
        body = b"".join(self._chunks)
        self._chunks.clear()
        self._desk.forget(self)
        number, created_at, octets, crc = self._number, self._desk.now(), self.octets, zlib.crc32(body)

        def insert(connection: sqlite3.Connection) -> None:
            rows.insert_message(connection, number, envelope, created_at, body, octets, crc)

        return self._desk.submit(insert)

    async def _commit_file(self, envelope: Envelope) -> None:
        try:
            if self._task is not None:
                await self._task
            if self._error is not None:
                raise self._error
            file = self._file
            assert file is not None
            try:
                await asyncio.get_running_loop().run_in_executor(self._desk.threads, file.finish)
            except Exception as error:
                raise as_queue_error(error) from error
            number, created_at, octets, crc = self._number, self._desk.now(), self.octets, file.crc

            def insert(connection: sqlite3.Connection) -> None:
                rows.insert_message(connection, number, envelope, created_at, None, octets, crc)

            await self._desk.submit(insert)
        except BaseException:
            self._state = "failed"
            await self._discard()
            raise
        file.release()
        self._file = None
        self._desk.forget(self)

    def _refuse(self, error: QueueError) -> "asyncio.Future[None]":
        self.abort()
        refused: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        refused.set_exception(error)
        return refused

    def abort(self) -> None:
        if self._state not in ("collecting", "spilling"):
            return
        spilling = self._state == "spilling"
        self._state = "failed"
        self._chunks.clear()
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
        if spilling:
            self._task = asyncio.get_running_loop().create_task(self._abandon(self._task))
        else:
            self._desk.forget(self)

    async def _abandon(self, spill: "asyncio.Task[None] | None") -> None:
        if spill is not None:
            await spill
        await self._discard()

    async def _discard(self) -> None:
        file, self._file = self._file, None
        if file is not None:
            await asyncio.get_running_loop().run_in_executor(self._desk.threads, file.discard)
        self._desk.forget(self)


def _concluded(
    committed: "asyncio.Future[None]", conclude: Callable[[QueueError | None], _T]
) -> "asyncio.Future[_T]":
    """A future for what `conclude` makes of the outcome of `committed`."""
    concluded: asyncio.Future[_T] = committed.get_loop().create_future()

    def settle(committed: "asyncio.Future[None]") -> None:
        if committed.cancelled():  # the loop ends
            concluded.cancel()
            return
        fault = committed.exception()
        if fault is None or isinstance(fault, QueueError):
            try:
                result = conclude(fault)
            except Exception as raised:
                fault = raised
            else:
                if not concluded.done():
                    concluded.set_result(result)
                return
        if not concluded.done():
            concluded.set_exception(fault)

    committed.add_done_callback(settle)
    return concluded
