"""Debian's OpenSMTPD, with lines of a document in its smtpd.conf."""

from pathlib import Path

from support.namespace import Namespace

_CONF = """\
listen on 127.0.0.1 port {port}
listen on ::1 port {port}
action "local" maildir "/var/spool/mail/%{{user.username}}"
action "relay" relay
{more}
match from any for domain "here.example" action "local"
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
    """A context manager. It takes mail for here.example; the tables of `more` must be there already."""

    def __init__(self, port: int, more: str) -> None:
        super().__init__("opensmtpd", _START, {}, ["opensmtpd", "opensmtpq"])
        self.port = port
        self._more = more

    def _start(self) -> None:
        more = self._more.replace("/run/popgate", str(self.run))
        (self.run / "granted").write_text("0.0.0.0\n")
        self._files = {
            "smtpd.conf": _CONF.format(port=self.port, more=more),
            "mailname": "mail.example.org\n",
        }
        super()._start()
        self.wait_for_port(self.port)

    def smtpctl(self, directory: Path) -> Path:
        """A program that does in there what smtpctl does."""
        program = directory / "smtpctl"
        program.write_text(f'#!/bin/sh\nexec nsenter --mount --target {self.first} /usr/sbin/smtpctl "$@"\n')
        program.chmod(0o755)
        return program
