"""Debian's OpenSMTPD, with lines of a document in its smtpd.conf."""

from collections.abc import Mapping
from pathlib import Path

from support.namespace import Namespace

_CONF = """\
listen on 127.0.0.1 port {port}
listen on ::1 port {port}
action "local" maildir "/var/spool/mail/%{{user.username}}"
action "relay" relay
match from any for domain "here.example" action "local"
{more}
"""
_START = """\
mkdir -p /var/lib/opensmtpd/empty /var/spool/smtpd /var/spool/mail
chmod 711 /var/spool/smtpd
cp /usr/sbin/smtpctl /var/lib/smtpctl
chgrp opensmtpq /var/lib/smtpctl
chmod 2755 /var/lib/smtpctl
mount --bind /var/lib/smtpctl /usr/sbin/smtpctl
/usr/sbin/smtpd -d -f /etc/smtpd.conf &
"""


class OpenSmtpd(Namespace):
    """A context manager. It takes mail for here.example; the tables of `more` must be there already.

    `tables`: programs of tables by their kind; `files`: what lies below /etc.
    """

    def __init__(
        self,
        port: int,
        more: str,
        tables: Mapping[str, str | Path] | None = None,
        files: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__("opensmtpd", _START, {}, ["opensmtpd", "opensmtpq"])
        self.port = port
        self._more = more
        self._tables = tables or {}
        self._more_files = files or {}

    def _start(self) -> None:
        more = self._more.replace("/run/popgate", str(self.run))
        tables = self.site / "usr/libexec/opensmtpd"
        tables.mkdir(parents=True)
        for kind, program in self._tables.items():
            (tables / f"table-{kind}").symlink_to(program)
        (self.run / "granted").write_text("0.0.0.0\n")
        self._files = {
            "smtpd.conf": _CONF.format(port=self.port, more=more),
            "mailname": "mail.example.org\n",
            **{name: text.replace("/run/popgate", str(self.run)) for name, text in self._more_files.items()},
        }
        super()._start()
        self.wait_for_port(self.port)

    @property
    def processes(self) -> dict[int, str]:
        """Those of the private machine that run, as they are called outside, with their command lines."""
        found, waiting = {}, [self.first]
        while waiting:
            pid = waiting.pop()
            try:
                found[pid] = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode().strip()
                waiting += map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split())
            except OSError:
                found.pop(pid, None)  # it has just ended
        return {pid: command for pid, command in found.items() if command}

    def smtpctl(self, directory: Path) -> Path:
        """A program that does in there what smtpctl does."""
        program = directory / "smtpctl"
        program.write_text(f'#!/bin/sh\nexec nsenter --mount --target {self.first} /usr/sbin/smtpctl "$@"\n')
        program.chmod(0o755)
        return program
