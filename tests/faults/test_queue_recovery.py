"""What a crash leaves behind, and that sweeping takes away just that."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from popgate.auth.authenticator import LookupUnavailable
from popgate.queue.recovery import QUIET_SECONDS, Sweeper
from support.queue_site import QueueSite
from support.smtp_peer import SmtpPeer


def age(path: Path, seconds: float) -> None:
    os.utime(path, (time.time() - seconds, time.time() - seconds))


async def test_orphans_are_removed_and_nothing_else(tmp_path: Path) -> None:
    async with QueueSite(tmp_path) as site:
        site.recipients.table["wait@example.org"] = LookupUnavailable("not now")
        bodies = tmp_path / "bodies"
        kept = await site.send("wait@example.org", body=b"x" * 100_000)
        await site.wait_for("delivery.deferred")
        orphan, young, coming = (site.queue.receive() for _ in range(3))
        (bodies / orphan.queue_id).write_bytes(b"cut off")
        (bodies / young.queue_id).write_bytes(b"cut off")
        (bodies / "README").write_bytes(b"not ours")
        coming.write(b"y" * 100_000)
        await site.until(lambda: (bodies / coming.queue_id).exists())
        for name in (kept, orphan.queue_id, coming.queue_id, "README"):
            age(bodies / name, QUIET_SECONDS + 60)
        sweeper = Sweeper(site.queue)
        await asyncio.to_thread(sweeper.sweep)
        assert sorted(os.listdir(bodies)) == sorted([kept, young.queue_id, coming.queue_id, "README"])
        assert [event.fields["queue_id"] for event in sweeper.take_events()] == [orphan.queue_id]
        coming.abort()
        await site.until(lambda: not (bodies / coming.queue_id).exists())


async def test_a_message_without_its_body_is_held_at_the_start(tmp_path: Path) -> None:
    async with QueueSite(tmp_path) as site:
        site.recipients.table["wait@example.org"] = LookupUnavailable("not now")
        lost = await site.send("wait@example.org", body=b"x" * 100_000)
        await site.wait_for("delivery.deferred")
    (tmp_path / "bodies" / lost).unlink()
    async with QueueSite(tmp_path) as site:
        site.recipients.mailbox("wait@example.org")
        (event,) = await site.wait_for("queue.damaged")
        assert event.fields["queue_id"] == lost
        await site.send("wait@example.org")
        await site.wait_for("delivery.local")


_SITE = """
import asyncio, random, sys
sys.path[:0] = [{tests!r}, {src!r}]
from pathlib import Path
from support.queue_site import QueueSite

async def main():
    async with QueueSite(Path({path!r}), smarthost="smtp://127.0.0.1:{port}") as site:
        print("up", flush=True)
        await asyncio.sleep(3600)

asyncio.run(main())
"""


@pytest.mark.parametrize("rounds", [3])
async def test_a_killed_delivery_loses_nothing(tmp_path: Path, rounds: int) -> None:
    """Every message arrives whole, at least once; few arrive twice."""
    tests = Path(__file__).parent.parent
    bodies = {}
    site = QueueSite(tmp_path)
    async with site:
        await site.runner.stop(0)
        for number in range(400):
            body = b"Subject: %d\r\n\r\n" % number + b"%08d\r\n" % number * (8000 if number % 50 == 0 else 20)
            bodies[b"%d" % number] = body
            await site.send(f"x{number}@example.net", body=body)

    async with SmtpPeer() as peer:
        code = _SITE.format(
            tests=str(tests), src=str(tests.parent / "src"), path=str(tmp_path), port=peer.port
        )
        for _ in range(rounds):
            before = len(peer.transactions)
            process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
            deadline = time.monotonic() + 10
            while len(peer.transactions) < before + 60 and time.monotonic() < deadline:
                await asyncio.sleep(0.005)
            process.send_signal(signal.SIGKILL)
            process.communicate()
        last = QueueSite(tmp_path, smarthost=f"smtp://127.0.0.1:{peer.port}")
        async with last:
            await last.until_empty(20)
        arrived: dict[bytes, int] = {}
        for transaction in peer.transactions:
            name = transaction.content.split(b"\r\n")[0].removeprefix(b"Subject: ")
            assert transaction.content == bodies[name]
            arrived[name] = arrived.get(name, 0) + 1
    assert set(arrived) == set(bodies)
    assert sum(arrived.values()) - len(arrived) <= rounds * 15
