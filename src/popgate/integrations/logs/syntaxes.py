"""The ways in which a line says when, where and by which program it was written.

Pure functions from text to LogRecord; each returns None for a line that is not of its
kind, and never raises. A line of a container or a collector holds another line: the outer one gives the time,
because the program inside cannot forge it. What a program wrote is only ever the text
of a record, and no record has a control character in it: a line end inside a message
could otherwise begin a line of its own somewhere.
"""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from popgate.integrations.logs.records import LogRecord, Origin
from popgate.integrations.logs.times import MONTHS, Reference, on_wall, without_year, written_out

MAX_LINE = 4096
"""Octets of the longest line that can tell of a login; a longer one is somebody's attempt."""

_MONTH = "Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec"
_STAMP = (
    rf"(?P<month>{_MONTH}) (?P<day>[ 0-3]?\d)"
    r" (?P<hour>\d\d):(?P<minute>\d\d):(?P<second>\d\d)(?:\.\d{1,9})?"
)
_ISO = r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(?:[.,]\d{1,9})?(?:Z|[+-]\d\d:?\d\d)?"
# a name, or an IPv6 address; a name with a colon at its end would be a tag that stands in the wrong place
_HOST = r"(?:[^\s:<>]{1,255}|[0-9A-Fa-f:.]{2,45})"
# Solaris
_MESSAGE_ID = r"(?:\[ID \d{1,10} [a-z0-9]{2,9}\.[a-z]{3,7}\] )?"
_TAG = r"(?P<program>[^\s:\[\]<>]{1,64})(?:\[(?P<pid>\d{1,10})\])?: ?" + _MESSAGE_ID + r"(?P<text>.*)"
# BusyBox and FreeBSD's syslogd -v name facility and severity
_PRIORITY = r"(?:<?[a-z0-9]{2,9}\.[a-z]{3,7}>? )?"

# RFC 3164 4.1: TIMESTAMP SP HOSTNAME SP TAG CONTENT
_RFC_3164 = re.compile(rf"(?:<\d{{1,3}}>)?{_STAMP} {_PRIORITY}(?P<host>{_HOST}) {_PRIORITY}{_TAG}", re.ASCII)
# RFC 3339 5.6 date-time
_RFC_3339 = re.compile(
    rf"(?:<\d{{1,3}}>)?(?P<at>{_ISO}) {_PRIORITY}(?P<host>{_HOST}) {_PRIORITY}{_TAG}", re.ASCII
)
# RFC 5424 6: HEADER SP STRUCTURED-DATA [SP MSG]
_RFC_5424 = re.compile(
    r"(?:<\d{1,3}>)?1 (?P<at>\S{1,40}) (?P<host>\S{1,255}) (?P<program>\S{1,48}) (?P<pid>\S{1,128}) \S{1,32}"
    r' (?:-|(?:\[(?:[^"\]]++|"(?:[^"\\]++|\\.)*+")*+\])++)(?: (?P<text>.*))?',
    re.ASCII,
)
_CRI = re.compile(
    rf"(?P<at>{_ISO}) (?P<stream>stdout|stderr) (?P<tags>[PF])(?::\S{{0,64}})? (?P<text>.*)", re.ASCII
)
# Dovecot's own log file; the name of the service stands before or after the severity
_LEVEL = r"(?:Info|Debug|Warning|Error|Fatal|Panic)"
_SERVICE = r"[a-z0-9_-]{1,40}(?:\([^\s()]{0,255}\))?(?:<[^\s<>]{0,64}>){0,2}"
_DOVECOT = re.compile(
    rf"(?:dovecot: )?(?:{_STAMP}|(?P<at>{_ISO})) (?P<text>{_SERVICE}: {_LEVEL}: .*|{_LEVEL}: {_SERVICE}: .*)",
    re.ASCII,
)
# what a terminal or a reader of lines would obey, and what was no UTF-8
_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f-\x9f\u2028\u2029\ufffd]")

# Programs with log files of their own.
_HMAILSERVER = re.compile(
    r'"(?P<program>[A-Z0-9]{1,16})"\t\d{1,10}\t(?P<pid>\d{1,10})\t"(?P<at>[0-9.: -]{19,23})"\t(?P<text>.*)',
    re.ASCII,
)
_MDAEMON = re.compile(
    r"[A-Z][a-z]{2} (?P<at>\d{4}-\d\d-\d\d \d\d:\d\d:\d\d)(?:\.\d{3})?: (?:\d\d: )?"
    r"\[(?P<pid>[0-9:]{1,24})\] (?P<text>.*)",
    re.ASCII,
)
_EXCHANGE = re.compile(
    rf"(?P<at>{_ISO}),(?P<pid>[0-9A-F]{{16}}),\d{{1,10}},[^,\s]{{1,60}},(?P<text>.*)", re.ASCII
)
_STALWART = re.compile(rf"(?P<at>{_ISO}) (?P<text>(?:TRACE|DEBUG|INFO|WARN|ERROR) .*)", re.ASCII)
_QPOPPER = re.compile(rf"{_STAMP} \[popper\] (?P<text>.*)", re.ASCII)
_ASCTIME = re.compile(
    rf"[A-Z][a-z]{{2}} (?P<month>{_MONTH}) (?P<day>[ 0-3]?\d) (?P<clock>\d\d:\d\d:\d\d) (?P<year>\d{{4}})"
    r" \[(?P<pid>\d{1,10})\] +(?P<text>.*)",
    re.ASCII,
)
_APPLE = re.compile(
    rf"(?P<month>{_MONTH}) (?P<day>[ 0-3]?\d) (?P<year>\d{{4}}) (?P<clock>\d\d:\d\d:\d\d)(?P<text>.*)",
    re.ASCII,
)

Syntax = Callable[[str, Reference], "LogRecord | None"]


def rfc_3164(line: str, reference: Reference) -> LogRecord | None:
    """`Nov 24 11:31:02 mail dovecot[123]: text`, with or without a priority in front."""
    match = _RFC_3164.fullmatch(line)
    return None if match is None else _record(match, _stamp(match, reference))


def rfc_3339(line: str, reference: Reference) -> LogRecord | None:
    """`2026-11-24T11:31:02.123456+00:00 mail dovecot[123]: text`: what rsyslog writes by default now."""
    match = _RFC_3339.fullmatch(line)
    return None if match is None else _record(match, written_out(match["at"], reference))


def rfc_5424(line: str, reference: Reference) -> LogRecord | None:
    """`<22>1 2026-11-24T11:31:02Z mail dovecot 123 - - text`."""
    match = _RFC_5424.fullmatch(line)
    if match is None:
        return None
    at = None if match["at"] == "-" else written_out(match["at"], reference)
    if at is None and match["at"] != "-":
        return None
    program, pid = ("" if match[name] == "-" else match[name] for name in ("program", "pid"))
    return _checked(LogRecord(at, match["host"], program, pid, (match["text"] or "").removeprefix("\ufeff")))


def dovecot_file(line: str, reference: Reference) -> LogRecord | None:
    """Dovecot's `log_path`: `Nov 24 11:31:02 pop3-login: Info: Login: ...`, read as if by syslog."""
    match = _DOVECOT.fullmatch(line)
    if match is None:
        return None
    at = _stamp(match, reference) if match["at"] is None else written_out(match["at"], reference)
    return None if at is None else _checked(LogRecord(at, "", "dovecot", "", match["text"]))


def hmailserver(line: str, reference: Reference) -> LogRecord | None:
    """Quoted fields between tabs: program, thread, session, time, address, what was sent or received."""
    return _own(_HMAILSERVER, "", line, reference)


def mdaemon(line: str, reference: Reference) -> LogRecord | None:
    """`Tue 2026-11-24 11:31:02: [1234] text`; the number in brackets is that of the session."""
    return _own(_MDAEMON, "mdaemon", line, reference)


def exchange(line: str, reference: Reference) -> LogRecord | None:
    """The protocol logs of POP and IMAP: fields between commas. The text is the fields from cIp on."""
    return _own(_EXCHANGE, "exchange", line, reference)


def stalwart(line: str, reference: Reference) -> LogRecord | None:
    """`2026-11-24T11:31:02Z INFO text`."""
    return _own(_STALWART, "stalwart", line, reference)


def qpopper_file(line: str, reference: Reference) -> LogRecord | None:
    """Qpopper's trace file: `Nov 24 11:31:02 [popper] text`, or weekday, time and year before `[pid]`."""
    match = _QPOPPER.fullmatch(line)
    if match is not None:
        at = _stamp(match, reference)
        return None if at is None else _checked(LogRecord(at, "", "qpopper", "", match["text"]))
    return _dated(_ASCTIME, "qpopper", line, reference)


def apple_file(line: str, reference: Reference) -> LogRecord | None:
    """AppleMailServer's own log: the date with its year, and text."""
    return _dated(_APPLE, "applemailserver", line, reference)


OWN_FILES: Mapping[str, Syntax] = {
    "hmailserver": hmailserver,
    "mdaemon": mdaemon,
    "exchange": exchange,
    "stalwart": stalwart,
    "qpopper": qpopper_file,
    "apple": apple_file,
}
"""Programs with log files of their own, by the name that a pattern gives as its `syntax`. They are tried only
where such a pattern is in use."""


def cri(line: str, reference: Reference, own: Sequence[Syntax] = ()) -> LogRecord | None:
    """`2026-11-24T11:31:02.123456789Z stdout F line`: the file of a container in Kubernetes."""
    match = _CRI.fullmatch(line)
    if match is None or match["tags"] != "F":
        return None
    return _inner(match["text"], written_out(match["at"], reference), reference, own)


def json_line(line: str, reference: Reference, own: Sequence[Syntax] = ()) -> LogRecord | None:
    """A line that is one JSON object: journalctl -o json, docker's json-file, or what a collector writes."""
    if not line.startswith("{"):
        return None
    try:
        fields = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(fields, dict):
        return None
    if "MESSAGE" in fields:
        return journal_record(fields)
    at = _json_time(fields, reference)
    text = _first(fields, "message", "log", "msg")
    if at is None or text is None:
        return None
    text = text.removesuffix("\n").removesuffix("\r")
    program = _first(fields, "appname", "app_name", "ident", "program", "syslog_identifier")
    if program is None:
        return _inner(text, at, reference, own)
    pid = _first(fields, "procid", "proc_id", "pid") or ""
    host = _first(fields, "hostname", "host") or ""
    return _checked(LogRecord(at, host, program, pid, text))


def journal_record(fields: Mapping[str, object]) -> LogRecord | None:
    """An entry of the journal, as `journalctl -o json` writes it.

    Program and pid are what the program said (SYSLOG_IDENTIFIER) unless it said nothing;
    `origin` is what journald knows. An entry whose message is not text is None.
    """
    text, at = (
        fields.get("MESSAGE"),
        fields.get("__REALTIME_TIMESTAMP") or fields.get("_SOURCE_REALTIME_TIMESTAMP"),
    )
    if not isinstance(text, str) or not isinstance(at, str) or not _is_number(at, 17):
        return None
    command = _first(fields, "_COMM") or ""
    uid = _first(fields, "_UID") or ""
    origin = Origin(_first(fields, "_SYSTEMD_UNIT") or "", command, int(uid) if _is_number(uid, 10) else -1)
    return _checked(
        LogRecord(
            int(at) / 1e6,
            _first(fields, "_HOSTNAME") or "",
            _first(fields, "SYSLOG_IDENTIFIER") or command,
            _first(fields, "_PID", "SYSLOG_PID") or "",
            text.removesuffix("\n"),
            origin,
        )
    )


_LINES: tuple[Syntax, ...] = (rfc_3164, rfc_3339, rfc_5424, dovecot_file)
"""No line is of two of these kinds."""


def read_line(line: str, reference: Reference, own: Sequence[Syntax] = ()) -> LogRecord | None:
    """The record in a line without its line end, None where no syntax fits. `own`: syntaxes of
    programs with log files of their own, which are tried last."""
    record = _plain(line, reference, own)
    if record is None:
        record = cri(line, reference, own) or json_line(line, reference, own)
    return record


def _plain(line: str, reference: Reference, own: Sequence[Syntax]) -> LogRecord | None:
    for syntax in (*_LINES, *own):
        record = syntax(line, reference)
        if record is not None:
            return record
    return None


def _inner(text: str, at: float | None, reference: Reference, own: Sequence[Syntax]) -> LogRecord | None:
    """The line that a container's program wrote. Its time is the container's."""
    if at is None:
        return None
    record = _plain(text, reference, own)
    return None if record is None else replace(record, at=at)


def _own(pattern: re.Pattern[str], program: str, line: str, reference: Reference) -> LogRecord | None:
    match = pattern.fullmatch(line)
    if match is None:
        return None
    at = written_out(match["at"], reference)
    groups = match.groupdict("")
    return (
        None
        if at is None
        else _checked(
            LogRecord(
                at, "", program or groups["program"], groups.get("pid", ""), match["text"].removesuffix("\r")
            )
        )
    )


def _dated(pattern: re.Pattern[str], program: str, line: str, reference: Reference) -> LogRecord | None:
    match = pattern.fullmatch(line)
    if match is None:
        return None
    hour, minute, second = map(int, match["clock"].split(":"))
    at = on_wall(
        int(match["year"]), MONTHS[match["month"]], int(match["day"]), (hour, minute, second), reference
    )
    pid = match.groupdict().get("pid") or ""
    return None if at is None else _checked(LogRecord(at, "", program, pid, match["text"]))


def _record(match: re.Match[str], at: float | None) -> LogRecord | None:
    if at is None:
        return None
    return _checked(LogRecord(at, match["host"], match["program"], match["pid"] or "", match["text"]))


def _checked(record: LogRecord) -> LogRecord | None:
    return None if _CONTROL.search(record.text) or _CONTROL.search(record.program) else record


def _stamp(match: re.Match[str], reference: Reference) -> float | None:
    clock = int(match["hour"]), int(match["minute"]), int(match["second"])
    return without_year(MONTHS[match["month"]], int(match["day"]), clock, reference)


def _first(fields: Mapping[str, object], *names: str) -> str | None:
    for name in names:
        found = fields.get(name)
        if isinstance(found, str):
            return found
        if isinstance(found, int) and not isinstance(found, bool):
            return str(found)
    return None


def _json_time(fields: Mapping[str, object], reference: Reference) -> float | None:
    for name in ("time", "timestamp", "@timestamp", "date"):
        found = fields.get(name)
        if isinstance(found, str):
            return written_out(found, reference)
        if isinstance(found, int | float) and not isinstance(found, bool) and 0 < found < 1e11:
            return float(found)
    return None


def _is_number(text: str, digits: int) -> bool:
    return 0 < len(text) <= digits and text.isascii() and text.isdigit()
