"""A site in a temporary directory, and the command to run on it."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from popgate.cli.root import popgate

Run = Callable[..., Result]


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A configuration without TLS; $POPGATE_CONFIG leads to it."""
    path = tmp_path / "popgate.toml"
    path.write_text(
        'hostname = "mail.example.org"\n'
        'data_dir = "data"\n'
        'local_domains = ["example.org"]\n'
        "[[listener]]\n"
        'service = "pop3"\n'
        'bind = "127.0.0.1:0"\n'
        "plaintext_login = true\n"
    )
    path.chmod(0o600)
    monkeypatch.setenv("POPGATE_CONFIG", str(path))
    yield tmp_path


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run the command; `code` is the exit status that must come."""

    # in this process root must stay root; test_cli_as_root.py drops it in a process of its own
    monkeypatch.setattr("popgate.app.privileges.drop_privileges", lambda user: None)

    def run_command(*arguments: str, code: int = 0, stdin: str = "") -> Result:
        result = CliRunner().invoke(popgate, arguments, input=stdin)
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        assert result.exit_code == code, result.output
        return result

    return run_command


@pytest.fixture
def run_json(run: Run) -> Callable[..., Any]:
    """Run the command with --json and read what it printed, which must be one document."""
    return lambda *arguments, **options: json.loads(run(*arguments, "--json", **options).stdout)
