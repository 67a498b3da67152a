"""The even clock, and dropping root."""

import os
import sys
import time

import pytest

from popgate.app import clock as clock_module
from popgate.app.clock import SystemClock
from popgate.app.privileges import PrivilegeError, drop_privileges


def test_it_agrees_with_the_system_at_first() -> None:
    clock = SystemClock()
    assert clock.now() == pytest.approx(time.time(), abs=0.5)
    assert abs(clock.step_seconds()) < 0.5


def test_a_step_of_the_system_clock_is_seen_but_not_followed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Attack case grant-016: the clock is set forward by an hour."""
    clock = SystemClock()
    before = clock.now()
    real = time.time
    monkeypatch.setattr(clock_module.time, "time", lambda: real() + 3600)
    assert clock.now() - before < 1
    assert clock.step_seconds() == pytest.approx(3600, abs=0.5)
    assert clock.adopt() == pytest.approx(3600, abs=0.5)
    assert clock.now() - before == pytest.approx(3600, abs=1)
    assert abs(clock.step_seconds()) < 0.5


def _in_child(work: str) -> str:
    """Run `work` in a fork of a fresh interpreter and give what it printed."""
    import subprocess
    from pathlib import Path

    src = str(Path(clock_module.__file__).parents[2])
    done = subprocess.run(
        [sys.executable, "-c", work], capture_output=True, text=True, env={**os.environ, "PYTHONPATH": src}
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_forked_processes_share_one_clock() -> None:
    out = _in_child(
        "import os, time\n"
        "from popgate.app import clock as module\n"
        "clock = module.SystemClock()\n"
        "real = time.time\n"
        "if os.fork() == 0:\n"
        "    module.time.time = lambda: real() + 1000\n"
        "    clock.adopt()\n"
        "    os._exit(0)\n"
        "os.wait()\n"
        "print(round(clock.now() - real(), -1))\n"
    )
    assert float(out) == 1000


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can drop root")
def test_root_is_dropped_for_good() -> None:
    out = _in_child(
        "import os\n"
        "from popgate.app.privileges import drop_privileges\n"
        "drop_privileges('nobody')\n"
        "try: os.seteuid(0)\n"
        "except PermissionError: print(os.getuid() != 0, os.getgid() != 0, 0 in os.getgroups())\n"
    )
    assert out == "True True False"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can drop root")
@pytest.mark.parametrize("user", ["root", "no-such-user-here"])
def test_users_that_cannot_be_become(user: str) -> None:
    with pytest.raises(PrivilegeError):
        drop_privileges(user)


def test_no_user_is_nothing_to_do() -> None:
    drop_privileges("")
    assert os.geteuid() == os.getuid()
