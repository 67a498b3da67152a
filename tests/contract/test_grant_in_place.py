"""Grant files dated or overwritten where they lie: what readers see, and what a killed writer leaves."""

import errno
import fcntl
import os
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from grants_kit import ALICE_FILE, BOB, NAME, NOW, address, grant, put, used
from popgate.grants import rules
from popgate.grants.grant import Usage
from popgate.grants.store import StoreError
from popgate.grants.stores.directory import DirectoryStore
from popgate.values.identity import Identity


def test_the_next_login_of_the_same_user_only_dates_the_file(allow: Path) -> None:
    store, reader = DirectoryStore(str(allow)), DirectoryStore(str(allow))
    store.change(address(), lambda _: [grant()])
    before, content = (allow / NAME).stat(), (allow / NAME).read_bytes()
    assert reader.find(address()) == (grant(),)
    store.change(address(), lambda _: [grant(since=NOW, login_at=NOW + 60)])
    after = (allow / NAME).stat()
    assert (allow / NAME).read_bytes() == content
    assert (after.st_ino, int(after.st_mtime)) == (before.st_ino, NOW + 60)
    assert reader.find(address()) == store.find(address())
    assert [each.login_at for each in reader.find(address())] == [NOW + 60]


def test_a_file_that_relay_ctrl_put_there_is_not_taken_for_ours(allow: Path) -> None:
    """It names the same user, so only its inode and times tell it from the one that was remembered."""
    store = DirectoryStore(str(allow))
    store.change(address(), lambda _: [grant()])
    put(allow, ALICE_FILE, ".1.000002:3", NOW + 1).rename(allow / NAME)
    store.change(address(), lambda _: [grant(since=NOW, login_at=NOW + 2)])
    assert b"POPGATE_GRANT=" in (allow / NAME).read_bytes()
    assert list(store.find(address())) == list(DirectoryStore(str(allow)).find(address()))


def test_a_login_after_a_renewal_is_a_login(allow: Path) -> None:
    store = DirectoryStore(str(allow))
    store.change(address(), lambda _: [grant()])
    store.change(address(), lambda _: [grant(renewed_at=NOW + 50)])
    store.change(address(), lambda _: [grant(since=NOW, login_at=NOW + 60)])
    (found,) = DirectoryStore(str(allow)).find(address())
    assert (found.login_at, found.renewed_at) == (NOW + 60, NOW + 60)


def test_a_login_by_relay_ctrl_during_the_writing_is_kept(
    allow: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = DirectoryStore(str(allow))
    store.change(address(), lambda _: [grant()])
    store.change(address(), used(1))
    real = os.pwrite

    def pwrite(file: int, content: bytes, offset: int) -> int:
        monkeypatch.undo()
        put(allow, b"USER=carol\0", ".1.000002:3", NOW + 1).rename(allow / NAME)
        return real(file, content, offset)

    monkeypatch.setattr(os, "pwrite", pwrite)
    store.change(address(), used(2))
    assert [(each.identity.user, each.used.messages) for each in store.find(address())] == [("carol", 2)]
    assert store.find(address()) == DirectoryStore(str(allow)).find(address())


def test_what_was_relayed_is_counted_in_the_file_that_is_there(allow: Path) -> None:
    store, reader = DirectoryStore(str(allow)), DirectoryStore(str(allow))
    store.change(address(), lambda _: [grant(), grant(identity=BOB, login_at=NOW - 7)])
    store.change(address(), used(1))
    before = (allow / NAME).stat()
    for count in range(2, 4):
        store.change(address(), used(count))
        assert reader.find(address()) == store.find(address())
        assert [each.used for each in reader.find(address())] == [Usage(count), Usage()]
    after = (allow / NAME).stat()
    assert (after.st_ino, after.st_size) == (before.st_ino, before.st_size)
    assert after.st_mtime_ns // 1000 == before.st_mtime_ns // 1000
    store.change(address(), lambda grants: [rules.with_times(grants[0], NOW, NOW + 9, NOW + 9), grants[1]])
    assert (allow / NAME).stat().st_ino == before.st_ino
    assert [(each.login_at, each.used.messages) for each in reader.find(address())] == [
        (NOW + 9, 3),
        (NOW - 7, 0),
    ]


@pytest.mark.parametrize("seconds_ago", [1.0, 900.0])
@pytest.mark.parametrize("counted", [0, 1])
def test_whoever_is_killed_while_counting_renews_nothing(
    allow: Path, monkeypatch: pytest.MonkeyPatch, seconds_ago: float, counted: int
) -> None:
    """The kernel dates a file that is written by now, so a grant that is older must not go by it."""
    login_at = time.time() - seconds_ago
    store = DirectoryStore(str(allow))
    store.change(address(), lambda _: [grant(login_at=login_at)])
    for count in range(counted):
        store.change(address(), used(count + 1))

    def killed(*_: object, **__: object) -> None:
        raise OSError(errno.EIO, "killed")

    monkeypatch.setattr(os, "utime", killed)
    with pytest.raises(StoreError):
        store.change(address(), used(9))
    monkeypatch.undo()
    for each in DirectoryStore(str(allow)).find(address()):
        assert each.renewed_at == pytest.approx(login_at)
    # The next login grants, and what it writes is found.
    store.change(address(), lambda _: [grant(login_at=time.time())])
    assert len(DirectoryStore(str(allow)).find(address())) == 1


def test_a_write_cut_off_after_the_kernel_dated_the_file_renews_nothing(
    allow: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel dates a file before it takes the octets, and a power cut may keep only that."""
    login_at = time.time() - 300
    store = DirectoryStore(str(allow))
    store.change(address(), lambda _: [grant(login_at=login_at)])

    def cut_off(file: int, *_: object) -> None:
        os.utime(file)
        raise OSError(errno.EIO, "cut off")

    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", cut_off)
        store.change(address(), used(1))
        with pytest.raises(StoreError):
            store.change(address(), used(2))
    assert list(DirectoryStore(str(allow)).find(address())) == []


def test_the_login_of_another_user_is_another_file(allow: Path) -> None:
    """relay-ctrl's checker reads USER without a lock, so it never changes in a file."""
    store = DirectoryStore(str(allow))
    store.change(address(), lambda _: [grant(used=Usage(1))])
    store.change(address(), used(2))
    before = (allow / NAME).stat().st_ino
    clara = Identity("clara", "example.org")
    store.change(address(), lambda _: [grant(identity=clara, used=Usage(2))])
    assert (allow / NAME).stat().st_ino != before
    assert (allow / NAME).read_bytes().startswith(b"USER=clara\0")


def test_a_file_that_is_being_written_is_read_when_it_is_dated(allow: Path) -> None:
    store = DirectoryStore(str(allow), lock_seconds=5)
    store.change(address(), lambda _: [grant()])
    store.change(address(), used(1))
    writer = os.open(allow, os.O_RDONLY)
    fcntl.flock(writer, fcntl.LOCK_EX)
    content = (allow / NAME).read_bytes()
    (allow / NAME).write_bytes(content.replace(b"0000000001", b"0000000002", 1)[:-30] + content[-30:])

    def finish() -> None:
        os.utime(allow / NAME, ns=(int(NOW * 1e9), int(NOW * 1e9)))
        os.close(writer)

    timer = threading.Timer(0.1, finish)
    timer.start()
    assert [each.used.messages for each in store.find(address())] == [2]
    timer.join()


def test_a_file_that_stays_half_written_is_no_grant(allow: Path) -> None:
    store = DirectoryStore(str(allow), lock_seconds=0.05)
    store.change(address(), lambda _: [grant()])
    store.change(address(), used(1))
    os.utime(allow / NAME, (NOW + 100, NOW + 100))
    writer = os.open(allow, os.O_RDONLY)
    fcntl.flock(writer, fcntl.LOCK_EX)
    with pytest.raises(StoreError, match="locked"):  # as long as somebody seems to write it: 4xx
        store.find(address())
    os.close(writer)
    assert list(store.find(address())) == []


def test_where_files_have_whole_seconds_nothing_is_written_in_place(
    allow: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.utime

    def coarse(path: int | str, *, ns: tuple[int, int], **options: Any) -> None:
        real(path, ns=(ns[0] // 10**9 * 10**9, ns[1] // 10**9 * 10**9), **options)

    monkeypatch.setattr(os, "utime", coarse)
    store = DirectoryStore(str(allow))
    store.change(address(), lambda _: [grant(login_at=NOW - 10 + 0.5)])
    monkeypatch.delattr(os, "pwrite")
    for turn in range(4):
        login_at = NOW + turn * 10 + 0.5
        store.change(address(), lambda _, at=login_at: [grant(login_at=at)])
        store.change(address(), used(turn))
        found = DirectoryStore(str(allow)).find(address())
        assert [(int(each.renewed_at), each.used.messages) for each in found] == [(int(login_at), turn)]


def test_readers_never_see_half_of_a_change(allow: Path) -> None:
    """One process logs in and counts without a rest; each look-up finds the grant, no count goes back."""
    store = DirectoryStore(str(allow), lock_seconds=20)
    start = float(int(time.time()) - 500)
    store.change(address(), lambda _: [grant(login_at=start)])
    changes = 3000

    def write() -> None:
        writer = DirectoryStore(str(allow), lock_seconds=20)
        for number in range(1, changes + 1):
            if number % 3:
                writer.change(address(), used(number))
            else:
                at = start + number / 10
                writer.change(
                    address(), lambda grants, at=at: [rules.with_times(grants[0], grants[0].since, at, at)]
                )

    child = os.fork()
    if not child:
        try:
            write()
            os._exit(0)
        finally:
            os._exit(1)
    last = (0.0, 0)
    looked = 0
    while os.waitpid(child, os.WNOHANG) == (0, 0):
        store.forget()  # so that each look-up reads the file
        (seen,) = store.find(address())
        assert (seen.renewed_at, seen.used.messages) >= last or seen.renewed_at >= last[0]
        assert start <= seen.renewed_at <= start + changes / 10
        assert seen.used.messages >= last[1]
        last = (seen.renewed_at, seen.used.messages)
        looked += 1
    assert looked > 100
    assert store.find(address())[0].used.messages == changes - 1
