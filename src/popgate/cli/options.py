"""Options that several commands share, and what they lead to."""

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from popgate.config import Config, Loaded

_F = TypeVar("_F", bound=Callable[..., Any])


def config_options(function: _F) -> _F:
    """--config and --set; the command gets them as `config_file` and `overrides`."""
    function = click.option(
        "--set",
        "overrides",
        metavar="KEY=VALUE",
        multiple=True,
        help="Override one setting for this run, such as grants.window_seconds=120. May be repeated.",
    )(function)
    return click.option(
        "--config",
        "config_file",
        metavar="FILE",
        help="The configuration. Else $POPGATE_CONFIG, ./popgate.toml or /etc/popgate/popgate.toml.",
    )(function)


def json_option(function: _F) -> _F:
    """--json; the command gets it as `as_json`."""
    return click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")(function)


def load_config(
    config_file: str | None, overrides: tuple[str, ...], *, check_files: bool = False
) -> "Loaded":
    """Find and read the configuration. Raises ConfigError, which the frame explains."""
    from popgate.config import find, load

    return load(find(config_file), overrides, check_files=check_files)


def site_config(config_file: str | None, overrides: tuple[str, ...]) -> "Config":
    """The configuration for a command that works on the server's files.

    As root it becomes the server's user first, so that what it writes can be read by the server.
    """
    # Everything is imported before: the user may not be able to read where Python is installed.
    import popgate.app.backends
    import popgate.app.clock
    import popgate.app.own_addresses
    import popgate.grants.history  # noqa: F401
    from popgate.app.privileges import drop_privileges, find_user, make_private_directory

    config = load_config(config_file, overrides).config
    if os.geteuid() == 0:
        make_private_directory(config.data_dir, find_user(config.user))
    drop_privileges(config.user)
    return config
