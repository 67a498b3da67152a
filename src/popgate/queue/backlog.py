"""The delivering side of the queue: what is due, the message itself, and what became of it.

Everything an attempt changed is one transaction: the recipients' states, the addresses an
alias stood for, the bounces. So a crash leaves either the state before the attempt (and
it is made again: delivery is at least once) or the state after it with its bounce.
"""

import asyncio
import sqlite3
import zlib
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Literal, TypeVar

from popgate.queue import queue_id, rows
from popgate.queue.bodies import BodyFiles
from popgate.queue.database import Database
from popgate.queue.queue import Envelope, QueueError, Recipient
from popgate.queue.store import SqliteQueue
from popgate.values.mail import MailAddress
from popgate.values.value import value

_T = TypeVar("_T")

State = Literal["pending", "held", "delivered", "failed", "expanded"]


class Damaged(Exception):
    """The body is not what was accepted: missing, cut or altered on disk."""


NOW = 0.0
"""next_attempt_at of what an administrator wants tried now, whether its destination rests or not."""

_DUE = (
    "SELECT next_attempt_at, message, number, domain, is_local, created_at"
    " FROM recipient JOIN message ON message.id = recipient.message"
)


@value
class Due:
    """A recipient whose time has come. `place` sorts as the queue does: next attempt, message, number."""

    place: tuple[float, int, int]
    message: int
    number: int
    domain: str
    is_local: bool
    created_at: float


@value
class Consignee:
    """A recipient as it stands in the queue. `mailbox`: the one mailbox it is for, "" when the
    address is still to be resolved; `via`: the alias it came by."""

    number: int
    recipient: Recipient
    attempts: int
    mailbox: str
    via: str


@value
class QueuedMessage:
    """A message with those recipients that are to be delivered now. `body` None: it is in a file."""

    number: int
    envelope: Envelope
    created_at: float
    octets: int
    crc: int
    has_warned: bool
    recipients: tuple[Consignee, ...]
    body: bytes | None

    @property
    def queue_id(self) -> str:
        return queue_id.to_text(self.number)

    def blocks(self, bodies: BodyFiles) -> Iterator[bytes]:
        """The body; blocks on the disk. Raises Damaged, at the latest instead of ending."""
        octets, crc = 0, 0
        try:
            for block in bodies.read(self.queue_id) if self.body is None else (self.body,):
                octets += len(block)
                crc = zlib.crc32(block, crc)
                yield block
        except OSError as error:
            raise Damaged(f"the body cannot be read: {error.strerror or error}") from error
        if octets != self.octets:
            raise Damaged(f"the body has {octets} octets instead of {self.octets}")
        if crc != self.crc:
            raise Damaged("the body was altered on disk")


@value
class Change:
    """What became of one recipient. `next_attempt_at` counts while the state is pending."""

    number: int
    state: State
    status: str
    attempts: int
    next_attempt_at: float = 0.0


@value
class Target:
    """A further recipient that an alias stands for."""

    recipient: Recipient
    mailbox: str
    via: str


class Backlog:
    """Reads in a thread of its own; writes by the queue's writing thread."""

    def __init__(self, queue: SqliteQueue) -> None:
        self.queue = queue
        self._database = Database(queue.directory)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="queue-read")

    async def _read(self, work: Callable[[sqlite3.Connection], _T]) -> _T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._database.read, work)

    async def version(self) -> int:
        """A number that changes when somebody else has written to the queue."""
        return await self._read(lambda c: int(c.execute("PRAGMA data_version").fetchone()[0]))

    async def due(self, now: float, after: tuple[float, int, int], most: int) -> list[Due]:
        """Up to `most` recipients that are due, in the order of time, behind `after`."""
        query = (
            f"{_DUE} WHERE state = 'pending' AND next_attempt_at <= ?"
            " AND (next_attempt_at, message, number) > (?, ?, ?)"
            " ORDER BY next_attempt_at, message, number LIMIT ?"
        )
        return await self._read(lambda c: [_due(row) for row in c.execute(query, (now, *after, most))])

    async def latest(self, now: float, most: int) -> list[Due]:
        """Up to `most` of those that became due last: new mail, when there is a long backlog."""
        query = (
            f"{_DUE} WHERE state = 'pending' AND next_attempt_at <= ?"
            " ORDER BY next_attempt_at DESC, message DESC, number DESC LIMIT ?"
        )
        return await self._read(lambda c: [_due(row) for row in c.execute(query, (now, most))])

    async def load(self, message: int, numbers: Sequence[int]) -> QueuedMessage | None:
        """The message with those of the recipients that are still pending; None when none is."""
        return await self._read(lambda c: _load(c, message, numbers))

    async def settle(
        self,
        message: QueuedMessage,
        changes: Sequence[Change],
        targets: Sequence[Target] = (),
        reports: Sequence[tuple[Envelope, bytes]] = (),
        has_warned: bool = False,
    ) -> tuple[str, ...]:
        """Record what became of an attempt, durably; the ids of the reports that were queued.

        A message without further recipients is removed. Raises QueueError: nothing is recorded.
        """
        now = self.queue.clock.now()
        numbered = [(self.queue.take_number(), envelope, body) for envelope, body in reports]

        def work(connection: sqlite3.Connection) -> bool:
            return _settle(connection, message.number, changes, targets, numbered, now, has_warned)

        if await self.queue.writer.submit(work) and message.body is None:
            await self._remove_body(message.queue_id)
        return tuple(queue_id.to_text(number) for number, _, _ in numbered)

    async def _remove_body(self, name: str) -> None:
        try:
            await asyncio.get_running_loop().run_in_executor(
                self.queue.threads, self.queue.bodies.remove, name
            )
        except OSError:
            pass  # the sweeper finds it

    async def postpone(self, dues: Sequence[Due], until: float, status: str) -> None:
        """Put recipients off without counting an attempt: their destination rests."""
        changes = [(until, status, due.message, due.number) for due in dues]

        def work(connection: sqlite3.Connection) -> None:
            connection.executemany(
                "UPDATE recipient SET next_attempt_at = ?, status = ?"
                " WHERE message = ? AND number = ? AND state = 'pending'",
                changes,
            )

        await self.queue.writer.submit(work)

    async def set_aside(self, message: int, reason: str) -> None:
        """Hold a message that cannot be delivered as it is, for somebody to look at."""
        await self.queue.writer.submit(lambda connection: hold(connection, message, reason))

    def close(self) -> None:
        self._thread.shutdown(wait=True)
        self._database.close()


def hold(connection: sqlite3.Connection, message: int, reason: str) -> bool:
    """False when there is no such message."""
    cursor = connection.execute("UPDATE message SET held = ? WHERE id = ?", (reason, message))
    connection.execute(
        "UPDATE recipient SET state = 'held' WHERE message = ? AND state = 'pending'", (message,)
    )
    return cursor.rowcount > 0


def _due(row: tuple[float, int, int, str, int, float]) -> Due:
    at, message, number, domain, is_local, created_at = row
    return Due((at, message, number), message, number, domain, bool(is_local), created_at)


def read_consignees(
    connection: sqlite3.Connection, message: int, numbers: Collection[int] | None = None
) -> list[tuple[Consignee, State, float, str]]:
    """Recipients of a message with their state, next attempt and status."""
    found = []
    for row in connection.execute(
        "SELECT number, local, domain, is_local, notify, orcpt, attempts, mailbox, via, state,"
        " next_attempt_at, status FROM recipient WHERE message = ? ORDER BY number",
        (message,),
    ):
        number, local, domain, is_local, notify, orcpt, attempts, mailbox, via, state, at, status = row
        if numbers is None or number in numbers:
            keywords = tuple(notify.split(",")) if notify else ()
            recipient = Recipient(MailAddress(local, domain), bool(is_local), keywords, orcpt)
            found.append((Consignee(number, recipient, attempts, mailbox, via), state, at, status))
    return found


def _load(connection: sqlite3.Connection, message: int, numbers: Sequence[int]) -> QueuedMessage | None:
    row = connection.execute(
        f"SELECT created_at, octets, crc, warned, body, {rows.ENVELOPE} FROM message WHERE id = ?",  # noqa: S608
        (message,),
    ).fetchone()
    if row is None:
        return None
    wanted = read_consignees(connection, message, frozenset(numbers))
    consignees = tuple(consignee for consignee, state, _, _ in wanted if state == "pending")
    if not consignees:
        return None
    created_at, octets, crc, warned, body = row[:5]
    envelope = rows.read_envelope(row[5:])
    return QueuedMessage(message, envelope, created_at, octets, crc, bool(warned), consignees, body)


def _settle(
    connection: sqlite3.Connection,
    message: int,
    changes: Sequence[Change],
    targets: Sequence[Target],
    reports: Sequence[tuple[int, Envelope, bytes]],
    now: float,
    has_warned: bool,
) -> bool:
    """True when nothing of the message is left to do, and its rows are gone."""
    for change in changes:
        # Held meanwhile: what is not yet delivered stays held.
        connection.execute(
            "UPDATE recipient SET"
            " state = CASE WHEN state = 'held' AND ?1 = 'pending' THEN 'held' ELSE ?1 END,"
            " status = ?2, attempts = ?3, next_attempt_at = ?4 WHERE message = ?5 AND number = ?6",
            (change.state, change.status, change.attempts, change.next_attempt_at, message, change.number),
        )
    is_there = connection.execute("SELECT 1 FROM message WHERE id = ?", (message,)).fetchone()
    if is_there and targets:
        _insert_targets(connection, message, targets, now)
    for number, envelope, body in reports:
        rows.insert_message(connection, number, envelope, now, body, len(body), zlib.crc32(body))
    if is_there and has_warned:
        connection.execute("UPDATE message SET warned = 1 WHERE id = ?", (message,))
    is_open = connection.execute(
        "SELECT 1 FROM recipient WHERE message = ? AND state IN ('pending', 'held') LIMIT 1", (message,)
    ).fetchone()
    if is_open:
        return False
    rows.delete_message(connection, message)
    return True


def _insert_targets(
    connection: sqlite3.Connection, message: int, targets: Sequence[Target], now: float
) -> None:
    # Those that are done with count too: two aliases that stand for each other come to an end.
    known = {
        (consignee.recipient.address, consignee.mailbox)
        for consignee, _, _, _ in read_consignees(connection, message)
    }
    last = connection.execute("SELECT max(number) FROM recipient WHERE message = ?", (message,)).fetchone()[0]
    for target in targets:
        key = (target.recipient.address, target.mailbox)
        if key not in known:  # two aliases may lead to one mailbox
            known.add(key)
            last += 1
            rows.insert_recipient(
                connection, message, last, target.recipient, now, target.mailbox, target.via
            )


__all__ = ["Backlog", "Change", "Consignee", "Damaged", "Due", "QueuedMessage", "QueueError", "Target"]
