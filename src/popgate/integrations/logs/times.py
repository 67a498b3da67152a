"""From what a log line says of its time to Unix time.

The traditional form of syslog has neither year nor zone, and once a year an hour comes
twice. So whoever reads lines says which zone their writer lives in, up to which moment
they can have been written, and near which moment this one is: now for a line just
written, the time of the line before for an old file. No clock here.
"""

from collections.abc import Iterator
from datetime import UTC, datetime, tzinfo

from popgate.values.value import value

MONTHS = {name: number for number, name in enumerate(
    ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"), 1)}  # fmt: skip
AHEAD_SECONDS = 86400.0
"""How far ahead of `latest` a line may be before it is taken to be of the year before: clocks differ."""


@value
class Reference:
    """What a line does not say of its time. `zone` is that of times without one; `latest` is when the
    line was written at the latest; of two moments with one wall time the one nearer to `near` counts."""

    zone: tzinfo
    latest: float
    near: float


def without_year(month: int, day: int, clock: tuple[int, int, int], reference: Reference) -> float | None:
    """The last such moment that is not after `reference.latest`; None where there is no such day."""
    now = datetime.fromtimestamp(reference.latest, reference.zone)
    # eight years back there is a 29th of February, whatever the year
    for year in range(now.year + 1, now.year - 9, -1):
        at = on_wall(year, month, day, clock, reference)
        if at is not None and at <= reference.latest + AHEAD_SECONDS:
            return at
    return None


def on_wall(
    year: int, month: int, day: int, clock: tuple[int, int, int], reference: Reference
) -> float | None:
    """A wall time in the reference's zone; None where the calendar has none such."""
    hour, minute, second = clock
    try:
        wall = datetime(year, month, day, hour, minute, min(second, 59))  # 60 is a leap second
    except ValueError:
        return None
    return min(_moments(wall, reference.zone), key=lambda at: abs(at - reference.near))


def written_out(text: str, reference: Reference) -> float | None:
    """A time as RFC 3339 writes it, also with a blank for the T, and without a zone."""
    try:
        moment = datetime.fromisoformat(text.replace(",", "."))
    except ValueError:
        return None
    if moment.tzinfo is None:
        return min(_moments(moment, reference.zone), key=lambda at: abs(at - reference.near))
    return moment.astimezone(UTC).timestamp()


def _moments(wall: datetime, zone: tzinfo) -> Iterator[float]:
    for fold in (0, 1):
        yield wall.replace(tzinfo=zone, fold=fold).timestamp()
