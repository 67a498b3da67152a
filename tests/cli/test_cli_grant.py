"""`popgate grant`, on a real directory of grants."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from popgate.cli import follow as follow_module

Run = Callable[..., Any]


def test_allow_list_and_revoke(site: Path, run: Run, run_json: Run) -> None:
    assert run_json("grant", "list") == []
    assert "note: there is no account" in run("grant", "allow", "203.0.113.9", "alice@example.org").stderr
    run("grant", "allow", "2001:DB8::1", "bob@example.org", "--window", "60")
    one, other = sorted(run_json("grant", "list"), key=lambda grant: str(grant["address"]))
    assert (one["address"], other["identity"]) == ("2001:db8::1", "alice@example.org")
    assert one["ends_at"] - one["renewed_at"] == pytest.approx(60)
    assert "203.0.113.9" in run("grant", "list").stdout
    assert [each["identity"] for each in run_json("grant", "revoke", "203.0.113.9")] == ["alice@example.org"]
    run("grant", "revoke", "--identity", "bob@example.org")
    assert run_json("grant", "list") == []
    run("grant", "revoke", "203.0.113.9", code=1)


def test_the_grant_of_an_account_has_its_terms(site: Path, run: Run, run_json: Run) -> None:
    run("account", "add", "scanner@example.org", "--device", "--window", "120")
    run("grant", "allow", "203.0.113.9", "scanner@example.org")
    (one,) = run_json("grant", "list")
    assert one["device"] is True
    assert one["ends_at"] - one["renewed_at"] == pytest.approx(120)


@pytest.mark.parametrize(
    ("address", "why"),
    [("127.0.0.1", "never get one"), ("224.0.0.1", "never get one"), ("::", "never get one")],
)
def test_addresses_that_never_get_a_grant(site: Path, run: Run, address: str, why: str) -> None:
    assert why in run("grant", "allow", address, "alice@example.org", code=1).stderr


def test_only_devices_where_the_site_says_so(site: Path, run: Run) -> None:
    run("account", "add", "alice@example.org")
    result = run("grant", "allow", "203.0.113.9", "alice@example.org", "--set", "grants.who=devices", code=1)
    assert "not marked as a device" in result.stderr


@pytest.mark.parametrize(
    "address", ["203.0.113", "010.1.2.3", "0x7f.1.1.1", "../x", "fe80::1%eth0", "host.example"]
)
def test_what_is_no_address_is_wrong_usage(site: Path, run: Run, address: str) -> None:
    run("grant", "allow", address, "alice@example.org", code=2)
    run("grant", "revoke", address, code=2)


def test_what_is_no_identity_is_wrong_usage(site: Path, run: Run) -> None:
    run("grant", "allow", "203.0.113.9", "a/../b@example.org", code=2)
    run("grant", "revoke", code=2)


def test_grants_in_memory_cannot_be_seen_from_here(site: Path, run: Run) -> None:
    memory = ("--set", "grants.store=memory:", "--set", "workers=1")
    assert "in the memory of the server" in run("grant", "list", *memory, code=2).stderr
    run("account", "add", "alice@example.org", *memory)
    assert "lapse by themselves" in run("account", "disable", "alice@example.org", *memory).stderr


# -- explain and watch


def test_explain_tells_verdict_state_and_story(site: Path, run: Run, run_json: Run) -> None:
    before = run("grant", "explain", "203.0.113.9", code=1).stdout
    assert "may not relay: no mail login from it in the last 15 minutes" in before
    run("grant", "allow", "203.0.113.9", "alice@example.org")
    after = run("grant", "explain", "203.0.113.9").stdout
    assert "203.0.113.9 may relay" in after
    assert "alice@example.org: a live grant by cli" in after
    assert "alice@example.org logged in by cli: may relay" in after
    run("grant", "revoke", "203.0.113.9")
    document = json.loads(run("grant", "explain", "203.0.113.9", "--json", code=1).stdout)
    assert document["may_relay"] is False
    reasons = [line["reason"] for line in document["lines"]]
    assert reasons[-2:] == ["grant.allow", "grant.revoke"]


def test_explain_answers_for_a_sender(site: Path, run: Run) -> None:
    run("grant", "allow", "203.0.113.9", "alice@example.org")
    own = run("grant", "explain", "203.0.113.9", "--sender", "alice@example.org")
    assert "mail from alice@example.org: would be relayed" in own.stdout
    other = run("grant", "explain", "203.0.113.9", "--sender", "bob@example.org", code=1)
    assert "mail from bob@example.org: would be relayed" not in other.stdout
    run("grant", "explain", "203.0.113.9", "--sender", "bob", code=2)


def test_trusted_networks_need_no_grant(site: Path, run: Run) -> None:
    trusted = ("--set", "grants.trusted=['192.0.2.0/28']")
    assert "trusted network" in run("grant", "explain", "192.0.2.3", *trusted).stdout
    assert "never" in run("grant", "explain", "127.0.0.1", code=1).stdout


def test_only_the_end_of_a_long_story(site: Path, run: Run) -> None:
    for _ in range(4):
        run("grant", "allow", "203.0.113.9", "alice@example.org")
    whole = run("grant", "explain", "203.0.113.9").stdout
    assert whole.count("logged in by") == 4
    assert run("grant", "explain", "203.0.113.9", "--last", "1").stdout.count("logged in by") == 1
    assert run("grant", "explain", "203.0.113.9", "--last", "0").stdout.count("logged in by") == 0


def test_watch_shows_what_happens_and_ends_by_ctrl_c(site: Path, run: Run) -> None:
    process = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "from popgate.cli import main; main()",
            "grant",
            "watch",
            "--address",
            "203.0.113.9",
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={
            **os.environ,
            "PYTHONPATH": str(Path(follow_module.__file__).parents[2]),
            "PYTHONUNBUFFERED": "1",
        },
    )
    assert process.stdout is not None and process.stderr is not None
    try:
        assert "watching" in process.stderr.readline()
        run("grant", "allow", "203.0.113.7", "bob@example.org")
        run("grant", "allow", "203.0.113.9", "alice@example.org")
        line = process.stdout.readline()
        assert "203.0.113.9" in line and "alice@example.org logged in by cli" in line
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 0
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()


def append(path: Path, data: bytes) -> None:
    with path.open("ab") as file:
        file.write(data)


def test_following_survives_rotation_and_half_lines(tmp_path: Path) -> None:
    path = tmp_path / "grants.jsonl"
    path.write_bytes(b"old\n")
    steps = iter(
        (
            lambda: append(path, b"one\ntw"),
            lambda: append(path, b"o\n"),
            lambda: (path.rename(tmp_path / "older"), append(tmp_path / "older", b"three\n")),
            lambda: path.write_bytes(b"four\n"),
        )
    )
    lines = follow_module.follow(str(path), lambda seconds: next(steps)())
    assert [next(lines) for _ in range(4)] == [b"one", b"two", b"three", b"four"]


def test_following_waits_for_a_file(tmp_path: Path) -> None:
    path = tmp_path / "grants.jsonl"
    lines = follow_module.follow(str(path), lambda seconds: path.write_bytes(b"first\n"))
    assert next(lines) == b"first"
