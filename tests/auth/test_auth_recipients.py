"""Who gets mail here."""

import pytest

from popgate.auth.addressbook import Listing
from popgate.auth.authenticator import LocalRecipient, LookupUnavailable
from popgate.auth.backends.accounts import AccountDatabase
from popgate.auth.recipients import MAX_DEPTH, Recipients
from popgate.grants.grant import Terms
from popgate.values.identity import Identity
from popgate.values.mail import MailAddress

HERE = ["example.org", "example.net"]
ANN, BOB = Identity("ann", "example.org"), Identity("bob", "example.net")


@pytest.fixture
def database(tmp_path, monkeypatch):
    monkeypatch.setattr("popgate.auth.backends.accounts.hash_password", lambda password: "x")
    database = AccountDatabase(str(tmp_path / "accounts.sqlite"))
    database.add("ann@example.org", "secret")
    database.add("bob@example.net", "secret")
    database.add("printer@example.org", "secret", terms=Terms(is_device=True))
    yield database
    database.close()


@pytest.fixture
def resolve(database):
    table = Recipients([database], HERE, postmaster=ANN)

    def resolve(text):
        local, _, domain = text.partition("@")
        return table.resolve(MailAddress(local, domain))

    return resolve


def mailboxes(*identities):
    return LocalRecipient(identities)


def test_account(resolve):
    assert resolve("ann@example.org") == mailboxes(ANN)
    assert resolve("ANN@example.org") == mailboxes(ANN)


@pytest.mark.parametrize(
    "address",
    [
        "ann@example.net",
        "nobody@example.org",
        "../ann@example.org",
        "é@example.org",
        "@example.org",
        "a b@example.org",
    ],
)
def test_nobody(resolve, address):
    assert resolve(address) is None


def test_detail_falls_back_to_the_user(resolve, database):
    assert resolve("ann+lists@example.org") == mailboxes(ANN)
    assert resolve("ann+a+b@example.org") == mailboxes(ANN)
    assert resolve("+ann@example.org") is None
    database.add_alias("ann+lists@example.org", ["bob@example.net"])
    assert resolve("ann+lists@example.org") == mailboxes(BOB)
    assert resolve("ann+other@example.org") == mailboxes(ANN)


def test_disabled_account_still_gets_mail(resolve, database):
    database.disable("ann@example.org")
    assert resolve("ann@example.org") == mailboxes(ANN)


def test_device_has_no_mailbox_but_may_have_an_alias(resolve, database):
    assert resolve("printer@example.org") is None
    database.add_alias("printer@example.org", ["ann@example.org"])
    assert resolve("printer@example.org") == mailboxes(ANN)


def test_alias_to_here_and_elsewhere(resolve, database):
    database.add_alias(
        "all@example.org",
        ["ann@example.org", "bob+x@example.net", "Carl@elsewhere.example", "gone@example.org"],
    )
    assert resolve("all@example.org") == LocalRecipient(
        (ANN, BOB), (MailAddress("Carl", "elsewhere.example"),)
    )


def test_alias_that_leads_nowhere_is_nobody(resolve, database):
    database.add_alias("old@example.org", ["gone@example.org"])
    assert resolve("old@example.org") is None


def test_alias_beside_a_mailbox(resolve, database):
    database.add_alias("ann@example.org", ["ann@example.org", "ann@elsewhere.example"])
    assert resolve("ann@example.org") == LocalRecipient((ANN,), (MailAddress("ann", "elsewhere.example"),))
    database.add_alias("team@example.org", ["ann@example.org", "bob@example.net"])
    assert resolve("team@example.org") == LocalRecipient(
        (BOB, ANN), (MailAddress("ann", "elsewhere.example"),)
    )


def test_nested_aliases_and_loops(resolve, database):
    database.add_alias("a@example.org", ["b@example.org", "bob@example.net"])
    database.add_alias("b@example.org", ["a@example.org", "c@example.org"])
    database.add_alias("c@example.org", ["ann@example.org", "a@example.org", "c@example.org"])
    assert set(resolve("a@example.org").mailboxes) == {ANN, BOB}
    database.add_alias("x@example.org", ["y@example.org"])
    database.add_alias("y@example.org", ["x@example.org"])
    assert resolve("x@example.org") is None


def test_too_deep_is_told_and_not_lost(resolve, database):
    names = [f"n{index}@example.org" for index in range(MAX_DEPTH + 1)]
    for name, target in zip(names, [*names[1:], "ann@example.org"], strict=True):
        database.add_alias(name, [target])
    assert resolve(names[1]) == mailboxes(ANN)
    with pytest.raises(LookupUnavailable, match="nested"):
        resolve(names[0])


def test_too_wide_is_told_and_not_lost(resolve, database):
    for part in range(3):
        database.add_alias(
            f"part{part}@example.org", [f"x{part}-{index}@elsewhere.example" for index in range(400)]
        )
    database.add_alias("all@example.org", [f"part{part}@example.org" for part in range(3)])
    with pytest.raises(LookupUnavailable, match="more than"):
        resolve("all@example.org")


def test_postmaster_of_every_domain_is_somebody(resolve, database):
    # RFC 5321 4.5.1
    assert resolve("Postmaster@example.org") == mailboxes(ANN)
    assert resolve("postmaster@example.net") == mailboxes(ANN)
    assert resolve("postmaster+x@example.net") == mailboxes(ANN)
    assert resolve("postmaster") == mailboxes(ANN)  # <Postmaster> without a domain
    assert resolve("postmaster@elsewhere.example") is None
    database.add_alias("postmaster@example.net", ["bob@example.net"])
    assert resolve("postmaster@example.net") == mailboxes(BOB)


def test_an_alias_here_beside_a_mailbox_of_another_book(database):
    class Book:
        def listing(self, identity):
            return Listing(True) if identity == Identity("carl", "example.org") else None

    database.add_alias("carl@example.org", ["carl@example.org", "ann@example.org"])
    table = Recipients([database, Book()], HERE)
    carl = Identity("carl", "example.org")
    assert table.resolve(MailAddress("carl", "example.org")) == mailboxes(carl, ANN)


def test_unreadable_database_is_temporary(database, tmp_path):
    database.close()
    (tmp_path / "accounts.sqlite").rename(tmp_path / "moved")
    with pytest.raises(LookupUnavailable):
        Recipients([database], HERE).resolve(MailAddress("ann", "example.org"))
