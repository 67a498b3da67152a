"""Traps of the server's command line: users, memory, rules, look-ups, programs that are not there."""

from collections.abc import Iterator

from popgate.integrations.findings import Finding
from popgate.integrations.qmail.chain import Link
from popgate.integrations.qmail.environment import Argument, output_file
from popgate.integrations.qmail.lines import ServerLine, cron_lines, server_lines
from popgate.integrations.qmail.machine import Machine
from popgate.integrations.qmail.programs import SMTP_SERVERS
from popgate.integrations.qmail.shell import UNKNOWN
from popgate.integrations.qmail.survey import Survey

LEAST_OCTETS = 8_000_000
"""What C programs of 64 bits want: with 2 million none can be loaded, with 3 only the smallest."""
LEAST_COMMAND_OCTETS = 40_000_000
"""What a program of popgate's wants; Python alone takes 16 million. (Its listener takes a limit off
itself and puts it on the programs, but Python has to be started for that.)"""


def server_traps(survey: Survey) -> Iterator[Finding]:
    for line in server_lines(survey):
        if line.listener is not None:
            yield from _user_traps(line, line.listener, survey.machine)
            yield from _concurrency_traps(line, line.listener)
            yield from _speed_traps(line, line.listener)
        yield from _memory_traps(line, survey.machine)
        yield from _directory_traps(line)
        yield from _missing_programs(line, survey.machine)
    for line in cron_lines(survey):
        yield from _directory_traps(line)
        yield from _missing_programs(line, survey.machine)
    yield from _ipv6_traps(survey)


def names_of(names: list[str]) -> str:
    return " and ".join(f"${name}" for name in names)


def why_unset(line: ServerLine, names: list[str]) -> tuple[str, str]:
    """Why variables are empty where they are used, and the remedy."""
    one = len(names) == 1
    if line.program.empty.keys() >= set(names):
        return _why_empty(line, names)
    if line.program.unexported.issuperset(names):
        return (
            f"{names_of(names)} {'is' if one else 'are'} set, but not exported, so the sh -c in which"
            f" {'it is' if one else 'they are'} used does not have {'it' if one else 'them'}",
            f"write export {' '.join(names)} before it",
        )
    return (
        f"{names_of(names)} {'is' if one else 'are'} not set",
        f"set {names_of(names)} at the beginning of the script",
    )


def _why_empty(line: ServerLine, names: list[str]) -> tuple[str, str]:
    """Variables that the script sets, to nothing: exporting them would not help."""
    whys, remedies = [], []
    for name in names:
        command = line.program.empty[name]
        if not command:
            whys.append(f"${name} is set to nothing")
            remedies.append(f"give ${name} a value where the script sets it")
        elif file := output_file(command):
            whys.append(f"${name} is empty: `{command}` prints nothing, as {file} is missing or empty")
            remedies.append(f"write what ${name} is to be into {file}")
        else:
            whys.append(f"${name} is empty: `{command}` prints nothing on this machine")
            remedies.append(f"run `{command}` by hand and mend what it lacks")
    return "; ".join(whys), "; ".join(remedies)


def _user_traps(line: ServerLine, listener: Link, machine: Machine) -> Iterator[Finding]:
    step = listener.step
    given = step.option("u")
    unset = sorted(
        {name for letter in "ug" if (option := step.option(letter)) is not None for name in option.unset}
        | {name for gone in step.vanished for name in gone.unset}
    )
    if step.is_popgate and given is not None and (not given.text or given.text.startswith("-")):
        why, remedy = why_unset(line, unset) if unset else ("-u is empty", "give a user: -u qmaild -g qmail")
        yield Finding(
            "no-user",
            "broken",
            line.file,
            given.line,
            f"{why}: popgate tcpserver does not start without the user it is told to become",
            remedy,
        )
        return
    becomes_root = given is not None and _is_root(given, step.is_popgate, machine)
    if becomes_root and given is not None:
        if unset:
            why, remedy = why_unset(line, unset)
        elif given.text and not given.text.isdigit():
            why = f"-u wants a number, and reads the name {given.text} as 0"
            remedy = f'write -u "`id -u {given.text}`" or, behind envuidgid {given.text}, -U'
        else:
            why = "-u is empty or 0" if not given.text.strip() or given.text == "0" else "-u is root"
            remedy = 'give the user of the SMTP server: -u "`id -u qmaild`" -g "`id -g qmaild`"'
        yield Finding(
            "server-stays-root",
            "danger",
            line.file,
            given.line,
            f"{why}: the server and every program that it starts stay root",
            remedy,
        )
        return
    if given is not None or not line.is_smtp or listener.user is not None:
        return
    if "U" in step.flags:
        if "UID" in listener.environment or listener.may_know_more:
            return
        why, remedy = "-U takes $UID and $GID, which are not set", "put envuidgid qmaild before it"
    elif any(link.user is not None for link in line.links(SMTP_SERVERS)):
        return
    else:
        why, remedy = "the SMTP server is given no user", 'add -u "`id -u qmaild`" -g "`id -g qmaild`"'
    yield Finding(
        "server-stays-root",
        "danger",
        line.file,
        step.line,
        f"{why}: it talks to strangers as root",
        remedy,
    )


def _is_root(given: Argument, takes_names: bool, machine: Machine) -> bool:
    text = given.text.partition(":")[0]
    if UNKNOWN in text:
        return False
    if not text.isdigit():
        # what the C program makes of letters is 0
        return not takes_names or text in ("", "root")
    return int(text) == 0


def _concurrency_traps(line: ServerLine, listener: Link) -> Iterator[Finding]:
    given = listener.step.option("c")
    if given is None:
        yield Finding(
            "no-concurrency",
            "advice",
            line.file,
            listener.step.line,
            "no -c: at most 40 connections at once, and further ones wait; a few idle clients suffice",
            "say how many you want, such as -c 100, and see that softlimit and the machine bear them",
        )
    elif given.is_known and (not given.text.isdigit() or int(given.text) == 0):
        if given.unset:
            why, remedy = why_unset(line, list(given.unset))
        else:
            why, remedy = f"-c is {given.text!r}, which counts as 0", "give a number, such as -c 40"
        yield Finding(
            "no-concurrency",
            "broken",
            line.file,
            given.line,
            f"{why}: with a limit of 0 the server accepts no connection at all",
            remedy,
        )


def _speed_traps(line: ServerLine, listener: Link) -> Iterator[Finding]:
    step = listener.step
    # popgate's asks no ident server unless told to, and for its own name once
    missing = [f"-{flag}" for flag in ("H" if step.is_popgate else "HR") if flag not in step.flags]
    if step.option("l") is None and not step.is_popgate:
        missing.append("-l0")
    if missing:
        waits = {
            "-H": "the client's host name",
            "-R": "the client's ident server (up to 26 s where a firewall swallows the question)",
            "-l0": "its own host name",
        }
        yield Finding(
            "slow-lookups",
            "advice",
            line.file,
            step.line,
            f"without {' '.join(missing)} each connection waits for"
            f" {', '.join(waits[one] for one in missing)}",
            f"add {' '.join(missing)}; keep look-ups only if rules or logs need them",
        )


def _memory_traps(line: ServerLine, machine: Machine) -> Iterator[Finding]:
    limited = [link for link in line.chain if link.memory is not None]
    if not limited:
        return
    memory = limited[-1].memory
    assert memory is not None
    wanted, who = LEAST_OCTETS, "programs of 64 bits"
    for link in limited:
        if link.step.is_popgate:
            wanted, who = LEAST_COMMAND_OCTETS, "popgate tcpserver, which runs on Python,"
        elif link.step.name.startswith("relay-ctrl-") and _is_python(link, line, machine):
            wanted, who = LEAST_COMMAND_OCTETS, f"{link.step.name}, which runs on Python,"
    if memory.octets < wanted:
        yield Finding(
            "memory-limit",
            "broken",
            line.file,
            memory.line,
            f"{memory.program} allows {memory.octets} octets, too little for {who} to start in"
            + ("; with 2000000 of the guides no program of 64 bits is loaded" if memory.octets < 3e6 else ""),
            f"give it -m {wanted} or more",
        )


def _is_python(link: Link, line: ServerLine, machine: Machine) -> bool:
    path = machine.find(link.step.path, _search(link, line))
    # where it is not there yet, popgate's is what will be installed
    return path is None or machine.kind(path) != "binary"


def _search(link: Link, line: ServerLine) -> tuple[str, ...]:
    path = link.environment.get("PATH")
    if path is None or not path.is_known:
        return line.program.search
    return tuple(one for one in path.text.split(":") if one)


def _directory_traps(line: ServerLine) -> Iterator[Finding]:
    for link in line.chain:
        directory = link.directory
        if directory is None:
            continue
        if not directory.exists:
            yield Finding(
                "no-env-directory",
                "broken",
                line.file,
                directory.line,
                f"there is no directory {directory.path or '(empty)'}, so {link.step.name} starts nothing",
                f"mkdir -p {directory.path or 'DIR'}, and write a file for each variable into it",
            )
        for entry in directory.unreadable:
            yield Finding(
                "unreadable-env-file",
                "broken",
                line.file,
                directory.line,
                f"{entry} is no file that can be read, and then {link.step.name} starts nothing",
                "remove it: an env directory holds files only",
            )


def _missing_programs(line: ServerLine, machine: Machine) -> Iterator[Finding]:
    for link in line.chain:
        path = link.step.path
        if UNKNOWN in path or link.may_know_more or not path:
            continue
        search = _search(link, line)
        if machine.find(path, search) is not None:
            continue
        name = path.rpartition("/")[2]
        elsewhere = machine.find(
            name, ("/usr/bin", "/usr/local/bin", "/var/qmail/bin", "/command", "/usr/sbin")
        )
        where = "" if "/" in path else f" in {':'.join(search)}"
        yield Finding(
            "no-such-program",
            "broken",
            line.file,
            link.step.line,
            f"there is no program {path}{where}",
            f"write {elsewhere}" if elsewhere else f"install {name}, or correct the path",
        )


def _ipv6_traps(survey: Survey) -> Iterator[Finding]:
    if not survey.machine.has_global_ipv6():
        return
    lines = [line for line in server_lines(survey) if line.listener is not None]
    served = {line.port for line in lines if _hears_ipv6(line)}
    for line in lines:
        if line.listener is not None and not _hears_ipv6(line) and line.port not in served:
            yield Finding(
                "ipv4-only",
                "advice",
                line.file,
                line.listener.step.line,
                "tcpserver hears IPv4 only, and this machine has an IPv6 address: clients that log in by"
                " one and send by the other are refused, if they come through at all",
                "write popgate tcpserver in its place (:: as host hears both), or publish no AAAA record",
            )


def _hears_ipv6(line: ServerLine) -> bool:
    assert line.listener is not None
    words = line.listener.step.words
    if line.listener.step.is_popgate and "6" in line.listener.step.flags:
        return True
    return bool(words) and (":" in words[0].text or not words[0].is_known)
