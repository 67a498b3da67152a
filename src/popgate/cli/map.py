"""`popgate map`: the files of addresses that may relay."""

import os
from typing import TYPE_CHECKING

import click

from popgate.cli.options import config_options, json_option, site_config
from popgate.cli.output import print_json, print_table, tell, when
from popgate.cli.root import CommandGroup, TemporaryFailure

if TYPE_CHECKING:
    from popgate.config import Config


@click.group("map", cls=CommandGroup)
def map_() -> None:
    """See and write the map files that other mail servers look clients up in."""


@map_.command("list", epilog="Example: popgate map list")
@config_options
@json_option
def list_(config_file: str | None, overrides: tuple[str, ...], as_json: bool) -> None:
    """List the maps of the configuration, and when each was last written."""
    config = site_config(config_file, overrides)
    found = [(each, _written_at(each.path)) for each in config.map]
    if as_json:
        print_json([{"path": each.path, "kind": each.kind, "written_at": at} for each, at in found])
        return
    if not found:
        tell("there is no [[map]] in the configuration")
        return
    print_table(
        ("map", "kind", "written"),
        [(each.path, each.kind, "is not there" if at is None else when(at)) for each, at in found],
    )


@map_.command(epilog="Example: popgate map refresh")
@click.option("--quiet", is_flag=True, help="Say nothing when all is well, as for cron.")
@config_options
def refresh(quiet: bool, config_file: str | None, overrides: tuple[str, ...]) -> None:
    """Write every map as the grants are now, whether the server runs or not.

    A server that was killed takes nothing out of its maps any more. Run every minute by cron, as
    the user that the server runs as, this does.
    """
    from popgate.app.clock import SystemClock
    from popgate.app.maps import write_maps
    from popgate.integrations.maps.map_file import MapError

    config: Config = site_config(config_file, overrides)
    if not config.map:
        tell("there is no [[map]] in the configuration")
        return
    try:
        count = write_maps(config, SystemClock(), tell)
    except MapError as fault:
        raise TemporaryFailure(str(fault)) from None
    if not quiet:
        tell(f"{count} addresses may relay by {len(config.map)} maps")


def _written_at(path: str) -> float | None:
    try:
        return os.stat(path).st_mtime
    except OSError:
        return None
