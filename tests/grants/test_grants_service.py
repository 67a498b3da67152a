"""The service over both stores: logins on one side, decisions on the other."""

from collections.abc import Callable, Iterator

import pytest

from grants_kit import ALICE, BOB, HandClock, Sink, address
from popgate.grants.grant import DEFAULT_TERMS, Decision, Terms, Usage
from popgate.grants.service import Grants
from popgate.grants.settings import GrantSettings
from popgate.grants.store import GrantStore, StoreError
from popgate.grants.stores.directory import DirectoryStore
from popgate.grants.stores.memory import MemoryStore
from popgate.values.address import ClientAddress
from popgate.values.identity import Identity
from popgate.values.mail import MailAddress

HERE = address("203.0.113.9")
THERE = address("203.0.113.10")


class Site:
    """One service with its clock, sink and store."""

    def __init__(self, store: GrantStore) -> None:
        self.store = store
        self.clock = HandClock()
        self.sink = Sink()
        self.own: frozenset[ClientAddress] = frozenset()
        self.set()

    def set(self, **settings: object) -> None:
        self.settings = GrantSettings(**settings)
        self.grants = Grants(
            self.store,
            self.settings,
            self.clock,
            self.sink,
            self.own,
            local_domains=frozenset({"example.org"}),
        )

    def log_in(
        self, who: Identity = ALICE, where: ClientAddress = HERE, terms: Terms = DEFAULT_TERMS
    ) -> bool:
        return self.grants.allow(where, who, "pop3", terms, "s1")

    def ask(
        self, sender: str | None = "alice@example.org", where: ClientAddress = HERE, n: int = 1
    ) -> Decision:
        envelope = None if sender is None else MailAddress(*sender.split("@"))
        return self.grants.decide(where, envelope, n, 0, "s2")

    def verdict(
        self, sender: str | None = "alice@example.org", where: ClientAddress = HERE
    ) -> tuple[str, str]:
        decision = self.ask(sender, where)
        return decision.verdict, decision.reason

    def send(self, sender: str = "alice@example.org") -> str:
        decision = self.ask(sender)
        if decision.verdict != "permit" or decision.grant is None:
            return decision.verdict
        return self.grants.charge(decision.grant, Usage(1, 1, 100), "s2").verdict


@pytest.fixture(params=["memory", "directory"])
def site(request: pytest.FixtureRequest, tmp_path) -> Iterator[Site]:
    store: GrantStore = (
        MemoryStore() if request.param == "memory" else DirectoryStore(str(tmp_path / "allow"))
    )
    yield Site(store)
    store.close()


class BrokenStore(MemoryStore):
    """A store whose every call fails."""

    def _fail(self, *_: object) -> Callable:
        raise StoreError("the disk is gone")

    find = change = addresses = sweep = _fail  # type: ignore[assignment]


PERMIT = ("permit", "granted")


def test_nobody_relays_without_a_login(site: Site) -> None:
    decision = site.ask()
    assert (decision.verdict, decision.reason, decision.grant) == ("refuse", "no-grant", None)
    assert decision.text.startswith("relaying denied for [203.0.113.9]: no mail login from this address in")


def test_a_login_grants_for_the_window_and_there_alone(site: Site) -> None:
    assert site.log_in()
    assert site.verdict() == PERMIT
    assert site.ask().grant.identity == ALICE
    assert site.verdict(where=THERE) == ("refuse", "no-grant")
    site.clock.pass_seconds(900)
    assert site.verdict() == PERMIT
    site.clock.pass_seconds(0.1)
    assert site.verdict() == ("refuse", "lapsed")
    assert site.sink.names() == ["grant.allow"]
    assert dict(site.sink.events[0].fields) == {
        "session": "s1",
        "client": "203.0.113.9",
        "identity": "alice@example.org",
        "protocol": "pop3",
        "reason": "login",
    }


def test_a_lapse_is_told_once(site: Site) -> None:
    site.log_in()
    site.log_in(BOB)
    site.send()
    site.clock.pass_seconds(901)
    site.grants.sweep()
    site.grants.sweep()
    site.clock.pass_seconds(50000)
    site.grants.sweep()
    assert [event.fields["identity"] for event in sorted(site.sink.told("grant.lapse"), key=str)] == [
        str(ALICE),
        str(BOB),
    ]
    assert site.sink.told("grant.lapse")[0].fields["reason"] == "window"
    assert list(site.store.addresses()) == []


def test_sender_must_belong_to_who_logged_in(site: Site) -> None:
    site.log_in(terms=Terms(senders=("sales@example.org",)))
    assert site.verdict("ALICE@Example.ORG") == PERMIT
    assert site.verdict("sales@example.org") == PERMIT
    assert site.verdict(None) == PERMIT
    assert site.verdict("bob@example.org") == ("refuse", "sender-not-bound")
    assert "alice" not in site.ask("bob@example.org").text
    site.log_in(BOB)
    assert site.ask("bob@example.org").grant.identity == BOB
    assert site.ask("alice@example.org").grant.identity == ALICE


def test_any_sender_goes_under_the_last_login(site: Site) -> None:
    site.set(sender="any", quota_messages=1)
    site.log_in()
    site.clock.pass_seconds(1)
    site.log_in(BOB)
    assert site.ask("alice@example.org").grant.identity == ALICE
    assert site.ask("x@example.net").grant.identity == BOB
    assert [site.send(sender="x@example.net") for _ in range(3)] == ["permit", "permit", "quota"]


def test_charge_falls_to_another_grant_of_the_address(site: Site) -> None:
    site.set(sender="any", quota_messages=1)
    site.log_in()
    site.log_in(BOB)
    decision = site.ask("x@example.net")
    used = [site.grants.charge(decision.grant, Usage(1, 1, 1), "s") for _ in range(3)]
    assert [each.verdict for each in used] == ["permit", "permit", "quota"]
    assert {each.grant.identity for each in used[:2]} == {ALICE, BOB}


def test_quota_holds_over_new_logins_until_the_period_ends(site: Site) -> None:
    site.set(quota_messages=2)
    site.log_in()
    assert [site.send() for _ in range(3)] == ["permit", "permit", "quota"]
    site.log_in()
    assert site.send() == "quota"
    site.clock.pass_seconds(1000)  # lapses
    site.grants.sweep()
    site.log_in()
    assert site.send() == "quota"
    site.grants.revoke(HERE, None, "test")
    site.log_in()
    assert site.send() == "quota"
    site.clock.pass_seconds(43200)
    site.log_in()
    assert site.send() == "permit"
    assert len(site.sink.told("grant.quota")) == 1


def test_quota_text_says_what_to_do(site: Site) -> None:
    site.set(quota_recipients=10)
    site.log_in()
    decision = site.ask(n=11)
    assert (decision.verdict, decision.reason) == ("quota", "quota-recipients")
    assert decision.text == (
        "the limit of 10 recipients for this mail login would be exceeded; the count starts anew"
        " with a mail login in 12 hours, or ask the mail administrator to raise the limit"
    )


def test_refund_gives_back(site: Site) -> None:
    site.set(quota_messages=1)
    site.log_in()
    charged = site.grants.charge(site.ask().grant, Usage(1, 1, 1), "s")
    assert site.send() == "quota"
    site.grants.refund(charged.grant, Usage(1, 1, 1))
    assert site.send() == "permit"
    site.grants.refund(charged.grant, Usage(5, 5, 500))
    assert site.store.find(HERE)[0].used == Usage()


def test_revoke_over_quota(site: Site) -> None:
    site.set(quota_messages=1, revoke_over_quota=True)
    site.log_in()
    assert [site.send() for _ in range(3)] == ["permit", "quota", "refuse"]
    assert [event.fields["reason"] for event in site.sink.told("grant.revoke")] == ["quota-messages"]


def test_charge_of_a_grant_that_lapsed_meanwhile(site: Site) -> None:
    site.log_in(terms=Terms(window_seconds=1))
    decision = site.ask()
    site.clock.pass_seconds(2)
    charged = site.grants.charge(decision.grant, Usage(1, 1, 1), "s")
    assert (charged.verdict, charged.reason, charged.grant) == ("refuse", "lapsed", None)


def test_renewal_while_the_session_is_open(site: Site) -> None:
    site.log_in()
    for _ in range(60):
        site.clock.pass_seconds(60)
        site.grants.renew(HERE, ALICE, "s1")
        assert site.verdict() == PERMIT
    assert 10 <= len(site.sink.told("grant.renew")) <= 17
    site.grants.logout(HERE, ALICE, "s1")
    site.clock.pass_seconds(840)
    assert site.verdict() == PERMIT
    site.clock.pass_seconds(61)
    assert site.verdict() == ("refuse", "lapsed")


def test_renewal_brings_nothing_back(site: Site) -> None:
    site.log_in()
    site.grants.revoke(HERE, ALICE, "test")
    site.clock.pass_seconds(300)
    site.grants.renew(HERE, ALICE, "s1")
    assert site.verdict()[0] == "refuse"
    site.log_in()
    site.clock.pass_seconds(901)
    site.grants.renew(HERE, ALICE, "s1")
    site.grants.logout(HERE, ALICE, "s1")
    assert site.verdict()[0] == "refuse"


def test_renewal_ends_at_the_hard_end(site: Site) -> None:
    site.log_in()
    for _ in range(43200 // 300):
        site.clock.pass_seconds(300)
        site.grants.renew(HERE, ALICE, "s1")
    assert site.verdict() == PERMIT
    site.clock.pass_seconds(1)
    site.grants.renew(HERE, ALICE, "s1")
    assert site.verdict()[0] == "refuse"
    site.grants.sweep()
    assert site.sink.told("grant.lapse")[0].fields["reason"] == "max-age"


def test_no_renewal_where_the_site_wants_none(site: Site) -> None:
    site.set(renew_while_open=False)
    site.log_in()
    site.clock.pass_seconds(800)
    site.grants.renew(HERE, ALICE, "s1")
    site.grants.logout(HERE, ALICE, "s1")
    site.clock.pass_seconds(101)
    assert site.verdict()[0] == "refuse"


def test_revoke_on_logout(site: Site) -> None:
    site.set(revoke_on_logout=True)
    site.log_in()
    site.log_in(BOB)
    site.grants.logout(HERE, ALICE, "s1")
    assert site.verdict() == ("refuse", "sender-not-bound")
    assert site.verdict("bob@example.org") == PERMIT
    assert [event.fields["session"] for event in site.sink.told("grant.revoke")] == ["s1"]


def test_two_users_behind_one_address_and_one_is_revoked(site: Site) -> None:
    site.log_in()
    site.log_in(BOB)
    assert [each.identity for each in site.grants.revoke(HERE, ALICE, "admin")] == [ALICE]
    assert site.verdict() == ("refuse", "sender-not-bound")
    assert site.verdict("bob@example.org") == PERMIT


def test_an_account_that_is_disabled_loses_all_its_grants(site: Site) -> None:
    site.log_in()
    site.log_in(where=THERE)
    site.log_in(BOB, THERE)
    assert {each.address for each in site.grants.revoke_identity(ALICE, "disabled")} == {HERE, THERE}
    assert site.verdict()[0] == "refuse" and site.verdict(where=THERE)[0] == "refuse"
    assert [each.identity for each in site.grants.list()] == [BOB]


@pytest.mark.parametrize(
    "where",
    ["127.0.0.1", "::1", "0.0.0.0", "224.0.0.1", "255.255.255.255", "100.64.1.1", "192.0.2.1", "fe80::1"],
)
def test_addresses_that_never_get_a_grant(site: Site, where: str) -> None:
    site.own = frozenset({address("192.0.2.1")})
    site.set()
    assert site.log_in(where=address(where)) is False
    assert [(e.name, e.fields["reason"]) for e in site.sink.events] == [("grant.refuse", "never")]
    assert site.verdict(where=address(where)) == ("refuse", "never")
    assert list(site.store.addresses()) == []


def test_never_beats_a_stored_grant(site: Site) -> None:
    site.log_in()
    site.set(never=["203.0.113.0/24"])
    assert site.verdict() == ("refuse", "never")


def test_trusted_networks_need_no_grant(site: Site) -> None:
    site.set(trusted=["203.0.113.0/28", "127.0.0.1"])
    assert site.verdict("anybody@example.net") == ("permit", "trusted")
    assert site.ask().grant is None
    assert site.verdict(where=address("127.0.0.1")) == ("permit", "trusted")
    assert site.verdict(where=address("203.0.113.16"))[0] == "refuse"


def test_devices_alone(site: Site) -> None:
    site.set(who="devices")
    assert not site.log_in()
    assert site.log_in(BOB, terms=Terms(is_device=True))
    assert [event.fields["reason"] for event in site.sink.told("grant.refuse")] == ["not-a-device"]


def test_too_many_identities_on_one_address(site: Site) -> None:
    site.set(max_identities_per_address=2)
    people = [Identity(f"user{n}", "example.org") for n in range(4)]
    assert [site.log_in(who) for who in people] == [True, True, False, False]
    assert site.log_in(people[0])
    assert site.verdict("user3@example.org") == ("refuse", "sender-not-bound")
    assert len(site.sink.told("grant.alarm")) == 1
    assert len(site.sink.told("grant.refuse")) == 2
    site.set(max_identities_per_address=1)
    assert site.log_in(people[0])  # holds a grant already
    site.clock.pass_seconds(901)
    assert site.log_in(people[3])


def test_too_many_identities_may_only_alarm(site: Site) -> None:
    site.set(max_identities_per_address=2, over_identities="alarm")
    assert all(site.log_in(Identity(f"user{n}")) for n in range(4))
    assert len(site.sink.told("grant.alarm")) == 1
    assert len(site.grants.list()) == 4


def test_a_prefix_of_ipv6(site: Site) -> None:
    site.set(ipv6_prefix=64)
    site.log_in(where=address("2001:db8::1"))
    assert site.verdict(where=address("2001:db8::ffff:2")) == PERMIT
    assert site.verdict(where=address("2001:db8:0:1::1"))[0] == "refuse"
    site.grants.revoke(address("2001:db8::3"), ALICE, "test")
    assert site.verdict(where=address("2001:db8::1"))[0] == "refuse"


def test_mapped_and_plain_spelling_are_one_client(site: Site) -> None:
    site.log_in(where=address("::ffff:203.0.113.9"))
    assert site.verdict(where=HERE) == PERMIT
    assert site.verdict(where=address("::203.0.113.9"))[0] == "refuse"


def test_a_store_at_fault_never_grants() -> None:
    site = Site(BrokenStore())
    assert site.log_in() is False
    site.grants.renew(HERE, ALICE, "s")
    site.grants.logout(HERE, ALICE, "s")
    site.grants.sweep()
    assert site.verdict() == ("defer", "store-unavailable")
    good = Site(MemoryStore())
    good.log_in()
    grant = good.ask().grant
    assert site.grants.charge(grant, Usage(1, 1, 1), "s").verdict == "defer"
    site.grants.refund(grant, Usage(1, 1, 1))
    assert site.sink.names() == ["grant.alarm", "grant.refuse"]
    assert site.sink.events[0].fields["detail"] == "the disk is gone"


@pytest.mark.parametrize("step", [3600.0, -3600.0])
def test_a_step_of_the_clock_that_the_server_notices(site: Site, step: float) -> None:
    site.log_in()
    site.clock.pass_seconds(100)
    site.clock.time += step
    site.store.redate(step)
    assert site.verdict() == PERMIT
    site.clock.pass_seconds(800)
    assert site.verdict() == PERMIT
    site.clock.pass_seconds(1)
    assert site.verdict()[0] == "refuse"


def test_restart(site: Site) -> None:
    site.log_in()
    site.set()
    assert site.verdict() == PERMIT


def test_a_thousand_addresses_of_one_user_have_a_grant_each(site: Site) -> None:
    for n in range(1000):
        site.log_in(where=ClientAddress(bytes([198, 51, n // 256, n % 256])))
    assert len(site.grants.list()) == 1000
    assert site.verdict(where=address("198.51.3.231")) == PERMIT
    assert site.verdict(where=address("198.51.3.232"))[0] == "refuse"


def test_a_logout_soon_after_the_login_reads_nothing() -> None:
    store, clock = MemoryStore(), HandClock()
    service = Grants(store, GrantSettings(), clock, Sink())
    assert service.allow(address(), ALICE, "pop3", Terms(), "s")
    asked = []
    store.find = lambda key: asked.append(key) or []  # type: ignore[method-assign]
    clock.pass_seconds(56)
    service.logout(address(), ALICE, "s")
    assert asked == []
    service.logout(address(), BOB, "s")  # not the login that is remembered
    clock.pass_seconds(1)
    service.logout(address(), ALICE, "s")
    assert asked == [address(), address()]
