"""`popgate logs follow`, as a process of its own beside relay-ctrl's programs or a server's grants."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.follow import dovecot_login
from support.popgate import SOURCE
from support.relay_ctrl import Installed


class Follower:
    """One process; `events` is what it said."""

    def __init__(self, directory: Path, *arguments: str, **environment: str) -> None:
        self.said = directory / "said"
        self._before = self.events
        with self.said.open("ab") as said:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "popgate", "logs", "follow", *arguments],
                stdin=subprocess.DEVNULL,
                stderr=said,
                env={**os.environ, "PYTHONPATH": str(SOURCE), **environment},
                start_new_session=True,
            )

    @property
    def events(self) -> str:
        return self.said.read_text() if self.said.exists() else ""

    def wait_for(self, text: str) -> None:
        deadline = time.monotonic() + 20
        while text not in self.events[len(self._before) :]:
            assert time.monotonic() < deadline and self.process.poll() is None, self.events
            time.sleep(0.02)

    def stop(self, number: int = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return self.process.wait(20)


@pytest.fixture
def log(tmp_path: Path) -> Path:
    log = tmp_path / "log/mail.log"
    log.parent.mkdir(mode=0o755)
    log.touch(mode=0o640)
    return log


@contextlib.contextmanager
def following(directory: Path, *arguments: str, **environment: str) -> Iterator[Follower]:
    follower = Follower(directory, *arguments, **environment)
    try:
        follower.wait_for("follow.start")
        time.sleep(0.3)
        yield follower
    finally:
        if follower.process.poll() is None:
            follower.process.kill()
            follower.process.wait()


def write(log: Path, user: str, client: str, session: str = "s") -> None:
    with log.open("ab") as file:
        file.write(dovecot_login(user, client, session, time.time()))


def test_beside_relay_ctrl(tmp_path: Path, log: Path) -> None:
    """What it grants, relay-ctrl-check finds."""
    allow = tmp_path / "allow"
    allow.mkdir()
    installed = Installed()

    def user_at(client: str) -> str | None:
        environment = {"RELAY_CTRL_DIR": str(allow), "RELAY_CTRL_EXPIRY": "900", "TCPREMOTEIP": client}
        shown = installed.run(["relay-ctrl-chdir", installed.path("relay-ctrl-check"), "env"], environment)
        variables = dict(line.split("=", 1) for line in shown.stdout.decode().splitlines())
        return f"{variables['USER']}@{variables['DOMAIN']}" if "RELAYCLIENT" in variables else None

    try:
        state = tmp_path / "state"
        arguments = (
            str(log),
            "--store",
            str(allow),
            "--state",
            str(state),
            "--default-domain",
            "example.org",
        )
        with following(tmp_path, *arguments) as follower:
            assert user_at("203.0.113.9") is None
            write(log, "alice", "203.0.113.9")
            follower.wait_for("follow.login")
            assert user_at("203.0.113.9") == "alice@example.org"
            assert user_at("203.0.113.10") is None
            assert follower.stop() == 0
        write(log, "bob", "2001:db8::7", "t")
        os.rename(log, log.with_name("mail.log.1"))
        log.touch(mode=0o640)
        with following(tmp_path, *arguments) as follower:
            follower.wait_for("bob@example.org")
            assert user_at("2001:db8::7") == "bob@example.org"
            assert follower.stop(signal.SIGINT) == 0
        assert follower.events.count("follow.login") == 2
    finally:
        installed.remove()


def test_the_window_of_relay_ctrl(tmp_path: Path, log: Path) -> None:
    allow = tmp_path / "allow"
    with following(tmp_path, str(log), "--store", str(allow), RELAY_CTRL_EXPIRY="60") as follower:
        with log.open("ab") as file:
            file.write(dovecot_login("alice", "203.0.113.9", "s", time.time() - 61))
        write(log, "bob", "203.0.113.10")
        follower.wait_for("bob")
        assert os.listdir(allow) == ["203.0.113.10"]
        follower.stop()
        assert "follow.late" in follower.events


def test_for_a_configuration(tmp_path: Path, log: Path, site: Path, run_json: object) -> None:
    with following(tmp_path, str(log), "--config", str(site / "popgate.toml")) as follower:
        write(log, "alice", "203.0.113.9")
        follower.wait_for("follow.login")
        assert follower.stop() == 0
    grants = run_json("grant", "list")  # type: ignore[operator]
    assert [(one["address"], one["identity"]) for one in grants] == [("203.0.113.9", "alice@example.org")]
    told = run_json("grant", "explain", "203.0.113.9")  # type: ignore[operator]
    assert f"(told by {log})" in str(told)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ((), "name one log file"),
        (("x.log", "--journal"), "name one log file"),
        (("x.log", "--store", "d", "--config", "c"), "without a configuration"),
        (("x.log", "--window", "60"), "--store"),
        (("x.log", "--store", "{}", "--pattern-set", "dovcot"), "dovecot"),
        (("x.log", "--store", "{}", "--timezone", "Mars/Olympus"), "Mars/Olympus"),
        (("x.log", "--store", "{}", "--owner", "no-such-user"), "no-such-user"),
        (("x.log", "--store", "{}", "--window", "0"), "--window"),
    ],
)
def test_what_makes_no_sense(arguments: tuple[str, ...], says: str, run: object, tmp_path: Path) -> None:
    result = run("logs", "follow", *(each.format(tmp_path / "allow") for each in arguments), code=2)  # type: ignore[operator]
    assert says in result.output


def test_an_expiry_that_is_none(run: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RELAY_CTRL_EXPIRY", "soon")
    result = run("logs", "follow", "x.log", "--store", str(tmp_path / "allow"), code=2)  # type: ignore[operator]
    assert "RELAY_CTRL_EXPIRY" in result.output


def test_a_log_that_anybody_can_write_is_told(tmp_path: Path, log: Path) -> None:
    log.chmod(0o666)
    with following(tmp_path, str(log), "--store", str(tmp_path / "allow")) as follower:
        follower.wait_for("untrusted")
        write(log, "alice", "203.0.113.9")
        time.sleep(1.5)
        assert "follow.login" not in follower.events
        follower.stop()
