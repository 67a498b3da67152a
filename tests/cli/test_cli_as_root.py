"""Run as root, commands leave nothing behind that the server's user cannot read."""

import json
import os
import pwd
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from popgate.cli import root

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
USER = "nobody"


@pytest.fixture
def home() -> Iterator[Path]:
    """A directory that other users can reach, which pytest's own are not."""
    path = Path(tempfile.mkdtemp(prefix="popgate-test-"))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path)


def popgate(*arguments: str, stdin: str = "", user: str | None = None) -> "subprocess.CompletedProcess[str]":
    code = "from popgate.cli import main; main()"
    if user is not None:
        # imported first, because the user may not be able to read where Python is installed
        account = pwd.getpwnam(user)
        code = (
            "import os, popgate.app.backends, popgate.app.clock, popgate.app.privileges, popgate.config\n"
            "import popgate.cli.account; popgate.config.load_text('hostname = \"mail.example.org\"')\n"
            f"os.setgroups([]); os.setgid({account.pw_gid}); os.setuid({account.pw_uid})\n{code}"
        )
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        input=stdin,
        capture_output=True,
        text=True,
        cwd="/",
        env={**os.environ, "PYTHONPATH": str(Path(root.__file__).parents[2]), "PYTHONDONTWRITEBYTECODE": "1"},
        timeout=60,
    )
    assert "Traceback" not in done.stderr, done.stderr
    return done


def test_what_root_makes_belongs_to_the_servers_user(home: Path) -> None:
    made = popgate(
        "init", str(home / "site"), "--hostname", "mail.example.org", "--user", "alice@example.org",
        "--system-user", USER, "--password-stdin", stdin="opensesame\n",
    )  # fmt: skip
    assert made.returncode == 0, made.stderr
    config = ("--config", str(home / "site" / "popgate.toml"))
    assert popgate("account", "add", "bob@example.org", *config).returncode == 0
    assert popgate("grant", "allow", "203.0.113.9", "bob@example.org", *config).returncode == 0
    uid = pwd.getpwnam(USER).pw_uid
    data = home / "site" / "data"
    owners = {path: path.stat().st_uid for path in (data, *data.rglob("*"))}
    assert {path for path, owner in owners.items() if owner != uid} == set()
    assert (data / "allow" / "203.0.113.9") in owners
    # and secrets outside belong to root, who lets the server's group read them
    for name in ("popgate.toml", "tls/key.pem"):
        state = (home / "site" / name).stat()
        assert (state.st_uid, state.st_mode & 0o777) == (0, 0o640)
    assert popgate("config", "check", *config).returncode == 0
    listed = popgate("grant", "list", "--json", *config)
    assert [one["identity"] for one in json.loads(listed.stdout)] == ["bob@example.org"]


def test_a_stranger_is_told_whom_to_be(home: Path) -> None:
    popgate("init", str(home / "site"), "--hostname", "mail.example.org")
    (home / "site" / "popgate.toml").chmod(0o644)
    done = popgate("account", "list", "--config", str(home / "site" / "popgate.toml"), user=USER)
    assert done.returncode == 75
    assert "run it as root, or as the user that the server runs as" in done.stderr


def test_an_unknown_system_user_stops_init_before_anything_is_written(home: Path) -> None:
    done = popgate(
        "init", str(home / "site"), "--hostname", "mail.example.org", "--system-user", "no-such-user"
    )
    assert done.returncode == 2
    assert "useradd --system" in done.stderr
    assert not (home / "site").exists()
