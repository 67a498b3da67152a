"""Another user of the machine, and a directory of grants that they can reach.

Forging: no file of theirs grants. Blocking: what they may do to a login, the directory's mode
says; a login that root or the directory's owner records stands in any case.
"""

import fcntl
import os
import subprocess
import time
from pathlib import Path

import pytest

from relay_ctrl.conftest import NOBODY
from support.relay_ctrl import Installed

MAIL = 21001  # whose programs record logins and check them
pytestmark = pytest.mark.usefixtures("other_users")


class Shared:
    """A directory of grants of mode `mode` that belongs to `owner`."""

    def __init__(self, programs: Installed, path: Path, mode: int, owner: int = MAIL) -> None:
        self.programs = programs
        self.path = path / "allow"
        self.path.mkdir()
        os.chown(self.path, owner, owner)
        self.path.chmod(mode)
        self.entry = self.path / "192.0.2.7"
        self.warning = b""

    def environment(self, user: str) -> dict[str, str]:
        return {
            "RELAY_CTRL_DIR": str(self.path),
            "TCPREMOTEIP": "192.0.2.7",
            **({"USER": user} if user else {}),
        }

    def log_in(self, uid: int = MAIL, user: str = "alice") -> None:
        done = self.programs.run(["relay-ctrl-allow", "true"], self.environment(user), uid=uid)
        assert done.returncode == 0
        self.warning = done.stderr

    def relays_as(self, uid: int = MAIL) -> str | None:
        """Who relays; None: nobody."""
        command = ["relay-ctrl-check", "sh", "-c", "echo ${RELAYCLIENT-no},$USER"]
        done = self.programs.run(command, self.environment(""), uid=uid)
        self.warning = done.stderr
        grant, _, user = done.stdout.decode().strip().partition(",")
        return None if grant == "no" else user

    def as_nobody(self, script: str) -> int:
        """Run a hostile line of shell inside the directory."""
        return subprocess.run(
            ["/bin/sh", "-c", script], cwd=self.path, user=NOBODY, group=NOBODY, extra_groups=[],
            stderr=subprocess.DEVNULL, check=False,
        ).returncode  # fmt: skip


FORGERIES = (
    "printf 'USER=mallory\\0' > 192.0.2.7",
    ": > 192.0.2.7",
    "ln -s /etc/passwd 192.0.2.7",
    "mkdir 192.0.2.7",
    "mkfifo 192.0.2.7",
    "printf 'LD_PRELOAD=/tmp/x\\0' > 192.0.2.7; chmod 666 192.0.2.7; touch -d 2099-01-01 192.0.2.7",
)


@pytest.mark.parametrize("mode", [0o1733, 0o777, 0o1777])
@pytest.mark.parametrize("forgery", FORGERIES)
def test_nobody_forges(mode: int, forgery: str, programs: Installed, open_path: Path) -> None:
    shared = Shared(programs, open_path, mode)
    shared.as_nobody(forgery)
    assert shared.entry.is_symlink() or shared.entry.exists()
    assert shared.relays_as() is None and b"Ignored" in shared.warning


@pytest.mark.parametrize("mode", [0o1733, 0o777])
@pytest.mark.parametrize("forgery", FORGERIES)
@pytest.mark.parametrize("uid", [0, MAIL], ids=["root", "owner"])
def test_what_they_put_there_keeps_no_login_from_granting(
    mode: int, forgery: str, uid: int, programs: Installed, open_path: Path
) -> None:
    shared = Shared(programs, open_path, mode)
    shared.as_nobody(forgery)
    shared.log_in(uid)
    assert shared.relays_as() == "alice", shared.warning


def test_a_hard_link_to_somebodys_grant_is_none(programs: Installed, open_path: Path) -> None:
    shared = Shared(programs, open_path, 0o777)
    shared.log_in()
    os.link(shared.entry, shared.path / "203.0.113.9")  # as a machine without protected_hardlinks lets them
    environment = {**shared.environment(""), "TCPREMOTEIP": "203.0.113.9"}
    done = programs.run(["relay-ctrl-check", "sh", "-c", "echo ${RELAYCLIENT-no}"], environment, uid=MAIL)
    assert done.stdout == b"no\n"


def test_in_a_sticky_directory_they_touch_no_grant(programs: Installed, open_path: Path) -> None:
    shared = Shared(programs, open_path, 0o1733)
    shared.log_in()
    for script in (
        "rm -f 192.0.2.7",
        "mv 192.0.2.7 x",
        "touch mine; mv -f mine 192.0.2.7",
        "echo x >> 192.0.2.7",
    ):
        shared.as_nobody(script)
        assert shared.relays_as() == "alice", script


def test_their_name_in_place_of_an_address_is_told_of_where_it_does_harm(
    programs: Installed, open_path: Path
) -> None:
    """Recorded by neither root nor the owner, in a sticky directory: mail goes on, the log says why."""
    shared = Shared(programs, open_path, 0o1777, owner=0)
    shared.as_nobody("touch 192.0.2.7")
    shared.log_in(MAIL)
    assert b"Could not rename" in shared.warning and shared.relays_as() is None
    assert [path.name for path in shared.path.iterdir()] == ["192.0.2.7"]


def test_who_holds_the_lock_delays_a_login_and_no_more(programs: Installed, open_path: Path) -> None:
    shared = Shared(programs, open_path, 0o1777)
    lock = os.open(shared.path, os.O_RDONLY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        start = time.monotonic()
        shared.log_in()
        assert 0.4 < time.monotonic() - start < 3
        assert shared.relays_as() == "alice"
        for number in range(50):
            (shared.path / f"10.0.0.{number}").touch()
            os.utime(shared.path / f"10.0.0.{number}", (1, 1))
        start = time.monotonic()
        assert programs.run(["relay-ctrl-age"], shared.environment("")).returncode == 0
        assert time.monotonic() - start < 3 and len(list(shared.path.iterdir())) == 1
    finally:
        os.close(lock)


def test_a_closed_directory_counts_files_of_all_who_logged_in(programs: Installed, open_path: Path) -> None:
    """relay-ctrl's own recipe: the directory above is root's alone, and a descriptor leads in."""
    closed = open_path / "closed"
    closed.mkdir(mode=0o700)
    shared = Shared(programs, closed, 0o777, owner=0)
    switch = (
        "import os, sys; os.setgroups([]); os.setgid(int(sys.argv[1])); os.setuid(int(sys.argv[1]));"
        "os.execv(sys.argv[2], sys.argv[2:])"
    )

    def chain(uid: int, *rest: str, user: str = "") -> "subprocess.CompletedProcess[bytes]":
        python = [programs.interpreter, "-I", "-c", switch, str(uid)]
        return programs.run(["relay-ctrl-chdir", *python, *rest], shared.environment(user))

    allow, check = programs.path("relay-ctrl-allow"), programs.path("relay-ctrl-check")
    assert chain(4001, allow, "/bin/true", user="alice").stderr == b""
    assert shared.entry.stat().st_uid == 4001 and shared.entry.stat().st_mode & 0o777 == 0o666
    assert chain(4003, check, "/bin/sh", "-c", "echo $USER").stdout == b"alice\n"
    assert chain(4002, allow, "/bin/true", user="bob").stderr == b""
    assert chain(4003, check, "/bin/sh", "-c", "echo $USER").stdout == b"bob\n"
    assert b"alice" in shared.entry.read_bytes(), "the other login is kept"


def test_what_root_records_belongs_to_the_owner_of_the_directory(
    programs: Installed, open_path: Path
) -> None:
    shared = Shared(programs, open_path, 0o700)
    shared.log_in(0)
    assert shared.entry.stat().st_uid == MAIL and shared.relays_as(MAIL) == "alice"
