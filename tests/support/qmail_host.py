"""A qmail host on paper: the files that a guide has an administrator make, below a temporary root.

It is healthy as built. A test changes one thing, and says which trap that is.
"""

import os
import shutil
import struct
from pathlib import Path

from popgate.integrations.qmail import Finding, Machine, examine

_BINARY = b"\x7fELF\x02 not to be run"

PROGRAMS = (
    "usr/bin/tcpserver",
    "usr/bin/envdir",
    "usr/bin/softlimit",
    "usr/bin/setuidgid",
    "usr/bin/envuidgid",
    "usr/bin/multilog",
    "usr/bin/rblsmtpd",
    "usr/bin/recordio",
    "usr/local/bin/popgate",
    "usr/bin/env",
    "bin/checkpassword",
    "var/qmail/bin/qmail-smtpd",
    "var/qmail/bin/qmail-popup",
    "var/qmail/bin/qmail-pop3d",
)
COMMANDS = ("allow", "check", "chdir", "age", "send", "udp")

SMTP_RUN, POP3_RUN = "/service/qmail-smtpd/run", "/service/qmail-pop3d/run"

SMTP = """\
#!/bin/sh
QMAILDUID=`id -u qmaild`
NOFILESGID=`id -g qmaild`
MAXSMTPD=`cat /var/qmail/control/concurrencyincoming`
LOCAL=`head -1 /var/qmail/control/me`

if [ -z "$QMAILDUID" -o -z "$NOFILESGID" -o -z "$MAXSMTPD" -o -z "$LOCAL" ]; then
    echo QMAILDUID, NOFILESGID, MAXSMTPD, or LOCAL is unset in
    echo /var/qmail/supervise/qmail-smtpd/run
    exit 1
fi

if [ ! -f /var/qmail/control/rcpthosts ]; then
    echo "No /var/qmail/control/rcpthosts! Refusing to start an open relay."
    exit 1
fi

exec /usr/bin/envdir /etc/relay-ctrl relay-ctrl-chdir \\
    /usr/bin/softlimit -m 60000000 \\
    /usr/bin/tcpserver -v -R -H -l "$LOCAL" -x /etc/tcp.smtp.cdb -c "$MAXSMTPD" \\
        -u "$QMAILDUID" -g "$NOFILESGID" 0 smtp \\
        relay-ctrl-check /var/qmail/bin/qmail-smtpd 2>&1
"""

POP3 = """\
#!/bin/sh
exec envdir /etc/relay-ctrl relay-ctrl-chdir softlimit -m 60000000 \\
    tcpserver -vRHl0 -c 100 0 110 \\
    /var/qmail/bin/qmail-popup mail.example.org \\
    checkpassword relay-ctrl-allow /var/qmail/bin/qmail-pop3d Maildir 2>&1
"""

# One script in another, as many guides have it.
NESTED = """\
#!/bin/sh
QMAILDUID=`id -u qmaild`
NOFILESGID=`id -g qmaild`
export QMAILDUID NOFILESGID
exec envdir /etc/relay-ctrl relay-ctrl-chdir sh -c '
    exec softlimit -m 60000000 tcpserver -vRHl0 \\
        -x /etc/tcp.smtp.cdb -c 40 \\
        -u "$QMAILDUID" -g "$NOFILESGID" 0 25 \\
        relay-ctrl-check /var/qmail/bin/qmail-smtpd 2>&1'
"""

LOG = """\
#!/bin/sh
exec setuidgid qmaill multilog t s100000 n20 /var/log/qmail/smtpd
"""

CRON = """\
# lapsed grants
*/5 * * * * root /usr/bin/envdir /etc/relay-ctrl /usr/local/bin/relay-ctrl-age
"""


def one_record(key: bytes, data: bytes) -> bytes:
    """A constant database with one record, as tcprules writes it."""
    number = 5381
    for octet in key:
        number = ((number << 5) + number & 0xFFFFFFFF) ^ octet
    record = struct.pack("<II", len(key), len(data)) + key + data
    table = 2048 + len(record)
    slots = [(0, 0), (0, 0)]
    slots[(number >> 8) % 2] = (number, 2048)
    header = [(table, 2 if index == number & 0xFF else 0) for index in range(256)]
    return (
        b"".join(struct.pack("<II", *pair) for pair in header)
        + record
        + b"".join(struct.pack("<II", *pair) for pair in slots)
    )


class QmailHost:
    """The host's files below `root`."""

    SERVICES = "/service"

    def __init__(self, root: Path) -> None:
        self.root = root
        for program in PROGRAMS:
            self.program(program, _BINARY)
        for command in COMMANDS:
            self.program(f"usr/local/bin/relay-ctrl-{command}", b"#!/usr/bin/python3 -ISE\n")
        self.write(
            "etc/passwd",
            "root:x:0:0:root:/root:/bin/sh\nqmaild:x:7791:2108::/var/qmail:/bin/false\n"
            "qmaill:x:7792:2108::/var/qmail:/bin/false\nvpopmail:x:89:89::/var/vpopmail:/bin/false\n",
        )
        self.write("var/qmail/control/concurrencyincoming", "20\n")
        self.write("var/qmail/control/me", "mail.example.org\n")
        self.write("etc/relay-ctrl/RELAY_CTRL_DIR", "/var/spool/relay-ctrl/allow\n")
        self.write("etc/relay-ctrl/RELAY_CTRL_EXPIRY", "900\n")
        self.write("etc/tcp.smtp", '127.:allow,RELAYCLIENT=""\n:allow\n')
        self.write("etc/tcp.smtp.cdb", one_record(b"", b""))
        self.age("etc/tcp.smtp", 1000)
        self.write("etc/cron.d/relay-ctrl", CRON)
        self.directory("var/spool/relay-ctrl/allow", 0o777)
        self.directory("var/spool/relay-ctrl", 0o700)
        self.script("service/qmail-smtpd/run", SMTP)
        self.script("service/qmail-smtpd/log/run", LOG)
        self.script("service/qmail-pop3d/run", POP3)
        self.script("service/qmail-pop3d/log/run", LOG)

    def write(self, path: str, content: str | bytes) -> None:
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content if isinstance(content, bytes) else content.encode())

    def script(self, path: str, text: str) -> None:
        self.write(path, text)
        (self.root / path).chmod(0o755)

    def program(self, path: str, content: bytes) -> None:
        self.write(path, content)
        (self.root / path).chmod(0o755)

    def directory(self, path: str, mode: int) -> None:
        (self.root / path).mkdir(parents=True, exist_ok=True)
        (self.root / path).chmod(mode)

    def remove(self, path: str) -> None:
        target = self.root / path
        if target.is_dir():
            shutil.rmtree(target)
        else:
            target.unlink()

    def age(self, path: str, seconds: float) -> None:
        """Make a file that many seconds older."""
        modified = (self.root / path).stat().st_mtime - seconds
        os.utime(self.root / path, (modified, modified))

    def smtp(self, text: str) -> None:
        """The SMTP service's run script."""
        self.script("service/qmail-smtpd/run", text)

    def pop3(self, text: str) -> None:
        """The POP3 service's run script."""
        self.script("service/qmail-pop3d/run", text)

    def examine(self, directory: str = SERVICES) -> list[Finding]:
        return examine(Machine(str(self.root), superuser=os.geteuid()), directory)[1]


def one(findings: list[Finding], trap: str, file: str, line: int | None, level: str = "broken") -> Finding:
    """The only finding, which must be this one."""
    assert [(it.trap, it.file, it.line, it.level) for it in findings] == [(trap, file, line, level)], findings
    return findings[0]
