"""The account database, as the command line and several processes use it."""

import multiprocessing
import os
import sqlite3
import stat
from pathlib import Path

import pytest

from popgate.auth.backends import accounts
from popgate.auth.backends.accounts import (
    AccountDatabase,
    AccountError,
    AccountExists,
    AccountStoreError,
    AccountUnknown,
    BadName,
    BadPassword,
)
from popgate.auth.hashing import DUMMY_HASH, hash_password, is_outdated, is_password
from popgate.grants.grant import DEFAULT_TERMS, Terms
from popgate.values.identity import Identity

ANN = "ann@example.org"


@pytest.fixture
def database(tmp_path, monkeypatch):
    monkeypatch.setattr(accounts, "hash_password", lambda password: "hash of " + password.decode())
    database = AccountDatabase(str(tmp_path / "accounts.sqlite"), now=lambda: 1000.0)
    yield database
    database.close()


def test_account_is_kept_and_found_in_any_case(database):
    terms = Terms(60, 600, 5, 6, 7, ("Office@Example.org", "@Lists.example.org"), True)
    made = database.add("Ann@Example.ORG", "secret", terms=terms)
    found = database.get("ANN@example.org")
    assert found == made
    assert found.identity == Identity("ann", "example.org")
    assert found.is_device and found.is_enabled and not found.is_recoverable
    assert found.terms == Terms(60, 600, 5, 6, 7, ("office@example.org", "@lists.example.org"), True)
    assert (found.created_at, found.changed_at) == (1000.0, 1000.0)
    assert database.list() == [found]


def test_default_terms_stay_unset(database):
    database.add(ANN, "secret")
    assert database.get(ANN).terms == DEFAULT_TERMS
    assert database.credentials(Identity("ann", "example.org")).terms == DEFAULT_TERMS


def test_same_account_twice(database):
    database.add(ANN, "secret")
    with pytest.raises(AccountExists, match="already"):
        database.add("ANN@EXAMPLE.ORG", "other")
    assert database.credentials(Identity("ann", "example.org")).stored == "hash of secret"


def test_unknown_accounts_are_named(database):
    for change in (
        lambda: database.get(ANN),
        lambda: database.set_password(ANN, "x"),
        lambda: database.enable(ANN),
        lambda: database.disable(ANN),
        lambda: database.remove(ANN),
        lambda: database.set_terms(ANN, DEFAULT_TERMS),
    ):
        with pytest.raises(AccountUnknown, match=ANN):
            change()


@pytest.mark.parametrize(
    "name", ["", "ann", "@example.org", "ann@", "../x@example.org", "a b@example.org", "é@x.org"]
)
def test_bad_names(database, name):
    with pytest.raises(BadName):
        database.add(name, "secret")
    with pytest.raises(BadName):
        database.add_alias(name, [ANN])


@pytest.mark.parametrize(
    "target", ["", "ann", "ann@", "@x.org", "a b@x.org", 'a"b"@x.org', "a..b@x.org", "a@b@x.org", "a@-x"]
)
def test_bad_targets_and_senders(database, target):
    with pytest.raises(BadName):
        database.add_alias(ANN, [target])
    if target != "@x.org":
        with pytest.raises(BadName):
            database.add(ANN, "secret", terms=Terms(senders=(target,)))


@pytest.mark.parametrize("password", ["", "a\nb", "a\rb", "a\0b", "x" * 241, "\ud800"])
def test_bad_passwords(database, password):
    with pytest.raises(BadPassword):
        database.add(ANN, password)


@pytest.mark.parametrize(
    "terms",
    [Terms(window_seconds=0), Terms(max_age_seconds=-1), Terms(quota_bytes=-2), Terms(quota_messages=2**63)],
)
def test_bad_terms(database, terms):
    with pytest.raises(AccountError):
        database.add(ANN, "secret", terms=terms)


def test_changes(database):
    ann = Identity("ann", "example.org")
    database.add(ANN, "secret")
    database.set_password(ANN, "new")
    assert database.credentials(ann).stored == "hash of new"
    database.disable(ANN)
    assert not database.credentials(ann).is_enabled
    database.enable(ANN)
    assert database.credentials(ann).is_enabled
    database.set_terms(ANN, Terms(window_seconds=90, is_device=True))
    assert database.get(ANN).terms == Terms(window_seconds=90, is_device=True)
    database.remove(ANN)
    assert database.credentials(ann) is None
    assert database.list() == []


def test_recoverable_secret_comes_and_goes(database):
    ann = Identity("ann", "example.org")
    database.add(ANN, "one", is_recoverable=True)
    assert database.recoverable(ann).secret == b"one"
    assert database.get(ANN).is_recoverable
    database.set_password(ANN, "two")
    assert database.recoverable(ann).secret == b"two"
    database.set_password(ANN, "three", is_recoverable=False)
    assert database.recoverable(ann).secret is None
    database.set_password(ANN, "four")
    assert database.recoverable(ann).secret is None
    database.set_password(ANN, "five", is_recoverable=True)
    assert database.recoverable(ann).secret == b"five"


def test_removed_secret_leaves_no_bytes(database, tmp_path):
    database.add(ANN, "findable-secret", is_recoverable=True)
    database.add("bob@example.org", "other")
    database.remove(ANN)
    database.close()  # the last to close checkpoints
    for file in tmp_path.iterdir():
        content = file.read_bytes()
        assert b"findable-secret" not in content.replace(b"hash of findable-secret", b"")
    database.add(ANN, "again")
    assert not database.get(ANN).is_recoverable


def test_aliases(database):
    database.add_alias("Info@example.org", ["ann@example.org", "B.Ob@Elsewhere.example", "ann@EXAMPLE.org"])
    (alias,) = database.list_aliases()
    assert alias.address == Identity("info", "example.org")
    assert [str(target) for target in alias.targets] == ["ann@example.org", "B.Ob@elsewhere.example"]
    with pytest.raises(AccountExists):
        database.add_alias("info@example.org", [ANN])
    with pytest.raises(BadName):
        database.add_alias("none@example.org", [])
    database.remove_alias("INFO@example.org")
    assert database.list_aliases() == []
    with pytest.raises(AccountUnknown):
        database.remove_alias("info@example.org")


def test_an_alias_hides_no_mailbox(database):
    database.add(ANN, "secret")
    with pytest.raises(AccountExists, match="copy"):
        database.add_alias(ANN, ["bob@example.net"])
    database.add_alias(ANN, [ANN, "bob@example.net"])
    database.add_alias("printer@example.org", [ANN])
    with pytest.raises(AccountExists, match="alias"):
        database.add("printer@example.org", "secret")
    database.add("printer@example.org", "secret", terms=Terms(is_device=True))
    with pytest.raises(AccountExists):
        database.set_terms("printer@example.org", Terms())


def test_file_is_private_even_when_it_was_not(tmp_path):
    path = tmp_path / "accounts.sqlite"
    path.touch(0o644)
    path.chmod(0o644)
    database = AccountDatabase(str(path))
    database.add(ANN, "secret", is_recoverable=True)
    for file in tmp_path.iterdir():
        assert stat.S_IMODE(file.stat().st_mode) == 0o600, file
    database.close()


def test_symbolic_link_is_not_followed(tmp_path):
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(AccountStoreError):
        AccountDatabase(str(tmp_path / "link"))
    assert not (tmp_path / "elsewhere").exists()


def test_newer_schema_is_refused(tmp_path):
    path = str(tmp_path / "accounts.sqlite")
    AccountDatabase(path).close()
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA user_version = 99")
    connection.close()
    with pytest.raises(AccountStoreError, match="newer"):
        AccountDatabase(path)


def test_older_schema_is_migrated(tmp_path, monkeypatch):
    path = str(tmp_path / "accounts.sqlite")
    database = AccountDatabase(path)
    database.add(ANN, "secret")
    database.close()
    monkeypatch.setattr(accounts, "MIGRATIONS", (*accounts.MIGRATIONS, ("CREATE TABLE later (x)",)))
    database = AccountDatabase(path)
    assert database.get(ANN).identity == Identity("ann", "example.org")
    database.close()
    connection = sqlite3.connect(path)
    assert connection.execute("PRAGMA user_version").fetchone() == (2,)
    assert connection.execute("SELECT * FROM later").fetchall() == []
    connection.close()


def test_not_a_database(tmp_path):
    path = tmp_path / "accounts.sqlite"
    path.write_bytes(b"not a database, surely" * 100)
    with pytest.raises(AccountStoreError, match=r"accounts\.sqlite"):
        AccountDatabase(str(path))


def _add_many(path: str, number: int) -> None:
    accounts.hash_password = lambda password: "x"
    database = AccountDatabase(path)
    for index in range(20):
        database.add(f"user{number}-{index}@example.org", "secret")
    database.close()
    os._exit(0)


def test_processes_that_create_and_write_at_once(tmp_path: Path):
    path = str(tmp_path / "accounts.sqlite")
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=_add_many, args=(path, number)) for number in range(6)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
    database = AccountDatabase(path)
    assert len(database.list()) == 120
    database.close()


def test_one_process_sees_what_another_changed(database, tmp_path):
    other = AccountDatabase(str(tmp_path / "accounts.sqlite"))
    ann = Identity("ann", "example.org")
    assert other.credentials(ann) is None
    database.add(ANN, "secret")
    assert other.credentials(ann).stored == "hash of secret"
    database.disable(ANN)
    assert not other.credentials(ann).is_enabled
    other.close()


def test_hashes():
    stored = hash_password(b"secret")
    assert stored.startswith("$argon2id$v=19$m=19456,t=2,p=1$")
    assert is_password(stored, b"secret") and not is_password(stored, b"Secret")
    assert not is_outdated(stored) and is_outdated(
        "$argon2id$v=19$m=8,t=1,p=1$AAAAAAAAAAAAAAAA$AAAAAAAAAAAAAAAA"
    )
    assert not is_outdated(DUMMY_HASH), "the dummy must cost what a real hash costs"
    assert not is_password("nonsense", b"secret")


def test_a_writer_at_work_holds_no_login_up(database, tmp_path):
    database.add(ANN, "secret")
    writer = sqlite3.connect(tmp_path / "accounts.sqlite", isolation_level=None)
    writer.execute("BEGIN IMMEDIATE")
    writer.execute("DELETE FROM accounts")
    assert database.credentials(Identity("ann", "example.org")).is_enabled
    writer.execute("ROLLBACK")
    writer.close()


def test_a_failed_change_leaves_nothing_behind(database, monkeypatch):
    database.add(ANN, "secret", is_recoverable=True)
    monkeypatch.setattr(database, "_now", lambda: object())  # SQLite cannot store that
    with pytest.raises(AccountStoreError):
        database.set_password(ANN, "new")
    monkeypatch.undo()
    assert database.recoverable(Identity("ann", "example.org")).secret == b"secret"
    database.disable(ANN)


def test_hash_of_older_parameters_is_brought_up_to_date(database, monkeypatch):
    from argon2 import PasswordHasher

    monkeypatch.undo()
    ann = Identity("ann", "example.org")
    monkeypatch.setattr(
        accounts, "hash_password", PasswordHasher(memory_cost=64, time_cost=1, parallelism=1).hash
    )
    database.add(ANN, "secret")
    monkeypatch.undo()
    old = database.credentials(ann).stored
    assert database.verify(ann, old, b"wrong") is None
    assert database.credentials(ann).stored == old
    fresh = database.verify(ann, old, b"secret")
    assert database.credentials(ann).stored == fresh != old
    assert not is_outdated(fresh) and is_password(fresh, b"secret")
    assert database.verify(ann, fresh, b"secret") == fresh
    database.set_password(ANN, "new")
    assert database.verify(ann, old, b"secret") == old, "somebody changed the password meanwhile"
    assert is_password(database.credentials(ann).stored, b"new")
