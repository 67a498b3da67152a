"""What other tests lean on holds."""

import socket
import subprocess
from pathlib import Path

import pytest

from support import peers, ports, process, soak
from support.clock import ManualClock


def test_a_manual_clock_moves_only_when_told() -> None:
    clock = ManualClock(now=100.0, monotonic=5.0)
    clock.advance(2.5)
    assert (clock.now(), clock.monotonic()) == (102.5, 7.5)
    clock.step(-60)
    assert (clock.now(), clock.monotonic()) == (42.5, 7.5)
    with pytest.raises(ValueError, match="step"):
        clock.advance(-1)


def test_free_ports_differ_and_can_be_bound() -> None:
    numbers = ports.free_ports(20)
    assert len(set(numbers)) == 20
    for number in numbers:
        with socket.create_server(("127.0.0.1", number)):
            pass


def test_children_are_seen_until_they_are_waited_for() -> None:
    child = subprocess.Popen(["/bin/true"])
    try:
        assert child.pid in process.children()
    finally:
        child.wait()
    assert child.pid not in process.children()


def test_soak_rounds_follow_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("POPGATE_SOAK_ROUNDS", raising=False)
    assert soak.rounds(3) == 3
    monkeypatch.setenv("POPGATE_SOAK_ROUNDS", "50")
    assert soak.rounds(3) == 50


def test_a_missing_peer_skips_the_test_with_its_package() -> None:
    with pytest.raises(pytest.skip.Exception, match="peer missing: no-such-program"):
        peers.require("no-such-program")


def test_the_summary_counts_what_is_missing() -> None:
    reasons = [
        "Skipped: peer missing: swaks",
        "Skipped: peer missing: swaks",
        "Skipped: other",
        "peer missing: nmap",
    ]
    assert peers.summary(reasons, ran=7) == [
        "peers: 7 tests ran against real programs, 3 skipped",
        "     1 for want of nmap",
        "     2 for want of swaks",
        "  to run them: as root, apt-get install --no-install-recommends nmap swaks",
    ]
    assert peers.summary([], ran=0) == []


@pytest.mark.parametrize("workers", [[], ["-n", "2"]])
def test_a_run_says_at_its_end_what_was_missing(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, workers: list[str]
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[1]))
    pytester.makepyfile(
        """
        import pytest

        @pytest.mark.peer("no-such-program")
        def test_a(): raise AssertionError("must not run")

        @pytest.mark.peer("perl")
        def test_b(): pass
        """
    )
    pytester.makeini("[pytest]\nmarkers = peer(package): x\n")
    result = pytester.runpytest_subprocess("-p", "conftest", "-p", "no:randomly", *workers)
    result.assert_outcomes(passed=1, skipped=1)
    result.stdout.fnmatch_lines(["peers: 1 tests ran*1 skipped", "*1 for want of no-such-program"])
