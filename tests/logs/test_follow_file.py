"""Following a file through everything that happens to log files."""

import bz2
import gzip
import lzma
import os
import random
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from followed_log import NOW, Log
from popgate.integrations.logs import follow_file
from popgate.integrations.logs.follow_file import LONGEST_LINE, STILL_SECONDS
from popgate.integrations.logs.follow_mark import Mark


def test_lines_come_once_and_in_order(log: Log) -> None:
    log.write(3)
    log.start()
    assert log.look() == []
    for lines in (1, 2, 0, 5):
        log.write(lines)
        assert log.look() == log.written[-lines:] if lines else not log.look()
    assert log.read == log.written[3:]


def test_the_beginning_on_demand(log: Log) -> None:
    log.write(3)
    log.start(start="beginning")
    log.look()
    assert log.read == log.written
    assert log.sinces[0] is None


def test_of_a_huge_log_only_the_end_is_read(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(follow_file, "CAUGHT_UP_OCTETS", 500)
    log.write(50)
    log.start(start="beginning")
    log.look()
    assert 0 < sum(map(len, log.read)) <= 500 + 140
    assert log.read == log.written[-len(log.read) :]


def test_half_a_line_waits_for_its_other_half(log: Log) -> None:
    log.start()
    log.look()
    log.raw(b"Nov 24 11:00:00 mail pop3d: rip=203.0.113.1")
    assert log.look() == []
    assert log.look() == []
    log.raw(b"23\n")
    assert log.look() == [b"Nov 24 11:00:00 mail pop3d: rip=203.0.113.123\n"]


def test_half_a_line_at_the_start_is_no_line(log: Log) -> None:
    log.raw(b"Nov 24 11:00:00 mail pop3d: user=<")
    log.start()
    log.look()
    log.raw(b"Nov 24 11:00:00 mail pop3d: an attempt>\n")
    log.write()
    whole = b"Nov 24 11:00:00 mail pop3d: user=<Nov 24 11:00:00 mail pop3d: an attempt>\n"
    assert log.look() == [whole, log.written[-1]]


def test_half_a_line_before_a_rotation_is_no_line(log: Log) -> None:
    log.start()
    log.look()
    log.write()
    log.raw(b"rip=203.0.113.1")
    log.look()
    log.rename()
    log.open()
    log.write(2)
    for _ in range(20):
        log.look(STILL_SECONDS / 5)
    assert log.read == log.written


@pytest.mark.parametrize("restarts", [False, True])
@pytest.mark.parametrize("octets", [LONGEST_LINE + 1, LONGEST_LINE * 40])
def test_what_a_long_line_ends_with_is_no_line(log: Log, octets: int, restarts: bool) -> None:
    log.write()
    log.start(start="beginning")
    log.look()
    log.raw(b"x" * octets)
    log.look()
    if restarts:
        log.stop()
        log.start()
    log.raw(b"Nov 24 11:00:00 mail pop3d: an attempt\n")
    log.write()
    log.look()
    assert log.read == log.written


def test_starting_within_a_long_line(log: Log) -> None:
    log.raw(b"x" * LONGEST_LINE * 3)
    log.start()
    log.look()
    log.raw(b"Nov 24 11:00:00 mail pop3d: an attempt\n")
    log.write()
    log.look()
    assert log.read == log.written


# The rotation matrix: each kind of rotation at each moment.


def renamed_at_once(log: Log) -> None:
    log.rename()
    log.open()


def renamed_with_a_writer_that_stays(log: Log) -> None:
    """The signal to open it anew comes later."""
    log.rename()
    log.write(3)
    log.open()


def renamed_and_made_late(log: Log) -> None:
    log.rename()
    assert log.writer is not None
    os.close(log.writer)
    log.writer = None
    if log.follower is not None:
        for _ in range(5):
            log.look(STILL_SECONDS)
    log.open()


def renamed_and_packed(packer: Callable[[bytes], bytes], suffix: str) -> Callable[[Log], None]:
    def rotate(log: Log) -> None:
        there = log.rename()
        log.open()
        packed = there.with_name(there.name + suffix)
        packed.write_bytes(packer(there.read_bytes()))
        packed.chmod(0o640)
        state = there.stat()
        os.utime(packed, ns=(state.st_atime_ns, state.st_mtime_ns))
        there.unlink()

    return rotate


def renamed_with_a_date(log: Log) -> None:
    log.rename("mail.log-20261124")
    log.open()


def renamed_with_the_date_inside(log: Log) -> None:
    log.rename("mail-20261124.log")
    log.open()


def renamed_to_a_strange_name(log: Log) -> None:
    log.rename("@4000000067431c2b0a1b2c3d.s")
    log.open()


def copied_and_truncated(log: Log) -> None:
    log.copytruncate()


def copied_and_truncated_and_soon_as_long(log: Log) -> None:
    octets = log.path.stat().st_size
    log.copytruncate()
    while log.path.stat().st_size <= octets:
        log.write()


def renamed_twice(log: Log) -> None:
    log.rename("mail.log.2")
    log.open()
    log.write(4)
    times = os.stat(log.path)
    os.utime(log.path, ns=(times.st_atime_ns, times.st_mtime_ns + 1_000_000))
    log.rename("mail.log.1")
    log.open()


ROTATIONS = {
    "renamed": renamed_at_once,
    "writer stays": renamed_with_a_writer_that_stays,
    "made late": renamed_and_made_late,
    "gzip": renamed_and_packed(gzip.compress, ".gz"),
    "bzip2": renamed_and_packed(bz2.compress, ".bz2"),
    "xz": renamed_and_packed(lzma.compress, ".xz"),
    "dated": renamed_with_a_date,
    "dated inside": renamed_with_the_date_inside,
    "strange": renamed_to_a_strange_name,
    "copied": copied_and_truncated,
    "copied and grown": copied_and_truncated_and_soon_as_long,
    "twice": renamed_twice,
}


def following(log: Log, rotate: Callable[[Log], None]) -> None:
    rotate(log)


def with_lines_not_read(log: Log, rotate: Callable[[Log], None]) -> None:
    log.write(7)
    rotate(log)


def with_half_a_line(log: Log, rotate: Callable[[Log], None]) -> None:
    log.write()
    line = log.line()
    log.raw(line[:20])
    log.look()
    log.raw(line[20:])
    rotate(log)


def while_it_does_not_run(log: Log, rotate: Callable[[Log], None]) -> None:
    log.stop()
    log.write(5)
    rotate(log)
    log.write(5)
    log.start()


def while_it_does_not_run_and_nothing_new(log: Log, rotate: Callable[[Log], None]) -> None:
    log.stop()
    rotate(log)
    log.start()


def just_before_a_restart(log: Log, rotate: Callable[[Log], None]) -> None:
    log.write(2)
    rotate(log)
    log.write(2)
    log.look()
    log.stop()
    log.write(2)
    log.start()


MOMENTS = [
    following,
    with_lines_not_read,
    with_half_a_line,
    while_it_does_not_run,
    while_it_does_not_run_and_nothing_new,
    just_before_a_restart,
]


@pytest.mark.parametrize("moment", MOMENTS, ids=[moment.__name__ for moment in MOMENTS])
@pytest.mark.parametrize("kind", ROTATIONS)
def test_rotation(log: Log, kind: str, moment: Callable[[Log, Callable[[Log], None]], None]) -> None:
    log.write(3)
    log.start(start="beginning")
    log.look()
    log.write(20)
    log.look()
    moment(log, ROTATIONS[kind])
    log.write(4)
    log.look()
    log.write(1)
    log.look()
    assert log.read == log.written
    assert "lost" not in log.told()
    assert log.follower is not None and log.follower.is_complete


def test_a_writer_that_was_not_told_of_the_rotation_is_read_on(log: Log) -> None:
    log.write(3)
    log.start(start="beginning")
    log.look()
    log.rename()
    log.path.touch(mode=0o640)
    log.look()
    descriptors = len(os.listdir("/proc/self/fd"))
    for _ in range(10):
        log.write()
        log.look(STILL_SECONDS)
    assert log.read == log.written
    log.open()
    log.write()
    for _ in range(3):
        log.look(STILL_SECONDS * 10)
    assert log.read == log.written
    assert len(os.listdir("/proc/self/fd")) == descriptors - 1  # it is given up when it is still


def test_what_a_long_line_in_a_rotated_file_ends_with_is_no_line(log: Log) -> None:
    log.write(3)
    log.start(start="beginning")
    log.look()
    log.stop()
    log.write(2)
    log.raw(b"x" * LONGEST_LINE * 9 + b"\n" + b"y" * LONGEST_LINE * 9)
    log.raw(b"Nov 24 11:00:00 mail pop3d: an attempt\n")
    log.write(2)
    log.raw(b"Nov 24 11:00:00 mail pop3d: half a li")
    renamed_and_packed(gzip.compress, ".gz")(log)
    log.write(2)
    log.start()
    log.look()
    assert log.read == log.written


def test_a_mark_fits_what_was_read_and_nothing_else() -> None:
    octets = bytes(range(256)) * 8

    def reader(of: bytes) -> Callable[[int, int], bytes]:
        return lambda offset, count: of[offset : offset + count]

    mark = Mark.of(1, 2, 1000, octets[:600], octets[700:1000], is_within=True, modified_ns=7)
    assert mark == Mark.from_json(mark.to_json())
    assert mark.fits(reader(octets)) and mark.fits(reader(octets[:1000]))
    for place in (0, 511, 744, 999):
        assert not mark.fits(reader(octets[:place] + b"?" + octets[place + 1 :])), place
    assert mark.fits(reader(octets[:600] + b"?" + octets[601:]))  # it is not all of it
    assert not mark.fits(reader(octets[:999])) and not mark.fits(reader(b""))
    assert not Mark.of(1, 2, 0, b"", b"", is_within=False, modified_ns=0).fits(reader(octets))


@pytest.mark.parametrize(
    "document",
    [None, 7, [], {}, {"device": 1}, {**Mark(1, 2, 3, "a", "b").to_json(), "offset": -1}]
    + [
        {**Mark(1, 2, 3, "a", "b").to_json(), name: []}
        for name in ("device", "inode", "offset", "head", "tail")
    ],
)
def test_what_is_no_mark(document: object) -> None:
    assert Mark.from_json(document) is None


def test_a_writer_without_append_leaves_a_hole(log: Log) -> None:
    log.open(flags=0)
    log.start(start="beginning")
    log.write(200)
    log.look()
    for _ in range(3):
        os.truncate(log.path, 0)
        log.look()
        log.write(2)
        log.look()
    assert log.path.read_bytes().startswith(b"\0" * 4096)
    assert log.read == log.written


def test_a_hole_of_a_terabyte_costs_nothing(log: Log) -> None:
    log.open(flags=0)
    assert log.writer is not None
    log.write()
    log.start(start="beginning")
    log.look()
    os.truncate(log.path, 0)
    os.lseek(log.writer, 1 << 40, os.SEEK_SET)
    log.write(3)
    log.look()
    assert log.read == log.written


def test_the_same_number_is_not_the_same_file(log: Log) -> None:
    log.write(3)
    log.start(start="beginning")
    log.look()
    log.stop()
    (mark,) = log.marks
    assert mark is not None
    log.path.unlink()
    log.writer = None
    log.write(9)
    state = log.path.stat()
    log.marks = [Mark(state.st_dev, state.st_ino, mark.offset, mark.head, mark.tail)]
    log.start()
    log.look()
    assert log.read == log.written
    assert log.told() == ["lost"]
    assert log.follower is not None and not log.follower.is_complete


def test_a_log_that_is_made_later_is_read_from_its_beginning(log: Log) -> None:
    log.start()
    for _ in range(10):
        assert log.look(100) == []
    log.write(3)
    log.look()
    assert log.read == log.written
    assert log.told() == ["missing", "found"]
    assert log.sinces[0] is not None and NOW < log.sinces[0] < NOW + log.seconds


def test_a_log_that_comes_back_goes_on(log: Log) -> None:
    log.write(3)
    log.start(start="beginning")
    log.look()
    away = log.rename("elsewhere")
    log.look(10 * STILL_SECONDS)
    log.look(10 * STILL_SECONDS)
    os.rename(away, log.path)
    log.write(2)
    log.look()
    assert log.read == log.written


def test_a_file_that_was_removed_is_given_up_after_a_while(log: Log) -> None:
    log.write(3)
    log.start(start="beginning")
    log.look()
    log.path.unlink()
    before = len(os.listdir("/proc/self/fd"))
    log.write()
    for _ in range(40):
        log.look(STILL_SECONDS)
    assert log.read == log.written
    assert len(os.listdir("/proc/self/fd")) == before - 1


def test_descriptors_do_not_grow_with_rotations(log: Log) -> None:
    log.write()
    log.start()
    log.look()
    before = len(os.listdir("/proc/self/fd"))
    for number in range(30):
        log.rename(f"mail.log.{number}")
        log.open()
        log.write()
        log.look()
    assert len(os.listdir("/proc/self/fd")) <= before + follow_file.OLD_AT_MOST
    log.stop()
    assert len(os.listdir("/proc/self/fd")) == before - 1


def test_a_symbolic_link_is_followed_to_where_it_points_now(log: Log) -> None:
    directory = log.path.parent
    real = directory / "mail-20261124.log"
    real.touch()
    log.path.symlink_to(real.name)
    log.start()
    log.look()
    log.write(2)
    log.look()
    newer = directory / "mail-20261125.log"
    newer.touch()
    log.path.unlink()
    log.path.symlink_to(newer)
    log.write(2)
    log.open()
    log.write(2)
    log.look()
    assert log.read == log.written
    log.stop()
    log.write()
    newest = directory / "mail-20261126.log"
    newest.touch()
    log.path.unlink()
    log.path.symlink_to(newest)
    log.open()
    log.write()
    log.start()
    log.look()
    assert log.read == log.written


def test_since_is_when_nothing_more_was_there(log: Log) -> None:
    log.write()
    log.start()
    log.look()
    looked_at = NOW + log.seconds
    log.sinces.clear()
    log.write()
    log.look(50)
    assert log.sinces[0] == looked_at


def test_a_fault_of_the_disk_is_told_once_and_loses_nothing(
    log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    log.write(2)
    log.start(start="beginning")
    log.look()

    def broken(*_: object) -> bytes:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(os, "pread", broken)
        log.write(2)
        for _ in range(3):
            assert log.look() == []
    log.look()
    assert log.read == log.written
    assert log.told() == ["unreadable", "found"]


def test_a_damaged_packed_file_gives_what_can_be_read(log: Log) -> None:
    log.write(2000)
    log.start(start="beginning")
    log.look()
    log.stop()
    log.write(3000)
    renamed_and_packed(gzip.compress, ".gz")(log)
    packed = log.path.with_name("mail.log.1.gz")
    packed.write_bytes(packed.read_bytes()[:-2000])
    log.write()
    log.start()
    log.look()
    assert len(log.read) > 2001 and set(log.read) <= set(log.written)
    assert log.read[-1] == log.written[-1]


# A writer that cuts its lines anywhere, and everything in any order.

_STEPS = st.lists(
    st.sampled_from(["part", "line", "lines", "look", "rename", "truncate", "restart", "reopen"]), max_size=60
)


@settings(max_examples=150, deadline=None)
@given(_STEPS, st.integers(0, 2**32))
def test_whatever_happens_lines_are_whole(
    tmp_path_factory: pytest.TempPathFactory, steps: list[str], seed: int
) -> None:
    """No line is ever read that was not written, and none comes twice;
    while nothing is truncated with lines unread, none is lost."""
    rng = random.Random(seed)
    log = Log(tmp_path_factory.mktemp("any") / "log")
    log.open()
    os.utime(log.path, ns=(10**8, 10**8))
    log.start()
    log.look()
    waiting = b""
    rotated = 0
    was_truncated = False

    def finish() -> None:
        nonlocal waiting
        log.raw(waiting)
        waiting = b""

    for step in steps:
        if step == "part":
            waiting = waiting or log.line()
            cut = rng.randint(1, len(waiting))
            log.raw(waiting[:cut])
            waiting = waiting[cut:]
        elif step in ("line", "lines"):
            finish()
            log.write(1 if step == "line" else rng.randint(2, 30))
        elif step == "look":
            log.look()
        elif step == "restart":
            log.stop()
            log.start()
        elif step == "rename":
            finish()
            rotated += 1
            log.rename(f"mail.log-{rotated:04d}")
            os.utime(f"{log.path}-{rotated:04d}", ns=(rotated * 10**9 + 1, rotated * 10**9 + 1))
            log.open()
        elif step == "truncate":
            finish()
            was_truncated = True
            os.truncate(log.path, 0)
        elif step == "reopen":
            finish()
            log.open()
        if rotated or step in ("part", "line", "lines"):
            os.utime(log.path, ns=((rotated + 1) * 10**9, (rotated + 1) * 10**9))
    finish()
    log.look()
    log.stop()
    assert set(log.read) <= set(log.written)
    assert len(set(log.read)) == len(log.read)
    if not was_truncated:
        assert log.read == log.written
    if log.writer is not None:
        os.close(log.writer)
