"""Rows of the account database that a server keeps: never a moment longer than they are true.

Whatever changes the database here does so from another process, as in life. That process is forked
before any connection is open: SQLite's notes of its locks must not be inherited. And this one never
opens the database's files but through SQLite, because closing them would give up its locks.
"""

import contextlib
import mmap
import multiprocessing
import os
import shutil
import signal
import sqlite3
import struct
import threading
import time
from pathlib import Path

import pytest

from popgate.auth.authenticator import LookupUnavailable
from popgate.auth.backends import account_reader, accounts, wal_index
from popgate.auth.backends.accounts import AccountDatabase, AccountUnknown
from popgate.auth.backends.wal_index import WalIndex
from popgate.values.identity import Identity
from support.clock import ManualClock

ANN = Identity("ann", "example.org")
BOB = Identity("bob", "example.org")
INFO = Identity("info", "example.org")
_processes = multiprocessing.get_context("fork")


class Elsewhere:
    """Calls functions of this module in a process of its own, one after the other."""

    def __init__(self):
        self._ours, theirs = _processes.Pipe()
        self._process = _processes.Process(target=self._work, args=(theirs,))
        self._process.start()
        theirs.close()

    def _work(self, theirs):
        self._ours.close()
        with contextlib.suppress(EOFError):
            while True:
                work, arguments = theirs.recv()
                try:
                    answer = (None, work(*arguments))
                except Exception as error:
                    answer = (repr(error), None)
                theirs.send(answer)

    def __call__(self, work, *arguments):
        self._ours.send((work, arguments))
        assert self._ours.poll(30)
        fault, result = self._ours.recv()
        assert fault is None, fault
        return result

    def close(self):
        self._ours.close()
        self._process.join(10)
        self._process.kill()
        self._process.join()


@pytest.fixture
def clock():
    return ManualClock()


@pytest.fixture
def elsewhere(monkeypatch):
    monkeypatch.setattr(accounts, "hash_password", lambda password: "hash of " + password.decode())
    elsewhere = Elsewhere()
    yield elsewhere
    elsewhere.close()


@pytest.fixture
def path(tmp_path, elsewhere):
    path = str(tmp_path / "accounts.db")
    elsewhere(_fill, path)
    return path


@pytest.fixture
def database(path, clock):
    database = AccountDatabase(path, monotonic=clock.monotonic)
    yield database
    database.close()


@pytest.fixture
def readings(monkeypatch):
    """The readings of SQLite, as they come."""
    seen = []
    query = account_reader.AccountReader.query

    def counted(self, text, *arguments):
        seen.append(arguments)
        return query(self, text, *arguments)

    monkeypatch.setattr(account_reader.AccountReader, "query", counted)
    return seen


# What is done elsewhere


def _fill(path):
    with contextlib.closing(AccountDatabase(path)) as database:
        for name in ("ann@example.org", "bob@example.org"):
            database.add(name, "secret", is_recoverable=True)
        database.add_alias("info@example.org", ["ann@example.org"])


def _change(path, method, *arguments):
    with contextlib.closing(AccountDatabase(path)) as database:
        getattr(database, method)(*arguments)


def _sql(path, *statements):
    """The first value that the last of them finds."""
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        for statement in statements:
            rows = connection.execute(statement).fetchall()
        return rows[0][0] if rows else None


def _set_password(path, stored):
    _sql(path, f"UPDATE accounts SET password = '{stored}' WHERE address = 'ann@example.org'")


def _copy(source, target):
    """What `.backup` and `.restore` of the sqlite3 program do."""
    one, other = sqlite3.connect(source), sqlite3.connect(target)
    with contextlib.closing(one), contextlib.closing(other):
        one.backup(other)


def _put_in_place(restored, path):
    for name in ("accounts.db", "accounts.db-wal", "accounts.db-shm"):
        Path(path).with_name(name).unlink()
    shutil.move(restored, path)


def _replace_by_another_mode(path):
    _fill(f"{path}.other")
    _sql(f"{path}.other", "PRAGMA journal_mode = DELETE")
    os.unlink(f"{path}-wal")
    os.rename(f"{path}.other", path)  # the wal-index stays


def _leave_wal(path):
    with contextlib.closing(sqlite3.connect(path, timeout=0)) as connection:
        try:
            return connection.execute("PRAGMA journal_mode = DELETE").fetchone()[0]
        except sqlite3.OperationalError as error:
            return str(error)


@contextlib.contextmanager
def _header(path):
    """The wal-index as it lies in the memory that all processes share."""
    with open(f"{path}-shm", "r+b") as file, mmap.mmap(file.fileno(), 96) as octets:
        yield octets


def _spoil(path):
    with _header(path) as octets:
        octets[:] = bytes(96)


def _commit_and_die_between_the_copies(path):
    with _header(path) as octets:
        before = octets[:48]
        _set_password(path, "committed")
        octets[:48] = before


def _start_writer(path, told):
    pid = os.fork()
    if pid == 0:
        try:
            _commit_for_ever(path, os.open(told, os.O_WRONLY))
        finally:
            os._exit(1)
    return pid


def _commit_for_ever(path, told):
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA synchronous = OFF")  # processes die here, not machines
        for number in range(1, 1_000_000):
            connection.execute("UPDATE accounts SET password = ?, changed_at = ?", (str(number), number))
            if number % 37 == 0:
                connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
            os.write(told, b"%d\n" % number)


# What is kept


def _warm(database):
    """Twice: the first reading opens the connection, the second is kept."""
    for _ in range(2):
        assert database.credentials(ANN).stored == "hash of secret"
        assert database.listing(ANN).has_mailbox
        assert database.get("ann@example.org").is_recoverable


def test_what_did_not_change_is_not_read_again(database, readings):
    _warm(database)
    readings.clear()
    for _ in range(10):
        assert database.credentials(ANN).stored == "hash of secret"
        assert database.listing(ANN).has_mailbox
        assert database.get("ann@example.org").identity == ANN
    assert readings == []
    assert database.credentials(BOB).is_enabled and len(readings) == 1


def test_commands_that_change_nothing_have_nothing_read_again(database, path, readings, elsewhere):
    _warm(database)
    readings.clear()
    elsewhere(_change, path, "get", "ann@example.org")
    elsewhere(_sql, path, "SELECT count(*) FROM accounts", "PRAGMA wal_checkpoint(PASSIVE)")
    assert database.credentials(ANN).is_enabled
    assert readings == []


def test_names_that_nobody_has_are_not_kept(database, readings):
    _warm(database)
    readings.clear()
    for _ in range(3):
        assert database.credentials(Identity("nobody", "example.org")) is None
        assert database.listing(Identity("nobody", "example.org")) is None
    assert len(readings) == 6


def test_recoverable_secrets_are_not_kept(database, readings):
    _warm(database)
    readings.clear()
    for _ in range(3):
        assert database.recoverable(ANN).secret == b"secret"
    assert len(readings) == 3
    assert "b'secret'" not in repr(vars(database._reader))


def test_what_is_kept_is_bounded(database, monkeypatch):
    monkeypatch.setattr(account_reader, "MOST_KEPT", 1)
    _warm(database)
    assert database.credentials(BOB).is_enabled and database.credentials(ANN).is_enabled
    assert len(database._reader._credentials) == 1


def test_owners_of_senders_are_read_when_something_changed(database, path, readings, elsewhere):
    assert database.sender_owners("@lists.example.org") == ()
    for owner in ("ann@example.org", "bob@example.org"):
        elsewhere(_sql, path, f"UPDATE accounts SET senders = '@lists.example.org' WHERE address = '{owner}'")
        assert owner in database.sender_owners("@lists.example.org")
    readings.clear()
    assert database.sender_owners("@lists.example.org") == ["ann@example.org", "bob@example.org"]
    assert database.sender_owners("office@example.org") == ()
    assert readings == []
    elsewhere(_change, path, "disable", "bob@example.org")
    assert database.sender_owners("@lists.example.org") == ["ann@example.org"]
    assert database.has_account(ANN) and not database.has_account(BOB)


@pytest.mark.parametrize("has_wal_index", [True, False])
def test_owners_of_senders_are_those_of_the_file_in_place(
    database, path, clock, elsewhere, monkeypatch, has_wal_index
):
    if not has_wal_index:
        monkeypatch.setattr(wal_index.os, "listdir", lambda path: [])
    elsewhere(_fill, f"{path}.restored")
    for file, owner in ((path, "ann@example.org"), (f"{path}.restored", "bob@example.org")):
        elsewhere(_sql, file, f"UPDATE accounts SET senders = 'office@x.example' WHERE address = '{owner}'")
    for _ in range(3):
        assert database.sender_owners("office@x.example") == ["ann@example.org"]
    elsewhere(_put_in_place, f"{path}.restored", path)
    clock.advance(account_reader.LOOK_SECONDS)
    for _ in range(3):
        assert database.sender_owners("office@x.example") == ["bob@example.org"]
    elsewhere(_change, path, "remove", "bob@example.org")
    assert database.sender_owners("office@x.example") == ()


# Changes


def test_an_account_changed_in_another_process_counts_at_once(database, path, elsewhere):
    _warm(database)
    elsewhere(_change, path, "set_password", "ann@example.org", "new")
    assert database.credentials(ANN).stored == "hash of new"
    elsewhere(_change, path, "disable", "ann@example.org")
    assert not database.credentials(ANN).is_enabled
    assert not database.get("ann@example.org").is_enabled
    elsewhere(_change, path, "enable", "ann@example.org")
    assert database.credentials(ANN).is_enabled
    elsewhere(_change, path, "remove", "ann@example.org")
    assert database.credentials(ANN) is None
    assert database.listing(ANN) is None
    with pytest.raises(AccountUnknown):
        database.get("ann@example.org")
    assert database.listing(INFO).targets
    elsewhere(_change, path, "remove_alias", "info@example.org")
    assert database.listing(INFO) is None


def test_an_account_changed_by_this_process_counts_at_once(database):
    _warm(database)
    database.disable("ann@example.org")
    assert not database.credentials(ANN).is_enabled
    thread = threading.Thread(target=database.set_password, args=("ann@example.org", "threaded"))
    thread.start()
    thread.join()
    assert database.credentials(ANN).stored == "hash of threaded"


def test_a_change_by_any_sqlite_program_counts_at_once(database, path, elsewhere):
    _warm(database)
    elsewhere(_set_password, path, "bare")
    assert database.credentials(ANN).stored == "bare"


def test_a_change_just_after_a_row_was_read_is_not_missed(database, path, monkeypatch, elsewhere):
    """What vouches for a row is older than the row."""
    _warm(database)
    query = account_reader.AccountReader.query

    def overtaken(self, text, *arguments):
        rows = query(self, text, *arguments)
        elsewhere(_sql, path, "UPDATE accounts SET password = 'overtaken'", "DELETE FROM aliases")
        return rows

    elsewhere(_change, path, "enable", "bob@example.org")
    with monkeypatch.context() as patch:
        patch.setattr(account_reader.AccountReader, "query", overtaken)
        assert database.credentials(ANN).stored == "hash of secret"
    assert database.credentials(ANN).stored == "overtaken"
    elsewhere(_change, path, "add_alias", "info@example.org", ["ann@example.org"])
    with monkeypatch.context() as patch:
        patch.setattr(account_reader.AccountReader, "query", overtaken)
        assert database.listing(INFO).targets
    assert database.listing(INFO) is None


@pytest.mark.parametrize(
    "statement",
    [
        "VACUUM",
        "REINDEX",
        "PRAGMA wal_checkpoint(PASSIVE)",
        "PRAGMA wal_checkpoint(FULL)",
        "PRAGMA wal_checkpoint(RESTART)",
        "PRAGMA wal_checkpoint(TRUNCATE)",
        "PRAGMA user_version = 1",
    ],
)
def test_changes_before_and_after_housekeeping_count_at_once(database, path, statement, elsewhere):
    _warm(database)
    for number in range(3):
        elsewhere(_sql, path, statement)
        assert database.credentials(BOB).stored == "hash of secret"
        elsewhere(_set_password, path, f"after {number}")
        assert database.credentials(ANN).stored == f"after {number}"
        elsewhere(_sql, path, f"UPDATE accounts SET password = 'together {number}'", statement)
        assert database.credentials(ANN).stored == database.credentials(BOB).stored == f"together {number}"
        elsewhere(_sql, path, "UPDATE accounts SET password = 'hash of secret'")


def test_a_change_that_is_taken_back_is_none(database, path, elsewhere):
    _warm(database)
    elsewhere(_sql, path, "BEGIN IMMEDIATE", "DELETE FROM accounts", "ROLLBACK")
    assert database.credentials(ANN).stored == "hash of secret"


def test_a_restored_copy_counts_at_once(database, path, elsewhere):
    _warm(database)
    elsewhere(_copy, path, f"{path}.copy")
    elsewhere(_change, path, "set_password", "ann@example.org", "new")
    assert database.credentials(ANN).stored == "hash of new"
    elsewhere(_copy, f"{path}.copy", path)
    assert database.credentials(ANN).stored == "hash of secret"


def test_a_file_put_in_the_place_of_the_database_is_used_a_second_later(database, path, clock, elsewhere):
    database.enable("bob@example.org")  # so that both connections are open
    _warm(database)
    elsewhere(_fill, f"{path}.restored")
    elsewhere(_set_password, f"{path}.restored", "restored")
    elsewhere(_put_in_place, f"{path}.restored", path)
    clock.advance(account_reader.LOOK_SECONDS)
    assert database.credentials(ANN).stored == "restored"
    for stored in ("first", "second"):
        elsewhere(_set_password, path, stored)
        assert database.credentials(ANN).stored == stored
    database.disable("ann@example.org")  # by the connection for writing
    assert not database.credentials(ANN).is_enabled
    assert elsewhere(_sql, path, "SELECT count(*) FROM accounts WHERE is_enabled") == 1


def test_whatever_is_asked_is_asked_of_the_file_in_place(database, path, clock, elsewhere):
    assert database.get("ann@example.org").is_enabled and database.recoverable(ANN)
    elsewhere(_fill, f"{path}.restored")
    elsewhere(_change, f"{path}.restored", "disable", "ann@example.org")
    elsewhere(_put_in_place, f"{path}.restored", path)
    clock.advance(account_reader.LOOK_SECONDS)
    assert not database.get("ann@example.org").is_enabled
    elsewhere(_fill, f"{path}.restored")
    elsewhere(_put_in_place, f"{path}.restored", path)
    clock.advance(account_reader.LOOK_SECONDS)
    assert database.recoverable(ANN).is_enabled


def test_a_database_that_was_taken_away_is_not_served_from_memory(database, path, clock):
    _warm(database)
    os.rename(path, f"{path}.away")
    clock.advance(account_reader.LOOK_SECONDS)
    with pytest.raises(LookupUnavailable):
        database.credentials(ANN)
    assert not os.path.exists(path), "nor is an empty one made"
    os.rename(f"{path}.away", path)
    assert database.credentials(ANN).stored == "hash of secret"


# Crashes, and what is no wal-index


def test_a_writer_that_died_between_the_two_copies_hides_nothing(database, path, elsewhere):
    """It wrote the second copy, and the log is on disk: SQLite repairs the header and takes the commit in."""
    _warm(database)
    elsewhere(_commit_and_die_between_the_copies, path)
    assert database.credentials(ANN).stored == "committed"
    elsewhere(_set_password, path, "later")
    assert database.credentials(ANN).stored == "later"


def test_writers_killed_at_any_moment_leave_nobody_with_an_old_row(database, path, elsewhere):
    _warm(database)
    told = f"{path}.told"
    os.mkfifo(told)
    for _ in range(12):
        pid = elsewhere(_start_writer, path, told)
        try:
            with open(told, "rb") as numbers:
                deadline = time.monotonic() + 0.05
                while time.monotonic() < deadline:
                    number = int(numbers.readline())
                    assert int(database.credentials(ANN).stored) >= number
                os.kill(pid, signal.SIGKILL)
                numbers.read()  # until it is dead
        finally:
            os.kill(pid, signal.SIGKILL)
        ours = database.credentials(ANN).stored
        assert ours == elsewhere(
            _sql, path, "SELECT password FROM accounts WHERE address = 'ann@example.org'"
        )


def test_a_header_that_is_none_is_never_believed(database, path, readings, elsewhere):
    _warm(database)
    for number in range(3):
        elsewhere(_spoil, path)
        readings.clear()
        assert database.credentials(ANN).is_enabled
        assert len(readings) == 1
        elsewhere(_set_password, path, f"after {number}")
        assert database.credentials(ANN).stored == f"after {number}"


@pytest.mark.parametrize(
    "octets", [b"", bytes(95), bytes(96), b"\x01" * 96, struct.pack("=I", 3_007_000) * 24], ids=repr
)
def test_what_is_no_header_tells_nothing(tmp_path, octets):
    (tmp_path / "shm").write_bytes(octets)
    with open(tmp_path / "shm", "rb") as file:
        assert WalIndex(file.fileno()).state() is None


def test_a_header_is_good_whole(tmp_path):
    copy = struct.pack("=IIIBBHIIQQQ", 3_007_000, 0, 7, 1, 0, 4096, 3, 4, 5, 6, 7)
    for both, is_good in ((copy + copy, True), (copy + copy[:-1] + b"x", False), (copy + copy[:-1], False)):
        (tmp_path / "shm").write_bytes(both)
        with open(tmp_path / "shm", "rb") as file:
            assert (WalIndex(file.fileno()).state() is not None) is is_good
    assert WalIndex(1_000_000).state() is None


def test_without_a_wal_index_every_login_reads(database, path, monkeypatch, readings, elsewhere):
    monkeypatch.setattr(wal_index.os, "listdir", lambda path: [])
    _warm(database)
    readings.clear()
    for stored in ("one", "two"):
        elsewhere(_set_password, path, stored)
        assert database.credentials(ANN).stored == stored
    assert len(readings) == 2


def test_a_database_in_another_mode_is_read_each_time(database, path, clock, elsewhere):
    """And a wal-index that lies about beside it is not believed."""
    _warm(database)  # the old wal-index is open in this process
    elsewhere(_replace_by_another_mode, path)
    reader = account_reader.AccountReader(path, lambda: sqlite3.connect(path), clock.monotonic)
    for stored in ("one", "two", "three"):
        elsewhere(_set_password, path, stored)
        assert reader.credentials(ANN).stored == stored
    reader.close()


def test_nobody_can_take_the_log_away_while_we_trust_it(database, path, elsewhere):
    """Not even after this process closed another AccountDatabase of the file: locks go with a descriptor."""
    _warm(database)
    before = os.stat(f"{path}-shm").st_ino
    AccountDatabase(path).close()
    with contextlib.closing(AccountDatabase(path)) as other:
        assert other.credentials(ANN).is_enabled and other.credentials(ANN).is_enabled
    for _ in range(3):
        elsewhere(_sql, path, "SELECT 1 FROM accounts", "PRAGMA wal_checkpoint(TRUNCATE)")
        elsewhere(_set_password, path, "changed")
    assert os.stat(f"{path}-shm").st_ino == before
    assert "locked" in elsewhere(_leave_wal, path)
    assert database.credentials(ANN).stored == "changed"


def _serve(path, questions, answers):
    with contextlib.closing(AccountDatabase(path)) as database:
        _warm(database)
        os.write(answers, b"ready\n")
        while os.read(questions, 1):
            for _ in range(3):  # the last two are kept rows
                stored = database.credentials(ANN).stored
            os.write(answers, stored.encode() + b"\n")


def test_a_commit_that_was_told_of_is_seen_by_every_process(path):
    """Two readers, each asked at once after each commit, while the log is emptied under them."""
    questions, answers = [os.pipe() for _ in range(2)], [os.pipe() for _ in range(2)]
    servers = [
        _processes.Process(target=_serve, args=(path, question[0], answer[1]))
        for question, answer in zip(questions, answers, strict=True)
    ]
    for server in servers:
        server.start()
    try:
        with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
            for answer in answers:
                assert os.read(answer[0], 64) == b"ready\n"
            for number in range(150):
                connection.execute("UPDATE accounts SET password = ?", (str(number),))
                if number % 40 == 39:
                    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
                for question in questions:
                    os.write(question[1], b"?")
                for answer in answers:
                    assert os.read(answer[0], 64) == b"%d\n" % number
    finally:
        for server in servers:
            server.kill()
            server.join()
        for pair in (*questions, *answers):
            os.close(pair[0])
            os.close(pair[1])
