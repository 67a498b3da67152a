"""The queue as an administrator sees it: list, show, retry, hold, release, remove.

Works from another process while the server runs. The delivery notices a change within a
second. What it has under way just then it finishes: a message that is removed or held
in that moment may still arrive.
"""

import os
import sqlite3
from collections.abc import Callable, Iterator, Sequence

from popgate.files.disk import Disk
from popgate.queue import header, queue_id, rows
from popgate.queue.backlog import NOW, State, hold, read_consignees
from popgate.queue.bodies import BodyFiles
from popgate.queue.database import BODIES, FILE, Database, as_queue_error
from popgate.queue.queue import Envelope, QueueError
from popgate.values.clock import Clock
from popgate.values.value import value

HELD_BY_HAND = "held by the administrator"


@value
class ListedRecipient:
    """`address` as it was accepted (or forwarded to); `mailbox` where an alias led to one, `via`
    the alias. `next_attempt_at`: Unix time, 0 for at once; it counts while `state` is pending."""

    address: str
    is_local: bool
    state: State
    attempts: int
    next_attempt_at: float
    status: str
    mailbox: str
    via: str


@value
class ListedMessage:
    """`held`: why the message is held, "" when it is not. `envelope.recipients` is empty."""

    queue_id: str
    created_at: float
    octets: int
    envelope: Envelope
    held: str
    recipients: tuple[ListedRecipient, ...]


class QueueAdmin:
    """All calls block and raise QueueError. Ids that are none, or not there, are passed over:
    each change returns the ids that it was made to."""

    def __init__(self, directory: str, disk: Disk, clock: Clock) -> None:
        if not os.path.exists(f"{directory}/{FILE}"):
            raise QueueError(f"there is no queue in {directory}")
        self._clock = clock
        self._disk = disk
        try:
            self._fd = disk.open_directory(directory)
            self._bodies = BodyFiles(disk, self._fd, BODIES)
            self._database = Database(directory)
        except OSError as error:
            raise QueueError(f"{directory}: {error.strerror or error}") from error

    def list(
        self,
        *,
        states: Sequence[State] = (),
        domain: str = "",
        sender: str | None = None,
        after: str = "",
        most: int = 1000,
    ) -> list[ListedMessage]:
        """Up to `most` messages, the oldest first; for the next page pass the last id as `after`.

        `states`, `domain`: with a recipient like that. `sender`: this one, "" for the null sender.
        """
        start = queue_id.to_number(after) if after else -1
        if start is None:
            raise QueueError(f"{after!r} is not a queue id")
        conditions: list[str] = ["id > ?"]
        values: list[object] = [start]
        wanted = []
        if states:
            wanted.append(f"state IN ({', '.join('?' * len(states))})")
            values += states
        if domain:
            wanted.append("domain = ?")
            values.append(domain.lower())
        if wanted:
            wanted.append("recipient.message = message.id")
            conditions.append(f"EXISTS (SELECT 1 FROM recipient WHERE {' AND '.join(wanted)})")  # noqa: S608
        if sender == "":
            conditions.append("sender_local IS NULL")
        elif sender is not None:
            local, _, sender_domain = sender.rpartition("@")
            conditions.append("sender_local = ? AND sender_domain = ?")
            values += [local, sender_domain.lower()]
        query = f"{' AND '.join(conditions)} ORDER BY id LIMIT ?"
        return self._database.read(lambda c: _listed(c, query, [*values, most]))

    def show(self, name: str) -> ListedMessage | None:
        number = queue_id.to_number(name)
        found = self._database.read(lambda c: _listed(c, "id = ?", [number]))
        return found[0] if found else None

    def header(self, name: str) -> bytes:
        """The message's header, up to 256 KiB of it; b"" when there is none to read."""
        head, _, _ = header.split(self.content(name))
        return head

    def content(self, name: str) -> Iterator[bytes]:
        """The message in blocks, as it lies there, damaged or not."""
        number = queue_id.to_number(name)
        row = self._database.read(
            lambda c: c.execute("SELECT body FROM message WHERE id = ?", (number,)).fetchone()
        )
        if row is None:
            return iter(())
        if row[0] is not None:
            return iter((row[0],))
        try:
            return self._bodies.read(name)
        except OSError as error:
            raise QueueError(f"the body of {name} cannot be read: {error.strerror or error}") from error

    def counts(self) -> dict[str, int]:
        """Recipients by state, and `messages`."""

        def work(connection: sqlite3.Connection) -> dict[str, int]:
            found = dict(connection.execute("SELECT state, count(*) FROM recipient GROUP BY state"))
            found["messages"] = connection.execute("SELECT count(*) FROM message").fetchone()[0]
            return found

        return self._database.read(work)

    def retry(self, names: Sequence[str] | None) -> Sequence[str]:
        """Attempt delivery now, though a destination may be resting; None: all that wait."""

        def work(connection: sqlite3.Connection, number: int) -> bool:
            return (
                connection.execute(
                    "UPDATE recipient SET next_attempt_at = ? WHERE message = ? AND state = 'pending'",
                    (NOW, number),
                ).rowcount
                > 0
            )

        return self._change(names, "state = 'pending'", work)

    def hold(self, names: Sequence[str], reason: str = HELD_BY_HAND) -> Sequence[str]:
        """Deliver no more of a message until it is released."""
        return self._change(names, "", lambda connection, number: hold(connection, number, reason))

    def release(self, names: Sequence[str] | None) -> Sequence[str]:
        """Go on with held messages, at once; None: all held ones."""

        def work(connection: sqlite3.Connection, number: int) -> bool:
            connection.execute("UPDATE message SET held = '' WHERE id = ?", (number,))
            return (
                connection.execute(
                    "UPDATE recipient SET state = 'pending', next_attempt_at = ?"
                    " WHERE message = ? AND state = 'held'",
                    (NOW, number),
                ).rowcount
                > 0
            )

        return self._change(names, "state = 'held'", work)

    def remove(self, names: Sequence[str]) -> Sequence[str]:
        """Delete messages for good; nobody is told."""

        def work(connection: sqlite3.Connection, number: int) -> bool:
            is_there = connection.execute("SELECT 1 FROM message WHERE id = ?", (number,)).fetchone()
            rows.delete_message(connection, number)
            return is_there is not None

        removed = self._change(names, "", work)
        for name in removed:
            try:
                self._bodies.remove(name)
            except OSError as error:
                raise as_queue_error(error) from error
        return removed

    def _change(
        self,
        names: Sequence[str] | None,
        condition: str,
        work: Callable[[sqlite3.Connection, int], bool],
    ) -> Sequence[str]:
        def change(connection: sqlite3.Connection) -> list[str]:
            if names is None:
                query = f"SELECT DISTINCT message FROM recipient WHERE {condition} ORDER BY message"  # noqa: S608
                numbers = [number for (number,) in connection.execute(query)]
            else:
                known = [queue_id.to_number(name) for name in dict.fromkeys(names)]
                numbers = [number for number in known if number is not None]
            return [queue_id.to_text(number) for number in numbers if work(connection, number)]

        return self._database.perform(change)

    def close(self) -> None:
        self._database.close()
        self._bodies.close()
        if self._fd >= 0:
            self._disk.close(self._fd)
            self._fd = -1


def _listed(connection: sqlite3.Connection, where: str, values: Sequence[object]) -> list[ListedMessage]:
    found = []
    query = f"SELECT id, created_at, octets, held, {rows.ENVELOPE} FROM message WHERE {where}"  # noqa: S608
    for number, created_at, octets, held, *envelope in connection.execute(query, values).fetchall():
        recipients = tuple(
            ListedRecipient(
                str(one.recipient.address),
                one.recipient.is_local,
                state,
                one.attempts,
                at,
                status,
                one.mailbox,
                one.via,
            )
            for one, state, at, status in read_consignees(connection, number)
        )
        name = queue_id.to_text(number)
        found.append(ListedMessage(name, created_at, octets, rows.read_envelope(envelope), held, recipients))
    return found
