"""`popgate logs follow`: a follower on its own, beside relay-ctrl's programs or any server."""

import os
from typing import Literal, cast

import click

from popgate.cli.options import config_options, site_config
from popgate.cli.root import BadUsage

_EXPIRY = "RELAY_CTRL_EXPIRY"


@click.command(
    epilog="Example: popgate logs follow /var/log/mail.log --pattern-set dovecot --store /var/spool/allow"
)
@click.argument("file", required=False)
@click.option("--journal", is_flag=True, help="Follow systemd's journal instead of a file.")
@click.option(
    "--pattern-set",
    "names",
    metavar="NAMES",
    multiple=True,
    help="Whose lines count: patterns by name, between commas; or a pattern file, or a directory of them."
    " May be repeated. Else all that are shipped.",
)
@click.option("--owner", metavar="USER[:GROUP]", default="", help="Who else than root may write the file.")
@click.option(
    "--unit", "units", metavar="UNIT", multiple=True, help="Journal: the units whose entries count."
)
@click.option(
    "--host", "hosts", metavar="NAME", multiple=True, help="Only lines of this host. May be repeated."
)
@click.option(
    "--protocol",
    "protocols",
    type=click.Choice(["pop3", "imap"]),
    multiple=True,
    help="The logins that count. Else both.",
)
@click.option("--default-domain", metavar="DOMAIN", default="", help="Of users named without one.")
@click.option("--timezone", metavar="ZONE", default="", help="Of times without a zone. Else this machine's.")
@click.option(
    "--start",
    type=click.Choice(["end", "beginning"]),
    default="end",
    help="Where to begin a log that was never followed.",
)
@click.option(
    "--state",
    "state_directory",
    metavar="DIR",
    help="Remember there how far the log was read, so that a restart loses nothing.",
)
@click.option(
    "--store",
    metavar="DIR",
    help="Grant in this directory, relay-ctrl's say, without a configuration.",
)
@click.option(
    "--window",
    "window_seconds",
    type=click.IntRange(1, 86400),
    metavar="SECONDS",
    help=f"With --store: how long a login counts. Else ${_EXPIRY}, or 900.",
)
@config_options
def follow(
    file: str | None,
    journal: bool,
    names: tuple[str, ...],
    owner: str,
    units: tuple[str, ...],
    hosts: tuple[str, ...],
    protocols: tuple[str, ...],
    default_domain: str,
    timezone: str,
    start: str,
    state_directory: str | None,
    store: str | None,
    window_seconds: int | None,
    config_file: str | None,
    overrides: tuple[str, ...],
) -> None:
    """Follow the log FILE and let the addresses relay from which users log in, until a signal ends it.

    Events go to standard error, one a line. Only a file counts that nobody but root (or --owner)
    can write. popgate serve does the same with a [[follow]] in its configuration.
    """
    from popgate.app.follow import follow_for_directory, follow_for_site
    from popgate.integrations.logs.follow_patterns import FollowError
    from popgate.integrations.logs.settings import FollowSettings

    if journal == bool(file):
        raise BadUsage("name one log file, or --journal")
    if store is not None and (config_file or overrides):
        raise BadUsage("--store goes without a configuration")
    if window_seconds is not None and store is None:
        raise BadUsage("--window goes with --store; a configuration has grants.window_seconds")
    settings = FollowSettings(
        file=os.path.abspath(file) if file else "",
        journal=journal,
        patterns=[part for name in names for part in name.split(",") if part],
        owner=owner,
        units=list(units),
        hosts=list(hosts),
        protocols=_protocols(protocols),
        default_domain=default_domain,
        timezone=timezone,
        start=cast("Literal['end', 'beginning']", start),
    )
    state = os.path.abspath(state_directory) if state_directory else None
    try:
        if store is not None:
            window = window_seconds if window_seconds is not None else _window(os.environ.get(_EXPIRY, ""))
            status = follow_for_directory(store.removeprefix("directory:"), window, settings, state)
        else:
            status = follow_for_site(site_config(config_file, overrides), settings, state)
    except FollowError as error:
        raise BadUsage(str(error)) from None
    raise click.exceptions.Exit(status)


def _protocols(names: tuple[str, ...]) -> "list[Literal['pop3', 'imap']]":
    return cast("list[Literal['pop3', 'imap']]", list(names) or ["pop3", "imap"])


def _window(text: str) -> int:
    """As relay-ctrl's programs read it."""
    if not text:
        return 900
    if text.isascii() and text.isdigit() and 0 < int(text) <= 86400:
        return int(text)
    raise BadUsage(f"{_EXPIRY}={text!r} is no number of seconds from 1 to 86400")
