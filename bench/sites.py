"""The servers that the benchmarks compare: ours as shipped, and the peers on this machine.

Each is a context manager; its `pid` is the root of its tree of processes. Passwords are
`secret`, users `user0` and on, of example.org where the server knows domains. Every user has
three small messages, the same for every server.
"""

import contextlib
import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Self

from bench import load
from popgate.auth.backends.accounts import AccountDatabase
from popgate.files.real import RealDisk
from support import peers, ports
from support.dovecot import Dovecot
from support.popgate import Popgate
from support.postfix import Postfix
from support.process import ServerProcess

PASSWORD = "secret"
MANY = "many"  # the user with 10,000 messages
MANY_MESSAGES = 10_000
_MESSAGE = b"From: device@example.org\nTo: user@example.org\nSubject: scan\n\n" + b"x" * 60 + b"\n"

# As shipped, but for the limits that a load generator on loopback would meet before anything else.
_SETTINGS = """\
[grants]
never = []
quota_messages = 100000000
quota_recipients = 100000000
quota_bytes = 100000000000000
"""
_LISTENERS = (
    ("smtp", "max_connections = 10000"),
    ("pop3", "plaintext_login = true\nmax_connections = 10000"),
)


class PeerMissing(Exception):
    """The machine lacks the peer; the text says what it lacks."""


def users(count: int) -> list[str]:
    return [f"user{number}" for number in range(count)]


class PopgateSite(Popgate):
    """Our server with `count` accounts, as many workers as shipped unless told."""

    def __init__(
        self,
        *,
        count: int = load.USERS,
        workers: int = 0,
        has_many: bool = False,
        does_deliver: bool = True,
        smarthost: str = "",
        listeners: Sequence[tuple[str, str]] = _LISTENERS,
    ) -> None:
        self._does_deliver = does_deliver
        self._root = Path(tempfile.mkdtemp(prefix="popgate-bench-"))
        self._names = [*users(count), *([MANY] if has_many else [])]
        settings = _SETTINGS + (f'\n[delivery]\nsmarthost = "{smarthost}"\n' if smarthost else "")
        super().__init__(self._root, listeners, settings, workers=workers)
        self._lock: int | None = None

    def __enter__(self) -> Self:
        (self._root / "data").mkdir(mode=0o700)
        self._make_accounts()
        for name in self._names:
            _fill(self.maildir(name), MANY_MESSAGES if name == MANY else 3)
        if not self._does_deliver:
            self._hold()
        self.start()
        return self

    def __exit__(self, *reason: object) -> None:
        try:
            super().__exit__(*reason)
        finally:
            if self._lock is not None:
                os.close(self._lock)
            shutil.rmtree(self._root, ignore_errors=True)

    def maildir(self, name: str) -> Path:
        return self._root / "data/mail/example.org" / name

    def delivered(self) -> int:
        return sum(len(os.listdir(self.maildir(name) / "new")) for name in self._names)

    def _hold(self) -> None:
        """Nothing is delivered: we hold the lock of who delivers."""
        path = self._root / "data/queue"
        path.mkdir(mode=0o700)
        queue = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            self._lock = RealDisk().lock("delivery.lock", queue)
        finally:
            os.close(queue)

    def log_in(self) -> None:
        """Every user from the address that is theirs: grants for all, and both workers know the passwords."""
        options = ("-c", 4, "--users", load.USERS, "--user", "user%d@example.org", "--pass", PASSWORD)
        load.run(
            "pop3",
            *("-n", load.USERS * 12, *options, "--source-range", load.SOURCES),
            port=self.port("pop3"),
            pid=self.pid,
            is_warm_up=True,
        )

    def _make_accounts(self) -> None:
        """One password hashed once: what is measured later is a login that is remembered."""
        path = str(self._root / "data/accounts.db")
        accounts = AccountDatabase(path)
        first, *rest = self._names
        accounts.add(f"{first}@example.org", PASSWORD)
        accounts.close()
        with contextlib.closing(sqlite3.connect(path)) as connection, connection:
            row = connection.execute("SELECT * FROM accounts").fetchone()
            marks = ", ".join("?" * len(row))
            connection.executemany(
                f"INSERT INTO accounts VALUES ({marks})",
                [(f"{name}@example.org", *row[1:]) for name in rest],
            )


class DovecotSite(Dovecot):
    def __init__(self, *, is_fast: bool, count: int = load.USERS, has_many: bool = False) -> None:
        self.require()
        self._names = [*users(count), *([MANY] if has_many else [])]
        super().__init__(dict.fromkeys(self._names, PASSWORD), is_fast=is_fast)

    def __enter__(self) -> Self:
        super().__enter__()
        for name in self._names:
            _fill(self.maildir(name), MANY_MESSAGES if name == MANY else 3)
            self.give(self.maildir(name))
        return self

    @staticmethod
    def require() -> None:
        """Raises PeerMissing."""
        _require("dovecot-core", "dovecot-pop3d", "dovecot-imapd")

    def forget_indexes(self, name: str) -> None:
        for path in self.maildir(name).glob("dovecot*"):
            path.unlink()


class PostfixSite(Postfix):
    """Takes mail from 127.0.0.0/8. `does_hold`: it stays in the hold queue; otherwise mail for
    example.org goes to Maildirs by Postfix's own virtual(8), the rest to `smarthost`. `asks`: the
    restriction that asks about each client instead."""

    def __init__(self, *, does_hold: bool, smarthost: str = "", asks: str = "") -> None:
        self.require()
        root = "$queue_directory/../mail"
        options = {
            "smtpd_recipient_restrictions": f"{asks or 'permit_mynetworks'}, reject",
            "smtpd_relay_restrictions": "permit_mynetworks, reject",
            "virtual_mailbox_domains": "example.org",
            "virtual_mailbox_base": root,
            "virtual_mailbox_maps": "texthash:$config_directory/mailboxes",
            "virtual_mailbox_limit": "0",
            "virtual_minimum_uid": "1",
            "virtual_uid_maps": "static:65534",
            "virtual_gid_maps": "static:65534",
            "virtual_transport": "virtual",
            "virtual_alias_maps": "",
            "in_flow_delay": "0",  # smtpd would sleep because qmgr sees no message of an aborted envelope
        }
        if smarthost:
            options |= {"relayhost": smarthost, "default_transport": "smtp", "relay_transport": "smtp"}
        if does_hold:
            options["smtpd_end_of_data_restrictions"] = "check_client_access static:hold"
        super().__init__(options)

    def __enter__(self) -> Self:
        super().__enter__()
        (self.root / "mail").mkdir()
        shutil.chown(self.root / "mail", 65534, 65534)
        mailboxes = "".join(f"{name}@example.org {name}/\n" for name in users(load.USERS))
        (self.root / "etc/mailboxes").write_text(mailboxes)
        with (self.root / "etc/master.cf").open("a") as master:
            master.write("virtual unix - n n - - virtual\n")
        subprocess.run(
            ["/usr/sbin/postfix", "-c", str(self.root / "etc"), "reload"], check=True, capture_output=True
        )
        return self

    @staticmethod
    def require() -> None:
        """Raises PeerMissing."""
        _require("postfix")

    def delivered(self) -> int:
        return sum(len(os.listdir(new)) for new in (self.root / "mail").glob("*/new"))


class CannedSite:
    """bench/canned.py in a process of its own."""

    def __init__(self, protocol: str) -> None:
        self._protocol = protocol
        self.port = ports.free_port()

    def __enter__(self) -> Self:
        self._root = Path(tempfile.mkdtemp(prefix="popgate-canned-"))
        command = [sys.executable, str(load.HERE / "canned.py"), self._protocol, str(self.port)]
        self._process = ServerProcess(command, self._root / "output")
        self._process.wait_for_ports([self.port])
        return self

    def __exit__(self, *_: object) -> None:
        self._process.stop()
        shutil.rmtree(self._root, ignore_errors=True)

    @property
    def pid(self) -> int:
        return self._process.pid


def _require(*packages: str) -> None:
    for package in packages:
        if peers.find(package) is None:
            raise PeerMissing(f"the Debian package {package} is not installed")
    if os.geteuid() != 0:
        raise PeerMissing(f"only root can start {packages[0].partition('-')[0]}")


def _fill(maildir: Path, count: int) -> None:
    for part in ("cur", "new", "tmp"):
        (maildir / part).mkdir(parents=True, exist_ok=True)
    for name in _names(count):
        (maildir / "cur" / name).write_bytes(_MESSAGE)


def _names(count: int) -> Iterator[str]:
    wire = len(_MESSAGE) + _MESSAGE.count(b"\n")
    for number in range(count):
        yield f"{1700000000 + number}.M{number:06}P1.mail.example.org,S={len(_MESSAGE)},W={wire}:2,"
