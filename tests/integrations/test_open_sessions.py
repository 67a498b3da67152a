"""A grant lasts while its user has a session open in somebody else's server."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from grants_kit import ALICE, BOB, HandClock, Sink, address
from popgate.grants.grant import DEFAULT_TERMS, Terms
from popgate.grants.service import Grants
from popgate.grants.settings import GrantSettings
from popgate.grants.stores.memory import MemoryStore
from popgate.integrations.open_sessions import OPEN_AT_MOST_A_HOLDER, OpenSessions
from popgate.values.address import ClientAddress
from popgate.values.identity import Identity

HERE = address("2001:db8::9")
THERE = address("203.0.113.10")
WINDOW = 900


class Site:
    def __init__(self, terms: Terms = DEFAULT_TERMS, most: int = 1000, **settings: object) -> None:
        self.clock = HandClock()
        self.sink = Sink()
        self.settings = GrantSettings(**settings)
        self.grants = Grants(MemoryStore(), self.settings, self.clock, self.sink)
        self.terms = terms
        self.most = most
        self.start()

    def start(self) -> None:
        """A new process beside the same store."""
        self.open = OpenSessions(
            self.grants, self.settings, self.clock, lambda identity: self.terms, most=self.most
        )

    def pass_seconds(self, seconds: int, step: int = 1) -> None:
        for _ in range(0, seconds, step):
            self.clock.pass_seconds(step)
            self.open.tick()

    def may_relay(self, where: ClientAddress = HERE) -> bool:
        return self.grants.right(where, "").verdict == "permit"


def test_an_open_session_keeps_the_grant_and_its_end_starts_the_window() -> None:
    site = Site()
    assert site.open.login(HERE, ALICE, "imap", "a") == "granted"
    site.pass_seconds(4 * WINDOW, 5)
    assert site.may_relay()
    ended = site.open.logout("a")
    assert ended is not None and ended.identity == ALICE
    site.pass_seconds(WINDOW - 1)
    assert site.may_relay()
    site.pass_seconds(2)
    assert not site.may_relay()


def test_a_login_without_a_key_counts_for_its_window_alone() -> None:
    site = Site()
    assert site.open.login(HERE, ALICE, "pop3", None) == "granted"
    assert len(site.open) == 0
    site.pass_seconds(WINDOW + 1, 5)
    assert not site.may_relay()


def test_only_the_last_end_starts_the_window() -> None:
    site = Site(revoke_on_logout=True)
    for key in ("a", "b"):
        site.open.login(HERE, ALICE, "imap", key)
    site.open.logout("a")
    assert site.may_relay()
    site.open.logout("b")
    assert not site.may_relay()


def test_addresses_that_share_a_grant_share_its_sessions() -> None:
    site = Site(ipv6_prefix=64, revoke_on_logout=True)
    site.open.login(HERE, ALICE, "imap", "a")
    site.open.login(address("2001:db8::ffff"), ALICE, "imap", "b")
    assert site.open.holds(address("2001:db8::1:2:3"), ALICE)
    site.open.logout("a")
    assert site.may_relay()
    site.open.logout("b")
    assert not site.may_relay()


def test_a_lost_end_is_forgotten_after_the_bound_of_its_protocol() -> None:
    site = Site()
    site.open.login(HERE, ALICE, "pop3", "a")
    site.pass_seconds(3600, 10)
    assert site.may_relay()
    site.pass_seconds(WINDOW + 30, 10)
    assert not site.may_relay() and len(site.open) == 0 and site.open.forgotten == 1


def test_no_session_outlasts_the_longest_that_a_login_may_count() -> None:
    site = Site(max_age_seconds=2000)
    site.open.login(HERE, ALICE, "imap", "a")
    site.pass_seconds(2001, 3)
    assert not site.may_relay()
    site.pass_seconds(30)
    assert len(site.open) == 0


def test_an_account_with_a_short_window_is_renewed_more_often() -> None:
    site = Site(Terms(window_seconds=8))
    site.open.login(HERE, ALICE, "imap", "a")
    for _ in range(60):
        site.pass_seconds(1)
        assert site.may_relay()


@pytest.mark.parametrize("settings", [{"renew_while_open": False}, {"never": ["2001:db8::/32"]}])
def test_nothing_is_counted_where_nothing_is_renewed(settings: dict[str, object]) -> None:
    site = Site(**settings)
    site.open.login(HERE, ALICE, "imap", "a")
    assert len(site.open) == 0
    site.pass_seconds(WINDOW + 1, 5)
    assert not site.may_relay()


def test_a_process_number_that_comes_again_is_another_session() -> None:
    site = Site()
    site.open.login(HERE, ALICE, "pop3", "host pop3d 7")
    site.open.login(THERE, BOB, "pop3", "host pop3d 7")
    assert len(site.open) == 1
    assert site.open.logout("host pop3d 7", HERE, ALICE) is None, "an end that tells of somebody else"
    assert len(site.open) == 1
    site.pass_seconds(WINDOW + 1, 5)
    assert not site.may_relay(HERE) and site.may_relay(THERE)


def test_the_same_login_told_twice_is_one_session() -> None:
    site = Site()
    site.open.login(HERE, ALICE, "imap", "a")
    site.open.login(HERE, ALICE, "imap", "a")
    site.open.logout("a")
    site.pass_seconds(WINDOW + 1)
    assert not site.may_relay()


def test_the_end_of_a_session_that_nobody_knew_counts_where_all_is_told() -> None:
    site = Site()
    site.open.login(HERE, ALICE, "imap", None)
    site.pass_seconds(WINDOW - 100)
    assert site.open.logout("x") is None
    assert site.open.logout("y", HERE, BOB) is None
    assert site.open.logout("z", HERE, ALICE) is None
    site.pass_seconds(WINDOW - 100)
    assert site.may_relay()


def test_an_end_without_a_login_grants_nothing() -> None:
    site = Site()
    site.open.logout("a", HERE, ALICE)
    assert not site.may_relay()


def test_a_login_heard_of_late_gets_what_is_left_of_its_window() -> None:
    site = Site()
    at = site.clock.now() - 600
    assert site.open.login(HERE, ALICE, "pop3", None, at=at) == "granted"
    site.pass_seconds(WINDOW - 600)
    assert site.may_relay()
    site.pass_seconds(1)
    assert not site.may_relay()


def test_a_login_heard_of_too_late_gives_nothing() -> None:
    site = Site()
    assert site.open.login(HERE, ALICE, "pop3", "a", at=site.clock.now() - WINDOW - 1) == "late"
    assert not site.may_relay() and len(site.open) == 0


@pytest.mark.parametrize("at", [float("nan"), float("inf"), 1e12, -1.0, 0.0])
def test_a_time_that_makes_no_sense_gives_no_more_than_a_window(at: float) -> None:
    site = Site()
    site.open.login(HERE, ALICE, "pop3", None, at=at)
    site.pass_seconds(WINDOW + 1)
    assert not site.may_relay()


def test_a_login_heard_of_late_does_not_shorten_a_later_one() -> None:
    site = Site()
    site.open.login(HERE, ALICE, "pop3", None)
    site.open.login(HERE, ALICE, "imap", None, at=site.clock.now() - 600)
    site.pass_seconds(WINDOW)
    assert site.may_relay()


def test_an_end_heard_of_late_runs_the_window_from_then() -> None:
    site = Site()
    site.open.login(HERE, ALICE, "imap", "a")
    site.clock.pass_seconds(600)
    site.open.logout("a", at=site.clock.now() - 300)
    site.pass_seconds(WINDOW - 300)
    assert site.may_relay()
    site.pass_seconds(1)
    assert not site.may_relay()


def test_a_new_process_goes_on_with_the_sessions_of_the_old_one() -> None:
    site = Site()
    site.open.login(HERE, ALICE, "imap", "1 a")
    site.open.login(THERE, BOB, "imap", "2 b")
    saved = site.open.saved()
    site.start()
    site.open.restore(saved)
    site.open.restore(saved)
    site.open.forget("2 ")
    site.pass_seconds(2 * WINDOW, 5)
    assert site.may_relay(HERE) and not site.may_relay(THERE)


def test_restoring_gives_no_grant() -> None:
    site = Site()
    site.open.login(HERE, ALICE, "imap", "a")
    saved = site.open.saved()
    site.clock.pass_seconds(WINDOW + 1)
    site.start()
    site.open.restore(saved)
    site.pass_seconds(60)
    assert not site.may_relay()


def test_the_tables_are_bounded() -> None:
    site = Site(most=300)
    for number in range(OPEN_AT_MOST_A_HOLDER + 5):
        site.open.login(HERE, ALICE, "imap", f"a{number}")
    assert len(site.open) == OPEN_AT_MOST_A_HOLDER
    for number in range(400):
        site.open.login(address(f"203.0.113.{number % 250}"), ALICE, "imap", f"b{number}")
        site.open.login(HERE, ALICE, "imap", "k" * 500)
    assert len(site.open) == 300
    assert len(site.open.saved()) == 300


def test_logins_and_ends_leave_nothing_behind() -> None:
    site = Site()
    for number in range(2000):
        site.open.login(HERE, ALICE, "imap", f"a{number}")
        site.open.logout(f"a{number}")
        site.pass_seconds(1)
    assert len(site.open) == 0
    assert len(site.open._due) < 50 and not site.open._holders


class _Heard:
    """The grants as a list of what they were asked."""

    def __init__(self) -> None:
        self.renewed: list[tuple[ClientAddress, Identity]] = []

    def allow(self, *_: object, at: float | None = None) -> bool:
        return True

    def renew(self, who: ClientAddress, identity: Identity, session: str) -> None:
        self.renewed.append((who, identity))

    def logout(self, *_: object, at: float | None = None) -> None: ...


_KEYS = st.sampled_from(["a", "b", "c", "d"])
_STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("login"), _KEYS, st.sampled_from([ALICE, BOB]), st.sampled_from([HERE, THERE])),
        st.tuples(st.just("logout"), _KEYS),
        st.tuples(st.just("pass"), st.integers(1, 60)),
    ),
    max_size=40,
)


@given(_STEPS)
def test_whoever_has_a_session_open_is_renewed_in_time_and_nobody_else(steps: list[tuple]) -> None:
    heard, clock = _Heard(), HandClock()
    open_sessions = OpenSessions(heard, GrantSettings(), clock, lambda identity: DEFAULT_TERMS)
    model: dict[str, tuple[ClientAddress, Identity]] = {}
    for step in steps:
        if step[0] == "login":
            _, key, identity, where = step
            open_sessions.login(where, identity, "imap", key)
            model[key] = (where, identity)
        elif step[0] == "logout":
            open_sessions.logout(step[1])
            model.pop(step[1], None)
        else:
            heard.renewed.clear()
            for _ in range(step[1]):
                clock.pass_seconds(1)
                open_sessions.tick()
            assert set(heard.renewed) <= set(model.values())
            if step[1] > 20:
                assert set(heard.renewed) == set(model.values())
            most = step[1] // 20 + 1
            assert all(heard.renewed.count(holder) <= most for holder in set(heard.renewed))
    assert len(open_sessions) == len(model)
