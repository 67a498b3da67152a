"""Delays for failed logins."""

import mmap
import multiprocessing
import os
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from popgate.auth.settings import AuthSettings
from popgate.auth.throttle import BUFFER_BYTES, HALF_LIFE_SECONDS, Throttle
from popgate.values.address import ClientAddress
from support.clock import ManualClock

HERE = ClientAddress.parse("192.0.2.1")
NEXT_DOOR = ClientAddress.parse("192.0.2.77")
FAR = ClientAddress.parse("198.51.100.1")


@pytest.fixture
def clock():
    return ManualClock()


@pytest.fixture
def throttle(clock):
    return Throttle(AuthSettings(), clock, key=b"k")


def fail(throttle, client, name, times=1):
    for _ in range(times):
        throttle.failed(client, name)
    return throttle.delay_seconds(client, name)


def test_no_failures_no_delay(throttle):
    assert throttle.delay_seconds(HERE, "ann") == 0.0
    assert throttle.wait_before_seconds(HERE, "ann") == 0.0
    throttle.succeeded(HERE, "ann")
    assert throttle.delay_seconds(HERE, "ann") == 0.0


def test_delay_doubles_up_to_thirty_seconds(throttle):
    assert [fail(throttle, HERE, "ann") for _ in range(8)] == [1, 2, 4, 8, 16, 30, 30, 30]


def test_first_delay_is_a_setting(clock):
    throttle = Throttle(AuthSettings(failure_delay_seconds=0.25), clock)
    assert [fail(throttle, HERE, "ann") for _ in range(3)] == [0.25, 0.5, 1]
    assert fail(Throttle(AuthSettings(failure_delay_seconds=0), clock), HERE, "ann", 9) == 0.0


def test_time_forgives(throttle, clock):
    assert fail(throttle, HERE, "ann", 4) == 8
    clock.advance(HALF_LIFE_SECONDS)
    assert throttle.delay_seconds(HERE, "ann") == 2
    clock.advance(10 * HALF_LIFE_SECONDS)
    assert throttle.delay_seconds(HERE, "ann") == 0.0
    assert fail(throttle, HERE, "ann", 1000) == 30
    clock.advance(6 * HALF_LIFE_SECONDS)
    assert throttle.delay_seconds(HERE, "ann") == 0.0, "the worst penalty ends within half an hour"


def test_many_names_from_one_address(throttle):
    for index in range(6):
        throttle.failed(HERE, f"user{index}")
    assert throttle.delay_seconds(HERE, "someone-new") == 30


def test_auth_022_parallel_failures_of_one_address_count_together(throttle):
    delays = [fail(throttle, HERE, f"user{index}") for index in range(200)]
    assert delays[:5] == [1, 2, 4, 8, 16] and set(delays[5:]) == {30}
    assert throttle.wait_before_seconds(HERE, "user500") > 0


def test_subnet_is_more_patient_than_an_address(throttle):
    for index in range(8):
        throttle.failed(ClientAddress.parse(f"192.0.2.{index + 1}"), f"user{index}")
    assert throttle.delay_seconds(NEXT_DOOR, "new") == 1
    for index in range(200):
        throttle.failed(ClientAddress.parse(f"192.0.2.{index + 1}"), f"user{index}")
    assert throttle.delay_seconds(NEXT_DOOR, "new") == 30
    assert throttle.delay_seconds(FAR, "new") == 0.0


def test_ipv6_counts_the_64_and_with_more_patience_the_48(throttle):
    for index in range(8):
        throttle.failed(ClientAddress.parse(f"2001:db8:0:1::{index:x}"), f"user{index}")
    assert throttle.delay_seconds(ClientAddress.parse("2001:db8:0:1:ffff::1"), "new") == 1
    assert throttle.delay_seconds(ClientAddress.parse("2001:db8:0:2::1"), "new") == 0.0
    for index in range(300):
        throttle.failed(ClientAddress.parse(f"2001:db8:0:{index:x}::1"), f"name{index}")
    assert throttle.delay_seconds(ClientAddress.parse("2001:db8:0:ffff::1"), "new") >= 8
    assert throttle.delay_seconds(ClientAddress.parse("2001:db8:1::1"), "new") == 0.0


def test_many_addresses_that_try_one_name_slow_failures_but_no_owner(throttle):
    for index in range(100):
        throttle.failed(ClientAddress.parse(f"203.0.{index}.1"), "Ann")
    assert throttle.delay_seconds(FAR, "ann") == 30
    assert throttle.delay_seconds(FAR, "bob") == 0.0
    assert throttle.wait_before_seconds(FAR, "ann") == 0.0


def test_success_forgives_a_typing_error(throttle):
    fail(throttle, HERE, "ann", 3)
    throttle.succeeded(HERE, "ann")
    assert throttle.delay_seconds(HERE, "bob") == 0.0


def test_success_of_one_account_does_not_wipe_the_slate_of_others(throttle):
    for index in range(10):
        throttle.failed(HERE, f"stolen{index}")
        throttle.succeeded(HERE, "own-account")
    assert throttle.delay_seconds(HERE, "next") == 30
    assert throttle.wait_before_seconds(HERE, "next") == 30


def test_success_leaves_the_subnet_its_penalty(throttle):
    for index in range(30):
        throttle.failed(ClientAddress.parse(f"192.0.2.{index}"), "ann")
        throttle.succeeded(ClientAddress.parse(f"192.0.2.{index}"), "ann")
    assert throttle.delay_seconds(NEXT_DOOR, "bob") >= 4


def test_one_device_with_an_old_password_delays_itself_and_not_its_office(throttle, clock):
    for _ in range(600):
        throttle.failed(HERE, "printer")
        clock.advance(60)
    assert throttle.wait_before_seconds(HERE, "printer") > 0
    assert throttle.wait_before_seconds(HERE, "ann") == 0.0
    assert throttle.wait_before_seconds(NEXT_DOOR, "ann") == 0.0
    assert throttle.delay_seconds(HERE, "ann") <= 8


def test_shared_by_processes_over_one_mapping(clock):
    with mmap.mmap(-1, BUFFER_BYTES) as shared:
        one = Throttle(AuthSettings(), clock, memoryview(shared), key=b"k")
        other = Throttle(AuthSettings(), clock, memoryview(shared), key=b"k")
        one.failed(HERE, "ann")
        assert fail(other, HERE, "ann") == 2
        assert one.delay_seconds(HERE, "ann") == 2
        stranger = Throttle(AuthSettings(), clock, memoryview(shared), key=b"other")
        assert stranger.delay_seconds(HERE, "ann") == 0.0
        for user in (one, other, stranger):
            user._slots.release()


def test_clock_of_another_process_a_little_ahead(throttle, clock):
    clock.advance(0.5)
    throttle.failed(HERE, "ann")
    clock._monotonic -= 0.5
    assert throttle.delay_seconds(HERE, "ann") == 1


def test_a_flood_of_subnets_is_bounded_and_wipes_no_slate(throttle):
    fail(throttle, HERE, "ann", 12)
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    for index in range(500):
        throttle.failed(ClientAddress(b"\xfc\0" + index.to_bytes(4, "big") + b"\0" * 10), f"v{index}")
    grown = tracemalloc.get_traced_memory()[1] - before
    tracemalloc.stop()
    assert grown < 20_000
    for index in range(80_000):
        throttle.failed(
            ClientAddress(b"\x20\x01\x0d\xb8" + index.to_bytes(4, "big") + b"\0" * 8), f"u{index}"
        )
    assert throttle.delay_seconds(HERE, "ann") == 30
    innocent = [ClientAddress(b"\xfd\0" + bytes([index]) * 14) for index in range(200)]
    assert sum(throttle.wait_before_seconds(client, "x") for client in innocent) == 0.0


def test_a_flood_of_names_that_are_looked_up_is_bounded_and_forgets_nobody(throttle):
    fail(throttle, HERE, "ann", 12)
    waits = throttle.wait_before_seconds(HERE, "ann")
    assert waits > 0
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    for index in range(10_000):
        throttle.wait_before_seconds(FAR, f"{index:0320}")
    grown = tracemalloc.get_traced_memory()[1] - before
    tracemalloc.stop()
    assert grown < 4_000_000
    assert throttle.wait_before_seconds(HERE, "ann") == waits
    throttle.failed(FAR, "1" * 320)
    throttle.succeeded(HERE, "ann")
    assert throttle.wait_before_seconds(HERE, "ann") < waits


@pytest.mark.parametrize("name", ["", "\0", "é" * 1000, "\ud800", "a" * 100_000])
def test_any_name(throttle, name):
    assert fail(throttle, HERE, name) == 1


def test_small_or_read_only_buffer_is_misuse(clock):
    with pytest.raises(ValueError, match="writable"):
        Throttle(AuthSettings(), clock, bytearray(10))
    with pytest.raises(ValueError, match="writable"):
        Throttle(AuthSettings(), clock, memoryview(bytes(BUFFER_BYTES)))


def _hammer(shared, number):
    throttle = Throttle(AuthSettings(), ManualClock(), memoryview(shared), key=b"k")
    for index in range(300):
        throttle.failed(ClientAddress.parse(f"203.0.{number}.{index % 250}"), "everybody")
    os._exit(0)


def test_processes_that_write_at_once_lose_no_more_than_single_counts():
    shared = mmap.mmap(-1, BUFFER_BYTES)
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=_hammer, args=(shared, number)) for number in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(30)
        assert process.exitcode == 0
    throttle = Throttle(AuthSettings(), ManualClock(), memoryview(shared), key=b"k")
    for number in range(4):
        assert throttle.delay_seconds(ClientAddress.parse(f"203.0.{number}.7"), "x") == 30
        assert throttle.delay_seconds(ClientAddress.parse(f"203.1.{number}.7"), "x") == 0.0
    assert throttle.delay_seconds(FAR, "everybody") == 30


steps = st.lists(
    st.tuples(
        st.sampled_from(["failed", "succeeded", "advance"]),
        st.sampled_from(["192.0.2.1", "192.0.2.2", "2001:db8::1", "2001:db8:0:1::1"]),
        st.sampled_from(["ann", "ANN", "bob"]),
        st.floats(0, 4000),
    ),
    max_size=60,
)


@given(steps)
def test_whatever_happens_delays_stay_in_bounds_and_strangers_free(sequence):
    clock = ManualClock()
    throttle = Throttle(AuthSettings(), clock, key=b"k")
    for verb, address, name, seconds in sequence:
        client = ClientAddress.parse(address)
        if verb == "advance":
            clock.advance(seconds)
        else:
            getattr(throttle, verb)(client, name)
            after = throttle.delay_seconds(client, name)
            assert 0.0 <= throttle.wait_before_seconds(client, name) <= after <= 30.0
            assert verb != "failed" or after >= 1.0
        assert throttle.delay_seconds(FAR, "stranger") == 0.0
    clock.advance(12 * HALF_LIFE_SECONDS)
    assert throttle.delay_seconds(ClientAddress.parse("192.0.2.1"), "ann") == 0.0
