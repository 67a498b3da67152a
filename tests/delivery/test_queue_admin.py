"""The queue command's side: what an administrator sees and does, from another process's view."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from popgate.auth.authenticator import LookupUnavailable
from popgate.files.real import RealDisk
from popgate.queue.admin import QueueAdmin
from popgate.queue.queue import QueueError
from support.queue_site import QueueSite


@pytest.fixture
def site(tmp_path: Path) -> QueueSite:
    site = QueueSite(tmp_path, smarthost="smtp://127.0.0.1:9")  # nobody listens on discard
    site.recipients.table["wait@example.org"] = LookupUnavailable("not now")
    return site


@pytest.fixture
def admin(site: QueueSite, tmp_path: Path) -> Iterator[QueueAdmin]:
    from popgate.queue.database import Database

    Database(str(tmp_path)).close()
    admin = QueueAdmin(str(tmp_path), RealDisk(), site.clock)
    yield admin
    admin.close()


async def test_list_and_show(site: QueueSite, admin: QueueAdmin) -> None:
    async with site:
        one = await site.send("wait@example.org", sender="a@example.net", body=b"Subject: 1\r\n\r\nx\r\n")
        two = await site.send("wait@example.org", "x@example.com", sender="", body=b"x" * 100_000 + b"\r\n")
        await site.wait_for("delivery.deferred", 3)
        assert [message.queue_id for message in admin.list()] == [one, two]
        assert [message.queue_id for message in admin.list(after=one)] == [two]
        assert [message.queue_id for message in admin.list(most=1)] == [one]
        assert [message.queue_id for message in admin.list(sender="")] == [two]
        assert [message.queue_id for message in admin.list(sender="a@example.net")] == [one]
        assert [message.queue_id for message in admin.list(domain="Example.com")] == [two]
        assert admin.list(states=["held", "failed"]) == []
        assert len(admin.list(states=["pending"])) == 2
        shown = admin.show(one)
        assert shown is not None
        assert str(shown.envelope.sender) == "a@example.net"
        (recipient,) = shown.recipients
        assert (recipient.address, recipient.state, recipient.attempts) == ("wait@example.org", "pending", 1)
        assert "account database" in recipient.status
        assert admin.header(one) == b"Subject: 1\r\n"
        assert sum(map(len, admin.content(two))) == 100_002
        assert admin.show("nonsense") is None
        assert list(admin.content("31fght26p00")) == []
        assert admin.counts() == {"messages": 2, "pending": 3}
        with pytest.raises(QueueError, match="not a queue id"):
            admin.list(after="../x")


async def test_hold_stops_and_release_goes_on(site: QueueSite, admin: QueueAdmin) -> None:
    async with site:
        name = await site.send("wait@example.org")
        await site.wait_for("delivery.deferred")
        assert admin.hold([name, "nonsense", "31fght26p00"]) == [name]
        site.recipients.mailbox("wait@example.org")
        site.clock.advance(10_000)
        assert admin.retry([name]) == []
        other = await site.send("wait@example.org", body=b"other\r\n")
        (event,) = await site.wait_for("delivery.local")
        assert event.fields["queue_id"] == other
        assert [message.held for message in admin.list(states=["held"])] == ["held by the administrator"]
        assert admin.release(None) == [name]
        await site.wait_for("delivery.local", 2)
        await site.until_empty()


async def test_retry_does_not_wait_for_the_schedule(site: QueueSite, admin: QueueAdmin) -> None:
    async with site:
        name = await site.send("wait@example.org")
        await site.wait_for("delivery.deferred")
        site.recipients.mailbox("wait@example.org")
        assert admin.retry(None) == [name]
        await site.wait_for("delivery.local", seconds=2)


async def test_retry_wakes_a_destination_that_rests(site: QueueSite, admin: QueueAdmin) -> None:
    async with site:
        await site.send("x@example.net")
        await site.wait_for("delivery.rest")
        admin.retry(None)
        await site.wait_for("delivery.rest", 2)


@pytest.mark.parametrize("octets", [100, 100_000])
async def test_remove_is_for_good(site: QueueSite, admin: QueueAdmin, tmp_path: Path, octets: int) -> None:
    async with site:
        name = await site.send("wait@example.org", body=b"x" * octets)
        await site.wait_for("delivery.deferred")
        assert admin.remove([name, name]) == [name]
        assert admin.remove([name]) == []
        assert admin.list() == []
        assert list((tmp_path / "bodies").iterdir()) == []
        site.clock.advance(10_000)
        site.runner.wake()
        await site.send("wait@example.org")
        await site.wait_for("delivery.deferred", 2)


def test_where_there_is_no_queue(tmp_path: Path) -> None:
    with pytest.raises(QueueError, match="no queue"):
        QueueAdmin(str(tmp_path / "none"), RealDisk(), QueueSite(tmp_path).clock)
