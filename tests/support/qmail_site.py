"""A qmail host that runs: the recipe's directories and run scripts, under daemontools' supervise.

qmail itself is in no package, so small programs with its interfaces stand for it (tests/support/qmail).
Everything lies in a directory that other users can pass through, since the recipe is about them.
"""

import contextlib
import os
import poplib
import shutil
import smtplib
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from support.ports import free_port
from support.relay_ctrl import Installed

QMAILD, ALICE, BOB = 64001, 64011, 64012
REMOTE, LOCAL = "invoices@partner.example", "bob@example.org"
PASSWORD = "correct horse"
START_SECONDS = 20.0

_ROOT = Path(__file__).parents[2]
_STAND_INS = {
    "smtpd": "qmail-smtpd",
    "popup": "qmail-popup",
    "pop3d": "qmail-pop3d",
    "checkpassword": "checkpassword",
}

SMTP_RUN = """\
#!/bin/sh
QMAILDUID={qmaild} NOFILESGID={qmaild}
export QMAILDUID NOFILESGID
exec envdir {root}/etc/relay-ctrl relay-ctrl-chdir sh -c '
    exec softlimit -m 200000000 {tcpserver} -vRHl0 -x {root}/etc/tcp.smtp.cdb -c 20 \\
        -u "$QMAILDUID" -g "$NOFILESGID" {host} {port} \\
        relay-ctrl-check qmail-smtpd 2>&1'
"""

POP3_RUN = """\
#!/bin/sh
exec envdir {root}/etc/relay-ctrl relay-ctrl-chdir softlimit -m 200000000 \\
    {tcpserver} -vRHl0 -c 20 {host} {port} \\
    qmail-popup mail.example.org checkpassword relay-ctrl-allow qmail-pop3d Maildir 2>&1
"""


class QmailSite:
    """The host. `tcpserver` is the word in the run scripts; `host` where they listen."""

    def __init__(
        self,
        tcpserver: str = "tcpserver",
        *,
        host: str = "127.0.0.1",
        expiry_seconds: int = 900,
        smtp_run: str = SMTP_RUN,
        pop3_run: str = POP3_RUN,
    ) -> None:
        self.tcpserver, self.host = tcpserver, host
        self.installed = Installed()
        self.root = Path(tempfile.mkdtemp(prefix="popgate-qmail-"))
        self.root.chmod(0o755)
        self.allow = self.root / "spool/allow"
        self.queue = self.root / "qmail/queue"
        self.bin = self.root / "qmail/bin"
        self._supervisors: dict[str, subprocess.Popen[bytes]] = {}
        self._lay_out(expiry_seconds)
        for name in ("smtpd", "popup", "pop3d", "checkpassword"):
            self._stand_in(name)
        self._popgate()
        self.ports = {"smtpd": free_port(host), "pop3d": free_port(host)}
        self.script("smtpd", smtp_run)
        self.script("pop3d", pop3_run)

    def _lay_out(self, expiry_seconds: int) -> None:
        self._file("etc/relay-ctrl/RELAY_CTRL_DIR", f"{self.allow}\n")
        self._file("etc/relay-ctrl/RELAY_CTRL_EXPIRY", f"{expiry_seconds}\n")
        self._file("etc/cron", f"* * * * * root envdir {self.root}/etc/relay-ctrl relay-ctrl-age\n")
        self._file("etc/tcp.smtp", '192.0.2.:allow,RELAYCLIENT=""\n:allow\n')
        self.compile_rules()
        # root's directory around one that is everybody's: only the descriptor leads there
        self.allow.parent.mkdir(mode=0o700)
        self.allow.mkdir()
        self.allow.chmod(0o777)
        self.queue.mkdir(parents=True)
        self.queue.chmod(0o777)
        self._file("qmail/control/me", "mail.example.org\n")
        self._file("qmail/control/rcpthosts", "example.org\n.example.org\n")
        users = []
        for name, uid in (("alice", ALICE), ("bob", BOB)):
            home = self.root / "home" / name
            for folder in ("new", "cur", "tmp"):
                (home / "Maildir" / folder).mkdir(parents=True)
            (home / "Maildir/new/1.host").write_text("Subject: hello\n\nhello\n")
            for path in [home, *home.rglob("*")]:
                os.chown(path, uid, uid)
            home.chmod(0o700)
            users.append(f"{name}:{PASSWORD}:{uid}:{uid}:{home}:example.org\n")
        self._file("qmail/control/users", "".join(users))
        (self.root / "qmail/control/users").chmod(0o600)

    def _file(self, path: str, text: str) -> None:
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)

    def _stand_in(self, name: str) -> None:
        source = (Path(__file__).parent / "qmail" / f"{name}.py").read_text()
        program = self.bin / _STAND_INS[name]
        program.parent.mkdir(parents=True, exist_ok=True)
        text = source.replace("@HOME@", str(self.root / "qmail"))
        program.write_text(f"#!{self.installed.interpreter} -ISE\n{text}")
        program.chmod(0o755)

    def _popgate(self) -> None:
        """The command itself, from this checkout and with this interpreter."""
        program = self.root / "bin/popgate"
        program.parent.mkdir()
        program.write_text(
            "#!/bin/sh\n"
            f'PYTHONPATH={_ROOT / "src"} PYTHONDONTWRITEBYTECODE=1 exec {sys.executable} -m popgate "$@"\n'
        )
        program.chmod(0o755)

    def compile_rules(self) -> None:
        rules = self.root / "etc/tcp.smtp"
        subprocess.run(["tcprules", f"{rules}.cdb", f"{rules}.tmp"], input=rules.read_bytes(), check=True)

    @property
    def path(self) -> str:
        return f"{self.root}/bin:{self.installed.bin}:{self.bin}:/usr/bin:/bin"

    def script(self, service: str, text: str) -> None:
        run = self.root / "service" / service / "run"
        run.parent.mkdir(parents=True, exist_ok=True)
        run.write_text(
            text.format(
                root=self.root,
                tcpserver=self.tcpserver,
                host=self.host,
                port=self.ports[service],
                qmaild=QMAILD,
                path=self.path,
            )
        )
        run.chmod(0o755)

    # -- running

    def start(self) -> None:
        for service in self.ports:
            self.supervise(service)
        for service, greeting in (("smtpd", b"220"), ("pop3d", b"+OK")):
            self.await_service(service, greeting)

    def supervise(self, service: str) -> None:
        with open(self.log_of(service), "ab") as log:
            self._supervisors[service] = subprocess.Popen(
                ["supervise", service],
                cwd=self.root / "service",
                env={"PATH": self.path},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def stop(self) -> None:
        for service, supervisor in self._supervisors.items():
            subprocess.run(["svc", "-dx", str(self.root / "service" / service)], check=False)
            try:
                supervisor.wait(10)
            except subprocess.TimeoutExpired:
                supervisor.kill()
                supervisor.wait()
        shutil.rmtree(self.root, ignore_errors=True)
        self.installed.remove()

    def log_of(self, service: str) -> Path:
        return self.root / f"{service}.log"

    def pid(self, service: str) -> int:
        """Of the program that supervise runs: the listener, once the chain has become it."""
        told = subprocess.run(
            ["svstat", str(self.root / "service" / service)], capture_output=True, text=True, check=True
        ).stdout
        return int(told.partition("(pid ")[2].partition(")")[0] or 0)

    def await_service(self, service: str, greeting: bytes) -> None:
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                with socket.create_connection((self.host, self.ports[service]), timeout=5) as connection:
                    if connection.recv(100).startswith(greeting):
                        return
            except OSError:
                pass
            if time.monotonic() > deadline:
                raise AssertionError(f"{service} does not start:\n{self.log_of(service).read_text()}")
            time.sleep(0.05)

    # -- being a client

    def log_in(
        self, source: str, password: str = PASSWORD, user: str = "alice", *, apop: bool = False
    ) -> int:
        """A whole POP3 session from that address; how many messages there were. Raises
        poplib.error_proto where the login is refused."""
        with contextlib.closing(pop3_from(self._near(source), self.ports["pop3d"], source)) as session:
            if apop:
                session.apop(user, password)
            else:
                session.user(user)
                session.pass_(password)
            count, _ = session.stat()
            session.quit()
            return count

    def may_relay(self, source: str) -> bool:
        with self.smtp(source) as session:
            session.ehlo("device")
            session.mail("scanner@example.org")
            code, text = session.rcpt(REMOTE)
            assert code in (250, 553), (code, text)
            # mail for here goes in, whoever brings it
            assert session.rcpt(LOCAL)[0] == 250
            session.quit()
            return code == 250

    def send(self, source: str) -> str:
        """Send a message; what the queue got."""
        with self.smtp(source) as session:
            session.sendmail("scanner@example.org", [REMOTE], "Subject: page\r\n\r\n.scanned\r\n")
        (file,) = self.queue.iterdir()
        text = file.read_text()
        file.unlink()
        return text

    def smtp(self, source: str) -> smtplib.SMTP:
        return smtplib.SMTP(
            self._near(source), self.ports["smtpd"], "device", timeout=20, source_address=(source, 0)
        )

    def _near(self, source: str) -> str:
        """Where a client of that address finds the host."""
        if self.host != "::":
            return self.host
        return "::1" if ":" in source else "127.0.0.1"

    # -- looking

    def command(self, *words: str) -> None:
        """Run one of the host's programs as root."""
        subprocess.run(words, env={"PATH": self.path}, check=True, timeout=30)

    def grant_file(self, address: str) -> Path:
        return self.allow / address

    def make_older(self, address: str, seconds: float) -> None:
        """As if the last login had been that much earlier."""
        file = self.grant_file(address)
        modified = file.stat().st_mtime - seconds
        os.utime(file, (modified, modified))


@contextlib.contextmanager
def running(site: QmailSite) -> Iterator[QmailSite]:
    try:
        site.start()
        yield site
    finally:
        site.stop()


def eventually(condition: Callable[[], bool], seconds: float = 10.0) -> bool:
    deadline = time.monotonic() + seconds
    while not (holds := condition()) and time.monotonic() < deadline:
        time.sleep(0.05)
    return holds


class _Pop3From(poplib.POP3):
    """POP3 from an address of this machine."""

    source = ""

    def _create_socket(self, timeout):  # type: ignore[no-untyped-def]
        return socket.create_connection((self.host, self.port), timeout, source_address=(self.source, 0))


def pop3_from(host: str, port: int, source: str) -> poplib.POP3:
    cls = type("Pop3FromThere", (_Pop3From,), {"source": source})
    session = cls(host, port, timeout=20)
    assert isinstance(session, poplib.POP3)
    return session
