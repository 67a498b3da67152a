"""The attack cases on Maildirs: hostile files and names are skipped and told, and the session goes on.

Each test names the cases of the attack corpus that it plays.
"""

import errno
import os
import re
import time
from pathlib import Path

import pytest

from popgate.files.real import RealDisk
from popgate.mailbox.backends.maildir import MaildirMailboxes
from popgate.mailbox.mailbox import MailboxError, MailboxInUse
from popgate.values.identity import Identity
from support.fault_disk import FaultDisk

SALES = Identity("sales", "example.com")
GOOD = b"Subject: good\n\nx\n"
GOOD_WIRE = b"Subject: good\r\n\r\nx\r\n"
SECRET = "root:$6$secret\n"

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files to others")


class Clock:
    def __init__(self) -> None:
        self.time = time.time()

    def now(self) -> float:
        return self.time

    def monotonic(self) -> float:
        return self.time


class Site:
    """A mail root with one good message in the Maildir of SALES."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.clock = Clock()
        self.events: list = []
        self.all_mailboxes: list[MaildirMailboxes] = []
        self.mailboxes = self.started()
        self.mailboxes.open_maildrop(SALES).close()
        self.home = root / "example.com/sales"
        self.new, self.cur, self.tmp = self.home / "new", self.home / "cur", self.home / "tmp"
        self.put(self.new / "1600000000.M1P1.mx.example.com", GOOD)
        self.secret = root / "secret"
        self.secret.write_text(SECRET)

    def started(self, disk=None) -> MaildirMailboxes:
        mailboxes = MaildirMailboxes(
            str(self.root),
            disk or RealDisk(),
            self.clock,
            "mx.example.com",
            self.events.append,
            most_kept=8,
        )
        self.all_mailboxes.append(mailboxes)
        return mailboxes

    def put(self, path: Path, content: bytes) -> Path:
        path.write_bytes(content)
        return path

    def open(self, disk=None):
        return (self.started(disk) if disk else self.mailboxes).open_maildrop(SALES)

    def reasons(self) -> list[str]:
        assert all(event.name == "mailbox.skipped" for event in self.events)
        assert all(event.fields["identity"] == "sales@example.com" for event in self.events)
        return [event.fields["reason"] for event in self.events]


@pytest.fixture
def site(tmp_path):
    site = Site(tmp_path)
    yield site
    for mailboxes in site.all_mailboxes:
        mailboxes.close()


def whole(maildrop, index=0):
    return b"".join(maildrop.read(index))


def assert_only_good(site, reason):
    maildrop = site.open()
    assert [whole(maildrop, n) for n in range(len(maildrop.messages))] == [GOOD_WIRE]
    assert list(maildrop.remove([0])) == []
    maildrop.close()
    assert site.reasons() == [reason]


@pytest.mark.parametrize("folder", ["new", "cur"])
@pytest.mark.parametrize("kind", ["link", "dangling", "fifo", "directory"])
def test_maildir_002_what_is_no_file_is_skipped(site, folder, kind):
    victim = site.home / folder / "1500000000.x,S=15,W=16"
    if kind == "link":
        victim.symlink_to(site.secret)
    elif kind == "dangling":
        victim.symlink_to("nowhere")
    elif kind == "fifo":
        os.mkfifo(victim)
    else:
        victim.mkdir()
    assert_only_good(site, "not a regular file")
    assert site.secret.read_text() == SECRET
    assert os.path.lexists(victim)


@needs_root
@pytest.mark.parametrize("name", ["1500000000.x", "1500000000.x,S=15,W=16"])
def test_maildir_005_hard_link_to_a_file_of_another_user(site, name):
    os.chown(site.secret, 12345, 12345)
    os.link(site.secret, site.cur / name)
    assert_only_good(site, "it belongs to another user")


@needs_root
def test_maildir_005_hard_link_to_a_file_of_ours_in_a_maildir_of_another(site):
    for path in (site.home, site.new, site.cur, *site.new.iterdir()):
        os.chown(path, 12345, 12345)
    os.link(site.secret, site.cur / "1500000000.x,S=15,W=16")
    assert_only_good(site, "it is a link to another file")


def test_maildir_005_second_link_that_a_broken_delivery_left_is_no_attack(site):
    os.link(site.new / "1600000000.M1P1.mx.example.com", site.tmp / "1600000000.M1P1.mx.example.com")
    maildrop = site.open()
    assert whole(maildrop) == GOOD_WIRE
    maildrop.close()


@pytest.mark.parametrize("part", ["new", "cur", "tmp", "sales", "example.com"])
def test_maildir_006_directory_that_is_a_link(site, part):
    path = site.root / "example.com" if part == "example.com" else site.home
    if part in ("new", "cur", "tmp"):
        path = site.home / part
    elsewhere = site.root / "elsewhere"
    path.rename(elsewhere)
    path.symlink_to(elsewhere)
    with pytest.raises(MailboxError):
        site.mailboxes.deliver(SALES, [b"A: b\r\n"])
    if part != "tmp":
        with pytest.raises(MailboxError):
            site.open()


@pytest.mark.parametrize("verb", ["entries", "open_file", "unlink", "rename"])
def test_maildir_006_directory_replaced_between_check_and_use(site, verb):
    bait = site.root / "bait"
    bait.mkdir()
    name = "1500000000.a:2,"
    site.put(bait / name, b"bait\n")
    site.put(site.cur / name, b"A: mine\n")

    def swap(operation):
        if operation.verb == verb and not site.cur.is_symlink():
            site.cur.rename(site.home / "moved")
            site.cur.symlink_to(bait)

    maildrop = site.open(FaultDisk(RealDisk(), before=swap))
    assert whole(maildrop, 0) == b"A: mine\r\n"
    maildrop.mark_seen([0])
    assert list(maildrop.remove([0])) == []
    maildrop.close()
    assert site.cur.is_symlink()
    assert (bait / name).read_bytes() == b"bait\n"
    assert list((site.home / "moved").iterdir()) == []


def test_maildir_007_tmp_not_writable(site):
    def is_faulty(number, operation):
        return operation.verb == "create"

    with pytest.raises(MailboxError, match="Permission denied"):
        site.started(FaultDisk(RealDisk(), is_faulty, errno.EACCES)).deliver(SALES, [b"A: b\r\n"])
    maildrop = site.open()
    assert len(maildrop.messages) == 1
    maildrop.close()


@pytest.mark.parametrize("name", ["1500000000.x", "1500000000.x,S=4,W=5"])
def test_maildir_009_file_without_read_right(site, name):
    site.put(site.cur / name, b"A: \n").chmod(0)
    assert_only_good(site, "no permission to read it")


def test_maildir_009_file_that_the_kernel_refuses(site):
    site.put(site.cur / "1500000000.x", b"A: \n")

    def is_faulty(number, operation):
        return operation.verb == "open_file" and operation.names[0].endswith(".x")

    maildrop = site.open(FaultDisk(RealDisk(), is_faulty, errno.EACCES))
    assert len(maildrop.messages) == 1
    maildrop.close()
    assert site.reasons() == ["Permission denied"]


ODD_NAMES = [
    b"1500000000.a b",
    b"1500000000.new\nline",
    b"12:30",
    b"12:31",
    b"caf\xe9",
    b"\xff\xfe",
    b"#looks-hashed",
    b"n" * 255,
    b"m" * 71,
    b"k" * 70,
    b",S=,W=",
    b":2,S",
    b":",
    b"-rf",
    b"1" * 200 + b".x",
    b"a,S=99999999999999999999,W=99999999999999999999999",
    b"=?utf-8?q?x?=",
    b"\r\n.\r\n",
]


def test_maildir_010_pop3_027_odd_names(site):
    for number, name in enumerate(ODD_NAMES):
        Path(os.fsdecode(os.fsencode(str(site.new)) + b"/" + name)).write_bytes(b"N: %d\n\n" % number)
    maildrop = site.open()
    assert len(maildrop.messages) == len(ODD_NAMES) + 1
    before = {message.uid: whole(maildrop, n) for n, message in enumerate(maildrop.messages)}
    assert len(before) == len(ODD_NAMES) + 1
    assert len(set(before.values())) == len(ODD_NAMES) + 1
    for uid in before:
        assert re.fullmatch("[!-~]{1,70}", uid)
    maildrop.mark_seen(range(len(maildrop.messages)))
    maildrop.close()
    # a restart, flags, and other messages that go change no uid
    site.mailboxes = site.started()
    maildrop = site.open()
    after = {message.uid: whole(maildrop, n) for n, message in enumerate(maildrop.messages)}
    assert after == before
    assert list(maildrop.remove(range(0, len(maildrop.messages), 2))) == []
    maildrop.close()
    maildrop = site.open()
    rest = {message.uid: whole(maildrop, n) for n, message in enumerate(maildrop.messages)}
    assert len(rest) == len(before) // 2
    assert rest.items() <= before.items()
    maildrop.close()
    assert site.events == []


@pytest.mark.parametrize(
    ("flags", "seen"),
    [
        ("", ":2,S"),
        (":2,", ":2,S"),
        (":2,F", ":2,FS"),
        (":2,S", ":2,S"),
        (":2,zQ!", ":2,!QSz"),
        (":2,S:2,S", ":2,,2:S"),
        (":1,odd", ":1,odd"),
    ],
)
def test_maildir_011_flags(site, flags, seen):
    base = "1500000000.a"
    site.put(site.cur / (base + flags), b"A: b\n")
    maildrop = site.open()
    assert maildrop.messages[0].uid == base
    maildrop.mark_seen([0])
    assert whole(maildrop, 0) == b"A: b\r\n"
    maildrop.close()
    names = os.listdir(site.cur)
    assert [name for name in names if name.startswith(base)] == [base + seen]
    maildrop = site.open()
    assert maildrop.messages[0].uid == base
    maildrop.close()


def test_maildir_013_the_same_file_in_new_and_cur_is_one_message(site):
    name = "1600000000.M1P1.mx.example.com"
    os.link(site.new / name, site.cur / f"{name}:2,F")
    maildrop = site.open()
    assert len(maildrop.messages) == 1
    maildrop.mark_seen([0])
    assert whole(maildrop) == GOOD_WIRE
    assert list(maildrop.remove([0])) == []
    maildrop.close()
    assert os.listdir(site.new) == os.listdir(site.cur) == []


def test_maildir_013_another_message_of_the_same_name_is_not_lost(site):
    site.put(site.cur / "1600000000.M1P1.mx.example.com:2,S", b"Another: one\n")
    maildrop = site.open()
    assert len(maildrop.messages) == 1
    got = [whole(maildrop)]
    maildrop.mark_seen([0])
    maildrop.remove([0])
    maildrop.close()
    maildrop = site.open()
    got.append(whole(maildrop))
    maildrop.close()
    assert sorted(got) == [b"Another: one\r\n", GOOD_WIRE]


def test_maildir_015_forged_sizes_are_not_believed(site):
    (site.home / "maildirsize").write_text("1S,1C\n99999999999 99999999\n")
    (site.new / "1600000000.M1P1.mx.example.com").unlink()
    for number, claim in enumerate((",S=1,W=1", ",W=999999999", ",W=1", ",S=7,W=0", ",S=7,W=17", ",S=7")):
        site.put(site.new / f"150000000{number}.x{claim}", b"A: b\n\nx")
    site.mailboxes.deliver(SALES, [b"A: b\r\n"])
    maildrop = site.open()
    for index, message in enumerate(maildrop.messages):
        assert message.octets == len(whole(maildrop, index))
    maildrop.close()


def age(site):
    """As if new and cur had not changed for a while, so that what is listed now is kept."""
    for path in (site.new, site.cur):
        os.utime(path, (site.clock.time - 60,) * 2)


def test_a_message_of_a_kept_listing_is_read_and_deleted(site):
    age(site)
    site.open().close()
    maildrop = site.open()
    assert whole(maildrop) == GOOD_WIRE
    assert list(maildrop.remove([0])) == []
    maildrop.close()
    assert os.listdir(site.new) == []


@needs_root
def test_maildir_005_a_message_of_a_kept_listing_is_looked_at_again(site):
    message = site.new / "1600000000.M1P1.mx.example.com"
    age(site)
    site.open().close()
    os.chown(message, 12345, 12345)
    maildrop = site.open()
    with pytest.raises(MailboxError):
        maildrop.read(0)
    maildrop.close()


def test_pop3_029_vanished_files_are_told_and_the_others_deleted(site):
    for number in range(3):
        site.mailboxes.deliver(SALES, [b"A: %d\r\n" % number])
    maildrop = site.open()
    (site.new / "1600000000.M1P1.mx.example.com").unlink()
    with pytest.raises(MailboxError):
        maildrop.read(0)
    assert list(maildrop.remove([0, 1, 2, 3])) == [0]
    maildrop.close()
    assert os.listdir(site.new) == []


@pytest.mark.parametrize("kind", ["link", "fifo", "directory", "another user's", "nothing"])
def test_pop3_031_file_replaced_while_the_session_is_open(site, kind):
    site.mailboxes.deliver(SALES, [b"A: other\r\n"])
    maildrop = site.open()
    victim = site.new / "1600000000.M1P1.mx.example.com"
    victim.unlink()
    if kind == "link":
        victim.symlink_to(site.secret)
    elif kind == "fifo":
        os.mkfifo(victim)
    elif kind == "directory":
        victim.mkdir()
    elif kind == "another user's":
        if os.geteuid() != 0:
            pytest.skip("only root can give files to others")
        os.chown(site.secret, 12345, 12345)
        os.link(site.secret, victim)
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(MailboxError):
        maildrop.read(0)
    assert len(os.listdir("/proc/self/fd")) == before
    assert whole(maildrop, 1) == b"A: other\r\n"
    failed = list(maildrop.remove([0, 1]))
    assert failed == ([0] if kind in ("directory", "nothing") else [])
    maildrop.close()
    assert site.secret.read_text() == SECRET


def test_pop3_033_octets_are_what_is_sent(site):
    contents = [b"", b"x", b"\n", b"a\r\nb\nc\r", b"\r\r\n" * 9, b"x\n" * 40_000, b"y" * 32_767 + b"\r\nz"]
    for number, content in enumerate(contents):
        site.put(site.new / f"15000000{number:02}.x", content)
    maildrop = site.open()
    for index, message in enumerate(maildrop.messages):
        assert message.octets == len(whole(maildrop, index))
    maildrop.close()


def test_a_thousand_hostile_files_make_one_event(site):
    for number in range(1000):
        (site.new / f"15{number:08}.x").symlink_to(site.secret)
    assert_only_good(site, "not a regular file")
    assert site.events[0].fields["count"] == 1000


def test_the_name_in_an_event_is_printable(site):
    os.symlink(site.secret, os.fsencode(str(site.new)) + b"/150.\n\xff\x1b[2J")
    assert_only_good(site, "not a regular file")
    assert site.events[0].fields["name"] == r"150.\n\udcff\x1b[2J"


def test_a_message_that_another_program_moved_is_found_again(site):
    disk = FaultDisk(RealDisk())
    maildrop = site.open(disk)
    name = "1600000000.M1P1.mx.example.com"
    (site.new / name).rename(site.cur / f"{name}:2,FS")
    assert whole(maildrop) == GOOD_WIRE
    (site.cur / f"{name}:2,FS").rename(site.cur / f"{name}:2,RS")
    assert list(maildrop.remove([0])) == []
    maildrop.close()
    assert os.listdir(site.cur) == []


def test_thousands_of_vanished_messages_cost_one_look_around(site):
    for number in range(300):
        site.put(site.new / f"15{number:08}.x", GOOD)
    disk = FaultDisk(RealDisk())
    maildrop = site.open(disk)
    for path in site.new.iterdir():
        path.unlink()
    assert len(maildrop.remove(range(301))) == 301
    assert disk.verbs().count("names") <= 2
    maildrop.close()


def test_a_file_is_not_read_for_its_size_at_every_poll(site):
    disk = FaultDisk(RealDisk())
    mailboxes = site.started(disk)
    mailboxes.open_maildrop(SALES).close()
    assert "open_file" in disk.verbs()
    disk.operations.clear()
    mailboxes.open_maildrop(SALES).close()
    assert "open_file" not in disk.verbs()
    site.put(site.new / "1600000000.M1P1.mx.example.com", GOOD * 2)
    maildrop = mailboxes.open_maildrop(SALES)
    assert maildrop.messages[0].octets == len(GOOD_WIRE) * 2
    maildrop.close()


def test_what_is_hidden_is_left_alone(site):
    site.put(site.new / ".nfs0001", b"x")
    (site.home / ".Sent").mkdir()
    maildrop = site.open()
    assert len(maildrop.messages) == 1
    maildrop.close()
    assert site.events == []


def test_stale_files_in_tmp_go_and_fresh_ones_stay(site):
    def put_stale():
        stale = site.put(site.tmp / "stale", b"half")
        os.utime(stale, (site.clock.time - 37 * 3600,) * 2)
        return stale

    stale = put_stale()
    fresh = site.put(site.tmp / "fresh", b"half")
    os.utime(fresh, (site.clock.time - 34 * 3600,) * 2)
    (site.tmp / "directory").mkdir()
    os.utime(site.tmp / "directory", (site.clock.time - 37 * 3600,) * 2)
    site.open().close()
    assert stale.exists()  # tmp was seen to less than an hour ago
    site.clock.time += 3601
    site.open().close()
    assert not stale.exists() and fresh.exists() and (site.tmp / "directory").exists()
    put_stale()
    site.clock.time += 100
    site.open().close()
    assert stale.exists()


def test_the_lock_holds_against_other_processes(site):
    maildrop = site.open()
    child = os.fork()
    if child == 0:
        try:
            site.started().open_maildrop(SALES)
            os._exit(1)
        except MailboxInUse:
            os._exit(0)
        finally:
            os._exit(2)
    assert os.waitpid(child, 0)[1] == 0
    maildrop.close()


def test_a_lock_file_that_is_a_link_is_refused(site):
    (site.home / "popgate.lock").unlink()
    (site.home / "popgate.lock").symlink_to(site.secret)
    with pytest.raises(MailboxError):
        site.open()


def test_new_directories_and_messages_are_private(site):
    site.mailboxes.deliver(Identity("new"), [b"A: b\r\n"])
    home = site.root / "_/new"
    for path in (site.root / "_", home, home / "new", home / "cur", home / "tmp"):
        assert path.stat().st_mode & 0o777 == 0o700
    (message,) = (home / "new").iterdir()
    assert message.stat().st_mode & 0o777 == 0o600
