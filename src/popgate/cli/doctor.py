"""`popgate doctor`: looks for what is wrong, changes nothing, and names the remedy."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from popgate.cli.options import config_options, json_option
from popgate.cli.output import print_json, printable, tell
from popgate.cli.root import NO, BadUsage

if TYPE_CHECKING:
    from popgate.integrations.dovecot.places import OurListener
    from popgate.integrations.findings import Finding

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
@click.option(
    "--dovecot",
    "is_dovecot",
    is_flag=True,
    help="Look at the installed Dovecot's configuration, as its doveconf prints it.",
)
@click.option(
    "--doveconf-output",
    "doveconf_file",
    metavar="FILE",
    help="The same for another host's: what doveconf -n printed there.",
)
@config_options
@json_option
def doctor(
    supervise_directory: str | None,
    cron_files: Sequence[str],
    root: str,
    is_dovecot: bool,
    doveconf_file: str | None,
    config_file: str | None,
    overrides: tuple[str, ...],
    as_json: bool,
) -> None:
    """Look for what is wrong, and say what would be right.

    --qmail looks at qmail hosts that use relay-ctrl's programs or popgate's: run scripts, env
    directories, tcprules, cron's lines, and the directory of grants. --dovecot looks at a Dovecot whose
    logins shall give grants, and compares it with popgate's own configuration where there is one. It
    runs nothing of what it reads, and changes nothing.

    Exit status 1 when something was found.
    """
    if supervise_directory is not None:
        if is_dovecot or doveconf_file:
            raise BadUsage("look at one of them at a time: --qmail or --dovecot")
        _qmail(root, supervise_directory, cron_files, as_json)
    elif is_dovecot or doveconf_file:
        _dovecot(doveconf_file, config_file, overrides, as_json)
    else:
        raise BadUsage(
            "say what to look at: --qmail SUPERVISE_DIR, such as popgate doctor --qmail /etc/service;"
            " or --dovecot"
        )


def _qmail(root: str, supervise_directory: str, cron_files: Sequence[str], as_json: bool) -> None:
    from popgate.integrations.qmail import CRON_FILES, Machine, NoServices, examine

    try:
        survey, findings = examine(Machine(root), supervise_directory, cron_files or CRON_FILES)
    except NoServices as error:
        raise BadUsage(str(error)) from error
    looked_at: dict[str, object] = {
        "services": [service.file for service in survey.services],
        "cron": list(survey.cron_files),
    }
    _tell(findings, looked_at, _count(len(survey.services), "run script"), as_json)


def _dovecot(file: str | None, config_file: str | None, overrides: tuple[str, ...], as_json: bool) -> None:
    from popgate.integrations.dovecot.doveconf import DoveconfError, ask, read_file
    from popgate.integrations.dovecot.traps import examine

    try:
        conf = ask() if file is None else read_file(file)
    except DoveconfError as error:
        raise BadUsage(str(error)) from error
    for complaint in conf.complaints:
        tell(f"doveconf: {complaint}")
    ours = _our_listeners(config_file, overrides)
    findings = examine(conf, ours)
    what = f"the configuration of Dovecot {conf.version}".rstrip()
    _tell(findings, {"source": conf.source, "version": conf.version}, what, as_json)


def _our_listeners(config_file: str | None, overrides: tuple[str, ...]) -> "list[OurListener] | None":
    """As the configuration has them, None where there is none; one that was named must be readable."""
    from popgate.app.backends import listener_key
    from popgate.config import ConfigError, find, load
    from popgate.integrations.dovecot.places import OurListener
    from popgate.servers.bind import parse_bind

    try:
        config = load(find(config_file), overrides, check_files=False).config
    except ConfigError:
        if config_file:
            raise
        tell("there is no configuration of popgate to compare with; name it by --config FILE")
        return None
    listeners = []
    for settings in config.listener:
        if settings.service != "dovecot_auth_policy":
            continue
        bind = parse_bind(settings.bind)
        try:
            secret = listener_key(settings)
        except OSError:
            secret = None
        listeners.append(
            OurListener(
                bind.host,
                bind.port,
                bool(settings.secret_file),
                secret,
                settings.tls != "none",
                settings.session_ends,
            )
        )
    return listeners


def _tell(findings: "Sequence[Finding]", looked_at: dict[str, object], what: str, as_json: bool) -> None:
    """Print them, and end with the status that says whether there were any."""
    if as_json:
        print_json(looked_at | {"findings": [_as_json(finding) for finding in findings]})
    else:
        for finding in findings:
            _print(finding)
        tell(f"looked at {what}: {_summary(findings)}")
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
