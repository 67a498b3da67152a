"""`popgate serve`."""

import click

from popgate.cli.options import config_options
from popgate.cli.root import NO, BadUsage, Refusal


@click.command(epilog="Example: popgate serve --config /etc/popgate/popgate.toml")
@config_options
@click.option(
    "--ready-file",
    metavar="FILE",
    help="Once every listener accepts, write a JSON document with the process and its listeners there.",
)
def serve(config_file: str | None, overrides: tuple[str, ...], ready_file: str | None) -> None:
    """Run the server in the foreground until it is told to stop.

    SIGTERM ends it when the open sessions have ended. SIGHUP reads the configuration, the
    certificates and the accounts again without losing a connection; a configuration with
    mistakes is reported and the old one stays.
    """
    from popgate.app.serve import StartRefused
    from popgate.app.serve import serve as run

    try:
        status = run(config_file, overrides, ready_file)
    except StartRefused as refused:
        raise (Refusal if refused.status == NO else BadUsage)(str(refused)) from refused
    raise click.exceptions.Exit(status)
