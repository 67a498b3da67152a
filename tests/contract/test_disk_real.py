"""What queue and mailbox count on when they use the real disk."""

import errno
import os
import time
from pathlib import Path

import pytest

from popgate.files.disk import Disk
from popgate.files.real import RealDisk


@pytest.fixture
def disk() -> Disk:
    return RealDisk()


@pytest.fixture
def folder(tmp_path, disk):
    fd = disk.open_directory(str(tmp_path))
    yield fd
    os.close(fd)


def test_create_write_read(disk, folder):
    fd = disk.create("a", folder)
    disk.write(fd, b"one")
    disk.write(fd, b"")
    disk.write(fd, b"two")
    disk.sync(fd)
    disk.close(fd)
    fd = disk.open_file("a", folder)
    assert disk.read(fd, 4) == b"onet"
    assert disk.entry_of(fd) == disk.entry("a", folder)
    disk.close(fd)
    assert disk.entry("a", folder)[:2] == ("f", 6)
    with pytest.raises(FileExistsError):
        disk.create("a", folder)


def test_write_goes_on_after_a_short_write(disk, folder, monkeypatch):
    real = os.write
    monkeypatch.setattr(os, "write", lambda fd, data: real(fd, bytes(data[:3])))
    fd = disk.create("a", folder)
    disk.write(fd, b"0123456789")
    disk.close(fd)
    assert disk.entry("a", folder).size == 10


def test_files_and_directories_are_private_and_not_inherited(disk, folder, tmp_path):
    fd = disk.create("a", folder)
    disk.make_directory("d", folder)
    assert not os.get_inheritable(fd)
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "d").stat().st_mode & 0o777 == 0o700
    disk.close(fd)


@pytest.mark.parametrize("kind", ["symlink", "dangling", "fifo", "directory", "socket-like device"])
def test_open_file_takes_regular_files_only(disk, folder, tmp_path, kind):
    (tmp_path / "secret").write_text("secret")
    victim = tmp_path / "x"
    if kind == "symlink":
        victim.symlink_to(tmp_path / "secret")
    elif kind == "dangling":
        victim.symlink_to(tmp_path / "nothing")
    elif kind == "fifo":
        os.mkfifo(victim)
    elif kind == "directory":
        victim.mkdir()
    else:
        victim.symlink_to("/dev/null")
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(OSError) as caught:
        disk.open_file("x", folder)
    assert caught.value.errno in (errno.ELOOP, errno.EINVAL)
    assert len(os.listdir("/proc/self/fd")) == before


def test_create_and_lock_do_not_follow_a_symbolic_link(disk, folder, tmp_path):
    (tmp_path / "x").symlink_to(tmp_path / "made-elsewhere")
    with pytest.raises(FileExistsError):
        disk.create("x", folder)
    with pytest.raises(OSError):
        disk.lock("x", folder)
    assert not (tmp_path / "made-elsewhere").exists()


def test_open_directory_does_not_follow_a_symbolic_link(disk, folder, tmp_path):
    (tmp_path / "d").mkdir()
    (tmp_path / "x").symlink_to(tmp_path / "d")
    with pytest.raises(NotADirectoryError):
        disk.open_directory("x", folder)


def test_link_links_the_link_itself(disk, folder, tmp_path):
    (tmp_path / "secret").write_text("secret")
    (tmp_path / "x").symlink_to(tmp_path / "secret")
    disk.link("x", folder, "y", folder)
    assert (tmp_path / "y").is_symlink()
    with pytest.raises(FileExistsError):
        disk.link("secret", folder, "y", folder)


def test_names_are_whole_every_time_and_survive_any_bytes(disk, folder, tmp_path):
    odd = os.fsencode(str(tmp_path)) + b"/caf\xe9\n"
    Path(os.fsdecode(odd)).touch()
    for number in range(50):
        (tmp_path / str(number)).touch()
    first = sorted(disk.names(folder))
    assert len(first) == 51 and "caf\udce9\n" in first
    assert sorted(disk.names(folder)) == first
    assert disk.entry("caf\udce9\n", folder).kind == "f"


def test_entries_leave_out_what_vanished(disk, folder, tmp_path):
    for name in "abc":
        (tmp_path / name).touch()
    seen = []
    for name, _ in disk.entries(folder):
        seen.append(name)
        for other in "abc":
            if other not in seen:
                (tmp_path / other).unlink(missing_ok=True)
    assert len(seen) == 1


def test_lock_excludes_until_closed(disk, folder):
    held = disk.lock("l", folder)
    with pytest.raises(BlockingIOError):
        disk.lock("l", folder)
    disk.close(held)
    disk.close(disk.lock("l", folder))


def test_a_lock_on_a_file_removed_meanwhile_is_taken_on_its_successor(disk, folder, tmp_path, monkeypatch):
    import fcntl

    real, calls = fcntl.flock, []

    def slow_flock(fd, how):
        if not calls:
            (tmp_path / "l").unlink()
        calls.append(fd)
        real(fd, how)

    monkeypatch.setattr(fcntl, "flock", slow_flock)
    held = disk.lock("l", folder)
    assert len(calls) == 2
    assert os.fstat(held).st_ino == (tmp_path / "l").stat().st_ino
    disk.close(held)


def test_rename_unlink_and_mtime(disk, folder, tmp_path):
    (tmp_path / "a").write_text("x")
    disk.set_mtime("a", folder, 1_000_000.0)
    assert disk.entry("a", folder).mtime == 1_000_000.0
    disk.rename("a", folder, "b", folder)
    disk.unlink("b", folder)
    disk.make_directory("d", folder)
    disk.remove_directory("d", folder)
    disk.sync_directory(folder)
    assert list(disk.names(folder)) == []


def test_an_unlocked_file_is_locked_again_by_its_path(disk, folder, tmp_path):
    held = disk.lock("l", folder)
    was = disk.entry_of(held)
    path = str(tmp_path / "l")
    disk.unlock(held)
    other = disk.lock("l", folder)
    with pytest.raises(BlockingIOError):
        disk.lock_again(held, was, path)
    disk.close(other)
    assert disk.lock_again(held, was, path)
    with pytest.raises(BlockingIOError):
        disk.lock("l", folder)
    disk.close(held)
    disk.close(disk.lock("l", folder))


@pytest.mark.parametrize("change", ["removed", "replaced", "link", "directory gone", "directory a file"])
def test_locking_again_tells_that_the_file_is_another(disk, tmp_path, change):
    (tmp_path / "d").mkdir()
    folder = disk.open_directory(str(tmp_path / "d"))
    held = disk.lock("l", folder)
    was = disk.entry_of(held)
    disk.unlock(held)
    path = tmp_path / "d/l"
    if change.startswith("directory"):
        (tmp_path / "d").rename(tmp_path / "e")
        if change == "directory a file":
            (tmp_path / "d").touch()
    else:
        path.rename(tmp_path / "moved")
    if change == "replaced":
        path.touch()
    elif change == "link":
        path.symlink_to(tmp_path / "moved")
    assert not disk.lock_again(held, was, str(path))
    disk.close(held)
    disk.close(folder)


def test_a_stamp_changes_with_the_names_and_the_mode(disk, folder, tmp_path):
    inside = tmp_path / "d"
    inside.mkdir()
    stamps = [disk.stamp("d", folder)]
    assert disk.stamp("d", folder) == stamps[0]
    assert stamps[0][:2] == (inside.stat().st_ino, inside.stat().st_mtime_ns)

    def changed(change):
        time.sleep(0.02)  # more than a tick of the kernel's clock
        change()
        stamps.append(disk.stamp("d", folder))

    changed((inside / "a").touch)
    changed((inside / "a").unlink)
    changed(lambda: inside.chmod(0o700))
    times = inside.stat()
    (inside / "b").touch()
    changed(lambda: os.utime(inside, ns=(times.st_atime_ns, times.st_mtime_ns)))
    assert len(set(stamps)) == 5
    inside.rename(tmp_path / "e")
    with pytest.raises(FileNotFoundError):
        disk.stamp("d", folder)
    inside.symlink_to(tmp_path / "e")
    with pytest.raises(NotADirectoryError):
        disk.stamp("d", folder)
    inside.unlink()
    inside.touch()
    with pytest.raises(NotADirectoryError):
        disk.stamp("d", folder)


def test_an_entry_by_path_is_that_of_the_link_itself(disk, folder, tmp_path):
    (tmp_path / "d").mkdir()
    (tmp_path / "x").symlink_to(tmp_path / "d")
    assert disk.entry(str(tmp_path / "d")) == disk.entry("d", folder)
    assert disk.entry(str(tmp_path / "d")).kind == "d"
    assert disk.entry(str(tmp_path / "x")).kind == "o"
    assert disk.entry("d", folder).device == os.stat(tmp_path / "d").st_dev
