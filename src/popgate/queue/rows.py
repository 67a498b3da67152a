"""How messages and recipients stand in the tables: the statements and nothing else."""

import sqlite3
from collections.abc import Iterable

from popgate.queue.queue import Envelope, Recipient
from popgate.values.address import AddressError, ClientAddress
from popgate.values.mail import MailAddress

# Pieces of a larger statement, so that a reader of rows need not count columns.
ENVELOPE = "sender_local, sender_domain, client, identity, session, helo, envid, ret, needs_smtputf8, is_8bit"
_INSERT_MESSAGE = (
    f"INSERT INTO message (id, created_at, octets, crc, {ENVELOPE}, body)"  # noqa: S608 constants only
    " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
)
_INSERT_RECIPIENT = (
    "INSERT INTO recipient (message, number, local, domain, is_local, notify, orcpt, next_attempt_at,"
    " mailbox, via) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
)


def insert_message(
    connection: sqlite3.Connection,
    number: int,
    envelope: Envelope,
    created_at: float,
    body: bytes | None,
    octets: int,
    crc: int,
) -> None:
    """Put a message and its recipients into the tables, due at once. `body` None: it is in a file."""
    sender = envelope.sender
    connection.execute(
        _INSERT_MESSAGE,
        (
            number,
            created_at,
            octets,
            crc,
            None if sender is None else sender.local,
            None if sender is None else sender.domain,
            "" if envelope.client is None else envelope.client.text,
            envelope.identity,
            envelope.session,
            envelope.helo,
            envelope.envid,
            envelope.ret,
            envelope.needs_smtputf8,
            envelope.is_8bit,
            body,
        ),
    )
    for index, recipient in enumerate(envelope.recipients):
        insert_recipient(connection, number, index, recipient, created_at)


def insert_recipient(
    connection: sqlite3.Connection,
    number: int,
    index: int,
    recipient: Recipient,
    due_at: float,
    mailbox: str = "",
    via: str = "",
) -> None:
    address = recipient.address
    connection.execute(
        _INSERT_RECIPIENT,
        (
            number,
            index,
            address.local,
            address.domain,
            recipient.is_local,
            ",".join(recipient.notify),
            recipient.orcpt,
            due_at,
            mailbox,
            via,
        ),
    )


def read_envelope(row: Iterable[object], recipients: tuple[Recipient, ...] = ()) -> Envelope:
    """The envelope from the columns ENVELOPE."""
    local, domain, client, identity, session, helo, envid, ret, needs_smtputf8, is_8bit = row
    try:
        address = ClientAddress.parse(str(client)) if client else None
    except AddressError:
        address = None
    return Envelope(
        sender=None if local is None else MailAddress(str(local), str(domain)),
        recipients=recipients,
        client=address,
        identity=str(identity),
        session=str(session),
        helo=str(helo),
        envid=str(envid),
        ret=str(ret),
        needs_smtputf8=bool(needs_smtputf8),
        is_8bit=bool(is_8bit),
    )


def delete_message(connection: sqlite3.Connection, number: int) -> None:
    connection.execute("DELETE FROM recipient WHERE message = ?", (number,))
    connection.execute("DELETE FROM message WHERE id = ?", (number,))
