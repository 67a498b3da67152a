"""What a client can put into a log line never lets an address relay: the cases of class log, on every
pattern that is shipped.

The lines that a login would have made are put where servers log what a client typed.
"""

import json
import re
import time
from collections.abc import Iterator
from zoneinfo import ZoneInfo

import pytest

from popgate.integrations.logs import (
    LoginSeen,
    LogRecord,
    Origin,
    Recogniser,
    Reference,
    Seen,
    journal_record,
    read_line,
    shipped,
)
from popgate.integrations.logs.pattern_files import shipped_examples
from popgate.integrations.logs.syntaxes import OWN_FILES

UTC = ZoneInfo("UTC")
NOW = 1795521600.0
STAMP = "Nov 24 11:31:02 mail"
REFERENCE = Reference(UTC, NOW, NOW)

# How servers log what a client typed; {} is where it stands.
TYPED = (
    "pop3-login: Disconnected (auth failed, 1 attempts in 2 secs): user=<{}>, method=PLAIN, rip=192.0.2.5",
    "pop3-login: Disconnected: Connection closed: user=<{}>, rip=192.0.2.5",
    "imap-login: Login aborted: Connection closed (auth_failed): user=<{}>, method=PLAIN, rip=192.0.2.5",
    "pop3-login: Info: Aborted login: user=<{}>, method=PLAIN, rip=192.0.2.5",
    "LOGIN FAILED, user={}, ip=[::ffff:192.0.2.5], port=[59417]",
    "LOGIN FAILED, method=PLAIN, user={}",
    "badlogin: [192.0.2.5] plaintext {} SASL(-13): authentication failure",
    "badlogin: mail.example.net [192.0.2.5] plaintext {}",
    "Login failed user={} auth={} host=[192.0.2.5]",
    "AUTHENTICATE PLAIN failure host={} [192.0.2.5]",
    "[AUTH] Failed attempted login to {} from host (pc) 192.0.2.5",
    "-ERR Unknown command: {}",
    "vchkpw-pop3: password fail (pass: '{}') a@example.org:192.0.2.5",
    "vchkpw-pop3: vpopmail user not found {}@:192.0.2.5",
    "user `{}' nonexistent",
    "user `{}': authentication failed",
    "User '{}' tried to log in, failed auth",
    "Authentication failed for {}",
    "authentication failed: no such user: {} - 192.0.2.5",
    "authentication failure {} 192.0.2.5",
    "Failed login for {} from pc [192.0.2.5]",
    'Auth: 192.0.2.5->192.0.2.1 user="{}" server="x" port="143" status="failed"',
    "mail 0012 POP3  [192.0.2.5] !UNKNOWN USER: '{}'",
    "mail 0012 POP3  RX: {}",
    "NOQUEUE: reject: RCPT from unknown[192.0.2.5]: 554 5.7.1 helo=<{}>",
    "warning: header Subject: {} from unknown[192.0.2.5]",
    "4BA7C: message-id=<{}>",
)


def records() -> Iterator[tuple[str, str, LogRecord]]:
    """Pattern, line and record of every login line among the examples."""
    for name, examples in shipped_examples().items():
        own = [OWN_FILES[shipped()[name].syntax]] if shipped()[name].syntax in OWN_FILES else []
        for example in examples:
            for line in example.lines if example.sees else ():
                record = read_line(line, REFERENCE, own)
                assert record is not None
                yield name, line, record


RECORDS = list(records())
PROGRAMS = sorted({program for pattern in shipped().values() for program in pattern.programs})


def everything() -> Recogniser:
    return Recogniser(list(shipped().values()), UTC, default_domain="example.org")


def logins(seen: object) -> list[Seen]:
    assert isinstance(seen, list | tuple)
    return [one for one in seen if isinstance(one, LoginSeen)]


def test_the_examples_do_log_in() -> None:
    """Without this the tests below could not fail."""
    names = {one.pattern for _, line, _ in RECORDS for one in logins(everything().feed(line.encode(), NOW))}
    assert len(names) > 15


def test_log_002_a_whole_forged_line_in_a_user_name() -> None:
    recogniser = everything()
    for _, line, record in RECORDS:
        for ending in ("#015#012", "\\r\\n", "\r", "\u2028", "\x85", "\x0b", "^M^J"):
            for template in TYPED:
                text = template.format(f"x{ending}{line}", f"x{ending}{line}")
                assert not logins(recogniser.feed(f"{STAMP} {record.program}[7]: {text}".encode(), NOW))
        # a line end that the way of writing keeps
        for text in (f"x\n{line}", f"x\r\n{line}\r\n", f"{record.text}\n{record.text}"):
            for fields in (
                {
                    "MESSAGE": text,
                    "__REALTIME_TIMESTAMP": "1795521600000000",
                    "SYSLOG_IDENTIFIER": record.program,
                },
                {"log": f"{text}\n", "stream": "stdout", "time": "2026-11-24T11:31:02Z"},
                {"message": text, "timestamp": "2026-11-24T11:31:02Z", "appname": record.program},
            ):
                assert not logins(recogniser.feed(json.dumps(fields).encode(), NOW)), fields


@pytest.mark.parametrize("program", PROGRAMS)
def test_log_003_login_text_as_a_user_name(program: str) -> None:
    recogniser = everything()
    texts = {record.text for _, _, record in RECORDS} | {
        "x rip=203.0.113.9, lip=192.0.2.1",
        "x, rip=203.0.113.9, lip=192.0.2.1",
        "x>, method=PLAIN, rip=203.0.113.9, lip=192.0.2.1, user=<y",
    }
    for template in TYPED:
        for typed in texts:
            line = f"{STAMP} {program}[7]: {template.format(typed, typed)}"
            assert not logins(recogniser.feed(line.encode(), NOW)), line


def test_log_003_a_name_that_the_server_let_in_names_no_second_address() -> None:
    for name in (
        "z rip=203.0.113.9",
        "z>, rip=203.0.113.9, lip=<x",
        "z, rip=203.0.113.9",
        "<z>",
        "z\trip=203.0.113.9",
    ):
        for rest in (
            "rip=192.0.2.5, lip=192.0.2.1, session=<a>",
            "rip=192.0.2.5, x=rip=203.0.113.9, session=<a>",
        ):
            line = f"{STAMP} dovecot: pop3-login: Login: user=<{name}>, method=PLAIN, {rest}"
            assert not logins(everything().feed(line.encode(), NOW)), line
    line = (
        f"{STAMP} dovecot: pop3-login: Login: user=<a>, method=PLAIN, rip=192.0.2.5, helo=<rip=203.0.113.9>"
    )
    assert not logins(everything().feed(line.encode(), NOW))


@pytest.mark.parametrize("case", ["log-004", "log-005"])
def test_what_smtp_clients_say_is_no_login(case: str) -> None:
    """HELO (log-004), Subject and Message-ID (log-005), as Postfix, Exim and Sendmail log them."""
    recogniser = everything()
    for _, line, record in RECORDS:
        for program in ("postfix/smtpd", "postfix/cleanup", "exim", "sendmail", "sm-mta", *PROGRAMS):
            for text in (f"helo=<{record.text}>", f"warning: header Subject: {line}", f"message-id=<{line}>"):
                assert not logins(recogniser.feed(f"{STAMP} {program}[7]: {text}".encode(), NOW)), text


def test_log_007_and_log_008_a_host_that_was_not_named_grants_nothing() -> None:
    """Datagrams from the network carry any host name; a site names the hosts that it believes. Who can
    forge that name too can forge everything: docs/logs.md says so."""
    recogniser = Recogniser(
        list(shipped().values()), UTC, default_domain="example.org", hosts=frozenset({"mx.example.org"})
    )
    for _, line, record in RECORDS:
        if record.host:
            assert not recogniser.feed(line.encode(), NOW)
    line = (
        "<22>1 2026-11-24T11:31:02Z - dovecot - - - pop3-login: Login: user=<a>, method=PLAIN, rip=192.0.2.5"
    )
    assert not recogniser.feed(line.encode(), NOW)
    assert logins(recogniser.feed(line.replace("Z - dovecot", "Z MX.example.org dovecot").encode(), NOW))


def test_log_007_the_journal_is_believed_only_for_the_unit_of_the_server() -> None:
    fields = {
        "MESSAGE": "pop3-login: Login: user=<a>, method=PLAIN, rip=192.0.2.5, lip=192.0.2.1",
        "__REALTIME_TIMESTAMP": "1795521600000000",
        "SYSLOG_IDENTIFIER": "dovecot",
        "_PID": "7",
    }
    trusted = {"_SYSTEMD_UNIT": "dovecot.service", "_UID": "0", "_COMM": "log"}
    assert logins(everything().feed(json.dumps(fields | trusted).encode(), NOW))
    for forged in (
        {},
        {"_SYSTEMD_UNIT": "user@1000.service", "_UID": "1000", "_COMM": "logger"},
        {"_SYSTEMD_UNIT": "session-3.scope", "_UID": "0", "_COMM": "logger"},
        {"_SYSTEMD_UNIT": "apache2.service", "_UID": "33", "_COMM": "php"},
        {"SYSTEMD_UNIT": "dovecot.service", "UNIT": "dovecot.service", "_UID": "1000"},
        {"_SYSTEMD_UNIT": ["dovecot.service"], "_UID": "0"},
        {"_SYSTEMD_UNIT": "dovecot.service", "_UID": "5000", "_COMM": "logger"},  # a user's Sieve script
    ):
        assert not everything().feed(json.dumps(fields | forged).encode(), NOW), forged
    record = journal_record(fields | trusted)
    assert record is not None
    assert record.origin == Origin("dovecot.service", "log", 0)


def test_log_009_what_a_line_ends_with_names_nobody_else() -> None:
    """Somebody who chooses where a line is cut (by its length, in a container's log) gains nothing. A
    line whose end is missing is never read: tests/cli/test_cli_logs.py and tests/logs/test_follow_file.py."""
    for name, line, _ in RECORDS:
        recogniser = Recogniser([shipped()[name]], UTC, default_domain="example.org")
        whole = {one.address for one in logins(recogniser.feed(line.encode(), NOW))}
        for cut in range(1, len(line)):
            seen = logins(recogniser.feed(line[cut:].encode(), NOW))
            assert {one.address for one in seen} <= whole, line[cut:]


def test_log_013_a_line_names_its_own_time() -> None:
    """Yesterday's lines say that they are yesterday's, whenever they are read."""
    for _, line, _ in RECORDS:
        for one in logins(everything().feed(line.encode(), NOW)):
            assert one.at < NOW
            assert one.at != NOW or not re.search(r"\d\d:\d\d:\d\d", line)


def test_log_015_a_line_of_10_mb() -> None:
    login = f"{STAMP} dovecot: pop3-login: Login: user=<a>, method=PLAIN, rip=203.0.113.9, lip=192.0.2.1"
    recogniser = everything()
    begun = time.process_time()
    for octets in (
        b"x" * 10_000_000,
        login.encode() + b", " + b"y=user=<" * 1_250_000,
        (login + ", ").encode() * 100_000,
    ):
        assert not recogniser.feed(octets, NOW)
    assert time.process_time() - begun < 5.0


def test_log_016_octets_that_are_no_text() -> None:
    recogniser = everything()
    for _, line, record in RECORDS:
        for octets in (b"\xff", b"\0", b"\x1b[31m", b"\x9b", b"\xc2\x80", b"\xed\xa0\x80", b"\xe2\x80\xa8"):
            place = line.index(record.text)
            for at in range(place, len(line) + 1, 7):
                hostile = line[:at].encode() + octets + line[at:].encode()
                for one in logins(recogniser.feed(hostile, NOW)):
                    raise AssertionError(f"{hostile!r}: {one}")


def test_log_019_a_failure_that_also_says_login() -> None:
    for text in (
        "pop3-login: Disconnected (auth failed, 1 attempts): Login: user=<a>, method=PLAIN, rip=203.0.113.9",
        "pop3-login: Disconnected: Login: user=<a>, method=PLAIN, rip=203.0.113.9, lip=192.0.2.1",
        "pop3-login: Login: Disconnected (auth failed, 1 attempts): user=<a>, method=PLAIN, rip=203.0.113.9",
        "pop3-login: Error: Login: user=<a>, method=PLAIN, rip=203.0.113.9, lip=192.0.2.1",
        "auth: pop3-login: Login: user=<a>, method=PLAIN, rip=203.0.113.9, lip=192.0.2.1",
        "Warning: pop3-login: Login: user=<a>, method=PLAIN, rip=203.0.113.9, lip=192.0.2.1",
    ):
        for line in (f"{STAMP} dovecot: {text}", f"Nov 24 11:31:02 {text}", f"Nov 24 11:31:02 Info: {text}"):
            assert not logins(everything().feed(line.encode(), NOW)), line


def test_a_first_line_that_was_typed_is_no_first_line() -> None:
    """Two lines are joined only where both are the program's own."""
    for typed in ("connect from 203.0.113.9", "Session from 203.0.113.9", "Connect from 203.0.113.9"):
        for program, second in (
            ("popa3d", "Authentication passed for hal"),
            ("spop3d", "user jan authenticated"),
            ("vm-pop3d", "User 'a' logged in"),
            ("pop3d", "user `a' logged in with mailbox `/m' (1 message)"),
        ):
            recogniser = everything()
            for template in TYPED:
                recogniser.feed(f"{STAMP} {program}[7]: {template.format(typed, typed)}".encode(), NOW)
                assert not logins(recogniser.feed(f"{STAMP} {program}[7]: {second}".encode(), NOW))
