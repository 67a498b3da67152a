"""`popgate doctor`: looks for what is wrong, changes nothing, and names the remedy."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from popgate.cli.options import json_option
from popgate.cli.output import print_json, printable, tell
from popgate.cli.root import NO, BadUsage

if TYPE_CHECKING:
    from popgate.integrations.qmail.findings import Finding

_COLOURS = {"danger": "red", "broken": "yellow", "advice": "cyan"}


@click.command(epilog="Example: popgate doctor --qmail /etc/service")
@click.option(
    "--qmail",
    "supervise_directory",
    metavar="SUPERVISE_DIR",
    help="Look at a qmail host: the run scripts of this service, or of the services in this directory.",
)
@click.option(
    "--cron",
    "cron_files",
    metavar="PATH",
    multiple=True,
    help="Where cron's lines are: a crontab, or a directory of them. May be repeated."
    " Else /etc/crontab, /etc/cron.d, /etc/cron.hourly and the users' crontabs.",
)
@click.option(
    "--root",
    default="/",
    metavar="DIR",
    show_default=True,
    help="Where the host's file system is, to look at a mounted disk or a container from outside."
    " All other paths are the host's own.",
)
@json_option
def doctor(supervise_directory: str | None, cron_files: Sequence[str], root: str, as_json: bool) -> None:
    """Look for what is wrong, and say what would be right.

    Today it looks at qmail hosts that use relay-ctrl's programs or popgate's (--qmail): run scripts,
    env directories, tcprules, cron's lines, and the directory of grants. It runs nothing of what it
    reads, and changes nothing.

    Exit status 1 when something was found.
    """
    if supervise_directory is None:
        raise BadUsage(
            "say what to look at: --qmail SUPERVISE_DIR, such as popgate doctor --qmail /etc/service"
        )
    from popgate.integrations.qmail import CRON_FILES, Machine, NoServices, examine

    try:
        survey, findings = examine(Machine(root), supervise_directory, cron_files or CRON_FILES)
    except NoServices as error:
        raise BadUsage(str(error)) from error
    if as_json:
        print_json(
            {
                "services": [service.file for service in survey.services],
                "cron": list(survey.cron_files),
                "findings": [_as_json(finding) for finding in findings],
            }
        )
    else:
        for finding in findings:
            _print(finding)
        tell(f"looked at {_count(len(survey.services), 'run script')}: {_summary(findings)}")
    if findings:
        raise click.exceptions.Exit(NO)


def _print(finding: "Finding") -> None:
    level = click.style(finding.level, fg=_COLOURS[finding.level], bold=True)
    click.echo(f"{printable(finding.place())}: {level}: {printable(finding.what)} [{finding.trap}]")
    click.echo(f"    remedy: {printable(finding.remedy)}")


def _summary(findings: "Sequence[Finding]") -> str:
    return _count(len(findings), "finding") if findings else "nothing is wrong"


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def _as_json(finding: "Finding") -> dict[str, object]:
    return {
        "trap": finding.trap,
        "level": finding.level,
        "file": finding.file,
        "line": finding.line,
        "what": finding.what,
        "remedy": finding.remedy,
    }
