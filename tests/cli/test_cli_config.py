"""`popgate config`."""

import json
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from popgate.config.sample import sample

Run = Callable[..., Any]


def test_check_says_ok(site: Path, run: Run) -> None:
    (site / "data").mkdir(mode=0o700)
    result = run("config", "check")
    assert result.stdout == f"{site / 'popgate.toml'}: ok\n"


def test_check_tells_everything_and_ends_with_2(site: Path, run: Run) -> None:
    result = run("config", "check", "--set", "workers=-1", "--set", "grants.window=5", code=2)
    assert result.stdout == ""
    assert "workers = -1: must be 0 to 1024 processes" in result.stderr
    assert "did you mean window_seconds?" in result.stderr
    assert "2 to mend" in result.stderr


def test_check_as_json(site: Path, run: Run) -> None:
    report = json.loads(run("config", "check", "--json", "--set", "workers=-1", code=2).stdout)
    assert report["ok"] is False
    (error,) = report["errors"]
    assert error["key"] == "workers"
    assert json.loads(run("config", "check", "--json").stdout)["ok"] is True


def test_check_wants_something_to_serve(site: Path, run: Run) -> None:
    assert "there is nothing to serve" in run("config", "check", "--set", "listener=[]", code=2).stderr
    run("account", "list", "--set", "listener=[]")


def test_show_is_a_configuration_again(site: Path, run: Run, tmp_path: Path) -> None:
    shown = run("config", "show", "--set", "grants.window_seconds=120").stdout
    path = tmp_path / "again.toml"
    path.write_text(shown)
    path.chmod(0o600)
    assert tomllib.loads(shown)["grants"]["window_seconds"] == 120
    assert run("config", "show", "--config", str(path)).stdout == shown


def test_show_masks_secrets(site: Path, run: Run) -> None:
    for option in ((), ("--json",)):
        shown = run(
            "config", "show", *option, "--set", "delivery.smarthost=smtps://me:geheim@relay.example.net"
        )
        assert "geheim" not in shown.output
        assert "smtps://me:***@relay.example.net" in shown.stdout


def test_sample_and_reference_go_to_stdout(run: Run) -> None:
    assert run("config", "sample").stdout == sample()
    assert "| `window_seconds` |" in run("config", "reference").stdout
