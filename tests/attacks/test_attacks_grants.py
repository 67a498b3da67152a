"""The attack cases of the classes ip and grant: addresses, and the grants behind an SMTP session."""

import pytest

from attacks.attack_cases import CASES, of_class
from grants_kit import ALICE, BOB, HandClock, Sink
from popgate.grants.grant import DEFAULT_TERMS
from popgate.grants.service import Grants
from popgate.grants.settings import GrantSettings
from popgate.grants.stores.memory import MemoryStore
from popgate.sessions.smtp import SmtpPolicy
from popgate.values.address import AddressError, ClientAddress
from smtp_support import Dialogue

MAIL = b"MAIL FROM:<alice@example.org>\r\n"
RCPT = b"RCPT TO:<victim@example.net>\r\n"


class World:
    """Grants with one store, and SMTP sessions from any address."""

    def __init__(self, **settings: object) -> None:
        self.clock = HandClock()
        self.sink = Sink()
        self.store = MemoryStore()
        self.settings = GrantSettings(**settings)  # type: ignore[arg-type]
        self.grants = self.started()

    def started(self) -> Grants:
        return Grants(self.store, self.settings, self.clock, self.sink)

    def login(self, where: str = "203.0.113.9", identity=ALICE) -> bool:
        return self.grants.allow(ClientAddress.parse(where), identity, "pop3", DEFAULT_TERMS, "P1")

    def session(self, where: str = "203.0.113.9") -> Dialogue:
        dialogue = Dialogue(SmtpPolicy("mx.example.org"), client=where, grants=self.grants)
        dialogue.say(b"EHLO x\r\n")
        return dialogue

    def relays(self, where: str = "203.0.113.9", mail: bytes = MAIL) -> bool:
        answer = self.session(where).say(mail + RCPT)
        assert answer.count(b"\r\n") == 2
        return answer.split(b"\r\n")[1].startswith(b"250")


# ip


@pytest.mark.parametrize("name", of_class("ip"))
def test_one_spelling_one_address(name: str) -> None:
    case = CASES[name]
    text = case["send"][0].encode("latin-1").decode("utf-8")
    expect, _, canonical = case["expect"].partition("=")
    if expect == "ip-refuse" or "%" in text:
        with pytest.raises(AddressError):
            ClientAddress.parse(text)
        return
    address = ClientAddress.parse(text)
    world = World()
    if canonical and not canonical.startswith("refuse"):
        assert address.text == canonical
        assert address == ClientAddress.parse(canonical)
        assert world.login(text)
        assert world.relays(canonical)
    elif expect == "ip-own":
        assert address != ClientAddress.parse("1.2.3.4")
        assert world.login(text)
        assert not world.relays("1.2.3.4")
    else:  # link-local, and what is never granted
        assert not world.login(text)
        assert not world.relays(text)


# grant


def test_grant_001_no_login_at_all() -> None:
    assert not World().relays()


def test_grant_010_a_login_elsewhere() -> None:
    world = World()
    assert world.login("203.0.113.2")
    assert not world.relays("203.0.113.3")
    assert world.relays("203.0.113.2")


def test_grant_012_it_lapses_between_rcpt_and_data() -> None:
    world = World(window_seconds=1)
    world.login()
    session = world.session()
    assert session.say(MAIL + RCPT).count(b"250") == 2
    world.clock.pass_seconds(2)
    assert session.say(b"DATA\r\n").startswith(b"550 5.7.1")
    assert not session.intake.incoming


def test_grant_014_the_account_is_disabled_while_granted() -> None:
    world = World()
    world.login()
    session = world.session()
    session.say(MAIL + RCPT + b"DATA\r\n")
    world.grants.revoke_identity(ALICE, "disabled")
    assert session.say(b"x\r\n.\r\n")[:3] in (b"550", b"451", b"452")
    assert not session.intake.accepted
    assert not world.relays()


@pytest.mark.parametrize("step", [3600, -3600])
def test_grant_016_a_step_of_the_clock_grants_nothing(step: float) -> None:
    world = World()
    world.clock.time += step
    world.login()
    world.clock.time -= step
    if step > 0:
        assert not world.relays()  # a login in the future is none


def test_grant_017_a_restart_neither_gives_nor_takes() -> None:
    world = World()
    world.login()
    world.grants = world.started()
    assert world.relays()
    assert not world.relays("203.0.113.10")


def test_grant_020_one_of_two_behind_a_nat_is_revoked() -> None:
    world = World()
    world.login()
    world.login(identity=BOB)
    world.grants.revoke(ClientAddress.parse("203.0.113.9"), ALICE, "test")
    assert not world.relays()
    assert world.relays(mail=b"MAIL FROM:<bob@example.org>\r\n")


def test_grant_021_many_addresses_of_one_user_are_each_their_own() -> None:
    world = World()
    for number in range(100):
        world.login(f"198.51.100.{number}")
    assert world.relays("198.51.100.7")
    assert not world.relays("198.51.100.200")
    assert len(world.grants.list()) == 100


@pytest.mark.parametrize("where", CASES["grant-022"]["send"][0].split(", "))
def test_grant_022_addresses_that_are_nobodys(where: str) -> None:
    world = World()
    assert not world.login(where)
    assert not world.relays(where)


def test_grant_025_the_webmail_host() -> None:
    world = World(never=["192.0.2.80"])
    assert not world.login("192.0.2.80")
    assert not world.relays("192.0.2.80")
    world = World(max_identities_per_address=1)
    world.login()
    assert not world.login(identity=BOB)
    assert not world.relays(mail=b"MAIL FROM:<bob@example.org>\r\n")


def test_grant_026_somebody_elses_sender() -> None:
    world = World()
    world.login()
    assert not world.relays(mail=b"MAIL FROM:<other@example.org>\r\n")
    assert not world.relays(mail=b"MAIL FROM:<bob@example.org>\r\n")
    assert world.relays()


def test_grant_027_a_flood_ends_at_the_quota() -> None:
    world = World(quota_recipients=50)
    world.login()
    session = world.session()
    out = session.say(MAIL + b"".join(b"RCPT TO:<v%d@example.net>\r\n" % number for number in range(1000)))
    assert out.count(b"250 2.1.5") == 50
    assert b"\r\n452 " in out
    assert session.say(b"DATA\r\n").startswith(b"354")
    assert session.say(b"x\r\n.\r\n").startswith(b"250")
    assert not world.relays()
