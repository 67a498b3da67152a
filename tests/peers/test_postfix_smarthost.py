"""Debian's Postfix as the smart host: what was accepted arrives there, byte for byte."""

import asyncio
import os
from pathlib import Path

import pytest

from support.postfix import Postfix
from support.queue_site import QueueSite

pytestmark = pytest.mark.peer("postfix")

MESSAGES = {
    "plain": b"Subject: plain\r\n\r\nhello\r\n",
    "dots": b"Subject: dots\r\n\r\n.\r\n..\r\n.x\r\n. \r\n...\r\n",
    "no body": b"Subject: no body\r\n\r\n",
    "eight bits": b"Subject: 8\r\n\r\n" + bytes(range(128, 256)) + b"\r\n",
    "long header": b"Subject: long\r\n" + b"X-Header: value\r\n" * 500 + b"\r\nend\r\n",
    "lines of the greatest length": b"Subject: lines\r\n\r\n" + (b"x" * 998 + b"\r\n") * 20,
    "white space": b"Subject: space\r\n\r\n  \r\n\t\r\n trailing \r\n\r\n\r\n",
    "large": b"Subject: large\r\n\r\n" + (os.urandom(36).hex().encode() + b"\r\n") * 20000,
}


@pytest.mark.parametrize("scheme", ["smtp", "smtp+starttls", "smtps"])
async def test_what_is_relayed_arrives_byte_for_byte(tmp_path: Path, smarthost: Postfix, scheme: str) -> None:
    authority = tmp_path / "ca.pem"
    smarthost.certificate_authority.cert_pem.write_to_path(authority)
    port = smarthost.tls_port if scheme == "smtps" else smarthost.port
    route = f"{scheme}://localhost:{port}"
    async with QueueSite(tmp_path / "queue", smarthost=route, ca_file=str(authority)) as site:
        for number, body in enumerate(MESSAGES.values()):
            await site.send(f"to{number}@example.net", f"also{number}@example.com", body=body)
        await site.wait_for("delivery.sent", 2 * len(MESSAGES), seconds=20)
        await site.until_empty()
    delivered = await asyncio.to_thread(smarthost.wait_for, 2 * len(MESSAGES))
    found = {one.recipient: one for one in delivered}
    for number, (name, body) in enumerate(MESSAGES.items()):
        for recipient in (f"to{number}@example.net", f"also{number}@example.com"):
            assert found[recipient].body == body, name
            assert found[recipient].sender == "me@example.org"


async def test_refusals_and_deferrals_of_postfix(tmp_path: Path, smarthost: Postfix) -> None:
    async with QueueSite(tmp_path / "queue", smarthost=f"smtp://127.0.0.1:{smarthost.port}") as site:
        site.recipients.mailbox("me@example.org")
        await site.send("refuse@refuse.example", "defer@refuse.example", "ok@example.net")
        await site.wait_for("delivery.sent")
        (failed,) = await site.wait_for("delivery.failed")
        (deferred,) = await site.wait_for("delivery.deferred")
        assert failed.fields["recipient"] == "refuse@refuse.example"
        assert failed.fields["status"] == "5.1.1"
        assert deferred.fields["status"] == "4.2.0"
        await site.wait_for("delivery.local")
        (bounce,) = site.inbox("me@example.org")
        assert b"Final-Recipient: rfc822; refuse@refuse.example\r\n" in bounce
