"""Mailboxes in memory: what the interface means, in the fewest words, and a double for tests."""

import itertools
import threading
from collections.abc import Iterable, Iterator, Sequence

from popgate.mailbox.line_ends import BLOCK, READ_BLOCK, StoredForm, to_wire, top
from popgate.mailbox.mailbox import MailboxError, MailboxFull, MailboxInUse, Message
from popgate.values.identity import Identity


class _Stored:
    __slots__ = ("is_seen", "octets", "uid", "wire")

    def __init__(self, uid: str, wire: bytes) -> None:
        self.uid = uid
        self.wire = wire
        self.octets = len(wire)
        self.is_seen = False


class MemoryMailboxes:
    """`popgate.mailbox.mailbox.Mailboxes` that forget all at exit.

    With `capacity_octets` a delivery that would not fit into its mailbox raises MailboxFull.
    """

    def __init__(self, capacity_octets: int | None = None) -> None:
        self._capacity = capacity_octets
        self._boxes: dict[Identity, list[_Stored]] = {}
        self._open: set[Identity] = set()
        self._guard = threading.Lock()
        self._counter = itertools.count(1)

    def open_maildrop(self, identity: Identity) -> "MemoryMaildrop":
        with self._guard:
            if identity in self._open:
                raise MailboxInUse(f"the mailbox of {identity} is open in another session")
            self._open.add(identity)
            return MemoryMaildrop(self, identity, list(self._boxes.setdefault(identity, [])))

    def deliver(self, identity: Identity, body: Iterable[bytes]) -> str:
        form = StoredForm()
        stored = b"".join([form.feed(block) for block in body] + [form.finish()])
        wire = b"".join(to_wire(_cut(stored, READ_BLOCK)))
        with self._guard:
            box = self._boxes.setdefault(identity, [])
            if self._capacity is not None:
                used = sum(message.octets for message in box)
                if used + len(wire) > self._capacity:
                    raise MailboxFull(f"the mailbox of {identity} is full")
            uid = f"{next(self._counter)}.memory"
            box.append(_Stored(uid, wire))
            return uid

    def contents(self, identity: Identity) -> Sequence[bytes]:
        """For tests: every message in CRLF form, oldest first."""
        with self._guard:
            return [message.wire for message in self._boxes.get(identity, [])]

    def seen(self, identity: Identity) -> Sequence[bool]:
        """For tests: which of `contents` were marked as seen."""
        with self._guard:
            return [message.is_seen for message in self._boxes.get(identity, [])]

    def lose(self, identity: Identity, uid: str) -> None:
        """For tests: take a message away behind the back of whoever has the maildrop open."""
        with self._guard:
            box = self._boxes.get(identity, [])
            box[:] = [message for message in box if message.uid != uid]

    def holds(self, identity: Identity, message: _Stored) -> bool:
        with self._guard:
            return message in self._boxes.get(identity, [])

    def take(self, identity: Identity, message: _Stored) -> bool:
        with self._guard:
            box = self._boxes.get(identity, [])
            if message not in box:
                return False
            box.remove(message)
            return True

    def release(self, identity: Identity) -> None:
        with self._guard:
            self._open.discard(identity)


class MemoryMaildrop:
    """The maildrop of MemoryMailboxes."""

    def __init__(self, mailboxes: MemoryMailboxes, identity: Identity, stored: list[_Stored]) -> None:
        self._mailboxes = mailboxes
        self._identity = identity
        self._stored = stored
        self._is_open = True
        self.messages: Sequence[Message] = [Message(each.uid, each.octets) for each in stored]

    def read(self, index: int, body_lines: int | None = None) -> Iterator[bytes]:
        message = self._stored[index]
        if not self._is_open or not self._mailboxes.holds(self._identity, message):
            raise MailboxError(f"message {message.uid} has vanished")
        blocks = _cut(message.wire, BLOCK)
        return blocks if body_lines is None else top(blocks, body_lines)

    def remove(self, indexes: Iterable[int]) -> Sequence[int]:
        return sorted(
            index for index in indexes if not self._mailboxes.take(self._identity, self._stored[index])
        )

    def mark_seen(self, indexes: Iterable[int]) -> None:
        for index in indexes:
            self._stored[index].is_seen = True

    def close(self) -> None:
        if self._is_open:
            self._is_open = False
            self._mailboxes.release(self._identity)


def _cut(data: bytes, size: int) -> Iterator[bytes]:
    return (data[start : start + size] for start in range(0, len(data), size))
