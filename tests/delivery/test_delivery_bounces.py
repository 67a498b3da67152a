"""Who is told what about a delivery, and that what is told can be read."""

import email
import email.policy
from email.message import Message
from pathlib import Path

import pytest

from popgate.queue.queue import Recipient
from support.queue_site import QueueSite, mail
from support.smtp_peer import SmtpPeer

ORIGINAL = b"Received: x\r\nSubject: the original\r\nX-8bit: gr\xfc\xdfe\r\n\r\nsecret body\r\n"


def refuse(line: str) -> str | None:
    return "550 5.1.1 no such user\x07 here" if line.startswith("RCPT TO:<no") else None


def read(content: bytes) -> tuple[Message, str, list[Message], Message]:
    report = email.message_from_bytes(content, policy=email.policy.compat32)
    assert report.get_content_type() == "multipart/report"
    assert not report.defects
    text, status, header = report.get_payload()  # type: ignore[misc]
    blocks = status.get_payload()  # type: ignore[union-attr]
    return report, text.get_payload(), blocks, header  # type: ignore[union-attr,return-value]


async def test_a_bounce_reads_as_rfc_3464_says(tmp_path: Path) -> None:
    async with (
        SmtpPeer(refuse) as peer,
        QueueSite(tmp_path, smarthost=f"smtp://127.0.0.1:{peer.port}") as site,
    ):
        site.recipients.mailbox("me@example.org")
        recipient = Recipient(mail("no1@example.net"), False, (), "rfc822;alias@example.com")
        name = await site.send(recipient, "no2@example.net", "yes@example.net", body=ORIGINAL, envid="env-7")
        await site.wait_for("delivery.local")
        (event,) = site.named("delivery.bounce")
        (content,) = site.inbox("me@example.org")
        await site.until_empty()
    assert event.fields["queue_id"] == name
    assert event.fields["recipients"] == 2
    report, text, blocks, header = read(content)
    assert report["Return-Path"] == "<>"
    assert report["To"] == "<me@example.org>"
    assert report["Auto-Submitted"] == "auto-replied"
    assert report.get_param("report-type") == "delivery-status"
    assert report["Date"]
    assert report["Message-ID"].endswith("@mail.example.org>")
    assert "no1@example.net" in text
    assert blocks[0]["Reporting-MTA"] == "dns; mail.example.org"
    assert blocks[0]["Original-Envelope-Id"] == "env-7"
    first, second = blocks[1:]
    assert first["Original-Recipient"] == "rfc822;alias@example.com"
    assert first["Final-Recipient"] == "rfc822; no1@example.net"
    assert first["Action"] == "failed"
    assert first["Status"] == "5.1.1"
    assert first["Remote-MTA"] == "dns; 127.0.0.1"
    assert first["Diagnostic-Code"] == "smtp; 550 5.1.1 no such user? here"
    assert second["Final-Recipient"] == "rfc822; no2@example.net"
    returned = header.get_payload()
    assert "Subject: the original" in returned
    assert "secret body" not in content.decode()
    assert content.isascii()


@pytest.mark.parametrize(
    ("notify", "bounces"), [((), 1), (("NEVER",), 0), (("SUCCESS",), 0), (("FAILURE", "DELAY"), 1)]
)
async def test_notify_is_respected(tmp_path: Path, notify: tuple[str, ...], bounces: int) -> None:
    async with (
        SmtpPeer(refuse) as peer,
        QueueSite(tmp_path, smarthost=f"smtp://127.0.0.1:{peer.port}") as site,
    ):
        site.recipients.mailbox("me@example.org")
        await site.send(Recipient(mail("no@example.net"), False, notify))
        await site.wait_for("delivery.failed")
        await site.until_empty()
        assert len(site.inbox("me@example.org")) == bounces


async def test_the_null_sender_gets_nothing(tmp_path: Path) -> None:
    async with (
        SmtpPeer(refuse) as peer,
        QueueSite(tmp_path, smarthost=f"smtp://127.0.0.1:{peer.port}") as site,
    ):
        await site.send("no@example.net", sender="")
        await site.wait_for("delivery.bounce.dropped")
        await site.until_empty()
        assert not site.named("delivery.bounce")


async def test_a_bounce_that_bounces_is_dropped(tmp_path: Path) -> None:
    async with (
        SmtpPeer(refuse) as peer,
        QueueSite(tmp_path, smarthost=f"smtp://127.0.0.1:{peer.port}") as site,
    ):
        await site.send("no@example.net", sender="nobody@example.com")
        await site.wait_for("delivery.bounce.dropped")  # the peer knows no "nobody" either
        await site.send("no@example.net", sender="you@example.com")
        await site.wait_for("delivery.sent")
        await site.send("no@example.net", sender="gone@example.org")
        await site.wait_for("delivery.bounce.dropped", 2)
        await site.until_empty()
        assert peer.transactions[0].mail.startswith("MAIL FROM:<> ")


async def test_success_is_reported_when_asked_for(tmp_path: Path) -> None:
    async with (
        SmtpPeer() as peer,
        QueueSite(tmp_path, smarthost=f"smtp://127.0.0.1:{peer.port}") as site,
    ):
        site.recipients.mailbox("me@example.org", "you@example.org")
        await site.send(Recipient(mail("you@example.org"), True, ("SUCCESS",)))
        await site.wait_for("delivery.report")
        await site.send(Recipient(mail("x@example.net"), False, ("SUCCESS",)))
        await site.wait_for("delivery.report", 2)
        await site.until_empty()
        actions = [read(content)[2][1]["Action"] for content in site.inbox("me@example.org")]
        assert actions == ["delivered", "relayed"]


async def test_a_delay_is_reported_once_when_asked_for(tmp_path: Path) -> None:
    def later(line: str) -> str | None:
        return "450 4.2.1 later" if line.startswith("RCPT") else None

    async with (
        SmtpPeer(later) as peer,
        QueueSite(tmp_path, smarthost=f"smtp://127.0.0.1:{peer.port}") as site,
    ):
        site.recipients.mailbox("me@example.org")
        await site.send(Recipient(mail("x@example.net"), False, ("DELAY",)))
        await site.wait_for("delivery.deferred")
        for count in (2, 3):
            site.clock.advance(20000)
            site.runner.wake()
            await site.wait_for("delivery.deferred", count)
        await site.wait_for("delivery.local")
        (content,) = site.inbox("me@example.org")
        block = read(content)[2][1]
        assert block["Action"] == "delayed"
        assert block["Status"] == "4.2.1"
        assert block["Will-Retry-Until"]


async def test_the_end_of_the_lifetime_bounces(tmp_path: Path) -> None:
    def later(line: str) -> str | None:
        return "450 4.2.1 later" if line.startswith("RCPT") else None

    async with (
        SmtpPeer(later) as peer,
        QueueSite(tmp_path, smarthost=f"smtp://127.0.0.1:{peer.port}") as site,
    ):
        site.recipients.mailbox("me@example.org")
        await site.send("x@example.net")
        await site.wait_for("delivery.deferred")
        site.clock.advance(500_000)
        site.runner.wake()
        await site.wait_for("delivery.local")
        (content,) = site.inbox("me@example.org")
        block = read(content)[2][1]
        assert block["Status"] == "5.4.7"
        assert "450 4.2.1 later" in block["Diagnostic-Code"]


async def test_a_bounce_in_utf8(tmp_path: Path) -> None:
    async with (
        SmtpPeer(refuse) as peer,
        QueueSite(tmp_path, smarthost=f"smtp://127.0.0.1:{peer.port}") as site,
    ):
        await site.send("noö@example.net", sender="jürgen@example.com", body=ORIGINAL, needs_smtputf8=True)
        await site.wait_for("delivery.sent")
    (transaction,) = peer.transactions
    assert "SMTPUTF8" in transaction.mail
    assert transaction.rcpts == ["RCPT TO:<jürgen@example.com>"]
    content = transaction.content
    report = email.message_from_bytes(content, policy=email.policy.compat32)
    assert [part.get_content_type() for part in report.get_payload()] == [  # type: ignore[union-attr]
        "text/plain",
        "message/global-delivery-status",
        "message/global-headers",
    ]
    assert "Final-Recipient: utf-8; noö@example.net".encode() in content
    assert "To: <jürgen@example.com>\r\n".encode() in content


async def test_an_original_cannot_forge_a_part_of_its_bounce(tmp_path: Path) -> None:
    """The boundary is chosen after the message, by chance."""
    body = b"X: 1\r\n--report\r\nContent-Type: text/plain\r\n\r\nx\r\n"
    async with (
        SmtpPeer(refuse) as peer,
        QueueSite(tmp_path, smarthost=f"smtp://127.0.0.1:{peer.port}") as site,
    ):
        site.recipients.mailbox("me@example.org")
        await site.send("no@example.net", "no2@example.net", body=body)
        await site.wait_for("delivery.local")
        read(site.inbox("me@example.org")[0])
