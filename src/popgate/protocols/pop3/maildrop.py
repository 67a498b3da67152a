"""The maildrop as one POP3 session sees it: numbers, sizes, names and marks of deletion.

It answers STAT, LIST, UIDL, DELE and RSET from the listing that came with the login.
Numbers are the client's, from 1; indexes are ours, from 0.
"""

from collections.abc import Iterator, Sequence

from popgate.protocols.pop3.replies import Entry

LINES_IN_A_PIECE = 1000
"""A listing is made in pieces of so many lines: at most 80 KB."""


class MaildropView:
    """Messages in a fixed order, some of them marked as deleted."""

    __slots__ = ("_deleted", "_deleted_octets", "_messages", "_octets")

    def __init__(self, messages: Sequence[Entry]) -> None:
        self._messages = messages
        self._deleted: set[int] = set()
        self._deleted_octets = 0
        self._octets: int | None = None  # asked for by most clients, not by devices

    def __len__(self) -> int:
        return len(self._messages)

    @property
    def count(self) -> int:
        """Messages that are not deleted."""
        return len(self._messages) - len(self._deleted)

    @property
    def octets(self) -> int:
        """The size of the messages that are not deleted."""
        if self._octets is None:
            self._octets = sum([message.octets for message in self._messages])
        return self._octets - self._deleted_octets

    @property
    def deleted(self) -> tuple[int, ...]:
        return tuple(sorted(self._deleted))

    def has(self, number: int) -> bool:
        """Whether `number` is that of a message which is not deleted."""
        return 0 < number <= len(self._messages) and number - 1 not in self._deleted

    def entry(self, number: int) -> Entry:
        return self._messages[number - 1]

    def delete(self, number: int) -> None:
        self._deleted.add(number - 1)
        self._deleted_octets += self._messages[number - 1].octets

    def reset(self) -> None:
        self._deleted.clear()
        self._deleted_octets = 0

    def scan_listing(self) -> Iterator[bytes]:
        """RFC 1939 5 LIST: a line for each message that is not deleted, in pieces."""
        for numbered in self._pieces():
            yield "".join([f"{number} {entry.octets}\r\n" for number, entry in numbered]).encode("ascii")

    def unique_id_listing(self) -> Iterator[bytes]:
        """RFC 1939 7 UIDL: likewise."""
        for numbered in self._pieces():
            lines = "".join([f"{number} {entry.uid}\r\n" for number, entry in numbered])
            yield lines.encode("ascii", "replace")

    def _pieces(self) -> Iterator[list[tuple[int, Entry]]]:
        deleted = self._deleted
        for start in range(0, len(self._messages), LINES_IN_A_PIECE):
            numbered = list(enumerate(self._messages[start : start + LINES_IN_A_PIECE], start + 1))
            yield [pair for pair in numbered if pair[0] - 1 not in deleted] if deleted else numbered
