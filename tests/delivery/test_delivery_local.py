"""Delivery into mailboxes, aliases, loops."""

import os
from pathlib import Path
from typing import Any

import pytest

from popgate.auth.authenticator import LookupUnavailable
from popgate.files.real import RealDisk
from popgate.mailbox.backends.maildir import MaildirMailboxes
from popgate.mailbox.backends.memory import MemoryMailboxes
from popgate.values.identity import Identity
from support.clock import ManualClock
from support.queue_site import QueueSite
from support.smtp_peer import SmtpPeer

BODY = b"Received: from a\r\nSubject: x\r\n\r\n.hello\r\n"


async def test_a_message_reaches_a_mailbox_with_its_trace(tmp_path: Path) -> None:
    async with QueueSite(tmp_path) as site:
        site.recipients.mailbox("me@example.org")
        name = await site.send("me@example.org", sender="a@example.net", body=BODY, session="s1")
        (event,) = await site.wait_for("delivery.local")
        await site.until_empty()
        assert site.inbox("me@example.org") == [
            b"Return-Path: <a@example.net>\r\nDelivered-To: me@example.org\r\n" + BODY
        ]
        assert event.fields["queue_id"] == name
        assert event.fields["session"] == "s1"


async def test_a_forged_return_path_is_removed(tmp_path: Path) -> None:
    rest = b"\r\nReturn-Path: in the body\r\n"
    forged = b"Return-Path: <x@y>\r\n  (folded)\r\nSubject: x\r\nreturn-path:<z@y>\r\n" + rest
    async with QueueSite(tmp_path) as site:
        site.recipients.mailbox("me@example.org")
        await site.send("me@example.org", sender="", body=forged)
        await site.wait_for("delivery.local")
        assert site.inbox("me@example.org") == [
            b"Return-Path: <>\r\nDelivered-To: me@example.org\r\nSubject: x\r\n" + rest
        ]


@pytest.mark.parametrize("body", [b"", b"\r\n", b"\r\nno header\r\n", b"Subject: only a header\r\n"])
async def test_odd_messages_are_delivered_whole(tmp_path: Path, body: bytes) -> None:
    async with QueueSite(tmp_path) as site:
        site.recipients.mailbox("me@example.org")
        await site.send("me@example.org", sender="", body=body)
        await site.wait_for("delivery.local")
        assert site.inbox("me@example.org") == [b"Return-Path: <>\r\nDelivered-To: me@example.org\r\n" + body]


async def test_a_large_message_is_streamed_into_a_real_maildir(tmp_path: Path) -> None:
    body = b"Subject: x\r\n\r\n" + b"0123456789abcdef0123456789abcdef\r\n" * 20000
    site = QueueSite(tmp_path / "queue")
    disk = RealDisk()
    (tmp_path / "mail").mkdir(mode=0o700)
    site.inboxes = MaildirMailboxes(
        str(tmp_path / "mail"), disk, ManualClock(), "mail.example.org", site.events.append
    )
    async with site:
        site.recipients.mailbox("me@example.org")
        await site.send("me@example.org", body=body)
        await site.wait_for("delivery.local")
        (message,) = site.inbox("me@example.org")
        assert message.endswith(b"\r\n" + body)
        await site.until_empty()


async def test_an_account_that_is_gone_bounces(tmp_path: Path) -> None:
    async with QueueSite(tmp_path) as site:
        site.recipients.mailbox("me@example.org")
        await site.send("gone@example.org", sender="me@example.org")
        (event,) = await site.wait_for("delivery.failed")
        assert event.fields["status"] == "5.1.1"
        await site.wait_for("delivery.local")
        (bounce,) = site.inbox("me@example.org")
        assert b"Action: failed" in bounce


class FullMailboxes(MemoryMailboxes):
    def __init__(self, full: str) -> None:
        super().__init__()
        self.full = Identity.parse(full)

    def deliver(self, identity: Identity, body: Any) -> str:
        if identity == self.full:
            from popgate.mailbox.mailbox import MailboxFull

            raise MailboxFull("full")
        return super().deliver(identity, body)


async def test_a_full_mailbox_defers_and_neither_stops_nor_doubles_the_others(tmp_path: Path) -> None:
    site = QueueSite(tmp_path)
    site.inboxes = boxes = FullMailboxes("full@example.org")
    async with site:
        site.recipients.alias("all@example.org", ["a@example.org", "full@example.org", "b@example.org"])
        await site.send("all@example.org", sender="x@example.net")
        (event,) = await site.wait_for("delivery.deferred")
        assert event.fields["status"] == "4.2.2"
        assert event.fields["recipient"] == "full@example.org"
        await site.wait_for("delivery.local", 2)
        boxes.full = Identity.parse("nobody@example.org")
        site.clock.advance(1000)
        site.runner.wake()
        await site.wait_for("delivery.local", 3)
        await site.until_empty()
        for name in ("a", "b", "full"):
            assert len(site.inbox(f"{name}@example.org")) == 1
        assert (
            b"Delivered-To: a@example.org\r\nDelivered-To: all@example.org\r\n"
            in site.inbox("a@example.org")[0]
        )


async def test_what_cannot_be_looked_up_now_is_tried_again(tmp_path: Path) -> None:
    async with QueueSite(tmp_path) as site:
        site.recipients.table["me@example.org"] = LookupUnavailable("locked")
        await site.send("me@example.org")
        await site.wait_for("delivery.deferred")
        site.recipients.mailbox("me@example.org")
        site.clock.advance(1000)
        site.runner.wake()
        await site.wait_for("delivery.local")


async def test_an_alias_forwards_with_the_same_sender(tmp_path: Path) -> None:
    async with SmtpPeer() as peer, QueueSite(tmp_path, smarthost=f"smtp://127.0.0.1:{peer.port}") as site:
        site.recipients.alias("team@example.org", ["me@example.org"], ["out@example.net", "out@example.com"])
        await site.send("team@example.org", sender="a@example.net", body=BODY)
        await site.wait_for("delivery.sent", 2)
        await site.wait_for("delivery.local")
        await site.until_empty()
        (transaction,) = peer.transactions
        assert transaction.mail.startswith("MAIL FROM:<a@example.net>")
        assert transaction.rcpts == ["RCPT TO:<out@example.net>", "RCPT TO:<out@example.com>"]
        assert transaction.content == b"Delivered-To: team@example.org\r\n" + BODY


async def test_an_alias_that_comes_back_to_itself_is_a_loop(tmp_path: Path) -> None:
    async with QueueSite(tmp_path) as site:
        site.recipients.alias("team@example.org", [], ["out@example.net"])
        body = b"delivered-to: Team@example.org\r\n" + BODY
        await site.send("team@example.org", sender="", body=body)
        (event,) = await site.wait_for("delivery.failed")
        assert event.fields["status"] == "5.4.6"


async def test_aliases_that_point_at_each_other_end(tmp_path: Path) -> None:
    async with QueueSite(tmp_path) as site:
        site.recipients.alias("a@example.org", [], ["b@example.org"])
        site.recipients.alias("b@example.org", [], ["a@example.org"])
        await site.send("a@example.org", sender="x@example.net")
        await site.until_empty()
        assert len(site.named("delivery.expanded")) <= 3


@pytest.mark.parametrize("address", ["me@example.org", "you@example.net"])
async def test_too_many_hops_are_a_loop(tmp_path: Path, address: str) -> None:
    async with (
        SmtpPeer() as peer,
        QueueSite(tmp_path, smarthost=f"smtp://127.0.0.1:{peer.port}", max_hops=5) as site,
    ):
        site.recipients.mailbox("me@example.org")
        await site.send(address, sender="", body=b"Received: x\r\n" * 6 + b"\r\nx\r\n")
        (event,) = await site.wait_for("delivery.failed")
        assert event.fields["status"] == "5.4.6"
        await site.send(address, sender="", body=b"Received: x\r\n" * 5 + b"\r\nReceived: x\r\n")
        await site.until(lambda: bool(site.named("delivery.local") or site.named("delivery.sent")))


async def test_two_aliases_for_one_mailbox_give_one_copy(tmp_path: Path) -> None:
    async with QueueSite(tmp_path) as site:
        site.recipients.alias("a@example.org", ["me@example.org", "you@example.org"])
        site.recipients.alias("b@example.org", ["me@example.org", "you@example.org"])
        await site.send("a@example.org", "b@example.org", sender="x@example.net")
        await site.wait_for("delivery.local", 2)
        await site.until_empty()
        assert len(site.inbox("me@example.org")) == 1


@pytest.mark.parametrize("damage", ["missing", "short", "altered", "row"])
async def test_a_damaged_message_is_set_aside_and_the_queue_goes_on(tmp_path: Path, damage: str) -> None:
    site = QueueSite(tmp_path)
    async with site:
        site.recipients.table["me@example.org"] = LookupUnavailable("wait")
        size = 100 if damage == "row" else 100_000
        name = await site.send("me@example.org", body=b"x" * size + b"\r\n")
        await site.wait_for("delivery.deferred")
        path = tmp_path / "bodies" / name
        if damage == "missing":
            path.unlink()
        elif damage == "short":
            os.truncate(path, 5000)
        elif damage == "altered":
            path.write_bytes(b"y" * size + b"\r\n")
        else:
            await site.queue.writer.submit(
                lambda c: c.execute("UPDATE message SET body = zeroblob(102)").rowcount
            )
        site.recipients.mailbox("me@example.org")
        site.clock.advance(1000)
        site.runner.wake()
        (event,) = await site.wait_for("queue.damaged")
        assert event.fields["queue_id"] == name
        await site.send("me@example.org", body=b"fine\r\n")
        await site.wait_for("delivery.local")
        assert len(site.inbox("me@example.org")) == 1


async def test_a_defect_holds_the_message_and_does_not_repeat(tmp_path: Path) -> None:
    async with QueueSite(tmp_path) as site:
        site.recipients.mailbox("me@example.org")
        calls = 0

        def broken(*_: object) -> None:
            nonlocal calls
            calls += 1
            raise RuntimeError("a defect")

        import asyncio

        asyncio.get_running_loop().set_exception_handler(lambda loop, context: None)
        site.runner._local.deliver = broken  # type: ignore[method-assign,assignment]
        await site.send("me@example.org")
        await site.wait_for("queue.fault")
        await asyncio.sleep(0.4)
        assert calls == 1
