"""The attack cases of class grant that concern the grants themselves.

Each runs on the directory store. The rule of all of them: an address relays exactly while a
login from that very address counts. Cases 004, 005, 006 and 009 are logins that fail or
break off: the sessions' tests hold that nothing but a completed login calls `allow`. The
configuration reader's tests refuse the settings of case 023; here is what they would do.
"""

import math
import os
from pathlib import Path

import pytest

from grants_kit import ALICE, BOB, HandClock, Sink, address
from popgate.grants.grant import DEFAULT_TERMS, Terms, Usage
from popgate.grants.service import Grants
from popgate.grants.settings import GrantSettings
from popgate.grants.stores.directory import DirectoryStore
from popgate.values.address import ClientAddress
from popgate.values.identity import Identity
from popgate.values.mail import MailAddress

A, B = address("198.51.100.2"), address("198.51.100.3")


class Server:
    """A server on its directory; `another` is one more process of it, or the next after a restart."""

    def __init__(self, path: Path, clock: HandClock | None = None, **settings: object) -> None:
        self.path = path
        self.clock = clock or HandClock()
        self.store = DirectoryStore(str(path))
        self.grants = Grants(self.store, GrantSettings(**settings), self.clock, Sink())

    def another(self, **settings: object) -> "Server":
        return Server(self.path, self.clock, **settings)

    def log_in(self, where: ClientAddress, who: Identity = ALICE, terms: Terms = DEFAULT_TERMS) -> bool:
        return self.grants.allow(where, who, "pop3", terms, "s")

    def relays(self, where: ClientAddress, sender: str = "alice@example.org") -> bool:
        return self.grants.decide(where, MailAddress(*sender.split("@")), 1, 0, "s").verdict == "permit"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "allow"


def test_grant_001_no_login_at_all(path: Path) -> None:
    server = Server(path)
    assert not server.relays(A)
    assert not server.relays(A, "@")


def test_grant_010_login_from_one_address_relay_from_another(path: Path) -> None:
    server = Server(path)
    server.log_in(A)
    assert server.relays(A) and not server.relays(B)


def test_grant_012_it_lapses_between_rcpt_and_data(path: Path) -> None:
    server = Server(path)
    server.log_in(A, terms=Terms(window_seconds=1))
    decision = server.grants.decide(A, MailAddress("alice", "example.org"), 1, 0, "s")
    server.clock.pass_seconds(1.5)
    assert server.grants.charge(decision.grant, Usage(1, 1, 10), "s").verdict == "refuse"


def test_grant_014_the_account_is_deleted_while_granted(path: Path) -> None:
    server = Server(path)
    server.log_in(A)
    server.log_in(B)
    server.another().grants.revoke_identity(ALICE, "account-removed")
    assert not server.relays(A) and not server.relays(B)
    server.clock.pass_seconds(300)
    server.grants.renew(A, ALICE, "a session that is still open")
    assert not server.relays(A)


@pytest.mark.parametrize("step", [3600, -3600])
def test_grant_016_the_clock_is_set(path: Path, step: int) -> None:
    server = Server(path)
    server.log_in(A)
    # Noticed: the recorded times move along, and the grant lives as long as it would have.
    server.clock.time += step
    server.store.redate(step)
    assert server.relays(A)
    server.clock.pass_seconds(901)
    assert not server.relays(A)
    # Unnoticed, or before a restart: too old, or dated in the future.
    server.log_in(A)
    server.clock.time += step
    assert not server.relays(A)


def test_grant_017_restart(path: Path) -> None:
    server = Server(path)
    server.log_in(A)
    after = server.another()
    assert after.relays(A) and not after.relays(B)
    server.clock.pass_seconds(901)
    assert not server.another().relays(A)


def test_grant_020_two_users_behind_one_address_and_one_is_revoked(path: Path) -> None:
    server = Server(path)
    server.log_in(A)
    server.log_in(A, BOB)
    server.another().grants.revoke(A, ALICE, "admin")
    assert not server.relays(A)
    assert server.relays(A, "bob@example.org")


def test_grant_021_a_thousand_addresses_of_one_user(path: Path) -> None:
    server = Server(path)
    for n in range(1000):
        assert server.log_in(ClientAddress(bytes([203, 0, n // 250, 1 + n % 250])))
    assert len(server.grants.list()) == 1000
    assert not server.relays(A)
    server.clock.pass_seconds(901)
    server.grants.sweep()
    assert os.listdir(path) == []


@pytest.mark.parametrize("where", ["127.0.0.1", "::1", "0.0.0.0", "224.0.0.1", "255.255.255.255"])
def test_grant_022_addresses_of_no_client(path: Path, where: str) -> None:
    server = Server(path)
    assert not server.log_in(address(where))
    (path / where).write_bytes(b"USER=alice\0DOMAIN=example.org\0")
    os.utime(path / where, (server.clock.now(), server.clock.now()))
    assert not server.relays(address(where))


@pytest.mark.parametrize("seconds", [0, -1, math.nan])
def test_grant_023_settings_that_make_no_sense(path: Path, seconds: float) -> None:
    server = Server(path, window_seconds=seconds)
    assert not server.log_in(A) and not server.relays(A)
    assert not Server(path, max_age_seconds=seconds).relays(A)


@pytest.mark.parametrize("seconds", [10**30, math.inf])
def test_grant_023_settings_without_end(path: Path, seconds: float) -> None:
    server = Server(path, window_seconds=seconds, max_age_seconds=seconds)
    assert server.log_in(A) and server.relays(A)
    server.clock.pass_seconds(86401)
    assert not server.relays(A)


def test_grant_025_a_webmail_host_logs_in_for_everyone(path: Path) -> None:
    server = Server(path)
    people = [Identity(f"user{n}", "example.org") for n in range(50)]
    assert sum(server.log_in(A, who) for who in people) == 10
    assert not server.relays(A, "user49@example.org")
    listed = server.another(never=[A.text])
    assert not listed.log_in(A) and not listed.relays(A, "user0@example.org")


def test_grant_026_a_sender_of_somebody_else(path: Path) -> None:
    server = Server(path)
    server.log_in(A)
    assert not server.relays(A, "other@example.org")


def test_grant_027_a_flood_within_the_window(path: Path) -> None:
    workers = [Server(path)]
    workers.append(workers[0].another())
    workers[0].log_in(A)
    sent = 0
    for n in range(1000):
        server = workers[n % 2]
        decision = server.grants.decide(A, MailAddress("alice", "example.org"), 10, 0, "s")
        if decision.grant is not None and server.grants.charge(decision.grant, Usage(1, 10, 1), "s").grant:
            sent += 1
    assert sent == 50  # 500 recipients
