"""What the Recogniser remembers, and how much of it; log files as blocks of lines."""

import gzip
import io
from collections.abc import Sequence
from datetime import datetime
from zoneinfo import ZoneInfo

import pytest

from popgate.app.log_replay import LogReplay
from popgate.grants.grant import DEFAULT_TERMS
from popgate.grants.settings import GrantSettings
from popgate.integrations.logs import (
    LoginSeen,
    LogoutSeen,
    LogRecord,
    Origin,
    Pattern,
    Recogniser,
    Seen,
    pattern_of,
    recogniser,
    shipped,
)
from popgate.integrations.logs.log_files import BLOCK, LogFileError, blocks
from popgate.integrations.logs.times import Reference, without_year
from popgate.values.address import ClientAddress
from popgate.values.identity import Identity

UTC = ZoneInfo("UTC")
NOW = 1795521600.0
POPA3D = shipped()["popa3d"]


def record(text: str, *, at: float | None = NOW, pid: str = "7", program: str = "popa3d") -> LogRecord:
    return LogRecord(at, "mail", program, pid, text)


def reader(*patterns: Pattern) -> Recogniser:
    return Recogniser(patterns or [POPA3D], UTC, default_domain="example.org")


def first(pid: str, at: float = NOW) -> LogRecord:
    return record("Session from 192.0.2.9", pid=pid, at=at)


def second(pid: str, at: float = NOW) -> LogRecord:
    return record("Authentication passed for hal", pid=pid, at=at)


@pytest.mark.parametrize(("seconds", "logins"), [(0, 1), (300, 1), (301, 0), (-1, 0)])
def test_a_first_line_waits_five_minutes(seconds: float, logins: int) -> None:
    log = reader()
    log.feed_record(first("7"), NOW)
    assert len(log.feed_record(second("7", NOW + seconds), NOW)) == logins


def test_a_first_line_serves_once() -> None:
    log = reader()
    log.feed_record(first("7"), NOW)
    assert log.feed_record(second("7"), NOW)
    assert not log.feed_record(second("7"), NOW)


def test_the_oldest_first_lines_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recogniser, "PENDING_AT_MOST", 3)
    log = reader()
    for pid in range(5):
        log.feed_record(first(str(pid)), NOW)
    assert [bool(log.feed_record(second(str(pid)), NOW)) for pid in range(5)] == [
        False,
        False,
        True,
        True,
        True,
    ]


def test_the_oldest_open_sessions_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recogniser, "OPEN_AT_MOST", 2)
    log = reader()
    for pid in range(4):
        log.feed_record(first(str(pid)), NOW)
        log.feed_record(second(str(pid)), NOW)
    ends: list[Seen] = []
    for pid in range(4):
        ends += log.feed_record(record("0 (0) deleted, 0 (0) left", pid=str(pid)), NOW)
    assert [one.identity for one in ends] == [None, None, *[Identity("hal", "example.org")] * 2]


def test_a_record_without_a_time_is_of_now() -> None:
    log = reader()
    log.feed_record(record("Session from 192.0.2.9", at=None), NOW)
    (seen,) = log.feed_record(record("Authentication passed for hal", at=None), NOW + 1)
    assert seen.at == NOW + 1


def test_a_session_whose_process_number_comes_again() -> None:
    """The end of the one before was not seen; this end is of the one that is."""
    log = reader()
    for address in ("192.0.2.9", "192.0.2.10"):
        log.feed_record(record(f"Session from {address}"), NOW)
        log.feed_record(second("7"), NOW)
    (end,) = log.feed_record(record("0 (0) deleted, 0 (0) left"), NOW)
    assert isinstance(end, LogoutSeen)
    assert end.address == ClientAddress.parse("192.0.2.10")


@pytest.mark.parametrize(
    ("origin", "is_believed"),
    [
        (None, True),
        (Origin("popd.service", "popd", 0), True),
        (Origin("popd.service", "popd", 1000), False),
        (Origin("user@0.service", "popd", 0), False),
        (Origin("session-1.scope", "popd", 0), False),
        (Origin("", "", -1), False),
    ],
)
def test_a_pattern_without_units_believes_services_of_root(origin: Origin | None, is_believed: bool) -> None:
    pattern = pattern_of(
        {
            "name": "own",
            "programs": {"popd": "pop3"},
            "login": [r"^login (?P<user>[a-z]+) (?P<address>[0-9.]+)$"],
        }
    )
    line = LogRecord(NOW, "mail", "popd", "7", "login hal 192.0.2.9", origin)
    assert bool(reader(pattern).feed_record(line, NOW)) is is_believed


def test_live_lines_of_the_hour_that_comes_twice_read_a_little_later() -> None:
    """Written before the clock was put back, read after it: it is not in the future."""
    vienna = ZoneInfo("Europe/Vienna")
    now = datetime(2026, 10, 25, 2, 5, tzinfo=vienna, fold=1).timestamp()
    found = without_year(10, 25, (2, 50, 0), Reference(vienna, now, now))
    assert found == datetime(2026, 10, 25, 2, 50, tzinfo=vienna, fold=0).timestamp()


# Files.


def read(octets: bytes) -> list[bytes]:
    return list(blocks(io.BytesIO(octets)))


def test_blocks_hold_whole_lines_and_all_of_them() -> None:
    lines = [b"%d %s\n" % (number, b"x" * (number % 300)) for number in range(20_000)]
    found = read(b"".join(lines))
    assert len(found) > 1
    assert all(block.endswith(b"\n") for block in found)
    assert b"".join(found).splitlines(keepends=True) == lines


def test_a_line_without_its_end_is_not_given() -> None:
    assert read(b"one\ntwo") == [b"one\n"]
    assert read(b"two") == []
    assert read(b"") == []


@pytest.mark.parametrize("octets", [2 * BLOCK, 4 * BLOCK, 10_000_000])
@pytest.mark.parametrize("offset", [0, 1, BLOCK // 2])
def test_the_end_of_a_long_line_is_no_line(octets: int, offset: int) -> None:
    """Whoever makes a line long enough chooses where it is cut."""
    forged = (
        b"Nov 24 11:31:02 mail dovecot: pop3-login: Login: user=<a>, method=PLAIN, rip=192.0.2.9, lip=x\n"
    )
    octets -= (offset + 1 + octets) % BLOCK  # the forged text begins where something new is read
    found = read(b"y" * offset + b"\n" + b"x" * octets + forged + b"good\n")
    assert b"".join(found).endswith(b"good\n")
    assert not [line for block in found for line in block.splitlines() if line == forged.strip()]
    log = Recogniser([shipped()["dovecot"]], UTC)
    assert not [seen for block in found for seen in log.feed_block(block, NOW)]


def test_a_long_line_is_not_held() -> None:
    class Endless(io.RawIOBase):
        def __init__(self) -> None:
            self.left = 200 * BLOCK

        def readable(self) -> bool:
            return True

        def readinto(self, buffer: bytearray) -> int:  # type: ignore[override]
            count = min(len(buffer), self.left)
            buffer[:count] = b"x" * count
            self.left -= count
            return count

    import tracemalloc

    tracemalloc.start()
    try:
        assert list(blocks(Endless())) == []  # type: ignore[arg-type]
        assert tracemalloc.get_traced_memory()[1] < 8 * BLOCK
    finally:
        tracemalloc.stop()


def test_several_packed_parts_are_one_log() -> None:
    assert b"".join(read(gzip.compress(b"one\nt") + gzip.compress(b"wo\n"))) == b"one\ntwo\n"


def test_a_damaged_file_says_so() -> None:
    with pytest.raises(LogFileError):
        read(b"\x1f\x8b\x08\x00" + b"garbage" * 10)


# Replays.


def replayed(*seen: Seen) -> LogReplay:
    replay = LogReplay(GrantSettings(), lambda identity: DEFAULT_TERMS)
    for one in seen:
        replay.take(one)
    replay.finish()
    return replay


def login(at: float, *, address: str = "192.0.2.9", session: str = "") -> LoginSeen:
    return LoginSeen(
        at, Identity("hal", "example.org"), ClientAddress.parse(address), "p", "", "pop3", session, "own"
    )


def spans(replay: LogReplay) -> Sequence[tuple[float, float | None]]:
    return [
        (window.since - NOW, None if window.until is None else window.until - NOW)
        for window in replay.windows
    ]


def test_windows_of_logins() -> None:
    assert spans(replayed(login(NOW), login(NOW + 800), login(NOW + 1701))) == [(0, 1700), (1701, 2601)]
    assert spans(replayed(login(NOW))) == [(0, 900)]
    assert spans(replayed()) == []


def test_a_login_out_of_order_counts_from_its_own_time() -> None:
    replay = replayed(login(NOW + 800, address="192.0.2.10"), login(NOW + 500))
    assert spans(replay) == [(800, 1700), (500, 1400)]
    assert replayed(login(NOW + 5000, address="192.0.2.10"), login(NOW)).refused == {"late": 1}


def test_a_session_that_never_ends_counts_an_hour() -> None:
    ((since, until),) = spans(replayed(login(NOW, session="s"), login(NOW + 50000, address="192.0.2.10")))[:1]
    assert since == 0
    assert until == pytest.approx(3600 + 900, abs=300)
