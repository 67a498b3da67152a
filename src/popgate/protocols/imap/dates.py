"""Dates as IMAP writes them (RFC 9051 9 date, date-time)."""

import calendar
import datetime
import re

from popgate.protocols.imap.lexer import Cursor, Syntax

_MONTHS = {
    name: number
    for number, name in enumerate(
        (b"JAN", b"FEB", b"MAR", b"APR", b"MAY", b"JUN", b"JUL", b"AUG", b"SEP", b"OCT", b"NOV", b"DEC"), 1
    )
}
# date-text = date-day "-" date-month "-" date-year
_DATE = re.compile(rb"([0-9]{1,2})-([A-Za-z]{3})-([0-9]{4})")
# date-day-fixed is two octets; a client that leaves the space before a digit out means the same.
_DATE_TIME = re.compile(
    rb'" ?([0-9]{1,2})-([A-Za-z]{3})-([0-9]{4}) ([0-9]{2}):([0-9]{2}):([0-9]{2}) ([+-])([0-9]{2})([0-9]{2})"'
)


def read_date(cursor: Cursor) -> datetime.date:
    """A day, in quotes or not. Raises Syntax."""
    is_quoted = cursor.take(b'"')
    found = cursor.match(_DATE)
    if not found or (is_quoted and not cursor.take(b'"')):
        raise Syntax(b"Date is not well-formed")
    return _day(found[1], found[2], found[3])


def read_date_time(cursor: Cursor) -> tuple[int, int]:
    """Unix time, and the zone's offset in minutes. Raises Syntax."""
    found = cursor.match(_DATE_TIME)
    if not found:
        raise Syntax(b"Date and time are not well-formed")
    day = _day(found[1], found[2], found[3])
    hour, minute, second = int(found[4]), int(found[5]), int(found[6])
    zone_hours, zone_minutes = int(found[8]), int(found[9])
    if hour > 23 or minute > 59 or second > 60 or zone_hours > 23 or zone_minutes > 59:
        raise Syntax(b"Time out of range")
    zone = zone_hours * 60 + zone_minutes
    if found[7] == b"-":
        zone = -zone
    local = calendar.timegm((day.year, day.month, day.day, hour, minute, second, 0, 0, 0))
    return local - zone * 60, zone


def _day(day: bytes, month: bytes, year: bytes) -> datetime.date:
    try:
        return datetime.date(int(year), _MONTHS[month.upper()], int(day))
    except (KeyError, ValueError) as error:
        raise Syntax(b"There is no such day") from error
