"""Putting the queue in order after a crash, and now and then while it runs.

Body files that no row speaks of are litter of messages that were never acknowledged, or
of such as are delivered; they go once nobody writes them any more. A row without its
body is set aside, told as an event, and the queue goes on.
"""

import sqlite3

from popgate.queue import queue_id
from popgate.queue.backlog import hold
from popgate.queue.database import Database
from popgate.queue.store import SqliteQueue
from popgate.values.event import Event

QUIET_SECONDS = 600.0
"""A body file that was written since then may still be coming in."""


class Sweeper:
    """Sweeps one queue. `sweep` blocks: run it in a thread. What it found waits in `take_events`,
    because events go out in the event loop."""

    def __init__(self, queue: SqliteQueue) -> None:
        self._queue = queue
        self._events: list[Event] = []

    def take_events(self) -> list[Event]:
        events, self._events = self._events, []
        return events

    def sweep(self) -> None:
        """Raises QueueError when the database cannot be used."""
        database = Database(self._queue.directory)
        try:
            self._remove_orphans(database)
            self._hold_damaged(database)
        finally:
            database.close()

    def _remove_orphans(self, database: Database) -> None:
        queue, bodies = self._queue, self._queue.bodies
        try:
            quiet = list(bodies.quiet_since(queue.clock.now() - QUIET_SECONDS))
        except OSError as error:
            self._note("queue.fault", reason=f"the bodies cannot be listed: {error.strerror or error}")
            return
        for name in quiet:
            number = queue_id.to_number(name)
            if number is None:
                continue  # not ours
            try:
                lock = bodies.try_lock(name)
                if lock is None:
                    continue
                try:
                    # The writer commits its row before it lets go of the lock, so what is
                    # seen now is final.
                    if not database.read(lambda c, number=number: _has_row(c, number)):  # type: ignore[misc]
                        bodies.remove(name)
                        self._note("queue.orphan", queue_id=name)
                finally:
                    bodies.release(lock)
            except OSError as error:
                self._note("queue.fault", queue_id=name, reason=f"orphan: {error.strerror or error}")

    def _hold_damaged(self, database: Database) -> None:
        rows = database.read(_in_files)
        damaged = [
            (number, f"the body file {'is missing' if size is None else f'has {size} octets, not {octets}'}")
            for number, octets in rows
            if (size := self._queue.bodies.size(queue_id.to_text(number))) != octets
        ]
        damaged += [
            (number, "the body was cut in the database") for number in database.read(_cut_in_database)
        ]
        for number, reason in damaged:
            # A message that was delivered meanwhile has no row any more, and nothing happens.
            if database.perform(lambda c, n=number, r=reason: hold(c, n, f"damaged: {r}")):  # type: ignore[misc]
                self._note("queue.damaged", queue_id=queue_id.to_text(number), reason=reason)

    def _note(self, name: str, **fields: str | int | float | None) -> None:
        self._events.append(Event(name, self._queue.clock.now(), fields))


def _has_row(connection: sqlite3.Connection, number: int) -> bool:
    return connection.execute("SELECT 1 FROM message WHERE id = ?", (number,)).fetchone() is not None


def _in_files(connection: sqlite3.Connection) -> list[tuple[int, int]]:
    return connection.execute("SELECT id, octets FROM message WHERE body IS NULL AND held = ''").fetchall()


def _cut_in_database(connection: sqlite3.Connection) -> list[int]:
    query = "SELECT id FROM message WHERE body IS NOT NULL AND length(body) <> octets AND held = ''"
    return [number for (number,) in connection.execute(query)]
