"""Real popgate servers for the story: configuration, process and mailbox on loopback ports."""

import json
import os
import secrets
import signal
import subprocess
import sys
import time
from pathlib import Path

from popgate.values.value import value

START_SECONDS = 30.0
STOP_SECONDS = 15.0


class DemoFailed(Exception):
    """A server did not start or a step of the story did not come out as told."""


@value
class Account:
    """An account that the story logs in with."""

    address: str
    password: str


class DemoServer:
    """One `popgate serve` in a process of its own, below `directory`."""

    def __init__(self, directory: Path, configuration: str) -> None:
        self.directory = directory
        directory.mkdir(mode=0o700)
        self.config = directory / "popgate.toml"
        self.config.write_text(configuration)
        self.log = directory / "log"
        self._ready = directory / "ready.json"
        self._process: subprocess.Popen[bytes] | None = None
        self.ports: dict[str, int] = {}

    def popgate(self, *arguments: str, stdin: str | None = None) -> str:
        """Run another popgate command on this server's configuration; its standard output."""
        done = subprocess.run(  # noqa: S603 - our own program
            [sys.executable, "-m", "popgate", *arguments, "--config", str(self.config)],
            input=stdin,
            capture_output=True,
            text=True,
            timeout=60,
        )
        if done.returncode not in (0, 1):
            raise DemoFailed(f"popgate {' '.join(arguments)}: {done.stderr.strip()}")
        return done.stdout

    def add_account(self, address: str, *options: str) -> Account:
        password = secrets.token_urlsafe(9)
        self.popgate("account", "add", address, "--password-stdin", *options, stdin=password + "\n")
        return Account(address, password)

    def start(self) -> None:
        """Start and wait until every listener accepts. Raises DemoFailed."""
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(  # noqa: S603 - our own program
                [
                    *(sys.executable, "-m", "popgate", "serve"),
                    *("--config", str(self.config), "--ready-file", str(self._ready)),
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # Ctrl-C is for the demo, which stops the servers in order
            )
        deadline = time.monotonic() + START_SECONDS
        while not self._ready.exists():
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.stop()
                raise DemoFailed("the server did not start:\n" + self.log.read_text(errors="replace")[-2000:])
            time.sleep(0.02)
        document = json.loads(self._ready.read_text())
        for listener in document["listeners"]:
            self.ports[listener["service"]] = int(listener["bind"].rpartition(":")[2])

    def reload(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGHUP)

    def stop(self) -> None:
        """Drain and end; kill what does not."""
        process = self._process
        if process is None or process.poll() is not None:
            return
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


PARTNER = """\
hostname = "mx.partner.example"
data_dir = "data"
local_domains = ["partner.example"]
workers = 1
limits.drain_seconds = 1

[[listener]]
service = "smtp"
bind = "127.0.0.1:0"

[[listener]]
service = "pop3"
bind = "127.0.0.1:0"
plaintext_login = true

[grants]
never = []
"""

GATE = """\
hostname = "mail.example.org"
data_dir = "data"
local_domains = ["example.org"]
workers = 1
limits.drain_seconds = 1

[[listener]]
service = "smtp"
bind = "127.0.0.1:{smtp_port}"

[[listener]]
service = "pop3"
bind = "127.0.0.1:{pop3_port}"
plaintext_login = true

[[listener]]
service = "imap"
bind = "127.0.0.1:{imap_port}"
plaintext_login = true

[auth]
apop = true

[grants]
window_seconds = {window_seconds}
never = []          # loopback may hold grants here, since this demonstration lives on it

[[delivery.route]]
domains = ["partner.example"]
to = "smtp://127.0.0.1:{partner_port}"
"""
