"""Rows of the index: a folder's own, and those of its messages.

File names may hold octets that are no UTF-8, which SQLite cannot keep as text: such a name is a blob.
"""

import os
import secrets
import sqlite3
from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple

from popgate.mailbox.folders import FolderState

MAX_UID: Final = 0xFFFFFFFF
MOST_VANISHED: Final = 20_000
_SOME = 400  # that many uids are named in one question

_COLUMNS: Final = (
    "id, name, inode, uid_validity, uid_next, modseq, recent_from, mailbox_id, special_use, vanished_floor,"
    " stamps, messages, unseen, deleted, octets, deleted_octets, disk_octets"
)


class FolderRow:
    """One folder, as it was read; `save` writes what may have changed."""

    __slots__ = (
        "deleted",
        "deleted_octets",
        "disk_octets",
        "id",
        "inode",
        "mailbox_id",
        "messages",
        "modseq",
        "name",
        "octets",
        "recent_from",
        "special_use",
        "stamps",
        "uid_next",
        "uid_validity",
        "unseen",
        "vanished_floor",
    )

    id: int
    name: str
    inode: int
    uid_validity: int
    uid_next: int
    modseq: int
    recent_from: int
    mailbox_id: str
    special_use: str
    vanished_floor: int
    stamps: str
    messages: int
    unseen: int
    deleted: int
    octets: int
    deleted_octets: int
    disk_octets: int

    def __init__(self, columns: tuple[object, ...]) -> None:
        (
            self.id,
            self.name,
            self.inode,
            self.uid_validity,
            self.uid_next,
            self.modseq,
            self.recent_from,
            self.mailbox_id,
            self.special_use,
            self.vanished_floor,
            self.stamps,
            self.messages,
            self.unseen,
            self.deleted,
            self.octets,
            self.deleted_octets,
            self.disk_octets,
        ) = columns  # type: ignore[assignment]

    def state(self) -> FolderState:
        return FolderState(
            self.uid_validity,
            self.uid_next,
            self.modseq,
            self.messages,
            self.unseen,
            self.deleted,
            self.octets,
            self.deleted_octets,
            self.recent_from,
            self.mailbox_id,
        )

    def count(self, letters: str, octets: int, disk_octets: int, sign: int = 1) -> None:
        """Take a message in, or out with `sign` -1."""
        self.messages += sign
        self.octets += sign * octets
        self.disk_octets += sign * disk_octets
        if "S" not in letters:
            self.unseen += sign
        if "T" in letters:
            self.deleted += sign
            self.deleted_octets += sign * octets

    def take_uid(self) -> int:
        uid = self.uid_next
        if uid > MAX_UID:
            raise sqlite3.DataError("the folder has used all its uids")
        self.uid_next += 1
        return uid

    def save(self, connection: sqlite3.Connection) -> None:
        connection.execute(
            "UPDATE folders SET uid_next = ?, modseq = ?, recent_from = ?, vanished_floor = ?, stamps = ?,"
            " messages = ?, unseen = ?, deleted = ?, octets = ?, deleted_octets = ?, disk_octets = ?"
            " WHERE id = ?",
            (
                self.uid_next,
                self.modseq,
                self.recent_from,
                self.vanished_floor,
                self.stamps,
                self.messages,
                self.unseen,
                self.deleted,
                self.octets,
                self.deleted_octets,
                self.disk_octets,
                self.id,
            ),
        )


def folder_by_id(connection: sqlite3.Connection, number: int) -> FolderRow | None:
    found = connection.execute(f"SELECT {_COLUMNS} FROM folders WHERE id = ?", (number,)).fetchone()  # noqa: S608 - our column names
    return None if found is None else FolderRow(found)


def folder_by_name(connection: sqlite3.Connection, name: str) -> FolderRow | None:
    found = connection.execute(f"SELECT {_COLUMNS} FROM folders WHERE name = ?", (name,)).fetchone()  # noqa: S608 - our column names
    return None if found is None else FolderRow(found)


def all_folders(connection: sqlite3.Connection) -> dict[str, FolderRow]:
    found = connection.execute(f"SELECT {_COLUMNS} FROM folders").fetchall()  # noqa: S608 - our column names
    return {row.name: row for row in map(FolderRow, found)}


def add_folder(connection: sqlite3.Connection, name: str, inode: int, uid_validity: int) -> FolderRow:
    connection.execute(
        "INSERT INTO folders (name, inode, uid_validity, mailbox_id) VALUES (?, ?, ?, ?)",
        (name, inode, uid_validity, "F" + secrets.token_hex(12)),
    )
    made = folder_by_name(connection, name)
    assert made is not None
    return made


def remove_folder(connection: sqlite3.Connection, number: int) -> None:
    for table in ("messages", "twins", "vanished", "content"):
        connection.execute(f"DELETE FROM {table} WHERE folder = ?", (number,))  # noqa: S608 - our column names
    connection.execute("DELETE FROM folders WHERE id = ?", (number,))


class Message(NamedTuple):
    """One message as the index knows it: `name` is where its file was last seen, in `new` or `cur`."""

    uid: int
    name: str
    base: str
    in_new: int
    letters: str
    modseq: int
    octets: int
    disk_octets: int
    received: int
    email_id: str


_MESSAGE = "uid, name, base, in_new, letters, modseq, octets, disk_octets, received, email_id"


def as_column(name: str) -> str | bytes:
    return name if name.isascii() else os.fsencode(name)


def from_column(name: str | bytes) -> str:
    return name if type(name) is str else os.fsdecode(name)


def _message(columns: tuple[object, ...]) -> Message:
    made = Message(*columns)  # type: ignore[arg-type]
    if type(made.name) is not str or type(made.base) is not str:
        return made._replace(name=from_column(made.name), base=from_column(made.base))
    return made


def add_messages(connection: sqlite3.Connection, folder: int, messages: Iterable[Message]) -> None:
    connection.executemany(
        "INSERT INTO messages VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        ((folder, each.uid, as_column(each.name), as_column(each.base), *each[3:]) for each in messages),
    )


def place_message(connection: sqlite3.Connection, folder: int, message: Message) -> None:
    """Its file has another name by now, or other flags."""
    connection.execute(
        "UPDATE messages SET name = ?, in_new = ?, letters = ?, modseq = ? WHERE folder = ? AND uid = ?",
        (
            as_column(message.name),
            message.in_new,
            message.letters,
            message.modseq,
            folder,
            message.uid,
        ),
    )


def message_of(connection: sqlite3.Connection, folder: int, uid: int) -> Message | None:
    found = connection.execute(
        f"SELECT {_MESSAGE} FROM messages WHERE folder = ? AND uid = ?",  # noqa: S608 - our column names
        (folder, uid),
    ).fetchone()
    return None if found is None else _message(found)


def has_base(connection: sqlite3.Connection, folder: int, base: str) -> bool:
    return (
        connection.execute(
            "SELECT 1 FROM messages WHERE folder = ? AND base = ?", (folder, as_column(base))
        ).fetchone()
        is not None
    )


def changed_since(connection: sqlite3.Connection, folder: int, modseq: int) -> list[Message]:
    if modseq <= 0:
        return list(messages_of(connection, folder))
    return [
        _message(each)
        for each in connection.execute(
            f"SELECT {_MESSAGE} FROM messages INDEXED BY messages_modseq"  # noqa: S608 - our column names
            " WHERE folder = ? AND modseq > ? ORDER BY uid",
            (folder, modseq),
        )
    ]


def messages_of(
    connection: sqlite3.Connection, folder: int, uids: Iterable[int] | None = None
) -> Iterator[Message]:
    """The messages of these uids that exist, in order of uid; None: all."""
    if uids is None:
        uids = range(1, MAX_UID + 1)
    if isinstance(uids, range) and uids.step == 1:
        low, high = max(uids.start, 0), min(uids.stop - 1, MAX_UID)
        wanted: frozenset[int] | None = None
    else:
        ordered = sorted(set(uids))
        if len(ordered) <= _SOME:
            marks = ", ".join("?" * len(ordered))
            question = f"SELECT {_MESSAGE} FROM messages WHERE folder = ? AND uid IN ({marks}) ORDER BY uid"  # noqa: S608 - our column names
            yield from map(_message, connection.execute(question, (folder, *ordered)).fetchall())
            return
        low, high, wanted = ordered[0], min(ordered[-1], MAX_UID), frozenset(ordered)
    found = connection.execute(
        f"SELECT {_MESSAGE} FROM messages WHERE folder = ? AND uid BETWEEN ? AND ? ORDER BY uid",  # noqa: S608 - our column names
        (folder, low, high),
    ).fetchall()
    for columns in found:
        if wanted is None or columns[0] in wanted:
            yield _message(columns)


def forget_messages(connection: sqlite3.Connection, row: FolderRow, gone: Iterable[Message]) -> None:
    """They are gone from the folder, as of the row's change number."""
    folder = row.id
    for message in gone:
        row.count(message.letters, message.octets, message.disk_octets, -1)
        connection.execute("DELETE FROM messages WHERE folder = ? AND uid = ?", (folder, message.uid))
        connection.execute("DELETE FROM content WHERE folder = ? AND uid = ?", (folder, message.uid))
        connection.execute("INSERT INTO vanished VALUES (?, ?, ?)", (folder, message.uid, row.modseq))
    _prune(connection, row)


def _prune(connection: sqlite3.Connection, row: FolderRow) -> None:
    count = connection.execute("SELECT count(*) FROM vanished WHERE folder = ?", (row.id,)).fetchone()[0]
    if count <= MOST_VANISHED:
        return
    (floor,) = connection.execute(
        "SELECT modseq FROM vanished WHERE folder = ? ORDER BY modseq DESC LIMIT 1 OFFSET ?",
        (row.id, MOST_VANISHED // 2),
    ).fetchone()
    row.vanished_floor = floor
    connection.execute("DELETE FROM vanished WHERE folder = ? AND modseq <= ?", (row.id, floor))
