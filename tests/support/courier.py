"""Debian's Courier as docs/courier.md sets it up, on a machine of its own: private mounts and processes.

Courier excludes Dovecot and looks for its files at fixed places. So its packages are only unpacked
(tools/unpack-peers), and appear at those places for the processes of one mount namespace. Debian's
own start scripts start it; what is ours is the users and what the document says to change.
"""

import os
import re
import shutil
import socket
import subprocess
import tempfile
import time
from pathlib import Path

import pytest

from support import peers, syslog
from support.certificates import Certificates
from support.ports import free_ports
from support.relay_ctrl import Installed

USER = "carol@example.org"
PASSWORD = "correct horse"
CAROL = 64021
START_SECONDS = 20.0

_ROOT = Path(__file__).parents[2]
_DOCUMENT = _ROOT / "docs/courier.md"
_PROGRAMS = ("usr/lib/courier/courier/courierpop3d", "usr/bin/imapd")

# Layers over the machine's own directories; nobody outside sees them.
_START = """\
set -e
mount -t overlay -o lowerdir={site}/usr:{courier}/usr:/usr none /usr
mount -t overlay -o lowerdir={site}/etc:/etc none /etc
mount --bind {site}/etc/courier /etc/courier
{syslog}
mount -t tmpfs none /run
mkdir -p /run/courier/authdaemon
/usr/sbin/makeuserdb
/usr/sbin/authdaemond start
/usr/sbin/pop3d start
/usr/sbin/imapd start
/usr/sbin/pop3d-ssl start
# as Courier's old scripts did it: the recorder before the login too, told that nobody is there yet
too_early() {{
    env -i PATH=/usr/sbin:/usr/bin:/bin "$@" \\
        /usr/local/bin/relay-ctrl-allow /usr/lib/courier/courier/courierpop3login \\
        /usr/lib/courier/courier/courierpop3d Maildir &
}}
listen="/usr/local/bin/relay-ctrl-chdir --envdir /etc/relay-ctrl
    /usr/sbin/couriertcpd -address=127.0.0.1 -nodnslookup -noidentlookup"
too_early AUTHUSER=/usr/bin/imapd AUTHARGV0=imapd $listen {old}
# the same with nobody who says so
too_early $listen {early}
read -r _ || :
"""


def _require_namespaces() -> None:
    peers.require_root("courier-pop")
    tried = subprocess.run(
        [*_NAMESPACE, "mount", "-t", "tmpfs", "none", "/mnt"], capture_output=True, text=True, check=False
    )
    if tried.returncode:
        pytest.skip(f"peer missing: courier-pop (no private mounts here: {tried.stderr.strip()[:100]})")


_AS_SMTP_USER = ["setpriv", "--reuid=64001", "--regid=64001", "--clear-groups"]
_NAMESPACE = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]


def documented() -> tuple[str, list[str]]:
    """The script behind the login, and the lines for /etc/courier/pop3d and imapd."""
    text = _DOCUMENT.read_text()
    (script,) = re.findall(r"^```\n(#!/bin/sh\n.*?)^```", text, re.DOTALL | re.MULTILINE)
    return script, re.findall(r"^LOGGEROPTS=.*$", text, re.MULTILINE)


class Courier:
    """A context manager. `allow` is the directory of grants.

    `has_syslog`: what it says goes to `mail_log`, by rsyslog.

    On `old_port` and `early_port` relay-ctrl-allow runs before courierpop3login too: there with what
    Courier's old scripts said about it, here without.
    """

    def __init__(self, *, has_syslog: bool = False) -> None:
        self._has_syslog = has_syslog

    def __enter__(self) -> "Courier":
        if self._has_syslog:
            peers.require("rsyslog")
        for package in ("courier-pop", "courier-imap", "openssl"):
            peers.require(package)
        self._courier = peers.UNPACKED
        _require_namespaces()
        self.site = Path(tempfile.mkdtemp(prefix="popgate-courier-"))
        self.site.chmod(0o755)
        self.installed = Installed()
        try:
            self._start()
        except BaseException:
            self._remove()
            raise
        return self

    def _start(self) -> None:
        self.pop3_port, self.pop3s_port, self.imap_port, self.old_port, self.early_port = free_ports(5)
        self.allow = self.site / "spool/allow"
        self.allow.parent.mkdir(mode=0o700)
        self.allow.mkdir()
        self.allow.chmod(0o777)
        self._lay_out_programs()
        self._lay_out_settings()
        self._lay_out_user()
        script = self.site / "start"
        script.write_text(
            _START.format(
                site=self.site,
                courier=self._courier,
                old=self.old_port,
                early=self.early_port,
                syslog=syslog.lay_out(self.site) if self._has_syslog else "",
            )
        )
        with self._log.open("wb") as log:
            self._machine = subprocess.Popen(
                [*_NAMESPACE, "sh", str(script)],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        for port in (self.pop3_port, self.old_port, self.early_port):
            self._await(port, b"+OK")
        self._await(self.imap_port, b"* OK")
        self._await(self.pop3s_port, None)

    def _lay_out_programs(self) -> None:
        bin = self.site / "usr/local/bin"
        bin.mkdir(parents=True)
        for program in self.installed.bin.glob("relay-ctrl-*"):
            (bin / program.name).symlink_to(program)
        for program_path in _PROGRAMS:
            diverted = self.site / f"{program_path}.real"
            diverted.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(self._courier / program_path, diverted)
            (self.site / program_path).write_text(documented()[0])
            (self.site / program_path).chmod(0o755)

        # an alternative that Debian's installation makes
        (self.site / "usr/bin/makedat").symlink_to("makedat.courier")

    def _lay_out_settings(self) -> None:
        etc = self.site / "etc"
        shutil.copytree(self._courier / "etc/courier", etc / "courier")
        pop3, imap = documented()[1]
        for name, line, port in (("pop3d", pop3, self.pop3_port), ("imapd", imap, self.imap_port)):
            with (etc / "courier" / name).open("a") as file:
                file.write(f"\nADDRESS=127.0.0.1\nPORT={port}\nMAXPERIP=40\n{line}\n")
        with (etc / "courier/imapd").open("a") as file:
            file.write("IMAP_USELOCKS=0\n")  # a lock takes a second without Gamin
        # one file with the chain and the key
        self.certificates = Certificates(self.site)
        paths = self.certificates.settings
        pem = "".join(Path(path).read_text() for path in (paths.key, paths.certificate))
        (etc / "courier/pop3d.pem").write_text(pem)
        with (etc / "courier/pop3d-ssl").open("a") as file:
            file.write(f"\nSSLADDRESS=127.0.0.1\nSSLPORT={self.pop3s_port}\nSSL{pop3}\n")
        for name, line in (("passwd", "courier:x:64022:64022::/:/bin/false"), ("group", "courier:x:64022:")):
            (etc / name).write_text(f"{Path('/etc', name).read_text()}{line}\n")
        for name in ("pop3d-ssl", "imapd-ssl"):  # below a directory that is not here
            with (etc / "courier" / name).open("a") as file:
                file.write("\nTLS_CACHEFILE=\n")
        with (etc / "courier/authdaemonrc").open("a") as file:
            file.write('\nauthmodulelist="authuserdb"\ndaemons=1\n')
        variables = etc / "relay-ctrl"
        variables.mkdir()
        (variables / "RELAY_CTRL_DIR").write_text(f"{self.allow}\n")
        (variables / "RELAY_CTRL_EXPIRY").write_text("900\n")

    def _lay_out_user(self) -> None:
        home = self.site / "home"
        for folder in ("new", "cur", "tmp"):
            (home / "Maildir" / folder).mkdir(parents=True)
        (home / "Maildir/new/1.host").write_text("Subject: hello\n\nhello\n")
        for path in (home, *home.rglob("*")):
            os.chown(path, CAROL, CAROL)
        password = subprocess.run(
            [peers.require("openssl"), "passwd", "-6", PASSWORD], capture_output=True, text=True, check=True
        ).stdout.strip()
        users = self.site / "etc/courier/userdb"
        users.write_text(
            f"{USER}\tuid={CAROL}|gid={CAROL}|home={home}|shell=/bin/sh|mail={home}/Maildir|systempw={password}\n"
        )
        users.chmod(0o600)

    @property
    def mail_log(self) -> Path:
        return syslog.mail_log(self.site)

    @property
    def _log(self) -> Path:
        return self.site / "log"

    @property
    def log(self) -> str:
        """What the start and the listeners of old scripts said; the others write to syslog."""
        return self._log.read_text(errors="replace")

    def _await(self, port: int, greeting: bytes | None) -> None:
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                # from an address where no test looks for a grant
                with socket.create_connection(
                    ("127.0.0.1", port), timeout=5, source_address=("127.0.4.254", 0)
                ) as connection:
                    if greeting is None or connection.recv(200).startswith(greeting):
                        return
            except OSError:
                pass
            if time.monotonic() > deadline or self._machine.poll() is not None:
                self._end()
                raise AssertionError(f"Courier does not start:\n{self.log}")
            time.sleep(0.05)

    def _end(self) -> None:
        assert self._machine.stdin is not None
        self._machine.stdin.close()  # the namespace's first process ends, and with it every other
        try:
            self._machine.wait(10)
        except subprocess.TimeoutExpired:
            self._machine.kill()
            self._machine.wait()

    def _remove(self) -> None:
        self.installed.remove()
        shutil.rmtree(self.site, ignore_errors=True)

    def recorded(self, address: str) -> bytes | None:
        """What the grant file of that address holds."""
        try:
            return (self.allow / address).read_bytes()
        except FileNotFoundError:
            return None

    def relay_client(self, address: str) -> str | None:
        """What relay-ctrl-check tells an SMTP server of a user of its own: who may relay, or None."""
        check = self.installed.path("relay-ctrl-check")
        shown = self.installed.run(
            ["relay-ctrl-chdir", *_AS_SMTP_USER, check, "env", "-0"],
            {"RELAY_CTRL_DIR": str(self.allow), "RELAY_CTRL_EXPIRY": "900", "TCPREMOTEIP": address},
        )
        assert shown.returncode == 0 and not shown.stderr, shown
        variables = dict(line.split("=", 1) for line in shown.stdout.decode().split("\0") if line)
        return variables["USER"] if "RELAYCLIENT" in variables else None

    def __exit__(self, *_: object) -> None:
        self._end()
        self._remove()
