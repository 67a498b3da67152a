"""`popgate grant`, on a real directory of grants."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Run = Callable[..., Any]


def test_allow_list_and_revoke(site: Path, run: Run, run_json: Run) -> None:
    assert run_json("grant", "list") == []
    assert "note: there is no account" in run("grant", "allow", "203.0.113.9", "alice@example.org").stderr
    run("grant", "allow", "2001:DB8::1", "bob@example.org", "--window", "60")
    one, other = sorted(run_json("grant", "list"), key=lambda grant: str(grant["address"]))
    assert (one["address"], other["identity"]) == ("2001:db8::1", "alice@example.org")
    assert one["ends_at"] - one["renewed_at"] == pytest.approx(60)
    assert "203.0.113.9" in run("grant", "list").stdout
    assert [each["identity"] for each in run_json("grant", "revoke", "203.0.113.9")] == ["alice@example.org"]
    run("grant", "revoke", "--identity", "bob@example.org")
    assert run_json("grant", "list") == []
    run("grant", "revoke", "203.0.113.9", code=1)


def test_the_grant_of_an_account_has_its_terms(site: Path, run: Run, run_json: Run) -> None:
    run("account", "add", "scanner@example.org", "--device", "--window", "120")
    run("grant", "allow", "203.0.113.9", "scanner@example.org")
    (one,) = run_json("grant", "list")
    assert one["device"] is True
    assert one["ends_at"] - one["renewed_at"] == pytest.approx(120)


@pytest.mark.parametrize(
    ("address", "why"),
    [("127.0.0.1", "never get one"), ("224.0.0.1", "never get one"), ("::", "never get one")],
)
def test_addresses_that_never_get_a_grant(site: Path, run: Run, address: str, why: str) -> None:
    assert why in run("grant", "allow", address, "alice@example.org", code=1).stderr


def test_only_devices_where_the_site_says_so(site: Path, run: Run) -> None:
    run("account", "add", "alice@example.org")
    result = run("grant", "allow", "203.0.113.9", "alice@example.org", "--set", "grants.who=devices", code=1)
    assert "not marked as a device" in result.stderr


@pytest.mark.parametrize(
    "address", ["203.0.113", "010.1.2.3", "0x7f.1.1.1", "../x", "fe80::1%eth0", "host.example"]
)
def test_what_is_no_address_is_wrong_usage(site: Path, run: Run, address: str) -> None:
    run("grant", "allow", address, "alice@example.org", code=2)
    run("grant", "revoke", address, code=2)


def test_what_is_no_identity_is_wrong_usage(site: Path, run: Run) -> None:
    run("grant", "allow", "203.0.113.9", "a/../b@example.org", code=2)
    run("grant", "revoke", code=2)


def test_grants_in_memory_cannot_be_seen_from_here(site: Path, run: Run) -> None:
    memory = ("--set", "grants.store=memory:", "--set", "workers=1")
    assert "in the memory of the server" in run("grant", "list", *memory, code=2).stderr
    run("account", "add", "alice@example.org", *memory)
    assert "lapse by themselves" in run("account", "disable", "alice@example.org", *memory).stderr
