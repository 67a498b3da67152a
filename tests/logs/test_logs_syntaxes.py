"""How lines say when, where and by which program they were written: each syntax, years, zones, containers."""

import itertools
import json
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest

from popgate.integrations.logs import LoginSeen, Recogniser, Reference, read_line, shipped
from popgate.integrations.logs.syntaxes import OWN_FILES
from popgate.integrations.logs.times import on_wall, without_year, written_out
from popgate.integrations.logs.zones import zone_of

VIENNA = ZoneInfo("Europe/Vienna")
NOW = datetime(2026, 11, 24, 12, tzinfo=UTC).timestamp()
HERE = Reference(ZoneInfo("UTC"), NOW, NOW)
AT = datetime(2026, 11, 24, 11, 31, 2, tzinfo=UTC).timestamp()
LOGIN = "pop3-login: Login: user=<a>, method=PLAIN, rip=192.0.2.9, lip=192.0.2.1, session=<s>"


def at(*moment: int, zone: ZoneInfo = VIENNA, fold: int = 0) -> float:
    return datetime(*moment, tzinfo=zone, fold=fold).timestamp()  # type: ignore[arg-type,misc]


@pytest.mark.parametrize(
    ("line", "host", "program", "pid"),
    [
        ("Nov 24 11:31:02 mail dovecot: text", "mail", "dovecot", ""),
        ("Nov 24 11:31:02 mail cyrus/pop3[8393]: text", "mail", "cyrus/pop3", "8393"),
        ("<22>Nov 24 11:31:02 mail dovecot[12]: text", "mail", "dovecot", "12"),
        ("Nov 24 11:31:02 2001:db8::1 dovecot[12]: text", "2001:db8::1", "dovecot", "12"),
        ("Nov 24 11:31:02 mail mail.info dovecot[12]: text", "mail", "dovecot", "12"),
        ("Nov 24 11:31:02 <mail.info> mail dovecot[12]: text", "mail", "dovecot", "12"),
        ("Nov 24 11:31:02 mail dovecot[12]: [ID 197553 mail.info] text", "mail", "dovecot", "12"),
        ("2026-11-24T11:31:02.000000+00:00 mail dovecot[12]: text", "mail", "dovecot", "12"),
        ("2026-11-24T12:31:02+01:00 mail dovecot: text", "mail", "dovecot", ""),
        ("2026-11-24T11:31:02Z mail dovecot: text", "mail", "dovecot", ""),
        ("<22>1 2026-11-24T11:31:02.000Z mail dovecot 12 - - text", "mail", "dovecot", "12"),
        ("1 2026-11-24T11:31:02Z mail dovecot - ID47 - \ufefftext", "mail", "dovecot", ""),
        (
            r'<22>1 2026-11-24T11:31:02Z mail dovecot 1 - [a@1 x="] \" \\"][b y="z"] text',
            "mail",
            "dovecot",
            "1",
        ),
        (
            "2026-11-24T11:31:02.000000001Z stdout F Nov 20 01:02:03 pod dovecot[12]: text",
            "pod",
            "dovecot",
            "12",
        ),
        (
            json.dumps(
                {
                    "log": "Nov 20 01:02:03 c dovecot[12]: text\n",
                    "stream": "stderr",
                    "time": "2026-11-24T11:31:02.0Z",
                }
            ),
            "c",
            "dovecot",
            "12",
        ),
        (
            json.dumps(
                {
                    "__REALTIME_TIMESTAMP": str(int(AT * 1e6)),
                    "MESSAGE": "text",
                    "_HOSTNAME": "mail",
                    "SYSLOG_IDENTIFIER": "dovecot",
                    "_PID": "12",
                    "SYSLOG_PID": "13",
                }
            ),
            "mail",
            "dovecot",
            "12",
        ),
        (
            json.dumps(
                {
                    "timestamp": "2026-11-24T11:31:02Z",
                    "message": "text",
                    "host": "mail",
                    "appname": "dovecot",
                    "procid": 12,
                }
            ),
            "mail",
            "dovecot",
            "12",
        ),
        (
            json.dumps({"date": AT, "message": "text", "host": "mail", "ident": "dovecot"}),
            "mail",
            "dovecot",
            "",
        ),
    ],
)
def test_each_syntax(line: str, host: str, program: str, pid: str) -> None:
    record = read_line(line, HERE)
    assert record is not None
    assert (record.host, record.program, record.pid, record.text) == (host, program, pid, "text")
    assert record.at == pytest.approx(AT, abs=0.001)


@pytest.mark.parametrize(
    ("line", "text"),
    [
        ("Nov 24 11:31:02 pop3-login: Info: Login: x", "pop3-login: Info: Login: x"),
        ("Nov 24 11:31:02 imap(a@example.org)<12><s>: Info: x", "imap(a@example.org)<12><s>: Info: x"),
        ("dovecot: Nov 24 11:31:02 Info: pop3-login: x", "Info: pop3-login: x"),
        ("2026-11-24 11:31:02 pop3-login: Info: x", "pop3-login: Info: x"),
    ],
)
def test_dovecot_s_own_file(line: str, text: str) -> None:
    record = read_line(line, HERE)
    assert record is not None
    assert (record.at, record.program, record.text) == (AT, "dovecot", text)


@pytest.mark.parametrize(
    ("syntax", "line", "program", "pid"),
    [
        ("hmailserver", '"POP3D"\t5\t77\t"2026-11-24 11:31:02.000"\t"192.0.2.9"\t"SENT: x"', "POP3D", "77"),
        ("mdaemon", "Tue 2026-11-24 11:31:02.000: 05: [41:1] x", "mdaemon", "41:1"),
        (
            "exchange",
            "2026-11-24T11:31:02.000Z,00000000000000AF,2,192.0.2.1:995,x",
            "exchange",
            "00000000000000AF",
        ),
        ("stalwart", "2026-11-24T11:31:02Z INFO x", "stalwart", ""),
        ("qpopper", "Nov 24 11:31:02 [popper] x", "qpopper", ""),
        ("qpopper", "Tue Nov 24 11:31:02 2026 [12]  x", "qpopper", "12"),
        ("apple", "Nov 24 2026 11:31:02 x", "applemailserver", ""),
    ],
)
def test_log_files_of_programs_of_their_own(syntax: str, line: str, program: str, pid: str) -> None:
    assert read_line(line, HERE) is None or syntax == "mdaemon"
    record = read_line(line, HERE, [OWN_FILES[syntax]])
    assert record is not None
    assert (record.at, record.program, record.pid) == (AT, program, pid)
    assert record.text.endswith("x") or "SENT: x" in record.text


@pytest.mark.parametrize(
    "line",
    [
        "",
        "Nov 24 11:31:02 mail text without a program",
        "Nov 31 11:31:02 mail dovecot: text",
        "Nov 24 24:31:02 mail dovecot: text",
        "Nov 24 11:60:02 mail dovecot: text",
        "Foo 24 11:31:02 mail dovecot: text",
        "2026-13-24T11:31:02Z mail dovecot: text",
        "2026-11-24T11:31:02+99:00 mail dovecot: text",
        "0000-00-00T00:00:00Z mail dovecot: text",
        '<22>1 2026-11-24T11:31:02Z mail dovecot 12 - [a@1 x="y] text',
        "2026-11-24T11:31:02Z stdout P Nov 24 11:31:02 pod dovecot: text",
        "{",
        "{}",
        "[]",
        '{"MESSAGE": "x"}',
        '{"MESSAGE": [1, 2], "__REALTIME_TIMESTAMP": "1"}',
        '{"MESSAGE": "x", "__REALTIME_TIMESTAMP": "-1"}',
        '{"MESSAGE": "x", "__REALTIME_TIMESTAMP": 1e400}',
        '{"log": "Nov 24 11:31:02 c dovecot: x\\n", "time": "never"}',
        '{"message": "x", "time": true, "appname": "dovecot"}',
        "[" * 4000,
        '{"a":' * 1000,
        "Nov 24 11:31:02 mail dovecot: a\x07b",
        "Nov 24 11:31:02 mail dovecot: a\ufffdb",
    ],
)
def test_what_is_no_line(line: str) -> None:
    assert read_line(line, HERE) is None


# Years: the traditional form has none.


@pytest.mark.parametrize(
    ("written", "read_at", "expected"),
    [
        ((12, 31, 23, 59, 59), (2027, 1, 1, 0, 0, 1), (2026, 12, 31, 23, 59, 59)),
        ((1, 1, 0, 0, 1), (2026, 12, 31, 23, 59, 50), (2027, 1, 1, 0, 0, 1)),  # its clock is ahead
        ((1, 2, 0, 0, 1), (2026, 12, 31, 12, 0, 0), (2026, 1, 2, 0, 0, 1)),
        ((11, 24, 12, 0, 0), (2026, 11, 24, 12, 0, 0), (2026, 11, 24, 12, 0, 0)),
        ((11, 26, 12, 0, 0), (2026, 11, 24, 12, 0, 0), (2025, 11, 26, 12, 0, 0)),
        ((2, 29, 12, 0, 0), (2026, 11, 24, 12, 0, 0), (2024, 2, 29, 12, 0, 0)),
        ((2, 29, 12, 0, 0), (2104, 1, 1, 0, 0, 0), (2096, 2, 29, 12, 0, 0)),  # 2100 has none
    ],
)
def test_the_year_of_a_line(
    written: tuple[int, ...], read_at: tuple[int, ...], expected: tuple[int, ...]
) -> None:
    now = at(*read_at)
    month, day, *clock = written
    found = without_year(month, day, (clock[0], clock[1], clock[2]), Reference(VIENNA, now, now))
    assert found == at(*expected)


def test_an_old_file_across_a_new_year() -> None:
    """All lines are read with the time at which the file ended."""
    recogniser = Recogniser([shipped()["dovecot"]], VIENNA, replays=True)
    ended = at(2027, 1, 3, 0, 0)
    seen = [
        one.at
        for stamp in ("Dec 30 10:00:00", "Dec 31 23:59:59", "Jan  1 00:00:00", "Jan  2 10:00:00")
        for one in recogniser.feed(f"{stamp} mail dovecot: {LOGIN}".encode(), ended)
    ]
    assert seen == [at(2026, 12, 30, 10), at(2026, 12, 31, 23, 59, 59), at(2027, 1, 1), at(2027, 1, 2, 10)]


# Summer time: one hour comes twice in autumn, one never in spring.


@pytest.mark.parametrize("fold", [0, 1])
def test_a_line_just_written_in_the_hour_that_comes_twice(fold: int) -> None:
    now = at(2026, 10, 25, 2, 30, 5, fold=fold)
    assert without_year(10, 25, (2, 30, 0), Reference(VIENNA, now, now)) == now - 5


def test_an_old_file_through_the_hour_that_comes_twice() -> None:
    recogniser = Recogniser([shipped()["dovecot"]], VIENNA, replays=True)
    clocks = ("01:50", "02:10", "02:40", "02:05", "02:45", "03:10")
    seen = [
        one.at
        for clock in clocks
        for one in recogniser.feed(f"Oct 25 {clock}:00 mail dovecot: {LOGIN}".encode(), NOW)
    ]
    assert [later - earlier for earlier, later in itertools.pairwise(seen)] == [
        20 * 60,
        30 * 60,
        25 * 60,
        40 * 60,
        25 * 60,
    ]


def test_an_hour_that_never_was() -> None:
    """A clock that was not put forward: the moment that it would have been."""
    now = at(2026, 3, 29, 4, 0)
    found = without_year(3, 29, (2, 30, 0), Reference(VIENNA, now, now))
    assert found in (at(2026, 3, 29, 1, 30), at(2026, 3, 29, 3, 30))


def test_a_leap_second_and_impossible_seconds() -> None:
    assert on_wall(2026, 6, 30, (23, 59, 60), HERE) == on_wall(2026, 6, 30, (23, 59, 59), HERE)
    assert on_wall(2026, 6, 30, (23, 59, 61), HERE) is None


def test_times_without_a_zone_are_of_the_log_s_zone() -> None:
    there = Reference(VIENNA, NOW, NOW)
    assert written_out("2026-11-24 12:31:02,000", there) == AT
    assert written_out("2026-11-24T12:31:02", there) == AT
    assert written_out("2026-11-24T11:31:02Z", there) == AT


def test_zones_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    assert zone_of("Europe/Vienna") == VIENNA
    monkeypatch.setenv("TZ", ":Europe/Vienna")
    assert zone_of("") == VIENNA
    with pytest.raises(ValueError, match="no time zone"):
        zone_of("Mars/Olympus")


# Containers cut long lines into pieces, and a client decides where.


def cri(stream: str, tag: str, text: str) -> str:
    return f"2026-11-24T11:31:02.000000000Z {stream} {tag} {text}\n"


def docker(stream: str, text: str) -> str:
    return (
        json.dumps({"log": text, "stream": stream, "time": "2026-11-24T11:31:02Z"}, separators=(",", ":"))
        + "\n"
    )


LINE = f"Nov 24 11:31:02 c dovecot: {LOGIN}"


@pytest.mark.parametrize("blocks", ["one", "each line", "pairs"])
@pytest.mark.parametrize(
    ("lines", "logins"),
    [
        ([cri("stdout", "F", LINE)], 1),
        ([cri("stdout", "P", "x" * 100), cri("stdout", "F", LINE)], 0),
        ([cri("stdout", "P", "x"), cri("stdout", "P", LINE), cri("stdout", "F", LINE)], 0),
        ([cri("stdout", "P", "x"), cri("stderr", "F", LINE), cri("stdout", "F", LINE)], 1),
        ([cri("stdout", "P", "x"), cri("stdout", "F", "y"), cri("stdout", "F", LINE)], 1),
        ([docker("stdout", LINE + "\n")], 1),
        ([docker("stdout", "x" * 100), docker("stdout", LINE + "\n")], 0),
        ([docker("stdout", "x"), docker("stdout", LINE), docker("stdout", LINE + "\n")], 0),
        ([docker("stderr", "x"), docker("stdout", LINE + "\n"), docker("stderr", LINE + "\n")], 1),
        ([docker("stdout", 'x\\n","stream":"stdout"'), docker("stdout", LINE + "\n")], 0),
    ],
)
def test_a_piece_of_a_container_s_line_is_no_line(lines: list[str], logins: int, blocks: str) -> None:
    recogniser = Recogniser([shipped()["dovecot"]], VIENNA)
    octets = [line.encode() for line in lines]
    if blocks == "one":
        octets = [b"".join(octets)]
    elif blocks == "pairs":
        octets = [b"".join(octets[i : i + 2]) for i in range(0, len(octets), 2)]
    seen = [one for block in octets for one in recogniser.feed_block(block, NOW)]
    assert len([one for one in seen if isinstance(one, LoginSeen)]) == logins


def test_docker_s_writer_escapes_what_html_would_obey() -> None:
    line = docker("stdout", LINE + "\n").replace("<", "\\u003c").replace(">", "\\u003e")
    (seen,) = Recogniser([shipped()["dovecot"]], VIENNA).feed(line.encode(), NOW)
    assert seen.address is not None
    assert seen.address.text == "192.0.2.9"
    assert seen.at == AT
