"""The memory of received logins: one holder at a time, kept over processes, bounded."""

import errno
import os
from pathlib import Path

import pytest

from popgate.protocols import relay_ctrl_udp as wire
from popgate.protocols.relay_ctrl_udp import DONE, NOT_DONE, PacketError, ReceivedLogins
from popgate.servers import login_file
from popgate.servers.login_file import LoginFile, LoginFileError

NOW = 1_700_000_000.0
BOOT = b"00000000-0000-4000-8000-000000000001"


def mark(number: int) -> bytes:
    return number.to_bytes(16, "big")


def taken(path: Path, now: float = NOW, boot: bytes = BOOT) -> tuple[LoginFile, ReceivedLogins, float]:
    file = LoginFile(str(path), boot)
    got = file.take(now)
    assert got is not None
    return file, *got


def test_what_was_received_is_known_to_the_next_holder(tmp_path: Path) -> None:
    path = tmp_path / "logins"
    file, logins, since = taken(path)
    assert since == NOW and path.stat().st_mode & 0o777 == 0o600
    for number, state in ((1, DONE), (2, NOT_DONE)):
        logins.add(mark(number), NOW, NOW)
        logins.answered(mark(number), state)
    logins.add(mark(3), NOW, NOW)  # the process dies before it is answered
    assert LoginFile(str(path), BOOT).take(NOW) is None, "two would receive"
    file.give_up()
    _, logins, since = taken(path, NOW + 1)
    assert since == 0.0
    assert [logins.state(mark(number)) for number in (1, 2, 3)] == [DONE, NOT_DONE, None]


def test_whose_time_is_over_is_forgotten_and_its_slot_used_again(tmp_path: Path) -> None:
    path = tmp_path / "logins"
    for hour in range(3):
        file, logins, _ = taken(path, NOW + 3600 * hour)
        for number in range(10):
            assert logins.state(mark(number)) is None
            logins.add(mark(number), NOW + 3600 * hour, NOW + 3600 * hour)
            logins.answered(mark(number), DONE)
        file.give_up()
    assert path.stat().st_size == 64 + 10 * 32
    _, logins, _ = taken(path, NOW + 7260)
    assert logins.state(mark(1)) == DONE, "to the last moment"


def test_another_start_of_the_machine_or_another_file_counts_from_now_on(tmp_path: Path) -> None:
    path = tmp_path / "logins"
    file, logins, _ = taken(path)
    logins.add(mark(1), NOW, NOW)
    logins.answered(mark(1), DONE)
    file.give_up()
    file, logins, since = taken(path, NOW + 1, BOOT[:-1] + b"2")
    assert since == NOW + 1 and logins.state(mark(1)) is None
    file.give_up()
    for junk in (b"x", b"x" * 100, b"popgate-logins-1"):
        path.write_bytes(junk)
        file, logins, since = taken(path, NOW + 2)
        assert since == NOW + 2 and path.stat().st_size == 64
        file.give_up()
    path.write_bytes(path.read_bytes() + b"\xff" * 33)  # a slot of nonsense, and a piece of one
    file, logins, since = taken(path, NOW + 3)
    assert since == 0.0 and logins.state(b"\xff" * 16) is not None
    file.give_up()


def test_a_file_that_was_removed_or_is_none(tmp_path: Path) -> None:
    path = tmp_path / "logins"
    file, _, _ = taken(path)
    assert file.is_held()
    path.unlink()
    assert not file.is_held()
    other, _, _ = taken(path)
    assert other.is_held() and not file.is_held()
    other.give_up()
    path.unlink()
    path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(LoginFileError):
        LoginFile(str(path), BOOT).take(NOW)
    path.unlink()
    path.mkdir()
    with pytest.raises(LoginFileError):
        LoginFile(str(path), BOOT).take(NOW)
    file.give_up()


def test_what_cannot_be_written_does_not_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file, logins, _ = taken(tmp_path / "logins")

    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(login_file.os, "pwrite", full)
    with pytest.raises(PacketError) as refusal:
        logins.add(mark(1), NOW, NOW)
    assert refusal.value.reason == "memory" and logins.state(mark(1)) is None
    monkeypatch.setattr(login_file.os, "pwrite", lambda *_: 5)
    with pytest.raises(PacketError):
        logins.add(mark(1), NOW, NOW)
    monkeypatch.undo()
    logins.add(mark(1), NOW, NOW)
    file.give_up()
    assert os.stat(tmp_path / "logins").st_size == 64 + 32


def test_it_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "REMEMBERED_AT_MOST", 20)
    file, logins, _ = taken(tmp_path / "logins")
    for number in range(20):
        logins.add(mark(number), NOW, NOW)
    with pytest.raises(PacketError) as refusal:
        logins.add(mark(99), NOW + 2, NOW + 2)
    assert refusal.value.reason == "too-many"
    for number in range(20, 40):
        logins.add(mark(number), NOW + 61, NOW + 61)
    file.give_up()
    assert os.stat(tmp_path / "logins").st_size == 64 + 20 * 32
