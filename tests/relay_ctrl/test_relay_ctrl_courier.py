"""relay-ctrl-allow and Courier, as far as it shows without Courier (tests/peers/test_courier.py)."""

import subprocess
from pathlib import Path

import pytest

from support.courier import documented
from support.relay_ctrl import Installed

CLIENT = "192.0.2.7"
LOGINS = ("courierpop3login", "pop3login", "imaplogin", "couriertls")


def recorded(programs: Installed, path: Path, program: str, **environment: str) -> tuple[bytes, list[str]]:
    """What relay-ctrl-allow said before that program, and the grants afterwards."""
    program_file = path / program
    program_file.write_text("#!/bin/sh\necho ran\n")
    program_file.chmod(0o755)
    spool = path / "allow"
    spool.mkdir()
    done = programs.run(
        ("relay-ctrl-allow", str(program_file)),
        {"RELAY_CTRL_DIR": str(spool), "TCPREMOTEIP": CLIENT, **environment},
    )
    assert (done.returncode, done.stdout) == (0, b"ran\n")
    return done.stderr, [file.name for file in spool.iterdir()]


@pytest.mark.parametrize("login", LOGINS)
@pytest.mark.parametrize("environment", [{}, {"USER": "root"}, {"AUTHENTICATED": ""}])
def test_before_couriers_login_nothing_is_granted(
    login: str, environment: dict[str, str], programs: Installed, tmp_path: Path
) -> None:
    said, grants = recorded(programs, tmp_path, login, **environment)
    assert f"stands before {login}".encode() in said
    assert grants == []


def test_couriers_word_that_somebody_logged_in_counts(programs: Installed, tmp_path: Path) -> None:
    assert recorded(programs, tmp_path, "imaplogin", AUTHENTICATED="carol") == (b"", [CLIENT])


def test_other_programs_are_no_login(programs: Installed, tmp_path: Path) -> None:
    assert recorded(programs, tmp_path, "courierpop3d", AUTHENTICATED="carol") == (b"", [CLIENT])


def test_imapd_by_hand_records_nothing(tmp_path: Path) -> None:
    program = tmp_path / "imapd"
    program.write_text(documented()[0])
    program.chmod(0o755)
    real = tmp_path / "imapd.real"
    real.write_text('#!/bin/sh\necho "real $*"\n')
    real.chmod(0o755)
    done = subprocess.run([program, "Maildir"], env={}, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "real Maildir\n", "")
