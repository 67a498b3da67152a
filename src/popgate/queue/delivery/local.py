"""Delivery into mailboxes here, and what an alias stands for.

The address is resolved now and not when the message was accepted, so that the account
tables rule until the end: the row keeps the address as it was accepted. An address that
stands for one mailbox is delivered at once. One that stands for several, or for
addresses elsewhere, becomes a row for each, so that a full mailbox neither stops nor
doubles the others' copies.

Interfaces only: this module knows neither the accounts nor the mailboxes themselves.
"""

from collections.abc import Iterable, Iterator
from itertools import chain
from typing import Protocol

from popgate.queue import header
from popgate.queue.backlog import Consignee, Damaged, QueuedMessage, Target
from popgate.queue.bodies import BodyFiles
from popgate.queue.delivery.outcome import Outcome, clean, deferred, failed
from popgate.queue.queue import Recipient
from popgate.values.identity import Identity
from popgate.values.mail import MailAddress
from popgate.values.value import value


class Resolved(Protocol):
    """auth.authenticator.LocalRecipient"""

    @property
    def mailboxes(self) -> tuple[Identity, ...]: ...

    @property
    def forwards(self) -> tuple[MailAddress, ...]: ...


class LocalRecipients(Protocol):
    """auth.authenticator.RecipientTable. What it raises means: not now."""

    def resolve(self, address: MailAddress) -> Resolved | None: ...


class Inboxes(Protocol):
    """mailbox.mailbox.Mailboxes. What it raises means: not now; `is_full` of it, that there is no room."""

    def deliver(self, identity: Identity, body: Iterable[bytes]) -> str: ...


@value
class OneMailbox:
    """What a row stands for that has its mailbox already."""

    mailboxes: tuple[Identity, ...]
    forwards: tuple[MailAddress, ...] = ()


class LocalDelivery:
    """`resolve` is quick and belongs to the event loop's thread, as the account tables do; then
    `deliver` blocks on the disk: run it in a thread."""

    def __init__(
        self,
        recipients: LocalRecipients,
        inboxes: Inboxes,
        bodies: BodyFiles,
        local_domains: frozenset[str],
        max_hops: int,
    ) -> None:
        self._recipients = recipients
        self._inboxes = inboxes
        self._bodies = bodies
        self._local_domains = local_domains
        self._max_hops = max_hops

    def resolve(self, consignee: Consignee) -> Resolved | Outcome:
        """What the address stands for, or the outcome when it stands for nothing."""
        if consignee.mailbox:
            return OneMailbox((Identity.parse(consignee.mailbox),))
        address = consignee.recipient.address
        try:
            resolved = self._recipients.resolve(address)
        except Exception as error:
            return deferred("4.3.0", f"the account database cannot be read now ({type(error).__name__})")
        if resolved is None or not (resolved.mailboxes or resolved.forwards):
            return failed("5.1.1", f"there is no mailbox {address} here")
        return resolved

    def deliver(
        self, message: QueuedMessage, consignee: Consignee, resolved: Resolved
    ) -> Outcome | list[Target]:
        """An outcome, or the recipients that take this one's place. Raises Damaged."""
        head, start, rest = header.split(message.blocks(self._bodies))
        if header.hops(head) > self._max_hops:
            return failed("5.4.6", f"more than {self._max_hops} hosts have passed this message on: a loop")
        if len(resolved.mailboxes) == 1 and not resolved.forwards:
            return self._put(message, consignee, resolved.mailboxes[0], head, start, rest)
        address = str(consignee.recipient.address)
        if header.was_delivered_to(head, address):
            return failed("5.4.6", f"the message has been sent on from {address} before: a loop")
        return self._targets(consignee, resolved)

    def _targets(self, consignee: Consignee, resolved: Resolved) -> list[Target]:
        original = consignee.recipient
        # RFC 3461 5.2.7.1 and 4.2: the wishes and the address that the sender knows go with it
        orcpt = original.orcpt or f"rfc822;{original.address}"
        alias = str(original.address)
        targets = []
        for identity in resolved.mailboxes:
            address = MailAddress(identity.user, identity.domain)
            recipient = Recipient(address, True, original.notify, orcpt)
            targets.append(Target(recipient, str(identity), alias))
        for address in resolved.forwards:
            is_local = address.domain in self._local_domains
            targets.append(Target(Recipient(address, is_local, original.notify, orcpt), "", alias))
        return targets

    def _put(
        self,
        message: QueuedMessage,
        consignee: Consignee,
        identity: Identity,
        head: bytes,
        start: bytes,
        rest: Iterator[bytes],
    ) -> Outcome:
        # RFC 5321 4.4: the return path, and no other than ours
        top = f"Return-Path: <{message.envelope.sender or ''}>\r\n" + trace(consignee)
        blocks = chain((top.encode() + header.without_return_path(head), start), rest)
        try:
            self._inboxes.deliver(identity, (block for block in blocks if block))
        except Damaged:
            raise
        except Exception as error:
            if getattr(error, "is_full", False):
                return deferred("4.2.2", f"the mailbox of {identity} is full")
            return deferred("4.3.0", f"the mailbox of {identity} cannot be used now ({type(error).__name__})")
        return Outcome("delivered", "2.0.0", clean(f"delivered to the mailbox of {identity}"))


def trace(consignee: Consignee) -> str:
    """The Delivered-To fields that tell how the message came to this recipient."""
    lines = f"Delivered-To: {consignee.recipient.address}\r\n" if consignee.recipient.is_local else ""
    if consignee.via:
        lines += f"Delivered-To: {consignee.via}\r\n"
    return lines
