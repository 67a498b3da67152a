"""The retry schedule: it grows, it is bounded, it ends."""

from hypothesis import given
from hypothesis import strategies as st

from popgate.queue.schedule import JITTER, LONGEST_REST_SECONDS, Schedule
from popgate.queue.settings import DeliverySettings

chances = st.floats(0, 0.999999)
times = st.floats(0, 4e9)


def make(chance: float = 0.5, first: int = 300, most: int = 14400, lifetime: int = 432000) -> Schedule:
    settings = DeliverySettings(first_retry_seconds=first, max_retry_seconds=most, lifetime_seconds=lifetime)
    return Schedule(settings, lambda: chance)


def test_the_usual_schedule() -> None:
    schedule = make()
    waits = [schedule.next_attempt_at(attempts, 0.0, 0.0) for attempts in range(1, 9)]
    assert waits == [300, 600, 1200, 2400, 4800, 9600, 14400, 14400]


@given(
    chances,
    st.integers(1, 86400),
    st.integers(1, 86400),
    st.integers(1, 2592000),
    st.integers(1, 10**9),
    times,
    times,
)
def test_the_next_attempt_is_later_and_within_the_lifetime(
    chance: float, first: int, most: int, lifetime: int, attempts: int, created_at: float, now: float
) -> None:
    schedule = make(chance, first, most, lifetime)
    again = schedule.next_attempt_at(attempts, created_at, now)
    assert (again is None) == schedule.is_over(created_at, now)
    if again is not None:
        assert now <= again <= now + max(first, most) * (1 + JITTER) + 1
        assert again <= schedule.ends_at(created_at, now) + 1
        assert again <= now + lifetime + 1


@given(chances, st.integers(1, 10000), st.integers(1, 10000), st.integers(1, 100000))
def test_every_message_comes_to_its_end(chance: float, first: int, most: int, lifetime: int) -> None:
    schedule = make(chance, first, most, max(lifetime, min(first, most)))
    now, attempts = 1_800_000_000.0, 0
    created_at = now
    while True:
        attempts += 1
        again = schedule.next_attempt_at(attempts, created_at, now)
        if again is None:
            break
        assert again > now or schedule.is_over(created_at, again)
        now = again
        assert attempts < 200_000
    # the last attempt is made when the lifetime ends, not long before
    assert abs(now - created_at - max(lifetime, min(first, most))) < 1


@given(chances, st.integers(1, 10**9))
def test_a_rest_is_bounded(chance: float, failures: int) -> None:
    assert 0 < make(chance).rest_seconds(failures) <= LONGEST_REST_SECONDS * (1 + JITTER)
