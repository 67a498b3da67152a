"""Counters of the sessions of a user, shared by workers."""

from popgate.servers.user_sessions import UserSessionTable, buffer_size
from popgate.values.identity import Identity

PRINTER = Identity("printer", "example.org")
ANN = Identity("ann", "example.org")


def two_workers(most: int) -> tuple[UserSessionTable, UserSessionTable]:
    buffer = memoryview(bytearray(buffer_size(2)))
    first, second = (UserSessionTable(buffer, workers=2, worker=worker, most=most) for worker in range(2))
    return first, second


def test_workers_count_together() -> None:
    first, second = two_workers(2)
    assert first.enter(PRINTER)
    assert second.enter(PRINTER)
    assert not first.enter(PRINTER)
    assert not second.enter(PRINTER)
    assert first.enter(ANN), "one user must not use up the sessions of another"
    second.leave(PRINTER)
    assert first.enter(PRINTER)
    assert not second.enter(PRINTER)


def test_a_refused_session_counts_nothing() -> None:
    first, _ = two_workers(1)
    assert first.enter(PRINTER)
    assert not any(first.enter(PRINTER) for _ in range(10))
    first.leave(PRINTER)
    assert first.enter(PRINTER)


def test_a_dead_worker_is_forgotten_and_nothing_goes_below_zero() -> None:
    first, second = two_workers(1)
    assert second.enter(PRINTER)
    first.clear_row(1)
    assert first.enter(PRINTER)
    second.leave(PRINTER)
    assert not second.enter(PRINTER)
    first.leave(PRINTER)
    first.leave(PRINTER)
    assert first.enter(PRINTER)
    assert not first.enter(PRINTER)
