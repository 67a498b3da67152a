"""Following systemd's journal: the real journalctl on journals that systemd-journal-remote writes, and
programs that behave as a journalctl in trouble does."""

import json
import time
from collections.abc import Callable, Iterator
from datetime import UTC
from pathlib import Path

import pytest

from popgate.integrations.logs import Recogniser, Seen, shipped
from popgate.integrations.logs.follow_file import Note
from popgate.integrations.logs.follow_journal import LONGEST_ENTRY, JournalSource
from popgate.integrations.logs.follow_watch import Wakeup
from popgate.integrations.logs.records import LoginSeen
from support.journal import LOGIN, Journal

needs_journal = pytest.mark.peer("systemd-journal-remote", "journalctl")


class Reader:
    """A JournalSource and what it gives."""

    def __init__(self, command: list[str], place: dict | None = None, since: float = 1.0) -> None:
        recogniser = Recogniser([shipped()["dovecot"]], UTC, default_domain="example.org")
        self.source = JournalSource(recogniser, ["dovecot"], place=place, since=since, command=command)
        self.wakeup = Wakeup()
        self.seen: list[Seen] = []
        self.notes: list[Note] = []
        self.shift = 0.0

    def look(self) -> None:
        batch = self.source.look(time.time(), time.monotonic() + self.shift)
        self.seen += batch.seen
        self.notes += batch.notes
        if not batch.is_more:
            self.source.wait(self.wakeup)

    def until(self, is_so: Callable[[], bool], seconds: float = 20.0) -> None:
        deadline = time.monotonic() + seconds
        while not is_so():
            assert time.monotonic() < deadline, (self.seen, self.notes)
            self.look()

    def users(self) -> list[str]:
        return [str(one.identity) for one in self.seen if isinstance(one, LoginSeen)]

    def close(self) -> dict:
        place = dict(self.source.place())
        self.source.close()
        self.wakeup.close()
        return json.loads(json.dumps(place))


@pytest.fixture
def readers() -> Iterator[list[Reader]]:
    made: list[Reader] = []
    yield made
    for reader in made:
        reader.source.close()


@needs_journal
def test_entries_come_as_they_are_written(tmp_path: Path, readers: list[Reader]) -> None:
    journal = Journal(tmp_path)
    journal.login("before")
    reader = Reader(journal.command)
    readers.append(reader)
    reader.until(lambda: len(reader.seen) == 1)
    for number in range(3):
        journal.login(f"u{number}", session=f"s{number}")
        reader.until(lambda number=number: len(reader.seen) == number + 2, 10)
    assert reader.users() == ["before@example.org", *(f"u{n}@example.org" for n in range(3))]
    last = reader.seen[-1]
    assert abs(last.at - journal.at) < 0.001 and last.address is not None
    assert last.address.text == "2001:db8::9"
    assert reader.notes == []


@needs_journal
def test_the_cursor_is_kept(tmp_path: Path, readers: list[Reader]) -> None:
    journal = Journal(tmp_path)
    journal.login("one")
    first = Reader(journal.command)
    first.until(lambda: len(first.seen) == 1)
    place = first.close()
    journal.login("two")
    journal.write("imap(one)<2><s>: Disconnected: Logged out in=1 out=2")
    second = Reader(journal.command, place)
    readers.append(second)
    second.until(lambda: len(second.seen) == 2)
    assert second.users() == ["two@example.org"]


@needs_journal
def test_only_what_is_new_counts_at_the_first_start(tmp_path: Path, readers: list[Reader]) -> None:
    journal = Journal(tmp_path)
    journal.login("old")
    since = journal.at + 1
    idle = Reader(journal.command, since=since)
    for _ in range(3):
        idle.look()
    place = idle.close()
    journal.at = since + 5
    journal.login("new")
    reader = Reader(journal.command, place, since=since + 1000)
    readers.append(reader)
    reader.until(lambda: len(reader.seen) == 1)
    assert reader.users() == ["new@example.org"]


@needs_journal
def test_what_a_user_writes_never_counts(tmp_path: Path, readers: list[Reader]) -> None:
    """Whatever `logger -t dovecot` says, and whatever a service of another name says."""
    journal = Journal(tmp_path)
    for unit, uid in (
        ("user@1000.service", "1000"),
        ("session-4.scope", "1000"),
        ("cron.service", "0"),
        ("dovecot.service.user.slice", "1000"),
        ("notdovecot.service", "0"),
        ("", "1000"),
        ("", "0"),
    ):
        journal.login("mallory", _SYSTEMD_UNIT=unit, _UID=uid, _COMM="logger")
    journal.login("mallory", SYSLOG_IDENTIFIER="sudo", _COMM="dovecot")
    journal.write(b"imap-login: Login: user=<mallory>, rip=192.0.2.6, \xff\xfe")
    journal.write("x\n" + LOGIN % ("mallory", "192.0.2.6", "s"))
    journal.write(LOGIN % ("mallory", "192.0.2.6", "s") + "\n" + LOGIN % ("eve", "192.0.2.7", "s"))
    journal.write("imap-login: Login: user=<mallory>" + "," * 70000 + " rip=192.0.2.6")
    journal.login("alice")
    reader = Reader(journal.command)
    readers.append(reader)
    reader.until(lambda: "alice@example.org" in reader.users())
    assert reader.users() == ["alice@example.org"]


@needs_journal
def test_a_cursor_of_another_journal(tmp_path: Path, readers: list[Reader]) -> None:
    journal = Journal(tmp_path)
    journal.login("old")
    since = journal.at + 1
    journal.at = since + 5
    journal.login("new")
    reader = Reader(journal.command, {"cursor": "s=1;i=1", "since": since})
    readers.append(reader)
    reader.until(lambda: bool(reader.notes))
    assert "cursor" in reader.notes[0].detail
    reader.shift = 100
    reader.until(lambda: len(reader.seen) == 1)
    assert reader.users() == ["new@example.org"]


# A journalctl in trouble.


def program(directory: Path, script: str) -> list[str]:
    path = directory / "journalctl"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return [str(path)]


def entry(user: str, cursor: str, **more: object) -> str:
    fields = {
        "__CURSOR": cursor,
        "__REALTIME_TIMESTAMP": str(int(time.time() * 1e6)),
        "_SYSTEMD_UNIT": "dovecot.service",
        "_UID": "0",
        "SYSLOG_IDENTIFIER": "dovecot",
        "MESSAGE": LOGIN % (user, "192.0.2.9", "s"),
        **more,
    }
    return json.dumps(fields)


def test_it_is_started_again_later_and_later(tmp_path: Path, readers: list[Reader]) -> None:
    count = tmp_path / "count"
    command = program(tmp_path, f"echo x >> {count}; echo 'Failed to open: Permission denied' >&2; exit 1")
    reader = Reader(command)
    readers.append(reader)
    for _ in range(400):
        batch = reader.source.look(time.time(), time.monotonic() + reader.shift)
        reader.notes += batch.notes
        if reader.source._child is None:
            reader.shift += 0.5
        else:
            reader.source.wait(reader.wakeup)
    starts = len(count.read_text().split())
    assert 5 <= starts <= 12  # in some 150 seconds
    assert len(reader.notes) == 1 and "systemd-journal" in reader.notes[0].detail


def test_one_that_is_killed_is_replaced_from_the_cursor(tmp_path: Path, readers: list[Reader]) -> None:
    arguments = tmp_path / "arguments"
    command = program(
        tmp_path,
        f"""printf '%s ' "$@" >> {arguments}; echo >> {arguments}
case "$*" in
    *--after-cursor=c1*) cat <<'END'
{entry("two", "c2")}
END
    ;;
    *) cat <<'END'
{entry("one", "c1")}
END
    ;;
esac
exec sleep 1000""",
    )
    reader = Reader(command)
    readers.append(reader)
    reader.until(lambda: len(reader.seen) == 1)
    child = reader.source._child
    assert child is not None
    child._process.kill()
    reader.until(lambda: bool(reader.notes))
    reader.shift = 2
    reader.until(lambda: len(reader.seen) == 2)
    assert reader.users() == ["one@example.org", "two@example.org"]
    first, second = arguments.read_text().splitlines()
    assert "--since=@1 " in first and "--follow" in first and "SYSLOG_IDENTIFIER=dovecot" in first
    assert "--after-cursor=c1 " in second
    reader.shift = 100
    reader.until(lambda: len(reader.notes) == 2)
    assert [note.kind for note in reader.notes] == ["journal", "found"]


def test_there_is_no_such_program(readers: list[Reader]) -> None:
    reader = Reader(["/nonexistent/journalctl"])
    readers.append(reader)
    for _ in range(5):
        batch = reader.source.look(time.time(), time.monotonic())
        reader.notes += batch.notes
    assert [note.kind for note in reader.notes] == ["journal"]


def test_what_is_no_entry_is_passed_over(tmp_path: Path, readers: list[Reader]) -> None:
    lines = tmp_path / "lines"
    lines.write_text(
        "-- No entries --\n[]\n7\n{\n"
        + '{"MESSAGE":' * 3000
        + "\n"
        + "y" * (LONGEST_ENTRY * 2)
        + entry("mallory", "c0")
        + "\n"
        + entry("mallory", "x" * 5000, MESSAGE=None)
        + "\n"
        + entry("mallory", "c1", MESSAGE=[72, 255])
        + "\n"
        + entry("mallory", "c1", __REALTIME_TIMESTAMP="soon")
        + "\n"
        + entry("alice", "c9")
        + "\n"
    )
    reader = Reader(program(tmp_path, f"cat {lines}; exec sleep 1000"))
    readers.append(reader)
    reader.until(lambda: len(reader.seen) == 1)
    assert reader.users() == ["alice@example.org"]
    assert reader.source.place()["cursor"] == "c9"


def test_a_hint_on_standard_error_is_told_once(tmp_path: Path, readers: list[Reader]) -> None:
    hint = "Hint: You are currently not seeing messages from other users and the system."
    reader = Reader(program(tmp_path, f"echo '{hint}' >&2; exec sleep 1000"))
    readers.append(reader)
    reader.until(lambda: bool(reader.notes))
    for _ in range(2):
        reader.look()
    assert len(reader.notes) == 1 and "usermod" in reader.notes[0].detail


def test_the_child_ends_with_us(tmp_path: Path) -> None:
    reader = Reader(program(tmp_path, "trap '' TERM; while :; do sleep 0.1; done"))
    reader.look()
    child = reader.source._child
    assert child is not None
    pid = child._process.pid
    reader.close()
    assert not Path(f"/proc/{pid}").exists()
