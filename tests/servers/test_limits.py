"""Connection counters shared by workers."""

from popgate.servers.limits import ConnectionLimits, ConnectionTable, ListenerTable, buffer_size
from popgate.values.address import ClientAddress

A = ClientAddress.parse("192.0.2.1")
NEIGHBOUR = ClientAddress.parse("192.0.2.2")
ELSEWHERE = ClientAddress.parse("198.51.100.1")
WIDE = ConnectionLimits(1000, 1000, 1000)


def two_workers() -> tuple[ConnectionTable, ConnectionTable]:
    buffer = memoryview(bytearray(buffer_size(2)))
    return ConnectionTable(buffer, workers=2, worker=0), ConnectionTable(buffer, workers=2, worker=1)


def test_workers_count_together() -> None:
    first, second = two_workers()
    limits = ConnectionLimits(1000, 2, 1000)
    assert first.admit(A, 0, limits) is None
    assert second.admit(A, 0, limits) is None
    assert first.admit(A, 0, limits) == second.admit(A, 0, limits) == "address"
    assert first.admit(ELSEWHERE, 0, limits) is None
    second.release(A, 0)
    assert first.admit(A, 0, limits) is None


def test_a_subnet_counts_its_addresses_together() -> None:
    first, _ = two_workers()
    limits = ConnectionLimits(1000, 1000, 2)
    assert first.admit(A, 0, limits) is None
    assert first.admit(NEIGHBOUR, 1, limits) is None
    assert first.admit(A, 2, limits) == "subnet"
    v6 = [ClientAddress.parse(f"2001:db8::{number}") for number in range(1, 4)]
    assert [first.admit(address, 0, limits) for address in v6] == [None, None, "subnet"]
    assert first.admit(ClientAddress.parse("2001:db8:0:1::1"), 0, limits) is None


def test_a_site_with_many_ipv6_subnets_is_bounded_too() -> None:
    first, second = two_workers()
    limits = ConnectionLimits(1000, 1000, 2)
    subnets = [ClientAddress.parse(f"2001:db8:1:{number:x}::1") for number in range(1, 10)]
    assert [first.admit(address, 0, limits) for address in subnets[:8]] == [None] * 8
    assert second.admit(subnets[8], 0, limits) == "subnet"
    assert second.admit(ClientAddress.parse("2001:db8:2::1"), 0, limits) is None, "another /48"
    first.release(subnets[0], 0)
    assert second.admit(subnets[8], 0, limits) is None
    for address in subnets[1:8]:
        first.release(address, 0)
    second.release(subnets[8], 0)
    assert [first.admit(address, 0, limits) for address in subnets[:8]] == [None] * 8


def test_a_listener_counts_alone() -> None:
    first, second = two_workers()
    limits = ConnectionLimits(1, 1000, 1000)
    assert first.admit(A, 0, limits) is None
    assert second.admit(ELSEWHERE, 0, limits) == "listener"
    assert second.admit(ELSEWHERE, 1, limits) is None


def test_a_dead_worker_is_forgotten_and_nothing_goes_below_zero() -> None:
    first, second = two_workers()
    limits = ConnectionLimits(1, 1, 1)
    assert second.admit(A, 0, limits) is None
    assert first.admit(A, 0, limits) is not None
    first.clear_row(1)
    assert first.admit(A, 0, limits) is None
    first.release(A, 0)
    first.release(A, 0)
    assert first.admit(A, 0, limits) is None
    assert first.admit(A, 0, limits) is not None


def test_a_listener_that_servers_ask_counts_no_addresses() -> None:
    first, second = two_workers()
    limits = ConnectionLimits(3, 1, 1)
    assert [ListenerTable(table).admit(A, 5, limits) for table in (first, second, first)] == [None] * 3
    assert ListenerTable(second).admit(ELSEWHERE, 5, limits) == "listener"
    assert first.admit(A, 0, ConnectionLimits(9, 1, 1)) is None, "what is asked there counts here"
    ListenerTable(first).release(A, 5)
    assert ListenerTable(second).admit(A, 5, limits) is None
    for _ in range(9):
        ListenerTable(first).release(A, 5)  # more than there were: never below none
    assert ListenerTable(first).admit(A, 5, ConnectionLimits(3, 1, 1)) is None
    assert ListenerTable(first).admit(A, 5, ConnectionLimits(3, 1, 1)) == "listener"
