"""`popgate config`: the sample, the reference, the check, what is in force."""

import dataclasses
from typing import TYPE_CHECKING, Any

import click

from popgate.cli.options import config_options, json_option, load_config
from popgate.cli.output import print_json, tell, tell_problem, tell_problems
from popgate.cli.root import USAGE, CommandGroup

if TYPE_CHECKING:
    from popgate.config import Problem


@click.group(cls=CommandGroup)
def config() -> None:
    """Print, check and explain popgate.toml."""


@config.command(epilog="Example: popgate config sample > /etc/popgate/popgate.toml")
def sample() -> None:
    """Print a popgate.toml in which every setting is explained."""
    from popgate.config.sample import sample as sample_text

    click.echo(sample_text(), nl=False)


@config.command(epilog="Example: popgate config reference | less")
def reference() -> None:
    """Print all settings with values, defaults and meanings, as Markdown."""
    from popgate.config.reference import reference as reference_text

    click.echo(reference_text(), nl=False)


@config.command(epilog="Example: popgate config check --config /etc/popgate/popgate.toml")
@config_options
@json_option
def check(config_file: str | None, overrides: tuple[str, ...], as_json: bool) -> None:
    """Tell everything that is wrong with the configuration.

    Looks at the file itself and at what it points to: certificate and key, directories,
    users, programs. Exit status 0 when the server would start, 2 when it would not.
    """
    from popgate.config import ConfigError

    try:
        loaded = load_config(config_file, overrides, check_files=True)
    except ConfigError as error:
        if as_json:
            print_json(_report(False, error.problems, error.warnings))
        else:
            tell_problems(error)
            tell(f"{len(error.problems)} to mend; the server would not start")
        raise click.exceptions.Exit(USAGE) from None
    if as_json:
        print_json(_report(True, (), loaded.warnings))
        return
    for warning in loaded.warnings:
        tell_problem(warning, is_error=False)
    click.echo(f"{loaded.file}: ok")


def _report(is_ok: bool, errors: "tuple[Problem, ...]", warnings: "tuple[Problem, ...]") -> dict[str, object]:
    return {
        "ok": is_ok,
        "errors": [dataclasses.asdict(problem) for problem in errors],
        "warnings": [dataclasses.asdict(problem) for problem in warnings],
    }


@config.command(epilog="Example: popgate config show --set workers=1 --json")
@config_options
@json_option
def show(config_file: str | None, overrides: tuple[str, ...], as_json: bool) -> None:
    """Print the configuration that is in force, defaults and overrides included.

    Passwords in addresses of smart hosts are replaced by stars.
    """
    loaded = load_config(config_file, overrides)
    document = _masked(dataclasses.asdict(loaded.config))
    if as_json:
        print_json(document)
        return
    tell(f"# {loaded.file}")
    click.echo(_as_toml(document), nl=False)


def _masked(item: Any) -> Any:
    from popgate.config.load import mask

    if isinstance(item, dict):
        return {name: _masked(inner) for name, inner in item.items()}
    if isinstance(item, list):
        return [_masked(inner) for inner in item]
    return mask(item) if isinstance(item, str) else item


def _as_toml(document: dict[str, Any], prefix: str = "") -> str:
    from popgate.config.toml import to_toml

    lines = []
    tables = []
    for name, item in document.items():
        if isinstance(item, dict):
            tables.append(f"\n[{prefix}{name}]\n" + _as_toml(item, f"{prefix}{name}."))
        elif isinstance(item, list) and item and isinstance(item[0], dict):
            tables += [f"\n[[{prefix}{name}]]\n" + _as_toml(one, f"{prefix}{name}.") for one in item]
        elif item is not None:
            lines.append(f"{name} = {to_toml(item)}\n")
    return "".join(lines + tables)
