"""From what a log line says of its time to Unix time.

The traditional form of syslog has neither year nor zone, and once a year an hour comes
twice. So whoever reads lines says which zone their writer lives in, up to which moment
they can have been written, and near which moment this one is: now for a line just
written, the time of the line before for an old file. No clock here.
"""

from collections.abc import Iterator
from datetime import datetime, tzinfo
from functools import lru_cache

from popgate.values.value import value

MONTHS = {name: number for number, name in enumerate(
    ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"), 1)}  # fmt: skip
AHEAD_SECONDS = 86400.0
"""How far ahead of `latest` a line may be before it is taken to be of the year before: clocks differ."""
_DISORDER_SECONDS = 600.0
"""How far the times of neighbouring lines may run backwards."""


@value
class Reference:
    """What a line does not say of its time. `zone` is that of times without one; `latest` is when the
    line was written at the latest; `near` is the time of the line before, which decides where a wall time
    comes twice."""

    zone: tzinfo
    latest: float
    near: float


def without_year(month: int, day: int, clock: tuple[int, int, int], reference: Reference) -> float | None:
    """The last such moment that is not after `reference.latest`; None where there is no such day."""
    this_year = _year(reference.latest // 3600, reference.zone)
    # eight years back there is a 29th of February, whatever the year
    for year in range(this_year + 1, this_year - 9, -1):
        at = on_wall(year, month, day, clock, reference)
        if at is not None and at <= reference.latest + AHEAD_SECONDS:
            return at
    return None


def on_wall(
    year: int, month: int, day: int, clock: tuple[int, int, int], reference: Reference
) -> float | None:
    """A wall time in the reference's zone; None where the calendar has none such."""
    hour, minute, second = clock
    moments = _minute(year, month, day, hour, minute, reference.zone)
    if not moments or second > 60:
        return None
    return _likely(moments, reference) + min(second, 59)  # 60 is a leap second


def written_out(text: str, reference: Reference) -> float | None:
    """A time as RFC 3339 writes it, also with a blank for the T, and without a zone."""
    try:
        moment = datetime.fromisoformat(text.replace(",", "."))
    except ValueError:
        return None
    if moment.tzinfo is None:
        return _likely(tuple(_moments(moment, reference.zone)), reference)
    try:
        return moment.timestamp()
    except OverflowError:
        return None


def _likely(moments: tuple[float, ...], reference: Reference) -> float:
    """Of the moments of one wall time, that which the lines before and the time of reading leave likely."""
    written = [at for at in moments if at <= reference.latest + _DISORDER_SECONDS] or list(moments)
    return next((at for at in written if at >= reference.near - _DISORDER_SECONDS), written[-1])


@lru_cache(maxsize=64)
def _year(hours: float, zone: tzinfo) -> int:
    return datetime.fromtimestamp(hours * 3600, zone).year


@lru_cache(maxsize=1024)
def _minute(year: int, month: int, day: int, hour: int, minute: int, zone: tzinfo) -> tuple[float, ...]:
    """Unix time of that minute: two where the hour comes twice, none where there is no such day.
    Lines come by the thousand a minute, and the calendar is slow."""
    try:
        wall = datetime(year, month, day, hour, minute)
    except ValueError:
        return ()
    return tuple(dict.fromkeys(_moments(wall, zone)))


def _moments(wall: datetime, zone: tzinfo) -> Iterator[float]:
    for fold in (0, 1):
        yield wall.replace(tzinfo=zone, fold=fold).timestamp()
