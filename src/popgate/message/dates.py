"""The Date field, in the forms that mail has had: RFC 5322, its obsolete forms, ctime, ISO 8601."""

import datetime
import re

from popgate.message.header import value_of

_MONTH_NAMES = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_MONTHS = {name: number for number, name in enumerate(_MONTH_NAMES, start=1)}
# RFC 5322 4.3: obs-zone, in minutes; letters and other names are of unknown meaning, so UTC
_ZONES = {
    "est": -300, "edt": -240, "cst": -360, "cdt": -300,
    "mst": -420, "mdt": -360, "pst": -480, "pdt": -420,
}  # fmt: skip
_TIME = r"(?P<hour>\d{1,2})[:.](?P<minute>\d{1,2})(?:[:.](?P<second>\d{1,2})(?:[.,]\d+)?)?"
_ZONE = r"(?P<zone>(?:GMT|UTC?)?[+-]\d{1,2}:?\d{2}|[A-Za-z]{1,5})?"
_FORMS = (
    # RFC 5322 3.3: [ day-name "," ] day month year hour ":" minute [ ":" second ] zone
    re.compile(
        r"(?:[A-Za-z]{2,9}\.?\s*,?\s*)?(?P<day>\d{1,2})[\s-]+(?P<month>[A-Za-z]{3})[A-Za-z]{0,6}\.?,?[\s-]+"
        rf"(?P<year>\d{{2,4}})(?:,?\s+{_TIME}\s*{_ZONE})?"
    ),
    # ctime, with a zone before or behind the year
    re.compile(
        rf"(?:[A-Za-z]{{3,9}}\.?,?\s+)?(?P<month>[A-Za-z]{{3}})[A-Za-z]{{0,6}}\.?\s+(?P<day>\d{{1,2}}),?\s+{_TIME}\s+"
        r"(?P<before>[A-Z]{2,5}\s+)?(?P<year>\d{4})\s*" + _ZONE
    ),
    re.compile(rf"(?P<year>\d{{4}})-(?P<month>\d{{2}})-(?P<day>\d{{2}})(?:[T\s]+{_TIME}\s*{_ZONE})?"),
)
_COMMENT = re.compile(r"\([^()]*+\)")
_LONGEST = 200
_EPOCH = 719163  # the ordinal of 1970-01-01


def sent_date(header: bytes) -> tuple[int, datetime.date] | None:
    """When the Date field says the message was sent: Unix seconds, and the day as written in its zone.
    None where there is no date that can be read."""
    value = value_of(header, "date")
    return parse_date(value) if value else None


def parse_date(value: str) -> tuple[int, datetime.date] | None:
    value = value[:_LONGEST]
    if "(" in value:
        value = _COMMENT.sub(" ", value)
    value = value.strip()
    for form in _FORMS:
        match = form.match(value)
        if match is not None:
            return _of_match(match)
    return None


def _of_match(match: re.Match[str]) -> tuple[int, datetime.date] | None:
    written = match.groupdict()
    month = _MONTHS.get(written["month"].lower()) or (
        int(written["month"]) if written["month"].isdecimal() else 0
    )
    year = int(written["year"])
    if len(written["year"]) < 4:
        # RFC 5322 4.3
        year += 2000 if year < 50 else 1900
    try:
        day = datetime.date(year, month, int(written["day"]))
    except ValueError:
        return None
    hour, minute, second = (int(written[name] or 0) for name in ("hour", "minute", "second"))
    if hour > 24 or minute > 59:
        hour = minute = second = 0
    zone = _zone_minutes(written["zone"] or (written.get("before") or "").strip())
    seconds = (day.toordinal() - _EPOCH) * 86400 + hour * 3600 + (minute - zone) * 60 + min(second, 60)
    return seconds, day


def _zone_minutes(zone: str) -> int:
    digits = zone.lstrip("GMTUCgmtuc").replace(":", "")
    if digits[:1] in ("+", "-"):
        number = int(digits[1:])
        minutes = number // 100 * 60 + number % 100
        return -minutes if digits[0] == "-" else minutes
    return _ZONES.get(zone.lower(), 0)
