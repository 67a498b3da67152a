"""Help, exit statuses, and what goes to stdout and to stderr."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from popgate.app.backends import AccountStoreError, StoreError
from popgate.cli import root
from popgate.cli.output import how_long, printable
from popgate.cli.root import COMMANDS, popgate

COMMAND = [sys.executable, "-c", "from popgate.cli import main; main()"]


def real(*arguments: str, stdin: str = "", **environ: str) -> "subprocess.CompletedProcess[str]":
    src = str(Path(root.__file__).parents[2])
    return subprocess.run(
        [*COMMAND, *arguments],
        input=stdin,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": src, **environ},
        timeout=60,
    )


def every_command(
    command: click.Command = popgate, name: str = "popgate"
) -> Iterator[tuple[str, click.Command]]:
    yield name, command
    if isinstance(command, click.Group):
        context = click.Context(command)
        for sub_name in command.list_commands(context):
            sub = command.get_command(context, sub_name)
            assert sub is not None
            yield from every_command(sub, f"{name} {sub_name}")


LEAVES = [(name, command) for name, command in every_command() if not isinstance(command, click.Group)]


@pytest.mark.parametrize(("name", "command"), LEAVES)
def test_every_command_explains_itself_with_an_example(name: str, command: click.Command) -> None:
    assert command.help
    assert command.epilog is not None and f"Example: {name}" in command.epilog
    for parameter in command.params:
        if isinstance(parameter, click.Option):
            assert parameter.help, f"{name} {parameter.name}"


def test_the_manual_has_every_command() -> None:
    page = (Path(__file__).parents[2] / "docs" / "command-line.md").read_text()
    for name, _ in every_command():
        assert f"# {name}\n" in page


def test_every_listing_command_takes_json() -> None:
    for name, command in LEAVES:
        if name.split()[-1] in ("list", "show", "check", "explain"):
            assert "as_json" in [parameter.name for parameter in command.params], name


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys\nfrom popgate.cli import main\nsys.argv = ['popgate', '--help']\n"
        "try: main()\nexcept SystemExit: pass\n"
        "heavy = {'asyncio', 'pydantic', 'cryptography', 'sqlite3', 'rich', 'argon2'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(Path(root.__file__).parents[2])},
    )
    assert done.stdout.endswith("\n[]\n"), done.stdout + done.stderr


def test_real_exit_statuses_and_streams(site: Path) -> None:
    assert real("--version").stdout.startswith("popgate ")
    assert real("nonsense").returncode == 2
    assert real("account", "add").returncode == 2

    made = real("account", "add", "alice@example.org", "--password-stdin", stdin="opensesame\n")
    assert (made.returncode, made.stdout) == (0, "")
    assert "alice@example.org is ready" in made.stderr

    again = real("account", "add", "alice@example.org", "--password-stdin", stdin="opensesame\n")
    assert (again.returncode, again.stdout) == (1, "")
    assert "there is an account" in again.stderr

    listed = real("account", "list", "--json")
    assert json.loads(listed.stdout)["accounts"][0]["address"] == "alice@example.org"

    wrong = real("account", "list", "--set", "grants.window_seconds=0")
    assert (wrong.returncode, wrong.stdout) == (2, "")
    assert "--set: grants.window_seconds = 0: must be 1 to 86400 seconds" in wrong.stderr
    assert "Traceback" not in wrong.stderr


def test_no_configuration_at_all_is_wrong_usage(tmp_path: Path) -> None:
    done = real("account", "list", "--config", str(tmp_path / "nowhere.toml"))
    assert done.returncode == 2
    assert "popgate init makes one" in done.stderr


def test_a_reader_that_goes_away_is_no_error(site: Path) -> None:
    done = subprocess.run(
        [
            "sh",
            "-c",
            '"$0" -c "from popgate.cli import main; main()" config reference | head -1',
            sys.executable,
        ],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(Path(root.__file__).parents[2])},
    )
    assert done.stdout == "# Settings\n"
    assert done.stderr == ""


@pytest.mark.parametrize(
    "fault", [StoreError("broken"), AccountStoreError("broken"), PermissionError(13, "no")]
)
def test_a_store_at_fault_is_a_temporary_failure(
    fault: Exception, monkeypatch: pytest.MonkeyPatch, run: object
) -> None:
    @click.command()
    def failing() -> None:
        raise fault

    monkeypatch.setattr(root.RootGroup, "get_command", lambda self, ctx, name: failing)
    result = click.testing.CliRunner().invoke(popgate, ["anything"])
    assert result.exit_code == 75
    assert result.stdout == ""


def test_a_bug_stays_an_exception(monkeypatch: pytest.MonkeyPatch) -> None:
    @click.command()
    def failing() -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(root.RootGroup, "get_command", lambda self, ctx, name: failing)
    result = click.testing.CliRunner().invoke(popgate, ["anything"])
    assert isinstance(result.exception, ZeroDivisionError)


def test_commands_are_where_the_table_says() -> None:
    context = click.Context(popgate)
    for name in COMMANDS:
        command = popgate.get_command(context, name)
        assert command is not None and command.name == name


def test_what_a_terminal_would_obey_is_not_printed() -> None:
    assert printable("a\x1b[31mb\nc\x07é") == "a\\x1b[31mb\\x0ac\\x07é"


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0, "0 s"), (-3, "0 s"), (59, "59 s"), (61, "1 min 1 s"), (600, "10 min"), (901, "15 min"),
     (3661, "1 h 1 min"), (90000, "1 d 1 h")],
)  # fmt: skip
def test_durations_in_words(seconds: float, words: str) -> None:
    assert how_long(seconds) == words
