"""Notices of changed directories, with real directories and the kernel's inotify."""

import asyncio
import errno
import os
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from popgate.servers import change_notices
from popgate.servers.change_notices import DirectoryNotices
from popgate.servers.inotify import Inotify
from popgate.values.event import Event
from support.clock import ManualClock


class Told:
    """Counts how often it was called."""

    def __init__(self) -> None:
        self.times = 0

    def __call__(self) -> None:
        self.times += 1

    async def until(self, times: int, seconds: float = 5.0) -> None:
        deadline = time.monotonic() + seconds
        while self.times < times:
            assert time.monotonic() < deadline, f"told {self.times} times"
            await asyncio.sleep(0.005)


class Notices:
    def __init__(self) -> None:
        self.events: list[Event] = []
        self.notices = DirectoryNotices(ManualClock(), self.events.append, poll_seconds=0.05)

    def watch(self, directory: Path, changed: Callable[[], None]) -> Callable[[], None]:
        descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
        try:
            return self.notices.watch(descriptor, changed)
        finally:
            os.close(descriptor)


@pytest.fixture
async def notices() -> AsyncIterator[Notices]:
    made = Notices()
    yield made
    made.notices.close()


@pytest.fixture(params=["inotify", "polled"])
async def either(
    request: pytest.FixtureRequest, notices: Notices, monkeypatch: pytest.MonkeyPatch
) -> Notices:
    """With inotify, and with none to be had."""
    if request.param == "polled":
        monkeypatch.setattr(Inotify, "add", _no_watch_left)
    return notices


def _no_watch_left(self: Inotify, directory: int) -> int:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


async def test_each_kind_of_change_is_told(either: Notices, tmp_path: Path) -> None:
    told, elsewhere = Told(), tmp_path / "elsewhere"
    watched = tmp_path / "cur"
    watched.mkdir()
    either.watch(watched, told)
    await asyncio.sleep(0.3)
    before = told.times  # a directory that was made just now may be looked at twice
    steps: list[Callable[[], object]] = [
        lambda: (watched / "1:2,").touch(),
        lambda: (watched / "1:2,").rename(watched / "1:2,S"),
        lambda: (watched / "1:2,S").rename(elsewhere),
        lambda: os.link(elsewhere, watched / "2:2,"),
        lambda: (watched / "2:2,").unlink(),
    ]
    for step in steps:
        step()
        await told.until(before + 1)
        await asyncio.sleep(0.3)
        before = told.times


async def test_nothing_is_told_of_what_is_only_read_or_written(notices: Notices, tmp_path: Path) -> None:
    (tmp_path / "1").write_text("x")
    told = Told()
    notices.watch(tmp_path, told)
    (tmp_path / "1").read_text()
    (tmp_path / "1").write_text("y")
    os.utime(tmp_path / "1")
    os.listdir(tmp_path)
    await asyncio.sleep(0.15)
    assert told.times == 0


async def test_changes_of_a_moment_are_told_once(notices: Notices, tmp_path: Path) -> None:
    told = Told()
    notices.watch(tmp_path, told)
    for number in range(500):
        (tmp_path / str(number)).touch()
    await told.until(1)
    await asyncio.sleep(0.15)
    assert told.times <= 2


async def test_everybody_who_watches_is_told_until_he_ends_it(either: Notices, tmp_path: Path) -> None:
    one, two = Told(), Told()
    end_one = either.watch(tmp_path, one)
    end_two = either.watch(tmp_path, two)
    (tmp_path / "1").touch()
    await one.until(1)
    await two.until(1)
    end_one()
    end_one()
    await asyncio.sleep(0.2)
    seen = one.times, two.times
    (tmp_path / "2").touch()
    await two.until(seen[1] + 1)
    assert one.times == seen[0]
    end_two()
    again = Told()
    either.watch(tmp_path, again)
    (tmp_path / "3").touch()
    await again.until(1)


async def test_who_ends_it_within_a_notice_hears_no_more(notices: Notices, tmp_path: Path) -> None:
    ends: list[Callable[[], None]] = []
    told = Told()

    def end_all() -> None:
        told()
        for end in ends:
            end()

    ends += [notices.watch(tmp_path, end_all), notices.watch(tmp_path, end_all)]
    (tmp_path / "1").touch()
    await told.until(1)
    await asyncio.sleep(0.1)
    assert told.times == 1


async def test_the_descriptor_is_needed_for_the_call_alone(either: Notices, tmp_path: Path) -> None:
    watched, told = tmp_path / "cur", Told()
    watched.mkdir()
    either.watch(watched, told)  # has closed it
    watched.rename(tmp_path / "moved")
    (tmp_path / "cur").mkdir()
    (tmp_path / "moved" / "1").touch()
    await told.until(1)


async def test_a_removed_directory_is_told_and_forgotten(notices: Notices, tmp_path: Path) -> None:
    watched, told = tmp_path / "cur", Told()
    watched.mkdir()
    end = notices.watch(watched, told)
    watched.rmdir()
    await told.until(1)
    assert not notices.notices._watches
    end()


async def test_what_the_kernel_lost_is_told_to_all(
    notices: Notices, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    one, two = Told(), Told()
    notices.watch(tmp_path / "a", one)
    notices.watch(tmp_path / "b", two)
    read = Inotify.read
    monkeypatch.setattr(Inotify, "read", lambda self: (*read(self)[:2], True))
    (tmp_path / "a" / "1").touch()
    await one.until(1)
    await two.until(1)


async def test_a_lost_event_is_recognised(tmp_path: Path) -> None:
    most = int(Path("/proc/sys/fs/inotify/max_queued_events").read_text())
    if most > 20000:
        pytest.skip(f"the kernel would keep {most} events")
    inotify = Inotify()
    descriptor = os.open(tmp_path, os.O_RDONLY)
    try:
        watch = inotify.add(descriptor)
        for _ in range(most // 2 + 10):
            (tmp_path / "1").touch()
            (tmp_path / "1").unlink()
        assert inotify.read() == ({watch}, set(), True)
        assert inotify.read() == (set(), set(), False)
    finally:
        os.close(descriptor)
        inotify.close()


async def test_without_watches_one_event_says_so(notices: Notices, tmp_path: Path) -> None:
    def no_instance(self: Inotify) -> None:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(change_notices.Inotify, "__init__", no_instance)
        told = Told()
        ends = [notices.watch(tmp_path, told), notices.watch(tmp_path, Told())]
        (tmp_path / "1").touch()
        await told.until(1)
    (event,) = notices.events
    assert event.name == "mailbox.notices.polled"
    assert event.fields == {"detail": "Too many open files"}
    descriptors = len(os.listdir("/proc/self/fd"))
    for end in ends:
        end()
    assert len(os.listdir("/proc/self/fd")) == descriptors - 2
    again = Told()
    notices.watch(tmp_path, again)
    assert len(notices.notices._watches) == 1, "there are watches again, and it is not taken"


async def test_the_end_leaves_no_descriptor(tmp_path: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    made, told = Notices(), Told()
    made.watch(tmp_path, told)
    (tmp_path / "1").touch()
    await asyncio.sleep(0.01)
    made.notices.close()
    await asyncio.sleep(0.1)
    assert told.times == 0
    assert len(os.listdir("/proc/self/fd")) == before
