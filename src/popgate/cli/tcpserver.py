"""`popgate tcpserver`.

softlimit lowers what Python needs before it can say anything, so the first thing here,
before anything large is imported, is to take that limit off this process and to keep it for
the programs, which is what the run script meant.
"""

import os
import resource
import sys

import click

_ENOUGH_BYTES = 1 << 30


@click.command(
    add_help_option=False,
    context_settings={
        "ignore_unknown_options": True,
        "allow_interspersed_args": False,
        "help_option_names": [],
    },
    epilog="Example: popgate tcpserver -vHRl0 -c 40 -x /etc/tcp.smtp.cdb 0 25 /var/qmail/bin/qmail-smtpd",
    options_metavar="[tcpserver's options] host port program",
)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED, metavar="")
@click.pass_context
def tcpserver(ctx: click.Context, arguments: tuple[str, ...]) -> None:
    """Run PROGRAM for each connection, in place of tcpserver.

    \b
    -c 40        connections at the same time; more wait
    -C 5[:text]  connections from one address; more are told the text and closed
    -x file.cdb  rules made by tcprules   -X  without the file let everybody in
    -u uid -g gid, -U from $UID and $GID  become them once the port is taken
    -h/-H        look the client's name up or not (-h)   -p/-P  paranoid or not (-P)
    -r/-R        ask the client's host who connects or not (-R), -t 26 seconds at most
    -l name      for TCPLOCALHOST, instead of looking it up
    -b 20 backlog   -B banner   -d/-D delay or never   -o/-O keep or kill IP options
    -1           print the port   -v/-Q/-q  tell all, errors, nothing   -4/-6  family
    --check      set RELAYCLIENT for clients with a grant in $RELAY_CTRL_DIR
    --allow      record logins of a chain with popgate-allow behind its password checker
    --no-grant   neither, whatever stands in the chain
    --envdir DIR, --trust-user USER  (whose grant files count too)

    relay-ctrl-check as first program, and relay-ctrl-allow behind a password checker, are done
    by this listener itself.
    """
    inherited = _raise_limits()
    from popgate.app.tcpserver import Fatal, fail, run
    from popgate.integrations.ucspi.options import USAGE, UsageError, parse
    from popgate.integrations.ucspi.program import ProgramLimits

    try:
        options = parse(arguments, os.environ)
    except UsageError as fault:
        click.echo(f"tcpserver: {fault}\ntcpserver: usage: popgate {USAGE}", err=True)
        sys.exit(100)
    if options.wants_help:
        click.echo(ctx.get_help())
        return
    memory, data = inherited
    try:
        if options.envdir:
            from popgate.app.envdir import read_envdir

            read_envdir(options.envdir)
        status = run(options, ProgramLimits(memory, data) if memory or data else None)
    except Fatal as fault:
        sys.exit(fail(str(fault)))
    except OSError as fault:
        sys.exit(fail(f"{fault.filename or ''}: {fault.strerror}"))
    sys.exit(status)


def _raise_limits() -> tuple[int | None, int | None]:
    """Memory and data limits that are too small for a resident Python, in bytes, as they were."""
    found: list[int | None] = []
    for kind in (resource.RLIMIT_AS, resource.RLIMIT_DATA):
        soft, hard = resource.getrlimit(kind)
        if soft == resource.RLIM_INFINITY or soft >= _ENOUGH_BYTES:
            found.append(None)
            continue
        try:
            resource.setrlimit(kind, (hard, hard))
        except (OSError, ValueError):
            pass
        if 0 <= hard < _ENOUGH_BYTES:
            click.echo(
                f"tcpserver: warning: a hard memory limit of {hard} bytes may be too little for popgate;"
                " put softlimit behind it, before the program",
                err=True,
            )
        found.append(soft)
    return found[0], found[1]
