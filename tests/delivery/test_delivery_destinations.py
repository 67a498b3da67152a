"""One destination's trouble is no other's."""

import asyncio
import random
from pathlib import Path
from typing import Any

import pytest

from popgate.queue.delivery.bounded import MemoryBound
from popgate.queue.delivery.lane import READY_MOST
from popgate.queue.queue import QueueError
from popgate.queue.settings import RouteSettings
from support.queue_site import QueueSite
from support.smtp_peer import SmtpPeer


def routes(**domains: str) -> list[RouteSettings]:
    return [RouteSettings([f"{name}.example"], to) for name, to in domains.items()]


DEAD = "smtp://127.0.0.1:9"


async def test_a_dead_destination_does_not_hold_others(tmp_path: Path) -> None:
    async with SmtpPeer() as peer:
        settings: Any = {"route": routes(dead=DEAD, live=f"smtp://127.0.0.1:{peer.port}")}
        async with QueueSite(tmp_path, **settings) as site:
            site.recipients.mailbox("me@example.org")
            await asyncio.gather(*[site.send(f"x{n}@dead.example", sender="") for n in range(700)])
            await site.wait_for("delivery.rest")
            await site.send("x@live.example")
            await site.send("me@example.org")
            await site.wait_for("delivery.sent")
            await site.wait_for("delivery.local")
            # an attempt was counted for few; the others wait for the destination
            assert len(site.named("delivery.deferred")) <= 5 + READY_MOST // 10


async def test_a_destination_that_hangs_does_not_hold_others(tmp_path: Path) -> None:
    async with SmtpPeer(lambda line: "hang") as hung, SmtpPeer() as peer:
        settings: Any = {
            "route": routes(hung=f"smtp://127.0.0.1:{hung.port}", live=f"smtp://127.0.0.1:{peer.port}")
        }
        async with QueueSite(tmp_path, **settings) as site:
            for number in range(20):
                await site.send(f"x{number}@hung.example", sender="")
            await site.send("x@live.example")
            await site.wait_for("delivery.sent")
            assert hung.most_open <= 5


async def test_after_a_rest_one_tries_and_then_all_follow(tmp_path: Path) -> None:
    peer = SmtpPeer()
    async with peer:
        pass  # takes a port and gives it up
    settings: Any = {"route": routes(back=f"smtp://127.0.0.1:{peer.port}")}
    async with QueueSite(tmp_path, **settings) as site:
        for number in range(30):
            await site.send(f"x{number}@back.example", sender="")
        await site.wait_for("delivery.rest")
        await asyncio.sleep(0.2)
        counted = len(site.named("delivery.deferred"))
        assert counted <= 5
        site.clock.advance(400)
        site.runner.wake()
        await site.wait_for("delivery.rest", 2)
        await asyncio.sleep(0.2)
        assert len(site.named("delivery.deferred")) == counted + 1
        async with peer:
            site.clock.advance(1000)
            site.runner.wake()
            await site.wait_for("delivery.sent", 30)
            await site.until_empty()


async def test_a_lifetime_ends_though_the_destination_rests(tmp_path: Path) -> None:
    settings: Any = {"route": routes(dead=DEAD), "lifetime_seconds": 1000}
    async with QueueSite(tmp_path, **settings) as site:
        site.recipients.mailbox("me@example.org")
        for number in range(60):
            await site.send(f"x{number}@dead.example")
        await site.wait_for("delivery.rest")
        site.clock.advance(1001)
        site.runner.wake()
        await site.wait_for("delivery.failed", 60)
        await site.wait_for("delivery.local", 60)
        await site.until_empty()


async def test_a_long_backlog_is_worked_off(tmp_path: Path) -> None:
    """More than a page and more than a lane keeps in memory."""
    async with SmtpPeer() as peer, QueueSite(tmp_path, smarthost=f"smtp://127.0.0.1:{peer.port}") as site:
        await asyncio.gather(*[site.send(f"x{n}@example.net") for n in range(1500)])
        await site.wait_for("delivery.sent", 1500, seconds=30)
        await site.until_empty()
        assert len(peer.transactions) == 1500


async def test_a_second_delivery_process_waits(tmp_path: Path) -> None:
    async with QueueSite(tmp_path) as first:
        first.recipients.mailbox("me@example.org")
        second = QueueSite(tmp_path)
        second.recipients.mailbox("me@example.org")
        async with second:
            await second.send("me@example.org")
            await first.wait_for("delivery.local", seconds=2)
            assert not second.named("delivery.local")


async def test_a_delivery_process_that_waits_for_another_says_when_it_begins(tmp_path: Path) -> None:
    async with QueueSite(tmp_path) as first:
        await first.until(lambda: first.has_begun)
        async with QueueSite(tmp_path) as second:
            for _ in range(3):
                second.runner.wake()
                await asyncio.sleep(0.02)
            assert not second.has_begun
            await first.runner.stop(2)
            await second.until(lambda: second.has_begun, 3)
    async with QueueSite(tmp_path) as holder:
        await holder.until(lambda: holder.has_begun)
        async with QueueSite(tmp_path) as stopped:
            pass
        assert not stopped.has_begun


async def test_mail_of_another_process_is_seen_without_being_told(tmp_path: Path) -> None:
    async with QueueSite(tmp_path) as site:
        site.queue.accepted = None
        site.recipients.mailbox("me@example.org")
        await asyncio.sleep(0.3)
        started = site.clock.monotonic()
        await site.send("me@example.org")
        await site.wait_for("delivery.local")
        assert site.clock.monotonic() - started < 1


async def test_a_failing_database_does_not_send_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("popgate.queue.delivery.settle.FAULT_SECONDS", 0.05)
    async with SmtpPeer() as peer, QueueSite(tmp_path, smarthost=f"smtp://127.0.0.1:{peer.port}") as site:
        real, failures = site.runner._backlog.settle, 3

        async def settle(*args: Any) -> Any:
            nonlocal failures
            failures -= 1
            if failures >= 0:
                raise QueueError("disk I/O error")
            return await real(*args)

        monkeypatch.setattr(site.runner._backlog, "settle", settle)
        await site.send("x@example.net")
        await site.wait_for("delivery.sent")
        assert len(site.named("queue.fault")) == 3
        assert len(peer.transactions) == 1


async def test_stop_lets_what_is_under_way_end(tmp_path: Path) -> None:
    async with SmtpPeer(end_of_data=lambda transaction: "250 ok") as peer:
        site = QueueSite(tmp_path, smarthost=f"smtp://127.0.0.1:{peer.port}")
        async with site:
            for number in range(50):
                await site.send(f"x{number}@example.net")
            await site.wait_for("delivery.sent")
        assert peer.open_now == 0
        taken = len(peer.transactions)
        assert len(site.named("delivery.sent")) == taken
        site = QueueSite(tmp_path, smarthost=f"smtp://127.0.0.1:{peer.port}")
        async with site:
            await site.until_empty(10)
        assert len({rcpt for one in peer.transactions for rcpt in one.rcpts}) == 50
        assert len(peer.transactions) == 50


async def test_memory_is_bounded_and_first_come_is_first_served() -> None:
    bound = MemoryBound(100)
    order: list[int] = []
    most = 0

    async def use(number: int, octets: int) -> None:
        nonlocal most
        async with bound.hold(octets):
            order.append(number)
            most = max(most, bound.held)
            await asyncio.sleep(random.random() / 100)

    sizes = [60, 60, 500, 10, 10, 90, 20]
    await asyncio.gather(*[use(number, size) for number, size in enumerate(sizes)])
    assert order == list(range(len(sizes)))
    assert most == 500
    assert bound.held == 0


async def test_whoever_stops_waiting_for_memory_takes_none() -> None:
    bound = MemoryBound(100)

    async def use(octets: int, seconds: float) -> None:
        async with bound.hold(octets):
            await asyncio.sleep(seconds)

    first = asyncio.create_task(use(100, 0.05))
    await asyncio.sleep(0)
    waiting = [asyncio.create_task(use(50, 0.01)) for _ in range(4)]
    await asyncio.sleep(0)
    waiting[0].cancel()
    await asyncio.gather(first, *waiting, return_exceptions=True)
    assert bound.held == 0
