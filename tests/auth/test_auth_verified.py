"""The cache of verified passwords and the threads of slow checks."""

import asyncio
import pickle
import threading

import pytest

from popgate.auth.verified import VerifiedPasswords
from popgate.auth.workers import Overloaded, Workers
from support.clock import ManualClock


@pytest.fixture
def clock():
    return ManualClock()


def test_what_differs_in_anything_is_not_in_the_cache(clock):
    cache = VerifiedPasswords(clock, 60)
    cache.add(cache.digest("ann", b"secret", "hash"))
    assert cache.has(cache.digest("ann", b"secret", "hash"))
    for other in (
        ("an", b"nsecret", "hash"),
        ("ann", b"secre", "thash"),
        ("ann", b"secret", "other"),
        ("bob", b"secret", "hash"),
    ):
        assert not cache.has(cache.digest(*other)), other


def test_another_process_has_another_key(clock):
    one, other = VerifiedPasswords(clock, 60), VerifiedPasswords(clock, 60)
    assert one.digest("ann", b"secret", "hash") != other.digest("ann", b"secret", "hash")


def test_nothing_in_it_is_a_password_or_a_name(clock):
    cache = VerifiedPasswords(clock, 60)
    cache.add(cache.digest("ann-the-name", b"the-secret", "the-hash"))
    memory = pickle.dumps(cache._until)
    assert not any(text in memory for text in (b"ann-the-name", b"the-secret", b"the-hash"))


def test_oldest_use_goes_first(clock):
    cache = VerifiedPasswords(clock, 60, entries=3)
    digests = [cache.digest(f"user{index}", b"x", "h") for index in range(4)]
    for digest in digests[:3]:
        cache.add(digest)
    assert cache.has(digests[0])
    cache.add(digests[3])
    assert [cache.has(digest) for digest in digests] == [True, False, True, True]
    assert len(cache) == 3


def test_entry_ends_by_the_monotonic_clock(clock):
    cache = VerifiedPasswords(clock, 60)
    digest = cache.digest("ann", b"x", "h")
    cache.add(digest)
    clock.step(1e6)
    assert cache.has(digest)
    clock.advance(60)
    assert not cache.has(digest) and len(cache) == 0


def test_zero_seconds_is_off(clock):
    cache = VerifiedPasswords(clock, 0)
    cache.add(cache.digest("ann", b"x", "h"))
    assert len(cache) == 0


async def test_a_check_that_nobody_waits_for_leaves_the_queue():
    workers = Workers(1, most_waiting=2)
    gate = threading.Event()
    ran = []
    first = asyncio.ensure_future(workers.run(b"1", gate.wait))
    dropped = asyncio.ensure_future(workers.run(b"2", lambda: ran.append(2)))
    kept = asyncio.ensure_future(workers.run(b"3", lambda: ran.append(3)))
    await asyncio.sleep(0)
    with pytest.raises(Overloaded):
        workers.run(b"4", lambda: ran.append(4))
    dropped.cancel()
    with pytest.raises(asyncio.CancelledError):
        await dropped
    last = asyncio.ensure_future(workers.run(b"5", lambda: ran.append(5)))
    await asyncio.sleep(0)
    gate.set()
    await asyncio.gather(first, kept, last)
    assert ran == [3, 5]
    workers.close()


async def test_what_the_work_raises_reaches_all_who_wait():
    workers = Workers(1)

    def fail():
        raise OSError("broken")

    results = await asyncio.gather(*(workers.run(b"1", fail) for _ in range(3)), return_exceptions=True)
    assert [type(result) for result in results] == [OSError] * 3
    assert await workers.run(b"1", lambda: 7) == 7
    workers.close()


async def test_one_who_hangs_up_takes_nothing_from_another_who_waits():
    workers = Workers(1, most_waiting=2)
    gate = threading.Event()
    first = asyncio.ensure_future(workers.run(b"1", gate.wait))
    dropped = asyncio.ensure_future(workers.run(b"2", lambda: 7))
    kept = asyncio.ensure_future(workers.run(b"2", lambda: 7))
    await asyncio.sleep(0)
    dropped.cancel()
    await asyncio.sleep(0)
    gate.set()
    assert await kept == 7
    await first
    workers.close()
