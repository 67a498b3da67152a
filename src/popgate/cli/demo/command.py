"""The `demo` command."""

import click


@click.command(epilog="Example: popgate demo --once")
@click.option("--once", is_flag=True, help="End after the story; exit status 0 only if all came out as told.")
def demo(once: bool) -> None:
    """Show POP before SMTP at work, against real servers that are started for it.

    Everything happens on loopback ports and in a temporary directory that is removed
    at the end. After the story the server stays up to be tried, until Ctrl-C.
    """
    from popgate.cli.demo.story import run_demo

    raise click.exceptions.Exit(run_demo(once=once))
