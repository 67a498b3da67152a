"""Delivery status notifications (RFC 3461 to 3464, RFC 6533): who gets one, and how it reads.

Composing is pure: time, chance and the original's header are given. The MIME structure is
fixed and written out here, because the email package has its own mind about
message/delivery-status; tests read it back with that package. A notification goes
to the envelope sender from the null sender, so none is ever sent about another.
"""

from collections.abc import Sequence
from email.utils import formatdate
from typing import Literal

from popgate.queue.backlog import Consignee, QueuedMessage
from popgate.queue.delivery.outcome import Outcome
from popgate.queue.queue import Envelope, Recipient
from popgate.values.value import value

Kind = Literal["failed", "delayed", "delivered", "relayed", "expanded"]
Entry = tuple[Consignee, Outcome]

RETURNED_OCTETS = 65536
"""So much of the original's header is returned."""

_SUBJECTS = {
    "failed": "Your message could not be delivered",
    "delayed": "Your message is delayed",
    "delivered": "Your message was delivered",
    "relayed": "Your message was passed on",
    "expanded": "Your message was passed on to a list of addresses",
}
_TEXTS = {
    "failed": "Your message could not be delivered to these addresses. It will not be tried again.",
    "delayed": "Your message could not yet be delivered to these addresses. It will be tried again\n"
    "until {until}; you need not send it again.",
    "delivered": "Your message was delivered to these addresses.",
    "relayed": "Your message was passed on to a host that does not report deliveries, for these addresses.",
    "expanded": "These addresses stand for several others, to which your message is being sent.",
}


@value
class Reporter:
    """Who reports. `local_domains`: to know whether a sender is one of ours."""

    hostname: str
    local_domains: frozenset[str]


def wants(kind: Kind, recipient: Recipient) -> bool:
    """RFC 3461 4.1: what the sender asked for; without a wish failures alone are reported."""
    if kind == "failed":
        return not recipient.notify or "FAILURE" in recipient.notify
    return ("DELAY" if kind == "delayed" else "SUCCESS") in recipient.notify


def compose(
    reporter: Reporter,
    kind: Kind,
    message: QueuedMessage,
    entries: Sequence[Entry],
    header: bytes,
    now: float,
    until: float,
    nonce: str,
) -> tuple[Envelope, bytes]:
    """A notification about `entries` of a message that has a sender, ready for the queue.

    `nonce` makes the boundary one that the original's sender could not foresee.
    """
    sender = message.envelope.sender
    assert sender is not None
    # RFC 6533: addresses in UTF-8 need the "global" media types and an SMTPUTF8 transport
    is_utf8 = not sender.is_ascii or any(not one.recipient.address.is_ascii for one, _ in entries)
    boundary = f"report-{message.queue_id}-{nonce}"
    report_type = "global-delivery-status" if is_utf8 else "delivery-status"
    header_type = "message/global-headers" if is_utf8 else "text/rfc822-headers"
    returned = _returned(header)
    if not is_utf8:
        returned = returned.encode("ascii", "replace").decode()
    lines = [
        f"Date: {formatdate(now)}",
        f"From: Mail Delivery System <MAILER-DAEMON@{reporter.hostname}>",
        f"To: <{sender}>",
        f"Subject: {_SUBJECTS[kind]}",
        f"Message-ID: <{message.queue_id}.{nonce}@{reporter.hostname}>",
        "Auto-Submitted: auto-replied",  # RFC 3834 5
        "MIME-Version: 1.0",
        f"Content-Type: multipart/report; report-type={report_type};",
        f'\tboundary="{boundary}"',
        "",
        "This is a delivery status notification in MIME format (RFC 3464).",
        "",
        *_part(boundary, "text/plain; charset=utf-8", _text(reporter, kind, message, entries, until)),
        *_part(boundary, f"message/{report_type}", _status(reporter, kind, message, entries, until)),
        *_part(boundary, header_type, returned.split("\n")),
        f"--{boundary}--",
        "",
    ]
    body = "\r\n".join(lines).encode()
    recipient = Recipient(sender, is_local=sender.domain in reporter.local_domains, notify=("NEVER",))
    envelope = Envelope(
        sender=None,
        recipients=(recipient,),
        client=None,
        session=message.envelope.session,
        needs_smtputf8=is_utf8,
        is_8bit=is_utf8,
    )
    return envelope, body


def _part(boundary: str, media_type: str, lines: list[str]) -> list[str]:
    is_ascii = all(line.isascii() for line in lines)
    return [
        f"--{boundary}",
        f"Content-Type: {media_type}",
        f"Content-Transfer-Encoding: {'7bit' if is_ascii else '8bit'}",
        "",
        *lines,
        "",
    ]


def _returned(header: bytes) -> str:
    if len(header) > RETURNED_OCTETS:
        header = header[: header.rfind(b"\r\n", 0, RETURNED_OCTETS) + 2]
    text = header.decode("utf-8", "replace").replace("\r\n", "\n").removesuffix("\n")
    return "".join(char for char in text if char >= " " or char in "\n\t")


def _text(
    reporter: Reporter, kind: Kind, message: QueuedMessage, entries: Sequence[Entry], until: float
) -> list[str]:
    lines = [
        f"This is the mail system at {reporter.hostname}.",
        "",
        *_TEXTS[kind].format(until=formatdate(until)).split("\n"),
        "",
    ]
    for consignee, outcome in entries:
        lines.append(f"<{consignee.recipient.address}>")
        if kind != "expanded":
            said = f"{outcome.host} said: " if outcome.host and outcome.is_reply else ""
            lines.append(f"    {said}{outcome.text}")
        lines.append("")
    return [
        *lines,
        f"It was accepted on {formatdate(message.created_at)} as {message.queue_id}.",
        "The technical details and the header of your message follow.",
    ]


def _status(
    reporter: Reporter, kind: Kind, message: QueuedMessage, entries: Sequence[Entry], until: float
) -> list[str]:
    """RFC 3464 2: fields for the message, then a group for each recipient."""
    fields = [f"Reporting-MTA: dns; {reporter.hostname}"]
    if message.envelope.envid:
        fields.append(f"Original-Envelope-Id: {_one_line(message.envelope.envid)}")
    fields.append(f"Arrival-Date: {formatdate(message.created_at)}")
    for consignee, outcome in entries:
        recipient = consignee.recipient
        kind_of_address = "rfc822" if recipient.address.is_ascii else "utf-8"
        fields.append("")
        if recipient.orcpt:
            fields.append(f"Original-Recipient: {_one_line(recipient.orcpt)}")
        fields.append(f"Final-Recipient: {kind_of_address}; {recipient.address}")
        fields.append(f"Action: {kind}")
        fields.append(f"Status: {outcome.code}")
        if outcome.host:
            fields.append(f"Remote-MTA: dns; {_one_line(outcome.host)}")
        if outcome.text and kind in ("failed", "delayed"):
            fields.append(f"Diagnostic-Code: {'smtp' if outcome.is_reply else 'x-popgate'}; {outcome.text}")
        if kind == "delayed":
            fields.append(f"Will-Retry-Until: {formatdate(until)}")
    return fields


def _one_line(text: str) -> str:
    return "".join(char for char in text if char >= " " and char != "\x7f")
