"""A delivery that breaks anywhere leaves the whole message or nothing, and never says it went well."""

import errno
import itertools
import os
import random

import pytest

from popgate.files.real import RealDisk
from popgate.mailbox.backends.maildir import MaildirMailboxes
from popgate.mailbox.mailbox import MailboxError, MailboxFull
from popgate.values.identity import Identity
from support.crash_disk import ROOT, Crash, CrashDisk
from support.fault_disk import FaultDisk

SALES = Identity("sales", "example.com")
BODY = [b"Subject: whole\r\n\r", b"\n" + b"x" * 70_000, b"\r\n" + b"y" * 70_000 + b"\r\n"]
WIRE = b"".join(BODY)


class Clock:
    def now(self) -> float:
        return 1_700_000_000.5

    def monotonic(self) -> float:
        return 1.0


def maildirs(disk, root=ROOT, token=None, most_kept=0):
    counter = itertools.count()
    names = token or (lambda: f"{next(counter):016x}")
    return MaildirMailboxes(
        root, disk, Clock(), "mx.example.com", lambda event: None, token=names, most_kept=most_kept
    )


def fetched(disk, root=ROOT, identity=SALES):
    maildrop = maildirs(disk, root).open_maildrop(identity)
    try:
        for index, message in enumerate(maildrop.messages):
            assert message.octets == len(b"".join(maildrop.read(index)))
        return [b"".join(maildrop.read(index)) for index in range(len(maildrop.messages))]
    finally:
        maildrop.close()


# The order of operations


def test_content_is_safe_before_the_name_and_the_name_before_the_return(tmp_path):
    disk = FaultDisk(RealDisk())
    maildirs(disk, str(tmp_path)).deliver(SALES, BODY)
    last_write = max(n for n, operation in enumerate(disk.operations) if operation.verb == "write")
    link = disk.index("link")
    assert last_write < disk.index("sync") < link
    after = disk.operations[link + 1 :]
    assert after[0].verb == "sync_directory" and after[0].names[0].endswith("/new")
    assert after[1].verb == "unlink" and "/tmp/" in after[1].names[0]
    # every directory that was made is in its parent for sure
    for number, operation in enumerate(disk.operations):
        if operation.verb == "make_directory":
            parent = operation.names[0].rpartition("/")[0]
            later = disk.operations[number:link]
            if not operation.names[0].endswith("/tmp"):
                assert ("sync_directory", (parent,)) in later
    assert disk.open_descriptors == []


def test_a_maildir_made_by_another_process_is_made_safe_too(tmp_path):
    maildirs(RealDisk(), str(tmp_path)).open_maildrop(SALES).close()
    disk = FaultDisk(RealDisk())
    mailboxes = maildirs(disk, str(tmp_path))
    mailboxes.deliver(SALES, BODY)
    synced = {operation.names[0] for operation in disk.operations if operation.verb == "sync_directory"}
    home = f"{tmp_path}/example.com/sales"
    assert {str(tmp_path), f"{tmp_path}/example.com", home, f"{home}/new"} <= synced
    disk.operations.clear()
    mailboxes.deliver(SALES, BODY)
    assert disk.verbs().count("sync_directory") == 1  # and only the first time


def test_a_maildir_that_another_process_makes_at_the_same_moment(tmp_path):
    def be_quicker(operation):
        if operation.verb == "make_directory":
            os.mkdir(operation.names[0])

    maildirs(FaultDisk(RealDisk(), before=be_quicker), str(tmp_path)).deliver(SALES, BODY)
    assert fetched(RealDisk(), str(tmp_path)) == [WIRE]


# One operation fails


def number_of_operations(tmp_path) -> int:
    disk = FaultDisk(RealDisk())
    (tmp_path / "count").mkdir()
    maildirs(disk, str(tmp_path / "count")).deliver(SALES, BODY)
    return len(disk.operations)


@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EDQUOT, errno.EIO])
@pytest.mark.parametrize("stays", [False, True], ids=["once", "from then on"])
def test_each_operation_may_fail(tmp_path, error, stays):
    total = number_of_operations(tmp_path)
    kind = MailboxError if error == errno.EIO else MailboxFull
    succeeded = 0
    for failing in range(total):
        root = tmp_path / str(failing)
        root.mkdir()

        def is_faulty(number, operation, failing=failing):
            return number == failing or (stays and number > failing)

        before = len(os.listdir("/proc/self/fd"))
        disk = FaultDisk(RealDisk(), is_faulty, error)
        try:
            maildirs(disk, str(root)).deliver(SALES, BODY)
        except MailboxError as caught:
            assert type(caught) is kind
            # when even the removal fails after a failed sync of new, the message may stay
            twice = stays and disk.operations[failing].verb == "sync_directory"
            visible = fetched(RealDisk(), str(root))
            assert visible == [] or (twice and visible == [WIRE])
            tmp = root / "example.com/sales/tmp"
            assert stays or not tmp.exists() or list(tmp.iterdir()) == []
        else:
            succeeded += 1
            assert disk.operations[failing].verb in ("unlink", "close")
            assert fetched(RealDisk(), str(root)) == [WIRE]
        assert len(os.listdir("/proc/self/fd")) == before
    assert succeeded >= 1


def test_a_failed_sync_is_never_tried_again(tmp_path):
    disk = FaultDisk(RealDisk(), lambda number, operation: operation.verb == "sync", errno.EIO)
    with pytest.raises(MailboxError):
        maildirs(disk, str(tmp_path)).deliver(SALES, BODY)
    assert disk.verbs().count("sync") == 1
    assert "link" not in disk.verbs()


@pytest.mark.parametrize("place", ["tmp", "new"])
def test_maildir_014_a_name_that_is_taken_is_not_overwritten(tmp_path, place):
    tokens = iter(["00", "00", "00", "01", "02", "03"])
    mailboxes = maildirs(RealDisk(), str(tmp_path), lambda: next(tokens))
    mailboxes._counter = itertools.repeat(7)
    mailboxes.deliver(SALES, [b"A: first\r\n"])
    new = tmp_path / "example.com/sales/new"
    taken = os.listdir(new)[0]
    if place == "tmp":
        (tmp_path / "example.com/sales/tmp" / taken.partition(",")[0]).write_text("somebody's")
    mailboxes.deliver(SALES, [b"A: again\r\n"])
    names = os.listdir(new)
    assert len(names) == 2 and taken in names
    assert sorted(fetched(RealDisk(), str(tmp_path))) == [b"A: again\r\n", b"A: first\r\n"]
    if place == "tmp":
        assert [file.read_text() for file in (tmp_path / "example.com/sales/tmp").iterdir()] == ["somebody's"]


def test_a_name_that_is_always_taken_ends_as_an_error(tmp_path):
    mailboxes = maildirs(RealDisk(), str(tmp_path), lambda: "00")
    mailboxes._counter = itertools.repeat(7)
    mailboxes.deliver(SALES, [b"A: 1\r\n"])
    with pytest.raises(MailboxError):
        mailboxes.deliver(SALES, [b"A: 2\r\n"])
    assert fetched(RealDisk(), str(tmp_path)) == [b"A: 1\r\n"]
    assert os.listdir(tmp_path / "example.com/sales/tmp") == []


# The power fails


def survivors():
    yield "only what is safe", lambda what: False
    yield "everything", lambda what: True
    yield "names without content", lambda what: what == "name"
    yield "content without names", lambda what: what == "content"
    for seed in range(8):
        dice = random.Random(seed)
        yield f"seed {seed}", lambda what, dice=dice: dice.random() < 0.5


def test_power_fails_after_each_change():
    disk = CrashDisk()
    maildirs(disk).deliver(SALES, BODY)
    total = disk.changes
    assert total > 10
    for crash_after in range(total + 1):
        disk = CrashDisk(crash_after)
        try:
            maildirs(disk).deliver(SALES, BODY)
            is_accepted = True
        except Crash:
            is_accepted = False
        for label, survives in survivors():
            after = disk.after_crash(survives)
            found = fetched(after)
            assert found in ([], [WIRE]), (crash_after, label)
            assert not is_accepted or found == [WIRE], (crash_after, label)
            # and the next delivery works
            maildirs(after, token=lambda: "feedfeedfeedfeed").deliver(SALES, [b"A: next\r\n"])
            assert sorted(fetched(after)) == sorted([*found, b"A: next\r\n"]), (crash_after, label)


def test_power_fails_while_messages_are_removed_and_seen():
    for crash_after in range(30):
        disk = CrashDisk()
        mailboxes = maildirs(disk)
        bodies = [b"A: %d\r\n" % number for number in range(4)]
        for body in bodies:
            mailboxes.deliver(SALES, [body])
        maildrop = mailboxes.open_maildrop(SALES)
        uids = {message.uid: body for message, body in zip(maildrop.messages, bodies, strict=True)}
        disk._left = crash_after
        is_done = False
        try:
            maildrop.mark_seen([0, 1])
            assert list(maildrop.remove([1, 2])) == []
            is_done = True
        except Crash:
            pass
        for label, survives in survivors():
            after = disk.after_crash(survives)
            again = maildirs(after).open_maildrop(SALES)
            left = {message.uid: b"".join(again.read(index)) for index, message in enumerate(again.messages)}
            assert left.items() <= uids.items(), (crash_after, label)
            assert bodies[3] in left.values()
            if is_done:
                assert bodies[1] not in left.values() and bodies[2] not in left.values()
            again.close()
    assert is_done


# The session


def test_removal_goes_on_after_a_failure(tmp_path):  # pop3-029
    mailboxes = maildirs(RealDisk(), str(tmp_path))
    for number in range(3):
        mailboxes.deliver(SALES, [b"A: %d\r\n" % number])
    unlinks = itertools.count()
    disk = FaultDisk(
        RealDisk(), lambda number, operation: operation.verb == "unlink" and next(unlinks) == 1, errno.EIO
    )
    maildrop = maildirs(disk, str(tmp_path)).open_maildrop(SALES)
    assert list(maildrop.remove([0, 1, 2])) == [1]
    maildrop.close()
    assert fetched(RealDisk(), str(tmp_path)) == [b"A: 1\r\n"]


@pytest.mark.parametrize("most_kept", [0, 2])
def test_each_operation_of_two_sessions_may_fail(tmp_path, most_kept):
    def session(mailboxes):
        maildrop = mailboxes.open_maildrop(SALES)
        try:
            got = [b"".join(maildrop.read(index)) for index in range(len(maildrop.messages))]
            maildrop.mark_seen([0])
            return got, list(maildrop.remove([1]))
        finally:
            maildrop.close()

    def sessions(disk, root):
        mailboxes = maildirs(disk, root, most_kept=most_kept)
        try:
            for _ in range(2):
                try:
                    session(mailboxes)
                except (MailboxError, IndexError):
                    pass
        finally:
            mailboxes.close()

    def prepare(name):
        root = tmp_path / name
        root.mkdir()
        mailboxes = maildirs(RealDisk(), str(root))
        for number in range(3):
            mailboxes.deliver(SALES, [b"A: %d\r\n" % number])
        new = root / "example.com/sales/new"
        for path in list(new.iterdir()):
            path.rename(new / path.name.partition(",")[0])  # sizes must be read
        return str(root)

    disk = FaultDisk(RealDisk())
    sessions(disk, prepare("count"))
    assert ("lock_again" in disk.verbs()) is (most_kept > 0)
    for failing in range(len(disk.operations)):
        before = len(os.listdir("/proc/self/fd"))
        root = prepare(str(failing))
        broken = FaultDisk(RealDisk(), lambda number, operation, at=failing: number == at, errno.EIO)
        sessions(broken, root)
        assert broken.open_descriptors == []
        assert len(os.listdir("/proc/self/fd")) == before, broken.operations[failing]
        assert len(fetched(RealDisk(), root)) in (1, 2)
