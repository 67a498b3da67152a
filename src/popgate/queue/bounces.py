"""Delivery status notifications (RFC 3461 to 3464, RFC 6533): who gets one, and how it reads.

Composing is pure: time, chance and the original's header are given. A notification goes
to the envelope sender from the null sender, so none is ever sent about another.
"""

import email.policy
from collections.abc import Sequence
from email.mime.base import MIMEBase
from email.mime.multipart import MIMEMultipart
from email.mime.text import MIMEText
from email.utils import formatdate
from typing import Literal

from popgate.queue.backlog import Consignee, QueuedMessage
from popgate.queue.delivery.outcome import Outcome
from popgate.queue.queue import Envelope, Recipient
from popgate.values.mail import MailAddress
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
    root = MIMEMultipart("report", boundary=f"report-{message.queue_id}-{nonce}")
    root.set_param("report-type", "global-delivery-status" if is_utf8 else "delivery-status")
    root["Date"] = formatdate(now)
    root["From"] = f"Mail Delivery System <MAILER-DAEMON@{reporter.hostname}>"
    root["To"] = f"<{sender}>"
    root["Subject"] = _SUBJECTS[kind]
    root["Message-ID"] = f"<{message.queue_id}.{nonce}@{reporter.hostname}>"
    root["Auto-Submitted"] = "auto-replied"  # RFC 3834 5
    root.attach(_text(reporter, kind, message, entries, until))
    status = _status(reporter, kind, message, entries, until)
    root.attach(_part("message", "global-delivery-status" if is_utf8 else "delivery-status", status))
    returned = _returned(header)
    if is_utf8:
        root.attach(_part("message", "global-headers", returned))
    else:
        returned = returned.encode("ascii", "replace").decode()
        root.attach(_part("text", "rfc822-headers", returned))
    policy = email.policy.compat32.clone(linesep="\r\n", max_line_length=None, cte_type="8bit")
    body = _with_utf8_header(root.as_bytes(policy=policy), sender, is_utf8)
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


def _with_utf8_header(content: bytes, sender: MailAddress, is_utf8: bool) -> bytes:
    """The To field with the address itself: the email package would encode it as a phrase."""
    if not is_utf8 or sender.is_ascii:
        return content
    lines = content.split(b"\r\n")
    end = lines.index(b"")
    for index in range(end):
        if lines[index].startswith(b"To:"):
            stop = index + 1
            while stop < end and lines[stop][:1] in b" \t":
                stop += 1
            lines[index:stop] = [f"To: <{sender}>".encode()]
            break
    return b"\r\n".join(lines)


def _part(main: str, sub: str, text: str) -> MIMEBase:
    part = MIMEBase(main, sub)
    if text.isascii():
        part.set_payload(text)
    else:
        part["Content-Transfer-Encoding"] = "8bit"
        part.set_payload(text.encode().decode("ascii", "surrogateescape"))
    return part


def _returned(header: bytes) -> str:
    if len(header) > RETURNED_OCTETS:
        header = header[: header.rfind(b"\r\n", 0, RETURNED_OCTETS) + 2]
    text = header.decode("utf-8", "replace").replace("\r\n", "\n")
    return "".join(char for char in text if char >= " " or char in "\n\t")


def _text(
    reporter: Reporter, kind: Kind, message: QueuedMessage, entries: Sequence[Entry], until: float
) -> MIMEText:
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
    lines += [
        f"It was accepted on {formatdate(message.created_at)} as {message.queue_id}.",
        "The technical details and the header of your message follow.",
        "",
    ]
    text = "\n".join(lines)
    return MIMEText(text, "plain", "us-ascii" if text.isascii() else "utf-8")


def _status(
    reporter: Reporter, kind: Kind, message: QueuedMessage, entries: Sequence[Entry], until: float
) -> str:
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
    return "\n".join([*fields, ""])


def _one_line(text: str) -> str:
    return "".join(char for char in text if char >= " " and char != "\x7f")
