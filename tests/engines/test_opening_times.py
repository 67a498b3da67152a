"""Which maildrops are opened without a thread: those that were quick the last time, and lately."""

from pop3_site import ANN, PRINTER, TestClock
from popgate.sessions.opening_times import MAX_IDENTITIES, QUICK_SECONDS, WARM_SECONDS, OpeningTimes
from popgate.values.identity import Identity


def test_the_last_time_decides() -> None:
    clock, openings = TestClock(), OpeningTimes()
    assert not openings.is_quick(ANN, clock)
    openings.took(ANN, QUICK_SECONDS, clock)
    assert openings.is_quick(ANN, clock)
    assert not openings.is_quick(PRINTER, clock)
    openings.took(ANN, QUICK_SECONDS * 1.01, clock)
    assert not openings.is_quick(ANN, clock)


def test_what_was_quick_long_ago_may_be_on_the_disk_only() -> None:
    clock, openings = TestClock(), OpeningTimes()
    openings.took(ANN, 0.0, clock)
    clock.time += WARM_SECONDS - 1
    assert openings.is_quick(ANN, clock)
    clock.time += 2
    assert not openings.is_quick(ANN, clock)


def test_the_table_is_bounded() -> None:
    clock, openings = TestClock(), OpeningTimes()
    for number in range(MAX_IDENTITIES + 10):
        openings.took(Identity(f"u{number}"), 0.0, clock)
    assert not openings.is_quick(Identity("u0"), clock)
    assert openings.is_quick(Identity(f"u{MAX_IDENTITIES + 9}"), clock)
