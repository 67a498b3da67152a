"""A stepped system clock neither lengthens nor shortens a grant of a running server."""

import time

import pytest

from popgate.app import clock as clock_module
from popgate.app.clock import SystemClock
from popgate.app.delivery import _follow_clock
from popgate.grants.grant import DEFAULT_TERMS
from popgate.grants.service import Grants
from popgate.grants.settings import GrantSettings
from popgate.grants.store import StoreError
from popgate.grants.stores.memory import MemoryStore
from popgate.values.address import ClientAddress
from popgate.values.event import Event
from popgate.values.identity import Identity
from popgate.values.mail import MailAddress

CLIENT = ClientAddress.parse("192.0.2.9")
ALICE = Identity.parse("alice@example.org")
SENDER = MailAddress("alice", "example.org")


class SteppedTime:
    """Stands for the time module: its wall clock can be set."""

    CLOCK_BOOTTIME = CLOCK_MONOTONIC = time.CLOCK_MONOTONIC

    def __init__(self) -> None:
        self.step = 0.0

    def time(self) -> float:
        return time.time() + self.step

    def monotonic(self) -> float:
        return time.monotonic()

    def clock_gettime(self, which: int) -> float:
        return time.clock_gettime(time.CLOCK_MONOTONIC)


@pytest.fixture
def system(monkeypatch: pytest.MonkeyPatch) -> SteppedTime:
    system = SteppedTime()
    monkeypatch.setattr(clock_module, "time", system)
    monkeypatch.setattr(clock_module, "_EVEN_CLOCK", time.CLOCK_MONOTONIC)
    return system


@pytest.mark.parametrize("step", [3600.0, -3600.0, 5.0])
async def test_grants_move_with_the_clock(system: SteppedTime, step: float) -> None:
    clock, store, events = SystemClock(), MemoryStore(), list[Event]()
    grants = Grants(store, GrantSettings(never=[], window_seconds=60), clock, events.append)
    grants.allow(CLIENT, ALICE, "pop3", DEFAULT_TERMS, "s")
    left = store.find(CLIENT)[0].renewed_at + 60 - clock.now()
    system.step = step
    assert grants.decide(CLIENT, SENDER, 1, 0, "s").verdict == "permit", "before the step is noticed"
    await _follow_clock(clock, store, events.append)
    assert abs(clock.now() - system.time()) < 1
    assert grants.decide(CLIENT, SENDER, 1, 0, "s").verdict == "permit", "after it"
    assert abs(store.find(CLIENT)[0].renewed_at + 60 - clock.now() - left) < 1
    assert events[-1].name == "clock.step"
    assert events[-1].fields["seconds"] == pytest.approx(step, abs=0.5)


async def test_a_small_difference_is_no_step(system: SteppedTime) -> None:
    clock, events = SystemClock(), list[Event]()
    system.step = 0.2
    await _follow_clock(clock, MemoryStore(), events.append)
    assert events == []


async def test_the_clock_waits_for_a_store_that_cannot_be_moved(system: SteppedTime) -> None:
    class Broken(MemoryStore):
        def redate(self, delta_seconds: float) -> None:
            raise StoreError("no space")

    clock, events = SystemClock(), list[Event]()
    before = clock.now()
    system.step = 3600.0
    await _follow_clock(clock, Broken(), events.append)
    assert clock.now() - before < 60
    assert events[-1].name == "clock.step.failed"
