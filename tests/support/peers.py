"""Real programs that tests talk to, by the Debian package they come from.

A test says what it needs with `@pytest.mark.peer("swaks")`, or calls `require("swaks")` for the
program's path. A test whose peer is missing is skipped, and the run ends with a count of those.
"""

import collections
import functools
import os
import re
import shutil
import subprocess
from collections.abc import Iterable
from pathlib import Path

import pytest

_DIRECTORIES = f"{os.environ.get('PATH', '')}:/usr/local/sbin:/usr/sbin:/sbin"

# Packages that exclude others of them, and are unpacked by tools/unpack-peers.
UNPACKED = Path(__file__).parents[2] / ".venv/peers/root"
UNPACKED_CYRUS = Path(__file__).parents[2] / ".venv/peers-cyrus/root"

# Packages whose program is not named like the package.
_FILES = {
    "dovecot-core": "/usr/sbin/dovecot",
    "dovecot-imapd": "/usr/lib/dovecot/imap",
    "dovecot-pop3d": "/usr/lib/dovecot/pop3",
    "postfix": "/usr/lib/postfix/sbin/master",
    "postfix-cdb": "/usr/lib/postfix/postfix-cdb.so",
    "postfix-lmdb": "/usr/lib/postfix/postfix-lmdb.so",
    "ucspi-tcp": "tcpserver",
    "daemontools": "setuidgid",
    "redis-server": "redis-server",
    "rsyslog": "/usr/sbin/rsyslogd",
    "systemd-journal-remote": "/usr/lib/systemd/systemd-journal-remote",
    "runit": "chpst",
    "cyrus-imapd": f"{UNPACKED_CYRUS}/usr/lib/cyrus/bin/imapd",
    "cyrus-pop3d": f"{UNPACKED_CYRUS}/usr/lib/cyrus/bin/pop3d",
    "exim4-daemon-light": f"{UNPACKED}/usr/sbin/exim4",
    "opensmtpd": f"{UNPACKED}/usr/sbin/smtpd",
    "sendmail-bin": f"{UNPACKED}/usr/libexec/sendmail/sendmail",
    "courier-pop": f"{UNPACKED}/usr/lib/courier/courier/courierpop3d",
    "courier-imap": f"{UNPACKED}/usr/bin/imapd",
}
_PERL_MODULES = {
    "perl": "Net::POP3",
    "libio-socket-ssl-perl": "IO::Socket::SSL",
    "libnet-ssleay-perl": "Net::SSLeay",
}
_MISSING = "peer missing: "


@functools.cache
def find(package: str) -> str | None:
    """The path of the program that `package` brings, or None."""
    if module := _PERL_MODULES.get(package):
        perl = shutil.which("perl")
        if perl is None or subprocess.run([perl, f"-M{module}", "-e", "1"], capture_output=True).returncode:
            return None
        return perl
    program = _FILES.get(package, package)
    if program.startswith("/") and Path(program).is_file():
        return program
    return shutil.which(program, path=_DIRECTORIES)


def require(package: str) -> str:
    """The path of the program that `package` brings; skips the test where it is missing."""
    path = find(package)
    if path is None:
        pytest.skip(f"{_MISSING}{package}")
    return path


def require_root(package: str) -> None:
    """Skip the test when the peer can only be started by root and we are not."""
    if os.geteuid() != 0:
        pytest.skip(f"{_MISSING}{package} (only root can start it)")


def summary(skip_reasons: Iterable[str], ran: int) -> list[str]:
    """The lines at the end of a test run: how many tests met a real program, and what was missing."""
    missing: collections.Counter[str] = collections.Counter()
    for reason in skip_reasons:
        if match := re.search(f"{_MISSING}(.+)", reason):
            missing[match[1]] += 1
    if not missing and not ran:
        return []
    lines = [f"peers: {ran} tests ran against real programs, {missing.total()} skipped"]
    lines += [f"  {count:4} for want of {package}" for package, count in sorted(missing.items())]
    packages = sorted({package.split()[0] for package in missing})
    installed = [package for package in packages if not _is_unpacked(package)]
    if installed:
        lines.append(f"  to run them: as root, apt-get install --no-install-recommends {' '.join(installed)}")
    if installed != packages:
        lines.append("  to run those of unpacked packages: make peers, and root's rights to mount")
    return lines


def _is_unpacked(package: str) -> bool:
    return _FILES.get(package, "").startswith((f"{UNPACKED}/", f"{UNPACKED_CYRUS}/"))
