"""`popgate logs`: which logins do other programs' logs tell of?"""

import sys
from collections.abc import Callable, Sequence
from typing import IO, TYPE_CHECKING, NamedTuple

import click

from popgate.cli.logs_follow import follow
from popgate.cli.options import config_options, json_option
from popgate.cli.output import how_long, print_json, print_table, printable, tell, when
from popgate.cli.root import NO, BadUsage, CommandGroup, Refusal

if TYPE_CHECKING:
    from datetime import tzinfo

    from popgate.app.log_replay import LogReplay, Window
    from popgate.config import Config
    from popgate.integrations.logs import LoginSeen, Pattern, Seen
    from popgate.integrations.logs.why import Reading

_PROGRESS_OCTETS = 64 << 20


@click.group(cls=CommandGroup)
def logs() -> None:
    """Recognise the logins that other servers write into their logs."""


logs.add_command(follow)

_set_option = click.option(
    "--pattern-set",
    "names",
    metavar="NAMES",
    multiple=True,
    help="Patterns by name, between commas; or a pattern file, or a directory of them. May be repeated."
    " Else all that are shipped and those of the configuration.",
)
_zone_option = click.option(
    "--timezone",
    "zone_name",
    metavar="ZONE",
    default="",
    help="Of times without a zone; else this machine's.",
)


@logs.command(epilog="Example: popgate logs replay --dry-run /var/log/mail.log*")
@click.argument("files", nargs=-1, required=True, metavar="FILE...")
@click.option("--dry-run", is_flag=True, help="Only tell what would have been granted.")
@_set_option
@click.option(
    "--diff", "other", metavar="NAMES", help="Tell the logins that only one of two pattern sets sees."
)
@_zone_option
@click.option(
    "--host", "hosts", metavar="NAME", multiple=True, help="Only lines of this host. May be repeated."
)
@config_options
@json_option
def replay(
    files: tuple[str, ...],
    dry_run: bool,
    names: tuple[str, ...],
    other: str | None,
    zone_name: str,
    hosts: tuple[str, ...],
    config_file: str | None,
    overrides: tuple[str, ...],
    as_json: bool,
) -> None:
    """Read old logs (- is standard input) and tell what their logins would have granted: to whom, from
    when, for how long.

    The rules and the windows are those of the configuration; with --dry-run the defaults serve where
    there is none. Without --dry-run, logins whose window is still open are granted. Files may be
    compressed by gzip, bzip2, xz or zstd; they are read in the order of their last change.

    Exit status 1 when --diff finds a difference.
    """
    zone = _zone(zone_name)
    source = _Source(files, zone, hosts)  # before root becomes the server's user, who may not read logs
    config = _config(config_file, overrides, is_needed=not dry_run and other is None)
    if config is not None and config.local_domains:
        source.default_domain = config.local_domains[0]
    if other is not None:
        _diff(source, _patterns(names), _patterns([other]), other, as_json=as_json)
        return
    replayed = _replay(source, _patterns(names), config)
    granted = None
    if not dry_run:
        assert config is not None
        granted = _grant_open(config, replayed)
    _tell_windows(replayed, source, as_json=as_json, granted=granted)


class _Source:
    """The files, as lines for a recogniser."""

    def __init__(self, files: Sequence[str], zone: "tzinfo", hosts: Sequence[str]) -> None:
        self.octets = 0
        self.default_domain = ""
        self.can_be_read_again = "-" not in files
        self._zone = zone
        self._hosts = frozenset(hosts)
        self._opened = sorted((_open(name) for name in files), key=lambda file: file.ended_at)

    def read(self, patterns: "Sequence[Pattern]", take: "Callable[[Seen, float], None]") -> None:
        """Hand everything that is seen to `take`, with the time at which its file ended."""
        from popgate.integrations.logs import Recogniser
        from popgate.integrations.logs.log_files import LogFileError, blocks

        self.octets = 0
        recogniser = Recogniser(
            patterns, self._zone, default_domain=self.default_domain, hosts=self._hosts, replays=True
        )
        with _Progress(sum(file.octets for file in self._opened)) as advance:
            done = 0
            for file in self._opened:
                if self.can_be_read_again:
                    file.stream.seek(0)
                try:
                    for block in blocks(file.stream, lambda place, done=done: advance(done + place)):  # type: ignore[misc]
                        self.octets += len(block)
                        for seen in recogniser.feed_block(block, file.ended_at):
                            take(seen, file.ended_at)
                except LogFileError as error:
                    raise BadUsage(f"{file.name}: {error}") from None
                done += file.octets


class _File(NamedTuple):
    """An open log. `ended_at`: when its last line was written at the latest."""

    name: str
    stream: IO[bytes]
    ended_at: float
    octets: int


def _open(name: str) -> _File:
    import os
    import time

    from popgate.integrations.logs.log_files import LogFileError, open_log

    if name == "-":
        return _File(name, sys.stdin.buffer, time.time(), 0)
    try:
        stream = open_log(name)
    except OSError as error:
        raise BadUsage(f"{name}: cannot be read: {error.strerror}") from None
    except LogFileError as error:
        raise BadUsage(f"{name}: {error}") from None
    click.get_current_context().call_on_close(stream.close)
    status = os.fstat(stream.fileno())
    return _File(name, stream, min(time.time(), status.st_mtime), status.st_size)


class _Progress:
    """A bar on a terminal for long files; nothing else."""

    def __init__(self, octets: int) -> None:
        self._octets = octets
        self._bar: object = None

    def __enter__(self) -> "Callable[[int], None]":
        if self._octets < _PROGRESS_OCTETS or not sys.stderr.isatty():
            return lambda place: None
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            DownloadColumn,
            Progress,
            TimeRemainingColumn,
            TransferSpeedColumn,
        )

        bar = Progress(
            BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn(),
            console=Console(stderr=True), transient=True,
        )  # fmt: skip
        task = bar.add_task("", total=self._octets)
        bar.start()
        self._bar = bar
        return lambda place: bar.update(task, completed=place)

    def __exit__(self, *exc: object) -> None:
        if self._bar is not None:
            self._bar.stop()  # type: ignore[attr-defined]


def _replay(source: _Source, patterns: "Sequence[Pattern]", config: "Config | None") -> "LogReplay":
    import os

    from popgate.app.log_replay import LogReplay
    from popgate.app.own_addresses import own_addresses
    from popgate.app.ucspi import account_terms
    from popgate.cli.services import account_database
    from popgate.grants.grant import DEFAULT_TERMS
    from popgate.grants.settings import GrantSettings

    if config is None:
        replayed = LogReplay(GrantSettings(), lambda identity: DEFAULT_TERMS)
        source.read(patterns, replayed.take)
    elif not os.access(config.accounts_file, os.R_OK | os.W_OK):
        tell(f"note: {config.accounts_file} cannot be read; what its accounts say does not count")
        replayed = LogReplay.of_site(config, lambda identity: DEFAULT_TERMS, own_addresses())
        source.read(patterns, replayed.take)
    else:
        with account_database(config) as accounts:
            replayed = LogReplay.of_site(
                config, lambda identity: account_terms(accounts.get, identity), own_addresses()
            )
            source.read(patterns, replayed.take)
    return replayed


def _grant_open(config: "Config", replayed: "LogReplay") -> int:
    """Give to the site's store what is still open now; how many that are."""
    import time

    from popgate.cli.services import grants_service

    if not replayed.now:
        return 0
    replayed.advance(time.time())
    count = 0
    with grants_service(config) as grants:
        for grant in replayed.live():
            if grants.allow(
                grant.address, grant.identity, grant.protocol, grant.terms, "replay", at=grant.login_at
            ):
                count += 1
                if grant.renewed_at > grant.login_at:
                    grants.logout(grant.address, grant.identity, "replay", at=grant.renewed_at)
    return count


def _tell_windows(replayed: "LogReplay", source: _Source, *, as_json: bool, granted: int | None) -> None:
    last = replayed.now
    windows = replayed.finish()
    if as_json:
        document: dict[str, object] = {
            "windows": [_as_json(window, last) for window in windows],
            "logins": replayed.logins,
            "logouts": replayed.logouts,
            "refused": replayed.refused,
            "octets": source.octets,
            "last": last or None,
        }
        if granted is not None:
            document["granted"] = granted
        print_json(document)
        return
    if windows:
        print_table(
            ("from", "until", "for", "address", "identity", "by", "logins"),
            [
                (
                    when(window.since),
                    when(window.until or last),
                    how_long((window.until or last) - window.since),
                    window.address,
                    window.identity,
                    window.protocol,
                    window.logins,
                )
                for window in windows
            ],
        )
    refused = "".join(f", {count} refused ({reason})" for reason, count in sorted(replayed.refused.items()))
    tell(f"{replayed.logins} logins and {replayed.logouts} logouts seen, {len(windows)} windows{refused}")
    if granted is not None:
        tell(f"{granted} granted now")


def _as_json(window: "Window", last: float) -> dict[str, object]:
    until = window.until if window.until is not None else last
    return {
        "from": window.since,
        "until": until,
        "seconds": until - window.since,
        "address": window.address.text,
        "identity": window.identity,
        "protocol": window.protocol,
        "logins": window.logins,
        "is_open": until > last,
    }


def _diff(
    source: _Source,
    patterns: "Sequence[Pattern]",
    other_patterns: "Sequence[Pattern]",
    other: str,
    *,
    as_json: bool,
) -> None:
    if not source.can_be_read_again:
        raise BadUsage("--diff reads the files twice: standard input cannot be")
    ours, theirs = _logins(source, patterns), _logins(source, other_patterns)
    only_ours = [login for key, login in ours.items() if key not in theirs]
    only_theirs = [login for key, login in theirs.items() if key not in ours]
    lines = [("-", login) for login in only_ours] + [("+", login) for login in only_theirs]
    lines.sort(key=lambda line: line[1].at)
    if as_json:
        print_json([{"only": "first" if sign == "-" else "other", **_login_json(one)} for sign, one in lines])
    else:
        for sign, one in lines:
            told = f"{sign} {when(one.at)}  {one.address}  {one.identity}  {one.protocol}  {one.pattern}"
            click.echo(printable(told))
    tell(f"{len(ours)} logins, of which {len(only_ours)} are not seen by {other}")
    tell(f"{len(theirs)} logins by {other}, of which {len(only_theirs)} are new")
    if lines:
        raise click.exceptions.Exit(NO)


def _logins(source: _Source, patterns: "Sequence[Pattern]") -> "dict[tuple[object, ...], LoginSeen]":
    from popgate.integrations.logs import LoginSeen

    found: dict[tuple[object, ...], LoginSeen] = {}

    def take(seen: "Seen", latest: float) -> None:
        if isinstance(seen, LoginSeen):
            found.setdefault((seen.at, seen.address, seen.identity, seen.protocol, seen.pid), seen)

    source.read(patterns, take)
    return found


def _login_json(one: "LoginSeen") -> dict[str, object]:
    return {
        "at": one.at,
        "address": one.address.text,
        "identity": str(one.identity),
        "protocol": one.protocol,
        "program": one.program,
        "pattern": one.pattern,
    }


@logs.command(epilog="Example: popgate logs patterns")
@_set_option
@json_option
def patterns(names: tuple[str, ...], as_json: bool) -> None:
    """List the patterns: whose logins are recognised, and from where the form of their lines is known."""
    found = _patterns(names)
    if as_json:
        print_json(
            [
                {
                    "name": one.name,
                    "title": one.title,
                    "versions": one.versions,
                    "programs": sorted(one.programs),
                    "syntax": one.syntax,
                    "logouts": one.tells_logouts,
                    "known_from": one.known_from,
                    "source": one.source,
                }
                for one in found
            ]
        )
        return
    print_table(
        ("name", "server", "versions", "logouts", "known from"),
        [
            (one.name, one.title, one.versions, "yes" if one.tells_logouts else "no", one.known_from)
            for one in found
        ],
    )


@logs.command(epilog="Example: popgate logs test 'Nov 24 11:31:02 mail pop3d: LOGIN, user=a, ip=[192.0.2.9]'")
@click.argument("line", required=False)
@_set_option
@_zone_option
@json_option
def test(line: str | None, names: tuple[str, ...], zone_name: str, as_json: bool) -> None:
    """Tell what LINE, or each line of standard input, is taken for: which pattern matches, and how far the
    others do. Lines that belong together (one names the user, the next the address) must come together.

    Exit status 1 when no login or logout was seen.
    """
    import time

    from popgate.integrations.logs import Recogniser, Reference
    from popgate.integrations.logs.why import explain

    zone, chosen = _zone(zone_name), _patterns(names)
    recogniser = Recogniser(chosen, zone, replays=True)
    now = time.time()
    lines = [line] if line is not None else [one.rstrip("\n") for one in sys.stdin]
    readings = [(one, explain(one, chosen, Reference(zone, now, now), recogniser)) for one in lines if one]
    if as_json:
        print_json([_reading_json(one, reading) for one, reading in readings])
    else:
        for one, reading in readings:
            _tell_reading(one, reading)
    if not any(reading.seen for _, reading in readings):
        raise Refusal("no login and no logout was seen")


def _tell_reading(line: str, reading: "Reading") -> None:
    click.secho(printable(line[:200]), bold=True)
    record = reading.record
    if record is not None:
        at = when(record.at) if record.at is not None else "at no time"
        pid = f"[{record.pid}]" if record.pid else ""
        click.echo(printable(f"  {at}, host {record.host or '-'}, program {record.program}{pid}"))
    if reading.fault:
        click.echo(printable(f"  it {reading.fault}"))
    for one in reading.tried:
        what = f"  {one.pattern} ({one.kind}): {one.fault or 'matches'}"
        if one.fault == "does not match" and one.matched:
            what += f" behind {one.matched[-60:]!r}"
        click.echo(printable(what))
    for seen in reading.seen:
        click.secho(printable(f"  {_seen_text(seen)}"), fg="green")


def _seen_text(seen: "Seen") -> str:
    from popgate.integrations.logs import LoginSeen

    kind = "login" if isinstance(seen, LoginSeen) else "logout"
    session = f", session {seen.session}" if seen.session else ""
    who = f"{seen.identity or '-'} at {seen.address or '-'} by {seen.protocol}"
    return f"{kind} of {who}{session}, seen by pattern {seen.pattern}"


def _reading_json(line: str, reading: "Reading") -> dict[str, object]:
    from popgate.integrations.logs import LoginSeen

    record = reading.record
    return {
        "line": line,
        "at": None if record is None else record.at,
        "host": None if record is None else record.host,
        "program": None if record is None else record.program,
        "pid": None if record is None else record.pid,
        "fault": reading.fault,
        "tried": [
            {"pattern": one.pattern, "kind": one.kind, "matched": one.matched, "fault": one.fault}
            for one in reading.tried
        ],
        "seen": [
            {
                "kind": "login" if isinstance(one, LoginSeen) else "logout",
                "identity": str(one.identity) if one.identity else None,
                "address": one.address.text if one.address else None,
                "protocol": one.protocol,
                "session": one.session,
                "pattern": one.pattern,
            }
            for one in reading.seen
        ],
    }


def _patterns(names: Sequence[str]) -> "list[Pattern]":
    from popgate.integrations.logs.pattern_set import PatternSetError, pattern_set

    try:
        return pattern_set([part for name in names for part in name.split(",") if part])
    except PatternSetError as error:
        raise BadUsage(str(error)) from None


def _zone(name: str) -> "tzinfo":
    from popgate.integrations.logs.zones import zone_of

    try:
        return zone_of(name)
    except ValueError as error:
        raise BadUsage(str(error)) from None


def _config(config_file: str | None, overrides: tuple[str, ...], *, is_needed: bool) -> "Config | None":
    """The site's configuration. For a report nothing is made, and it is None where there is none."""
    from popgate.app.privileges import drop_privileges
    from popgate.cli.options import load_config, site_config
    from popgate.config import ConfigError, find

    if is_needed:
        return site_config(config_file, overrides)
    try:
        find(config_file)
    except ConfigError:
        if overrides:
            raise
        tell("note: there is no configuration here; the defaults serve")
        return None
    config = load_config(config_file, overrides).config
    drop_privileges(config.user)
    return config
