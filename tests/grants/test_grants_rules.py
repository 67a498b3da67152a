"""The rules of grants, one by one."""

import math

import pytest

from grants_kit import ALICE, NOW, address, grant
from popgate.grants import rules, words
from popgate.grants.grant import DEFAULT_TERMS, Terms, Usage
from popgate.grants.networks import BUILT_IN_NEVER, NetworkSet
from popgate.grants.settings import GrantSettings
from popgate.values.identity import Identity
from popgate.values.mail import MailAddress

SETTINGS = GrantSettings()


@pytest.mark.parametrize(
    ("age", "live"),
    [(0, True), (899, True), (900, True), (900.001, False), (901, False), (-2, True), (-2.1, False)],
)
def test_the_window(age: float, live: bool) -> None:
    assert rules.is_live(grant(), SETTINGS, NOW + age) is live


def test_the_hard_end_counts_from_the_login() -> None:
    renewed = grant(renewed_at=NOW + 43200)
    assert rules.is_live(renewed, SETTINGS, NOW + 43200)
    assert not rules.is_live(renewed, SETTINGS, NOW + 43201)


@pytest.mark.parametrize("window", [0, -5, math.nan])
def test_a_window_that_makes_no_sense_gives_no_grant(window: float) -> None:
    assert not rules.is_live(grant(terms=Terms(window_seconds=window)), SETTINGS, NOW)
    assert not rules.is_live(grant(), GrantSettings(window_seconds=window), NOW)
    assert not rules.is_live(grant(terms=Terms(max_age_seconds=window)), SETTINGS, NOW)


@pytest.mark.parametrize("window", [1e30, math.inf])
def test_an_endless_window_is_cut_to_a_day(window: float) -> None:
    endless = grant(terms=Terms(window_seconds=window, max_age_seconds=window))
    assert rules.is_live(endless, SETTINGS, NOW + 86400)
    assert not rules.is_live(endless, SETTINGS, NOW + 86401)


@pytest.mark.parametrize("at", [math.nan, math.inf, -math.inf, 0.0, 4_000_000_000.0])
def test_times_that_make_no_sense_are_not_live(at: float) -> None:
    assert not rules.is_live(grant(login_at=at), SETTINGS, NOW)
    assert not rules.is_live(grant(renewed_at=at), SETTINGS, NOW)


def test_a_retired_grant_is_never_live() -> None:
    dead = rules.retired(grant(used=Usage(3)))
    assert rules.is_retired(dead) and dead.used == Usage(3)
    assert not rules.is_live(dead, GrantSettings(window_seconds=86400, max_age_seconds=2592000), 1.0)


def test_a_login_in_the_period_keeps_the_counts() -> None:
    before = grant(used=Usage(7), since=NOW)
    again = rules.logged_in(before, grant(login_at=NOW + 43200), SETTINGS)
    assert (again.used, again.since, again.login_at) == (Usage(7), NOW, NOW + 43200)
    afresh = rules.logged_in(before, grant(login_at=NOW + 43201), SETTINGS)
    assert (afresh.used, afresh.since) == (Usage(), NOW + 43201)


def test_a_period_that_began_in_the_future_is_not_believed() -> None:
    assert rules.logged_in(grant(since=NOW + 99, used=Usage(7)), grant(), SETTINGS) == grant()


@pytest.mark.parametrize(
    ("used", "usage", "reason"),
    [
        (Usage(99, 0, 0), Usage(1, 1, 1), None),
        (Usage(100, 0, 0), Usage(1, 1, 1), "quota-messages"),
        (Usage(0, 499, 0), Usage(1, 1, 1), None),
        (Usage(0, 499, 0), Usage(1, 2, 1), "quota-recipients"),
        (Usage(0, 0, 1073741823), Usage(1, 1, 1), None),
        (Usage(0, 0, 1073741823), Usage(1, 1, 2), "quota-bytes"),
    ],
)
def test_quotas(used: Usage, usage: Usage, reason: str | None) -> None:
    assert rules.over_quota(grant(used=used), usage, SETTINGS) == reason
    without = Terms(quota_messages=0, quota_recipients=0, quota_bytes=0)
    assert rules.over_quota(grant(used=used, terms=without), usage, SETTINGS) is None
    assert rules.over_quota(grant(terms=Terms(quota_messages=1), used=Usage(1)), usage, SETTINGS)


@pytest.mark.parametrize(
    ("sender", "identity", "terms", "bound"),
    [
        (MailAddress("alice", "example.org"), ALICE, DEFAULT_TERMS, True),
        (MailAddress("Alice", "EXAMPLE.org"), ALICE, DEFAULT_TERMS, True),
        (None, ALICE, DEFAULT_TERMS, True),
        (MailAddress("", ""), ALICE, DEFAULT_TERMS, True),
        (MailAddress("bob", "example.org"), ALICE, DEFAULT_TERMS, False),
        (MailAddress("alice", "example.net"), ALICE, DEFAULT_TERMS, False),
        (MailAddress("alice", ""), ALICE, DEFAULT_TERMS, False),
        (MailAddress("alice+x", "example.org"), ALICE, DEFAULT_TERMS, False),
        (MailAddress("bob", "example.org"), ALICE, Terms(senders=("bob@example.org",)), True),
        (MailAddress("any", "example.net"), ALICE, Terms(senders=("@example.net",)), True),
        (MailAddress("any", "a.example.net"), ALICE, Terms(senders=("@example.net",)), False),
        (MailAddress("x@example.net", "evil.example"), ALICE, Terms(senders=("@example.net",)), False),
        (MailAddress("any", ""), ALICE, Terms(senders=("@", "any@")), False),
        (
            MailAddress("\N{KELVIN SIGN}im", "example.org"),
            Identity("kim", "example.org"),
            DEFAULT_TERMS,
            False,
        ),
        (MailAddress("\N{KELVIN SIGN}im", "x.example"), ALICE, Terms(senders=("kim@x.example",)), False),
        (MailAddress("\N{KELVIN SIGN}im", "x.example"), ALICE, Terms(senders=("@x.example",)), True),
        (MailAddress("alice", "example.org"), Identity("alice"), DEFAULT_TERMS, True),
        (MailAddress("alice", "example.com"), Identity("alice"), DEFAULT_TERMS, False),
        (MailAddress("anonymous", "example.org"), rules.ANONYMOUS, DEFAULT_TERMS, False),
        (None, rules.ANONYMOUS, DEFAULT_TERMS, False),
    ],
)
def test_whose_sender(sender: MailAddress | None, identity: Identity, terms: Terms, bound: bool) -> None:
    assert rules.is_bound(sender, identity, terms, frozenset({"example.org"})) is bound


def test_ipv6_prefix_is_for_ipv6_alone() -> None:
    by_64 = GrantSettings(ipv6_prefix=64)
    assert rules.key_address(address("2001:db8::1:2"), by_64) == address("2001:db8::")
    assert rules.key_address(address("203.0.113.9"), GrantSettings(ipv6_prefix=32)) == address("203.0.113.9")
    assert rules.key_address(address("2001:db8::1:2"), SETTINGS) == address("2001:db8::1:2")


@pytest.mark.parametrize(
    "where",
    [
        "0.0.0.0",
        "0.1.2.3",
        "255.255.255.255",
        "224.0.0.1",
        "240.0.0.1",
        "169.254.1.1",
        "::",
        "ff02::1",
        "fe80::1",
    ],
)
def test_what_is_never_granted_anywhere(where: str) -> None:
    assert address(where) in BUILT_IN_NEVER


@pytest.mark.parametrize(
    "where", ["203.0.113.9", "1.0.0.0", "2001:db8::1", "10.0.0.1", "fec0::1", "223.255.255.255"]
)
def test_what_may_be_granted(where: str) -> None:
    assert address(where) not in BUILT_IN_NEVER


def test_networks_of_several_lengths() -> None:
    networks = NetworkSet.parse(["192.0.2.0/28", "198.51.100.7", "2001:db8:1::/48", "192.0.2.32/28"])
    inside = ["192.0.2.15", "192.0.2.32", "198.51.100.7", "2001:db8:1:ffff::1"]
    outside = ["192.0.2.16", "192.0.2.48", "198.51.100.8", "2001:db8:2::", "::192.0.2.15"]
    assert all(address(each) in networks for each in inside)
    assert not any(address(each) in networks for each in outside)
    assert address("192.0.2.1") not in NetworkSet(())


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (900, "15 minutes"),
        (90, "90 seconds"),
        (3600, "1 hour"),
        (60, "1 minute"),
        (1, "1 second"),
        (86400, "1 day"),
        (7200, "2 hours"),
        (5400, "90 minutes"),
        (0.2, "1 second"),
    ],
)
def test_durations_in_words(seconds: float, text: str) -> None:
    assert words.duration(seconds) == text


def test_the_refusal_text() -> None:
    assert words.no_grant(address(), SETTINGS) == (
        "relaying denied for [203.0.113.9]: no mail login from this address in the last 15 minutes;"
        " check mail by POP3 or IMAP first, or use authentication"
    )
