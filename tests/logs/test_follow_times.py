"""When a login counts from: zones, summer time, the new year, clocks that differ, no time at all."""

import calendar
import os
import time
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from popgate.integrations.logs import LoginSeen, Recogniser, shipped
from popgate.integrations.logs.follow_file import FollowedFile
from popgate.integrations.logs.follow_source import LONG_AGO, FileSource
from popgate.integrations.logs.follow_trust import Writers
from popgate.integrations.logs.zones import zone_of

ME = Writers(frozenset({0, os.geteuid()}), frozenset({0, os.getegid()}))
TEXT = "dovecot: pop3-login: Login: user=<alice>, method=PLAIN, rip=2001:db8::9, lip=192.0.2.1, session=<s>\n"


def utc(text: str) -> float:
    return calendar.timegm(time.strptime(text, "%Y-%m-%d %H:%M:%S"))


class Reader:
    """A followed log; each line is read at a moment of its own."""

    def __init__(self, directory: Path, zone: str, began: float, **options: object) -> None:
        self.log = directory / "mail.log"
        self.log.touch(mode=0o640)
        self.began = began
        recogniser = Recogniser([shipped()["dovecot"]], ZoneInfo(zone), default_domain="example.org")
        file = FollowedFile(str(self.log), ME, **options)  # type: ignore[arg-type]
        self.source = FileSource(str(self.log), file, recogniser)
        self.source.look(began, 0.0)

    def read(self, line: str, now: float) -> float:
        """When the login in `line`, read at `now`, counts from."""
        with self.log.open("a") as file:
            file.write(line)
        (seen,) = self.source.look(now, now - self.began).seen
        assert isinstance(seen, LoginSeen)
        return seen.at


@pytest.mark.parametrize(
    ("zone", "stamp", "now", "at"),
    [
        # the traditional form says neither year nor zone
        ("UTC", "Nov 24 11:31:02 mail", "2026-11-24 11:31:03", "2026-11-24 11:31:02"),
        ("Europe/Vienna", "Nov 24 12:31:02 mail", "2026-11-24 11:31:03", "2026-11-24 11:31:02"),
        ("Europe/Vienna", "Jul  4 13:31:02 mail", "2026-07-04 11:31:03", "2026-07-04 11:31:02"),
        # New Year: the line is of last year, or of one that has not begun here
        ("UTC", "Dec 31 23:59:58 mail", "2027-01-01 00:00:02", "2026-12-31 23:59:58"),
        ("UTC", "Jan  1 00:00:01 mail", "2026-12-31 23:59:59", "2027-01-01 00:00:01"),
        ("America/New_York", "Dec 31 23:59:58 mail", "2027-01-01 05:00:01", "2027-01-01 04:59:58"),
        ("UTC", "Feb 29 12:00:00 mail", "2028-02-29 12:00:01", "2028-02-29 12:00:00"),
        # the hour that comes twice, on both sides
        ("Europe/Vienna", "Oct 25 02:30:00 mail", "2026-10-25 00:30:01", "2026-10-25 00:30:00"),
        ("Europe/Vienna", "Oct 25 02:30:00 mail", "2026-10-25 01:30:01", "2026-10-25 01:30:00"),
        # and the hour that is left out
        ("Europe/Vienna", "Mar 29 03:00:01 mail", "2026-03-29 01:00:02", "2026-03-29 01:00:01"),
        # times that say all
        ("UTC", "2026-11-24T11:31:02.250000+00:00 mail", "2026-11-24 11:31:03", "2026-11-24 11:31:02"),
        ("Europe/Vienna", "2026-11-24T06:31:02-05:00 mail", "2026-11-24 11:31:03", "2026-11-24 11:31:02"),
        # older lines keep their age
        ("UTC", "Nov 24 11:21:02 mail", "2026-11-24 11:31:03", "2026-11-24 11:21:02"),
        ("UTC", "Nov 25 11:31:02 mail", "2026-11-24 11:31:03", "now-1"),  # a day ahead
        ("UTC", "2099-11-24T11:31:02Z mail", "2026-11-24 11:31:03", "now-1"),
        # written in another zone than was thought: an hour old, or an hour ahead
        ("UTC", "Nov 24 10:31:02 mail", "2026-11-24 11:31:03", "2026-11-24 10:31:02"),
        ("UTC", "Nov 24 12:31:02 mail", "2026-11-24 11:31:03", "now-1"),
    ],
)
def test_a_line_just_written(tmp_path: Path, zone: str, stamp: str, now: str, at: str) -> None:
    """The file was looked at a second before."""
    read_at = utc(now)
    reader = Reader(tmp_path, zone, read_at - 1)
    expected = read_at - 1 if at == "now-1" else utc(at)
    assert reader.read(f"{stamp} {TEXT}", read_at) == pytest.approx(expected, abs=0.5)


def test_a_line_without_a_time_counts_from_the_last_look(tmp_path: Path) -> None:
    reader = Reader(tmp_path, "UTC", 1_800_000_000.0)
    reader.source.look(1_800_000_100.0, 100.0)
    assert (
        reader.read(f"<22>1 - mail dovecot - - - {TEXT.partition(' ')[2]}", 1_800_000_500.0)
        == 1_800_000_100.0
    )


@pytest.mark.parametrize("stamp", ["<22>1 - mail dovecot - - -", "2099-11-24T11:31:02Z mail dovecot:"])
def test_what_nobody_can_date_is_of_long_ago(tmp_path: Path, stamp: str) -> None:
    log = tmp_path / "mail.log"
    log.write_text(f"{stamp} {TEXT.partition(' ')[2]}")
    recogniser = Recogniser([shipped()["dovecot"]], ZoneInfo("UTC"), default_domain="example.org")
    file = FollowedFile(str(log), ME, start="beginning")
    (seen,) = FileSource(str(log), file, recogniser).look(1_800_000_000.0, 0.0).seen
    assert seen.at == LONG_AGO


def test_the_zone_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "Asia/Kolkata")
    assert str(zone_of("")) == "Asia/Kolkata"
    monkeypatch.setenv("TZ", ":Asia/Kolkata")
    assert str(zone_of("")) == "Asia/Kolkata"
    assert str(zone_of("Europe/Vienna")) == "Europe/Vienna"
    monkeypatch.delenv("TZ")
    assert zone_of("") is not None
    for name in ("Mars/Olympus", "../../etc/passwd", "/etc/passwd", "\0"):
        with pytest.raises(ValueError, match="no time zone"):
            zone_of(name)
