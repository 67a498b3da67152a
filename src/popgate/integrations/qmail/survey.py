"""Gathers what a host's services and cron say: the run scripts below a directory, and cron's lines."""

import posixpath
import re
from collections.abc import Iterator, Sequence

from popgate.integrations.qmail.chain import Chain, follow
from popgate.integrations.qmail.environment import Setting
from popgate.integrations.qmail.machine import Machine
from popgate.integrations.qmail.shell import MOST_OCTETS, Flaw
from popgate.values.value import value

CRON_FILES = ("/etc/crontab", "/etc/cron.d", "/etc/cron.hourly", "/var/spool/cron/crontabs")

SEARCH = ("/command", "/usr/local/bin", "/usr/local/sbin", "/bin", "/sbin", "/usr/bin", "/usr/sbin")
"""Where supervised services look for programs (svscanboot's PATH)."""

CRON_SEARCH = ("/usr/bin", "/bin")
"""Where cron looks unless a crontab sets PATH."""

_CRON_TIMES = re.compile(r"\s*(?:@\w+|(?:[\w*/,-]+\s+){4}[\w*/,-]+)\s+(\S.*)")
_CRON_SETTING = re.compile(r"\s*(\w+)\s*=\s*(.*?)\s*")


class NoServices(Exception):
    """There is no run script where some were expected; the text says where was looked."""


@value
class Program:
    """A run script, or one line of a crontab. `search` are the directories of its PATH."""

    file: str
    chains: tuple[Chain, ...]
    flaws: tuple[Flaw, ...]
    unexported: frozenset[str]
    empty: dict[str, str]
    search: tuple[str, ...]
    first_octets: bytes
    is_executable: bool


@value
class Survey:
    """What there is. `unread_cron` are files that cron skips for their name."""

    machine: Machine
    services: tuple[Program, ...]
    cron: tuple[Program, ...]
    cron_files: tuple[str, ...]
    unread_cron: tuple[str, ...]

    def programs(self) -> tuple[Program, ...]:
        return (*self.services, *self.cron)


def take(machine: Machine, directory: str, cron_files: Sequence[str] = CRON_FILES) -> Survey:
    """Read `directory`, a service or a directory of services. Raises NoServices."""
    services = tuple(_script(machine, path) for path in _run_scripts(machine, directory))
    cron: list[Program] = []
    read: list[str] = []
    unread: list[str] = []
    for path in cron_files:
        for file in _cron_files(machine, path, unread):
            read.append(file)
            cron += _cron_file(machine, file)
    return Survey(machine, services, tuple(cron), tuple(read), tuple(unread))


def _run_scripts(machine: Machine, directory: str) -> list[str]:
    if not machine.is_directory(directory):
        raise NoServices(f"{directory} is no directory")
    found = list(_scripts_of(machine, directory))
    if not found:
        try:
            names = machine.names(directory)
        except OSError as error:
            raise NoServices(f"{directory}: {error.strerror}") from error
        for name in names:
            # svscan passes over names that begin with a period
            if not name.startswith(".") and machine.is_directory(posixpath.join(directory, name)):
                found += _scripts_of(machine, posixpath.join(directory, name))
    if not found:
        raise NoServices(f"no run script in {directory} or in the directories in it")
    return found


def _scripts_of(machine: Machine, service: str) -> Iterator[str]:
    for path in (posixpath.join(service, "run"), posixpath.join(service, "log", "run")):
        if machine.exists(path):
            yield path


def _script(machine: Machine, path: str) -> Program:
    octets = machine.octets(path, MOST_OCTETS) or b""
    state = machine.state(path)
    is_executable = state is not None and bool(state.st_mode & 0o111)
    if b"\0" in octets or (octets.startswith(b"#!") and not _is_shell(octets)):
        # a binary, or execline, Perl, Python: nothing that can be read here
        return Program(path, (), (), frozenset(), {}, SEARCH, octets[:128], is_executable)
    reading = follow(machine, path, octets.decode("utf-8", "replace"), posixpath.dirname(path), {})
    return Program(
        path,
        reading.chains,
        reading.flaws,
        reading.unexported,
        reading.empty,
        SEARCH,
        octets[:128],
        is_executable,
    )


def _is_shell(octets: bytes) -> bool:
    words = octets[2:].split(b"\n", 1)[0].split()
    names = [word.rpartition(b"/")[2] for word in words[:2]]
    return any(name in (b"sh", b"bash", b"dash", b"ksh", b"ash") for name in names)


def _cron_files(machine: Machine, path: str, unread: list[str]) -> Iterator[str]:
    if not machine.is_directory(path):
        if machine.exists(path):
            yield path
        return
    try:
        names = machine.names(path)
    except OSError:
        return
    for name in names:
        file = posixpath.join(path, name)
        # cron(8), run-parts(8): other names are taken for an editor's or a packager's left-overs
        if re.fullmatch(r"[A-Za-z0-9_-]+", name):
            yield file
        elif "relay-ctrl-age" in (machine.text(file) or ""):
            unread.append(file)


def _cron_file(machine: Machine, file: str) -> Iterator[Program]:
    text = machine.text(file)
    if text is None:
        return
    if text.startswith("#!"):
        yield _script(machine, file)
        return
    settings: dict[str, Setting] = {}
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        if match := _CRON_TIMES.fullmatch(line):
            yield _cron_line(machine, file, number, match[1], settings)
        elif match := _CRON_SETTING.fullmatch(line):
            given = match[2]
            if len(given) > 1 and given[0] == given[-1] and given[0] in "\"'":
                given = given[1:-1]
            settings[match[1]] = Setting(given, file, number)


def _cron_line(
    machine: Machine, file: str, number: int, command: str, settings: dict[str, Setting]
) -> Program:
    first, rest = [*command.split(None, 1), ""][:2]
    if rest and (first == "root" or machine.user(first) is not None):
        # the system's crontabs name the user first
        command = rest
    # crontab(5): a percent sign ends the command unless it is escaped
    command = re.split(r"(?<!\\)%", command)[0].replace("\\%", "%")
    # the lines before it, so that all numbers are those of the file
    reading = follow(machine, file, "\n" * (number - 1) + command, "/", settings)
    path = settings.get("PATH")
    search = tuple(path.text.split(":")) if path is not None else CRON_SEARCH
    return Program(file, reading.chains, reading.flaws, reading.unexported, reading.empty, search, b"", True)
