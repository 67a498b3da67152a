"""Who is in the maps, told by a store that tests play."""

from hypothesis import given
from hypothesis import strategies as st

from popgate.integrations.maps.live import CannotSay, LiveAddresses
from popgate.values.address import ClientAddress

A, B = ClientAddress.parse("192.0.2.1"), ClientAddress.parse("2001:db8::1")


class Store:
    """Until when each may relay."""

    def __init__(self) -> None:
        self.ends: dict[ClientAddress, float] = {}
        self.is_down = False

    def until(self, address: ClientAddress) -> float:
        if self.is_down:
            raise CannotSay("down")
        return self.ends.get(address, 0.0)


def test_in_until_the_last_moment_and_out_just_after() -> None:
    store = Store()
    live = LiveAddresses(store.until)
    store.ends = {A: 10.0, B: 20.0}
    live.look([A, B], 1.0)
    assert (set(live.addresses), live.next_end, live.version) == ({A, B}, 10.0, 2)
    live.lapse(10.0)
    assert (set(live.addresses), live.version) == ({A, B}, 2)
    live.lapse(10.1)
    assert (set(live.addresses), live.next_end, live.version) == ({B}, 20.0, 3)


def test_a_renewal_is_no_other_version_and_moves_the_end() -> None:
    store = Store()
    live = LiveAddresses(store.until)
    store.ends = {A: 10.0}
    live.look([A], 1.0)
    store.ends = {A: 30.0}
    live.look([A], 5.0)
    live.lapse(11.0)
    assert (set(live.addresses), live.next_end, live.version) == ({A}, 30.0, 1)
    # nobody told of this one
    store.ends = {A: 40.0}
    live.lapse(31.0)
    assert (set(live.addresses), live.next_end) == ({A}, 40.0)


def test_revoked_and_removed() -> None:
    store = Store()
    live = LiveAddresses(store.until)
    store.ends = {A: 10.0, B: 10.0}
    live.look_at_all([A, B], 1.0)
    store.ends = {B: 0.0}
    live.look([A], 2.0)
    assert set(live.addresses) == {B}
    live.look_at_all([], 3.0)
    assert set(live.addresses) == set()


def test_while_nobody_can_say_what_was_known_holds_until_its_end_and_is_asked_again() -> None:
    store = Store()
    live = LiveAddresses(store.until)
    store.ends = {A: 10.0}
    live.look([A], 1.0)
    store.is_down = True
    live.look([A, B], 2.0)
    assert (set(live.addresses), live.fault) == ({A}, "down")
    live.lapse(11.0)
    assert set(live.addresses) == set()
    store.is_down = False
    store.ends = {A: 50.0, B: 50.0}
    live.look([], 12.0)
    assert (set(live.addresses), live.fault) == ({A, B}, "")


@given(st.lists(st.tuples(st.sampled_from([A, B]), st.floats(0, 100), st.floats(0, 3))))
def test_never_in_after_the_end(steps: list[tuple[ClientAddress, float, float]]) -> None:
    store = Store()
    live = LiveAddresses(store.until)
    now = 1.0
    for address, end, passed in steps:
        store.ends[address] = end
        now += passed
        live.look([address], now)
        live.lapse(now)
        assert set(live.addresses) == {each for each, end in store.ends.items() if end and end >= now}
        assert all(store.ends[each] >= live.next_end for each in live.addresses)
