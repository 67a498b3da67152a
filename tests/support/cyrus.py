"""Debian's Cyrus IMAP on a machine of its own: private mounts and processes, and rsyslog for its lines.

Cyrus excludes Dovecot and Courier, so its packages are only unpacked (tools/unpack-peers) and appear
at their places for the processes of one mount namespace.
"""

import shutil
import socket
import subprocess
import tempfile
import time
from pathlib import Path

import pytest

from support import peers, syslog
from support.ports import free_ports

USER = "dave"
PASSWORD = "correct horse"
CYRUS = 64030
START_SECONDS = 30.0

_NAMESPACE = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]
_IMAPD_CONF = """\
configdirectory: {site}/db
partition-default: {site}/spool
defaultpartition: default
syslog_prefix: cyrus
admins: cyrus
allowplaintext: yes
sasl_mech_list: PLAIN LOGIN
sasl_pwcheck_method: auxprop
sasl_auxprop_plugin: sasldb
sasl_sasldb_path: {site}/sasldb2
servername: localhost
autocreate_users: anyone
autocreate_quota: 0
"""
_CYRUS_CONF = """\
START {{ recover cmd="ctl_cyrusdb -r" }}
SERVICES {{
  imap cmd="imapd -U 30" listen="localhost:{imap}" prefork=0
  pop3 cmd="pop3d -U 30" listen="localhost:{pop3}" prefork=0
}}
EVENTS {{ }}
"""
# The overlays are as in support.courier; nobody outside sees them.
_START = """\
set -e
mount -t overlay -o lowerdir={cyrus}/usr:/usr none /usr
mount -t overlay -o lowerdir={site}/etc:/etc none /etc
{syslog}
mount -t tmpfs none /run
printf '%s' '{password}' | saslpasswd2 -p -c -f {site}/sasldb2 -u localhost {user}
chown -R {uid}:{uid} {site}/db {site}/spool {site}/sasldb2
/usr/lib/cyrus/bin/master -p {site}/pid &
read -r _ || :
"""


class Cyrus:
    """A context manager; `mail_log` is where rsyslog writes its lines."""

    def __enter__(self) -> "Cyrus":
        for package in ("cyrus-imapd", "cyrus-pop3d", "rsyslog"):
            peers.require(package)
        peers.require_root("cyrus-imapd")
        tried = subprocess.run(
            [*_NAMESPACE, "mount", "-t", "tmpfs", "none", "/mnt"], capture_output=True, text=True, check=False
        )
        if tried.returncode:
            pytest.skip(f"peer missing: cyrus-imapd (no private mounts here: {tried.stderr.strip()[:100]})")
        self.site = Path(tempfile.mkdtemp(prefix="popgate-cyrus-"))
        self.site.chmod(0o755)
        try:
            self._start()
        except BaseException:
            shutil.rmtree(self.site, ignore_errors=True)
            raise
        return self

    def _start(self) -> None:
        site = self.site
        self.imap_port, self.pop3_port = free_ports(2)
        for name in ("db", "spool", "etc"):
            (site / name).mkdir()
        etc = site / "etc"
        (etc / "imapd.conf").write_text(_IMAPD_CONF.format(site=site))
        (etc / "cyrus.conf").write_text(_CYRUS_CONF.format(imap=self.imap_port, pop3=self.pop3_port))
        (etc / "hosts").write_text("127.0.0.1 localhost\n::1 localhost\n")
        for name, line in (
            ("passwd", f"cyrus:x:{CYRUS}:{CYRUS}::/:/bin/false"),
            ("group", f"cyrus:x:{CYRUS}:"),
        ):
            (etc / name).write_text(f"{Path('/etc', name).read_text()}{line}\n")
        script = site / "start"
        script.write_text(
            _START.format(
                site=site,
                cyrus=peers.UNPACKED_CYRUS,
                syslog=syslog.lay_out(site),
                password=PASSWORD,
                user=USER,
                uid=CYRUS,
            )
        )
        with (site / "output").open("wb") as output:
            self._machine = subprocess.Popen(
                [*_NAMESPACE, "sh", str(script)],
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        for port in (self.pop3_port, self.imap_port):
            self._await(port)

    def _await(self, port: int) -> None:
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
                    if connection.recv(200):
                        return
            except OSError:
                pass
            if time.monotonic() > deadline or self._machine.poll() is not None:
                self._end()
                raise AssertionError(f"Cyrus does not start:\n{(self.site / 'output').read_text()}")
            time.sleep(0.1)

    @property
    def mail_log(self) -> Path:
        return syslog.mail_log(self.site)

    def _end(self) -> None:
        assert self._machine.stdin is not None
        self._machine.stdin.close()  # the namespace's first process ends, and with it every other
        try:
            self._machine.wait(10)
        except subprocess.TimeoutExpired:
            self._machine.kill()
            self._machine.wait()

    def __exit__(self, *_: object) -> None:
        self._end()
        shutil.rmtree(self.site, ignore_errors=True)
