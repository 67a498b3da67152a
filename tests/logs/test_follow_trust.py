"""Who may write a log that is followed: lines that somebody else could have written never count."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from followed_log import ME, NOW, Log
from popgate.integrations.logs import follow_file
from popgate.integrations.logs.follow_file import FollowedFile
from popgate.integrations.logs.follow_trust import Writers


@pytest.mark.parametrize("mode", [0o646, 0o660, 0o666])
def test_a_log_that_others_write_does_not_count_until_they_cannot(log: Log, mode: int) -> None:
    if mode & 0o020:
        log.open()
        os.chown(log.path, -1, 54321)
    log.write()
    log.path.chmod(mode)
    log.start(start="beginning")
    log.look()
    log.write(2)
    log.look()
    log.path.chmod(0o640)
    log.look()
    assert log.read == []
    log.write()
    log.look()
    assert log.read == log.written[-1:]
    assert log.told() == ["untrusted", "found"]
    assert "chmod" in log.notes[0].detail


def test_what_was_written_before_it_could_be_trusted_never_counts(log: Log) -> None:
    """Also where the file was taken away and another one came."""
    log.write()
    log.path.chmod(0o666)
    log.start()
    log.look()
    log.path.unlink()
    log.look()
    log.open()
    log.write(3)
    log.look()
    log.write()
    log.look()
    assert log.read == log.written[-1:]


def test_a_mode_that_changes_while_it_is_followed(log: Log) -> None:
    log.start()
    log.look()
    log.write()
    log.look()
    log.path.chmod(0o666)
    log.write()
    log.look()
    assert log.read == log.written[:1]


def test_a_stranger_s_log_does_not_count(log: Log) -> None:
    log.write()
    os.chown(log.path, 12345, -1)
    log.start(start="beginning")
    log.look()
    assert log.told() == ["untrusted"] and "12345" in log.notes[0].detail
    owner = Writers(frozenset({0, 12345}), frozenset({0}))
    assert FollowedFile(str(log.path), owner, start="beginning").look(NOW, 0.0).lines


@pytest.mark.parametrize("mode", [0o777, 0o1777, 0o775])
def test_a_directory_in_which_others_make_files_does_not_count(log: Log, mode: int) -> None:
    os.chown(log.path.parent, -1, 54321)
    log.path.parent.chmod(mode)
    log.start()
    log.look()
    log.write()
    log.look()
    assert log.read == [] and log.told()[-1] == "untrusted"


def test_a_directory_that_others_can_write_from_now_on(log: Log) -> None:
    log.start()
    log.look()
    log.write()
    log.look()
    log.path.parent.chmod(0o777)
    log.look(20)
    log.look(20 * follow_file.RECHECK_SECONDS)
    log.write()
    log.look()
    assert log.read == log.written[:1]


def test_a_link_in_somebody_else_s_directory_is_not_followed(log: Log, tmp_path: Path) -> None:
    log.write()
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir(mode=0o755)
    link = elsewhere / "link.log"
    link.symlink_to(log.path)
    assert FollowedFile(str(link), ME, start="beginning").look(NOW, 0.0).lines
    os.chown(elsewhere, 12345, -1)
    look = FollowedFile(str(link), ME, start="beginning").look(NOW, 0.0)
    assert not look.lines and look.notes[0].kind == "untrusted"


def test_links_in_a_circle(log: Log) -> None:
    log.path.symlink_to("mail.log")
    log.start()
    log.look()
    assert log.told() == ["untrusted"]


@pytest.mark.parametrize("make", [os.mkdir, os.mkfifo], ids=["directory", "fifo"])
def test_what_is_no_file(log: Log, make: Callable[[Path], None]) -> None:
    make(log.path)
    log.start()
    log.look()
    assert log.told() == ["untrusted"]


def test_a_rotated_file_of_a_stranger_is_not_believed(log: Log) -> None:
    log.write(5)
    log.start(start="beginning")
    log.look()
    log.stop()
    log.write()
    there = log.copytruncate()
    os.chown(there, 12345, -1)
    log.start()
    log.look()
    assert log.read == log.written[:5] and log.told() == ["lost"]
