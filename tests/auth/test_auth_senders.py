"""To whom a sender belongs: the map that Postfix looks up for clients that have authenticated."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from popgate.auth.backends.accounts import AccountDatabase
from popgate.auth.senders import AccountSenders
from popgate.grants.grant import Terms


@pytest.fixture
def accounts(tmp_path: Path) -> Iterator[AccountDatabase]:
    database = AccountDatabase(str(tmp_path / "accounts.db"))
    yield database
    database.close()


def test_an_address_belongs_to_its_account_and_to_those_that_list_it(accounts: AccountDatabase) -> None:
    accounts.add("alice@example.org", "correct horse")
    accounts.add(
        "office@example.org", "correct horse", terms=Terms(senders=("alice@example.org", "@list.example"))
    )
    owners = AccountSenders(accounts).owners
    assert owners("alice@example.org") == ["alice@example.org", "office@example.org"]
    assert owners("ALICE@EXAMPLE.ORG") == ["alice@example.org", "office@example.org"]
    assert owners("office@example.org") == ["office@example.org"]
    assert owners("any@list.example") == ["office@example.org"]
    assert owners("@list.example") == ["office@example.org"]
    assert owners("@example.org") == []
    for nobodys in (
        "",
        "@",
        "alice",
        "alice@",
        "bob@example.org",
        "a b@example.org",
        "\N{KELVIN SIGN}@example.org",
    ):
        assert owners(nobodys) == []


def test_a_change_counts_at_once(accounts: AccountDatabase) -> None:
    owners = AccountSenders(accounts).owners
    assert owners("info@example.org") == []
    accounts.add("office@example.org", "correct horse", terms=Terms(senders=("info@example.org",)))
    assert owners("info@example.org") == ["office@example.org"]
    accounts.disable("office@example.org")
    assert owners("info@example.org") == []
    assert owners("office@example.org") == []
    accounts.enable("office@example.org")
    assert owners("info@example.org") == ["office@example.org"]
    accounts.remove("office@example.org")
    assert owners("info@example.org") == []


def test_accounts_that_cannot_be_read_are_a_fault_that_passes(
    accounts: AccountDatabase, tmp_path: Path
) -> None:
    for path in tmp_path.iterdir():
        path.unlink()
    assert AccountSenders(accounts).owners("alice@example.org") is None
