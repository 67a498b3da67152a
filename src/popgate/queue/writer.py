"""The writing thread: everything that waits shares the next commit.

One fsync costs the disk much more than one message costs us, and a transaction costs the
processor more than the rows in it. So whoever has something to write leaves it here and waits;
some turns of the event loop later all that was left is handed to the thread, which waits
for its turn among the processes, takes all that has gathered by then, runs it as one
transaction, and answers everybody with one call into each event loop.

Turns and not milliseconds, because a turn takes as long as there is work: an idle loop hands
over at once, and in a busy one nobody's answer would be out sooner, as there the processor is what
is short. The thread and a busy loop also take the interpreter's lock from each other at every
call into SQLite, so that a commit costs the loop more than it costs the thread.
"""

import asyncio
import queue
import sqlite3
import threading
from collections.abc import Callable
from typing import Any, TypeVar

from popgate.queue.database import Database, Work, as_queue_error
from popgate.queue.queue import QueueError

_T = TypeVar("_T")
_Ticket = tuple[Work, asyncio.Future[Any]]
_Answer = tuple[asyncio.Future[Any], Any, BaseException | None]

TURNS = 8
"""A work waits for so many turns of its event loop, to be written together with those that come in
them. An idle loop is through in some microseconds."""
MOST_WAIT_SECONDS = 0.01
"""No work waits for another turn after that; turns are long when there are many connections."""
MOST_AT_ONCE = 512
"""With so many works a transaction takes no further ones, so that a burst does not make its first
waiter wait for all."""


class GroupWriter:
    """Owns `database` until `close`. Works with any asyncio event loop."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._inbox: queue.SimpleQueue[list[_Ticket] | None] = queue.SimpleQueue()
        self._left: dict[asyncio.AbstractEventLoop, list[_Ticket]] = {}  # in the present turn of each
        self._is_closed = False
        self.commits = 0
        self.works = 0
        self._thread = threading.Thread(target=self._run, name="queue-writer", daemon=True)
        self._thread.start()

    def submit(self, work: Callable[[sqlite3.Connection], _T]) -> "asyncio.Future[_T]":
        """A future for the work's result, done once it is on disk for good.

        It raises QueueError when the database failed; what the work itself raises passes through.
        """
        loop = asyncio.get_running_loop()
        future: asyncio.Future[_T] = loop.create_future()
        if self._is_closed:
            future.set_exception(QueueError("the queue is closed"))
            return future
        left = self._left.get(loop)
        if left is None:
            self._left[loop] = [(work, future)]
            loop.call_soon(self._wait_turns, loop, TURNS - 1, loop.time() + MOST_WAIT_SECONDS)
        else:
            left.append((work, future))
        return future

    def _wait_turns(self, loop: asyncio.AbstractEventLoop, turns: int, until: float) -> None:
        if turns and loop.time() < until and not self._is_closed:
            loop.call_soon(self._wait_turns, loop, turns - 1, until)
        else:
            self._hand_over(loop)

    def _hand_over(self, loop: asyncio.AbstractEventLoop) -> None:
        left = self._left.pop(loop, None)
        if left is not None:
            self._inbox.put(left)

    def close(self) -> None:
        """Write what waits, end the thread, close the database. Blocks; safe to call twice."""
        if not self._is_closed:
            self._is_closed = True
            for loop in tuple(self._left):
                self._hand_over(loop)
            self._inbox.put(None)
        self._thread.join()

    def _run(self) -> None:
        is_open = True
        while is_open:
            batch = self._inbox.get()
            if batch is None:
                break
            try:
                with self._database.turn():
                    # What came while another process committed still goes with this transaction.
                    is_open = self._gather(batch)
                    answers = self._commit(batch)
            except OSError as error:  # the lock
                answers = [(future, None, as_queue_error(error)) for _, future in batch]
            _tell(answers)
        self._database.close()

    def _gather(self, batch: list[_Ticket]) -> bool:
        """Put what waits into `batch`, up to a bound; False when nothing will follow."""
        while len(batch) < MOST_AT_ONCE:
            try:
                tickets = self._inbox.get_nowait()
            except queue.Empty:
                break
            if tickets is None:
                return False
            batch += tickets
        return True

    def _commit(self, batch: list[_Ticket]) -> list[_Answer]:
        answers: list[_Answer]
        try:
            results = self._database.transact_in_turn([work for work, _ in batch])
        except QueueError as error:
            answers = [(future, None, QueueError(str(error), is_full=error.is_full)) for _, future in batch]
        except Exception as error:
            if len(batch) > 1:
                # One work is at fault, none is kept: each again by itself, so that the others pass.
                return [answer for ticket in batch for answer in self._commit([ticket])]
            answers = [(batch[0][1], None, error)]
        else:
            answers = [(future, result, None) for (_, future), result in zip(batch, results, strict=True)]
        self.commits += 1
        self.works += len(batch)
        return answers


def _tell(answers: list[_Answer]) -> None:
    by_loop: dict[asyncio.AbstractEventLoop, list[_Answer]] = {}
    for answer in answers:
        by_loop.setdefault(answer[0].get_loop(), []).append(answer)
    for loop, group in by_loop.items():
        try:
            loop.call_soon_threadsafe(_resolve, group)
        except RuntimeError:
            pass  # the loop is closed, so nobody waits any more


def _resolve(answers: list[_Answer]) -> None:
    for future, result, error in answers:
        if future.done():
            continue  # cancelled by whoever waited
        if error is None:
            future.set_result(result)
        else:
            future.set_exception(error)
