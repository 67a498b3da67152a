"""A real `popgate serve` for tests: configuration, process, accounts, and what its log says."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from popgate.app.logs import GATHER_SECONDS

SOURCE = Path(__file__).resolve().parents[2] / "src"
START_SECONDS = 30.0

HEAD = """\
hostname = "mail.example.org"
data_dir = "data"
local_domains = ["example.org"]
workers = {workers}
limits.drain_seconds = 2
limits.connections_per_subnet = 100000
"""


def _table(service: str, more: str, host: str) -> str:
    lines = [f'service = "{service}"', more]
    if "bind =" not in more:
        lines.append(f'bind = "{host}:0"')
    if service in ("smtp", "submission", "pop3", "imap", "ucspi"):
        lines.append("max_connections_per_address = 10000")
    return "\n[[listener]]\n" + "\n".join(lines) + "\n"


class Popgate:
    """One server below `directory`. `listeners`: (service, further TOML lines, which may hold `bind`)."""

    def __init__(
        self,
        directory: Path,
        listeners: Sequence[tuple[str, str]] = (("smtp", ""), ("pop3", "plaintext_login = true")),
        settings: str = "[grants]\nnever = []\n",
        *,
        workers: int = 1,
        host: str = "127.0.0.1",
    ) -> None:
        self.directory = directory
        directory.mkdir(parents=True, exist_ok=True)
        self.config = directory / "popgate.toml"
        tables = "".join(_table(service, more, host) for service, more in listeners)
        self.config.write_text(HEAD.format(workers=workers) + tables + "\n" + settings)
        self.log_file = directory / "log"
        self.ready_file = directory / "ready.json"
        self.process: subprocess.Popen[bytes] | None = None
        self.ports: list[int] = []
        self.services: list[str] = [service for service, _ in listeners]
        self.environment = {**os.environ, "PYTHONPATH": str(SOURCE)}

    def command(
        self, *arguments: str, stdin: str = "", check: bool = True
    ) -> subprocess.CompletedProcess[str]:
        """Run another popgate command on this configuration."""
        done = subprocess.run(
            [sys.executable, "-m", "popgate", *arguments, "--config", str(self.config)],
            input=stdin,
            capture_output=True,
            text=True,
            timeout=60,
            env=self.environment,
            check=False,
        )
        if check:
            assert done.returncode == 0, f"popgate {' '.join(arguments)}: {done.stdout}{done.stderr}"
        return done

    def add_account(self, address: str, password: str, *options: str) -> None:
        self.command("account", "add", address, "--password-stdin", *options, stdin=password + "\n")

    def start(self) -> "Popgate":
        self.ready_file.unlink(missing_ok=True)
        with self.log_file.open("ab") as log:
            self.process = subprocess.Popen(
                [
                    *(sys.executable, "-m", "popgate", "serve"),
                    *("--config", str(self.config), "--ready-file", str(self.ready_file)),
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self.environment,
                start_new_session=True,
            )
        deadline = time.monotonic() + START_SECONDS
        while not self.ready_file.exists():
            assert self.process.poll() is None, f"popgate ended:\n{self.log}"
            assert time.monotonic() < deadline, f"popgate is not ready:\n{self.log}"
            time.sleep(0.02)
        document = json.loads(self.ready_file.read_text())
        assert document["pid"] == self.process.pid
        binds = [listener["bind"] for listener in document["listeners"]]
        self.ports = [0 if bind.startswith("unix:") else int(bind.rpartition(":")[2]) for bind in binds]
        return self

    def port(self, service: str, number: int = 0) -> int:
        """The port of the `number`-th listener of `service`."""
        return [port for name, port in zip(self.services, self.ports, strict=True) if name == service][number]

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    @property
    def log(self) -> str:
        """With the lines of what has just happened."""
        if self.process is not None and self.process.poll() is None:
            time.sleep(2 * GATHER_SECONDS)
        return self.log_file.read_text(errors="replace")

    def wait_for(self, text: str, seconds: float = 10.0, count: int = 1) -> None:
        """Until the log holds `text` so many times."""
        deadline = time.monotonic() + seconds
        while self.log.count(text) < count:
            assert time.monotonic() < deadline, f"{text!r} is not in the log:\n{self.log[-4000:]}"
            time.sleep(0.02)

    def explain(self, address: str, wanted: str, seconds: float = 10.0) -> str:
        """What `popgate grant explain` says, once it says `wanted`: servers write the story once a second."""
        deadline = time.monotonic() + seconds
        while wanted not in (told := self.command("grant", "explain", address, check=False).stdout):
            assert time.monotonic() < deadline, f"{wanted!r} is not told:\n{told}"
            time.sleep(0.1)
        return told

    def send_signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def kill(self) -> None:
        """SIGKILL to the whole process group, as a machine that stops."""
        assert self.process is not None
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def stop(self) -> int:
        """SIGTERM; the exit status."""
        assert self.process is not None
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(20)
            except subprocess.TimeoutExpired:
                self.kill()
                raise AssertionError(f"popgate did not end:\n{self.log[-4000:]}") from None
        return self.process.returncode

    def __enter__(self) -> "Popgate":
        return self.start()

    def __exit__(self, *_: object) -> None:
        if self.process is not None and self.process.poll() is None:
            self.stop()
