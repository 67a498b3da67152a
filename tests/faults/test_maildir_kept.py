"""Maildirs that stay open between sessions are never mistaken for what is there, nor locked by two."""

import errno
import os
import shutil
import signal
import threading
import time
from pathlib import Path

import pytest

from popgate.files.real import RealDisk
from popgate.mailbox.backends.maildir import MaildirMailboxes
from popgate.mailbox.backends.maildir_kept import LOOK_AGAIN_SECONDS, RECENT_SECONDS
from popgate.mailbox.mailbox import MailboxError, MailboxInUse
from popgate.values.identity import Identity
from support.fault_disk import FaultDisk

SALES = Identity("sales", "example.com")
WIRE = b"A: b\r\n"


class Clock:
    def __init__(self) -> None:
        self.time = time.time() + 10  # so that what was made just now is settled

    def now(self) -> float:
        return self.time

    def monotonic(self) -> float:
        return self.time


class Site:
    def __init__(self, root: Path, most_kept: int = 3) -> None:
        self.root = root
        self.home = root / "example.com/sales"
        self.clock = Clock()
        self.disk = FaultDisk(RealDisk(), before=lambda operation: self.before(operation))
        self.before = lambda operation: None
        self.mailboxes = self.another(self.disk, most_kept)

    def another(self, disk=None, most_kept=0) -> MaildirMailboxes:
        """As another process has it."""
        return MaildirMailboxes(
            str(self.root),
            disk or RealDisk(),
            self.clock,
            "mx.example.com",
            lambda event: None,
            most_kept=most_kept,
        )

    def open(self, identity=SALES):
        return self.mailboxes.open_maildrop(identity)

    def poll(self, identity=SALES) -> list[str]:
        """What a session does to the disk."""
        self.disk.operations.clear()
        self.open(identity).close()
        return self.disk.verbs()

    def is_opened_anew(self, identity=SALES) -> bool:
        return "lock" in self.poll(identity)

    def subjects(self) -> list[bytes]:
        maildrop = self.open()
        try:
            return [b"".join(maildrop.read(index)) for index in range(len(maildrop.messages))]
        finally:
            maildrop.close()


@pytest.fixture
def site(tmp_path):
    before = len(os.listdir("/proc/self/fd"))
    site = Site(tmp_path)
    yield site
    site.mailboxes.close()
    assert len(os.listdir("/proc/self/fd")) == before
    assert site.disk.open_descriptors == []


def users(count):
    return [Identity(f"user{number}", "example.com") for number in range(count)]


def test_the_next_session_opens_nothing(site):
    site.poll()
    site.poll()
    assert site.poll() == ["lock_again", "stamp", "stamp", "unlock"]
    assert site.disk.open_descriptors == [
        f"{site.root}/example.com/sales",
        f"{site.root}/example.com/sales/popgate.lock",
    ]


def test_its_path_is_looked_at_again_after_a_second(site):
    site.poll()
    site.poll()
    site.clock.time += LOOK_AGAIN_SECONDS
    assert site.poll() == ["lock_again", "entry", "entry", "stamp", "stamp", "unlock"]


def test_new_mail_is_seen(site):
    assert site.subjects() == []
    site.another().deliver(SALES, [WIRE])
    assert site.subjects() == [WIRE]
    maildrop = site.open()
    maildrop.mark_seen([0])
    assert list(maildrop.remove([0])) == []
    maildrop.close()
    assert site.subjects() == []


# One session at a time


def test_a_second_session_of_this_process_is_refused(site):
    site.poll()
    maildrop = site.open()
    for _ in range(2):
        with pytest.raises(MailboxInUse):
            site.open()
    maildrop.close()
    again = site.open()
    maildrop.close()  # it is no longer its own
    with pytest.raises(MailboxInUse):
        site.open()
    again.close()


def test_other_processes_are_refused_during_a_session_and_only_then(site):
    site.poll()
    other = site.another()
    maildrop = site.open()
    with pytest.raises(MailboxInUse):
        other.open_maildrop(SALES)
    maildrop.close()
    maildrop = other.open_maildrop(SALES)
    with pytest.raises(MailboxInUse):
        site.open()
    maildrop.close()
    assert not site.is_opened_anew()


def test_of_many_threads_one_has_it(site):
    site.poll()
    sessions, most, faults = [], [], []
    start = threading.Barrier(8)

    def poll():
        start.wait()
        for _ in range(100):
            try:
                maildrop = site.mailboxes.open_maildrop(SALES)
            except MailboxInUse:
                continue
            except Exception as fault:
                faults.append(fault)
                return
            sessions.append(1)
            most.append(len(sessions))
            sessions.pop()
            maildrop.close()

    site.disk.operations.clear()
    threads = [threading.Thread(target=poll) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert faults == []
    assert len(most) > 0 and set(most) == {1}
    assert len(site.disk.open_descriptors) == 2


def test_a_maildrop_that_is_closed_reads_nothing_of_the_next_session(site):
    site.another().deliver(SALES, [WIRE])
    first = site.open()
    first.close()
    second = site.open()
    for use in (lambda: first.read(0), lambda: first.remove([0]), lambda: first.mark_seen([0])):
        with pytest.raises(MailboxError):
            use()
    assert b"".join(second.read(0)) == WIRE
    second.close()


# What is there by now


def test_a_maildir_that_was_moved_is_noticed_at_once(site):
    site.another().deliver(SALES, [WIRE])
    assert site.subjects() == [WIRE]
    site.home.rename(site.root / "example.com/moved")
    assert site.subjects() == []
    assert (site.home / "new").is_dir()
    (site.root / "example.com").rename(site.root / "example.org")
    assert site.subjects() == []
    assert (site.home / "new").is_dir()


def test_a_maildir_that_was_removed_is_noticed_at_once(site):
    site.another().deliver(SALES, [WIRE])
    assert site.subjects() == [WIRE]
    shutil.rmtree(site.home)
    assert site.subjects() == []
    shutil.rmtree(site.home)
    site.another().deliver(SALES, [WIRE + WIRE])
    assert site.subjects() == [WIRE + WIRE]


def test_a_root_that_was_replaced_is_noticed_at_once(tmp_path):
    root = tmp_path / "mail"
    root.mkdir()
    site = Site(root)
    site.another().deliver(SALES, [WIRE])
    assert site.subjects() == [WIRE]
    root.rename(tmp_path / "old")
    with pytest.raises(MailboxError):
        site.open()
    root.mkdir()
    assert site.subjects() == []
    site.mailboxes.close()


@pytest.mark.parametrize("change", ["removed", "replaced"])
def test_a_lock_file_that_went_locks_nothing(site, change):
    site.poll()
    (site.home / "popgate.lock").unlink()
    other = site.another()
    if change == "replaced":
        held = other.open_maildrop(SALES)
        with pytest.raises(MailboxInUse):
            site.open()
        held.close()
    maildrop = site.open()
    with pytest.raises(MailboxInUse):
        other.open_maildrop(SALES)
    maildrop.close()


@pytest.mark.parametrize("part", ["new", "cur"])
def test_a_directory_in_it_that_became_a_link_is_refused(site, part):
    site.poll()
    site.poll()
    (site.home / part).rename(site.root / "elsewhere")
    (site.home / part).symlink_to(site.root / "elsewhere")
    with pytest.raises(MailboxError):
        site.open()


@pytest.mark.parametrize("part", ["example.com", "example.com/sales"])
def test_a_link_to_the_same_maildir_is_refused_after_a_second(site, part):
    site.poll()
    site.poll()
    (site.root / part).rename(site.root / "elsewhere")
    (site.root / part).symlink_to(site.root / "elsewhere")
    site.clock.time += LOOK_AGAIN_SECONDS
    with pytest.raises(MailboxError):
        site.open()
    assert site.disk.open_descriptors == []


def test_a_maildir_with_a_link_to_the_same_lock_file_is_noticed_after_a_second(site):
    site.another().deliver(SALES, [WIRE])
    site.poll()
    site.poll()
    site.home.rename(site.root / "old")
    site.another().deliver(SALES, [WIRE + WIRE])
    os.link(site.root / "old/popgate.lock", site.home / "popgate.lock")
    site.clock.time += LOOK_AGAIN_SECONDS
    assert site.subjects() == [WIRE + WIRE]


def test_a_directory_that_is_emptied_is_made_whole(site):
    site.poll()
    shutil.rmtree(site.home / "new")
    site.poll()
    assert (site.home / "new").is_dir()
    site.another().deliver(SALES, [WIRE])
    assert site.subjects() == [WIRE]


# Forks and programs


def forked(act) -> int:
    """A child that ends soon whatever happens: 0, 3 where the mailbox was in use, else another status."""
    child = os.fork()
    if child == 0:
        try:
            signal.alarm(10)
            act()
            os._exit(0)
        except MailboxInUse:
            os._exit(3)
        finally:
            os._exit(9)
    return child


def status_of(child: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def test_a_child_of_a_fork_does_not_share_the_lock(site):
    site.poll()
    site.poll(users(1)[0])
    go_on, told = os.pipe()
    ready, tell = os.pipe()

    def hold():
        maildrop = site.open()  # kept by the parent, so the child opens it anew
        assert all("/sales" in path for path in site.disk.open_descriptors)  # none of its parent's
        os.write(tell, b"x")
        os.read(go_on, 1)
        maildrop.close()

    child = forked(hold)
    os.close(tell)
    try:
        assert os.read(ready, 1) == b"x"
        with pytest.raises(MailboxInUse):
            site.open()
    finally:
        os.write(told, b"x")
        status = status_of(child)
        for fd in (go_on, told, ready):
            os.close(fd)
    assert status == 0
    assert not site.is_opened_anew()


def test_a_child_of_a_fork_meets_the_lock_of_its_parent(site):
    site.poll()
    maildrop = site.open()
    assert status_of(forked(site.open)) == 3
    maildrop.close()
    assert status_of(forked(lambda: site.open().close())) == 0


def test_a_child_that_closes_a_session_of_its_parent_does_not_end_it(site):
    site.poll()
    maildrop = site.open()
    assert status_of(forked(maildrop.close)) == 0
    with pytest.raises(MailboxInUse):
        site.another().open_maildrop(SALES)
    maildrop.close()


def test_programs_inherit_none(site):
    site.poll()
    links = Path("/proc/self/fd").iterdir()
    kept = [int(link.name) for link in links if os.path.realpath(link).startswith(str(site.home))]
    assert len(kept) == 2
    assert not any(os.get_inheritable(fd) for fd in kept)


# How many


def test_no_more_than_so_many_are_kept(site):
    for identity in users(3):
        site.poll(identity)
    assert len(site.disk.open_descriptors) == 6
    assert site.is_opened_anew(SALES)
    assert not any(site.is_opened_anew(identity) for identity in users(3))
    assert len(site.disk.open_descriptors) == 6


def test_who_has_stayed_away_makes_room(site):
    for identity in users(3):
        site.poll(identity)
        site.clock.time += 1
    site.clock.time += RECENT_SECONDS - 2.5
    site.poll(SALES)
    assert not site.is_opened_anew(SALES)
    assert len(site.disk.open_descriptors) == 6
    assert [site.is_opened_anew(identity) for identity in users(3)] == [True, False, False]


@pytest.mark.parametrize("error", [errno.EMFILE, errno.ENFILE])
def test_when_descriptors_are_short_the_kept_ones_go(site, error):
    for identity in users(3):
        site.poll(identity)

    def lack(operation):
        if operation.verb == "open_directory" and site.disk.open_descriptors[5:]:
            raise OSError(error, os.strerror(error))

    site.before = lack
    maildrop = site.open(SALES)
    assert all("/sales" in path for path in site.disk.open_descriptors)
    maildrop.close()


@pytest.mark.parametrize("verb", ["lock", "open_file"])
def test_where_no_descriptor_is_left_the_session_fails(site, verb):
    """It fails as a whole: a message that is not listed for once looks like one that was deleted."""
    site.another().open_maildrop(SALES).close()
    (site.home / "new/1600000000.x").write_bytes(b"A: b\n")  # is read for its size

    def lack(operation):
        if operation.verb == verb:
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    site.before = lack
    with pytest.raises(MailboxError, match="Too many open files"):
        site.open()
    assert site.disk.open_descriptors == []


@pytest.mark.parametrize("verb", ["open_directory", "lock", "open_file"])
def test_the_kept_ones_go_whatever_lacks_a_descriptor(site, verb):
    site.another().open_maildrop(SALES).close()
    (site.home / "new/1600000000.x").write_bytes(b"A: b\n")  # is read for its size
    for identity in users(2):
        site.poll(identity)
    kept = site.disk.open_descriptors

    def lack(operation):
        if operation.verb == verb and set(kept) & set(site.disk.open_descriptors):
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    site.before = lack
    assert site.subjects() == [WIRE]
    assert not set(kept) & set(site.disk.open_descriptors)


def test_reading_a_message_may_lack_a_descriptor_too(site):
    site.another().deliver(SALES, [WIRE])
    for identity in users(2):
        site.poll(identity)
    kept = site.disk.open_descriptors
    maildrop = site.open()

    def lack(operation):
        if operation.verb == "open_file" and set(kept) & set(site.disk.open_descriptors):
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    site.before = lack
    assert b"".join(maildrop.read(0)) == WIRE
    maildrop.close()


def test_nothing_is_kept_unless_told(tmp_path):
    site = Site(tmp_path, most_kept=0)
    site.poll()
    assert site.disk.open_descriptors == []
    assert site.is_opened_anew()


def test_two_kept_of_one_user_become_one(site):
    site.poll()
    first = site.open()
    (site.home / "popgate.lock").unlink()
    second = site.open()
    first.close()
    second.close()
    assert len(site.disk.open_descriptors) == 2
    assert not site.is_opened_anew()
