"""`popgate demo --once`: the first thing that a newcomer runs."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from support.popgate import SOURCE


def demo(*arguments: str, temporary: Path) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-m", "popgate", "demo", *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(SOURCE), "TMPDIR": str(temporary)},
    )


def test_the_story_comes_out_as_told_and_leaves_nothing(tmp_path: Path) -> None:
    with demo("--once", temporary=tmp_path) as process:
        told, complaints = process.communicate(timeout=120)
    assert process.returncode == 0, told + complaints
    refused, relayed = told.find("550"), told.find("250 2.6.0")
    assert 0 < refused < relayed < told.rfind("550"), "refused, relayed, and refused again"
    assert "APOP" in told
    assert told.count("550") == 4
    assert 0 < told.find("idle IDLE") < told.find("by imap") < told.find("LOGOUT")
    assert list(tmp_path.iterdir()) == [], "temporary files are left behind"


@pytest.mark.slow
def test_it_goes_on_serving_until_it_is_interrupted(tmp_path: Path) -> None:
    with demo(temporary=tmp_path) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if "Ctrl-C" in line:
                break
        else:
            raise AssertionError(f"it ended by itself: {process.wait()}")
        process.send_signal(signal.SIGINT)
        _, complaints = process.communicate(timeout=30)
    assert "Traceback" not in complaints
    assert process.returncode in (0, 130), complaints
    assert list(tmp_path.iterdir()) == []
