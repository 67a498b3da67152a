"""Traps of the directory of grants: who can write into it, who can read what, who can come there at all.

In the recipe the directory itself is open for everybody (0777 or 1733), because logins are recorded
with the rights of whoever logged in, and the directory above it is root's alone (0700), so that
only the descriptor of relay-ctrl-chdir leads there.
"""

import posixpath
import stat
from collections.abc import Iterator

from popgate.integrations.findings import Finding
from popgate.integrations.qmail.chain import Link
from popgate.integrations.qmail.lines import GRANT_PROGRAMS, ServerLine, records_itself, server_lines
from popgate.integrations.qmail.machine import Machine
from popgate.integrations.qmail.programs import SMTP_SERVERS
from popgate.integrations.qmail.shell import UNKNOWN
from popgate.integrations.qmail.survey import Survey

_MOST_FILES = 1000


def spool_traps(survey: Survey) -> Iterator[Finding]:
    lines = server_lines(survey)
    paths: dict[str, Link] = {}
    for line in lines:
        for link in line.links(GRANT_PROGRAMS | {"relay-ctrl-chdir"}):
            setting = link.environment.get("RELAY_CTRL_DIR")
            if setting is not None and setting.is_known and setting.text.startswith("/"):
                paths.setdefault(posixpath.normpath(setting.text), link)
    users = _smtp_uids(lines, survey.machine)
    for path, link in paths.items():
        yield from _directory_traps(path, link, lines, users, survey.machine)
    for line in lines:
        yield from _opener_traps(line, users, survey.machine)


def _smtp_uids(lines: list[ServerLine], machine: Machine) -> set[int]:
    """The users that relay-ctrl-check runs as, where they are known."""
    found = set()
    for line in lines:
        for link in line.links({"relay-ctrl-check"}):
            uid = _uid(link.user, machine)
            if uid is not None:
                found.add(uid)
        for link in line.links(SMTP_SERVERS):
            if line.position({"relay-ctrl-check"}) is None and line.listener is not None:
                continue
            uid = _uid(link.user, machine)
            if uid is not None:
                found.add(uid)
    return found


def _uid(user: str | None, machine: Machine) -> int | None:
    if not user or UNKNOWN in user:
        return None
    if user.isdigit():
        return int(user)
    known = machine.user(user)
    return None if known is None else known[0]


def _directory_traps(
    path: str, link: Link, lines: list[ServerLine], users: set[int], machine: Machine
) -> Iterator[Finding]:
    setting = link.environment["RELAY_CTRL_DIR"]
    state = machine.state(path)
    if state is None or not stat.S_ISDIR(state.st_mode):
        yield Finding(
            "no-spool",
            "broken",
            setting.file,
            setting.line,
            f"there is no directory {path}",
            f"mkdir -m 700 {posixpath.dirname(path)}; mkdir {path}; chmod 777 {path}",
        )
        return
    mode = stat.S_IMODE(state.st_mode)
    is_closed = not _is_reachable(path, machine)
    if mode & 0o002 and not is_closed:
        sticky = " (with popgate's programs their files do not count; with the C programs they do)"
        yield Finding(
            "spool-open",
            "danger",
            path,
            None,
            f"every user of this machine can come to this directory and write into it (mode {mode:04o}):"
            f" they can make grants for any address{sticky if mode & stat.S_ISVTX else ''}",
            f"close the way to it: chmod 700 {posixpath.dirname(path)}, and let relay-ctrl-chdir open it",
        )
    private = _is_private(state.st_uid, mode, users)
    records = [one for line in lines if not records_itself(line) for one in line.links({"relay-ctrl-allow"})]
    if records and not private and not mode & 0o002 and not _all_known(records, state.st_uid, machine):
        yield Finding(
            "spool-not-writable",
            "broken",
            path,
            None,
            f"relay-ctrl-allow runs as the user that logged in, who cannot write here (mode {mode:04o}):"
            " no login is recorded",
            f"chmod 777 {path}, with the directory above it at 0700 and relay-ctrl-chdir in the run scripts",
        )
    if users and not private and not mode & 0o001 and state.st_uid not in users:
        yield Finding(
            "spool-not-searchable",
            "broken",
            path,
            None,
            f"the SMTP server's user cannot search this directory (mode {mode:04o}): nobody may relay",
            f"chmod 777 {path}, with the directory above it at 0700",
        )
    yield from _file_traps(path, users, machine)


def _is_private(owner: int, mode: int, users: set[int]) -> bool:
    """A directory that the SMTP server's user owns, as where one user does everything."""
    return users == {owner} and not mode & 0o022


def _all_known(records: list[Link], owner: int, machine: Machine) -> bool:
    return all(_uid(one.user, machine) == owner for one in records)


def _is_reachable(path: str, machine: Machine) -> bool:
    """Can any user come there by its path?"""
    while True:
        state = machine.state(path)
        if state is None or not state.st_mode & 0o001:
            return False
        if path == "/":
            return True
        path = posixpath.dirname(path)


def _file_traps(path: str, users: set[int], machine: Machine) -> Iterator[Finding]:
    users = users - {machine.superuser}
    if not users:
        return
    try:
        names = machine.names(path)[:_MOST_FILES]
    except OSError:
        return
    for name in names:
        if name.startswith("."):
            continue
        file = posixpath.join(path, name)
        state = machine.state(file)
        if state is None or not stat.S_ISREG(state.st_mode) or state.st_mode & 0o044:
            continue
        if state.st_uid not in users:
            yield Finding(
                "grants-unreadable",
                "broken",
                file,
                None,
                f"the login recorded here has mode {stat.S_IMODE(state.st_mode):04o} and another owner:"
                " the SMTP server's user cannot read it, and its client may not relay",
                "put relay-ctrl-chdir before tcpserver in the POP3 run script: with it files are written"
                " for others to read",
            )
            return


def _opener_traps(line: ServerLine, users: set[int], machine: Machine) -> Iterator[Finding]:
    """relay-ctrl-chdir: before the listener, as root."""
    opener_at = line.position({"relay-ctrl-chdir"})
    if opener_at is None and line.listener is not None and line.listener.step.is_popgate:
        # it opens the directory before it becomes another user
        return
    for at, link in enumerate(line.chain):
        name = link.step.name
        if name not in GRANT_PROGRAMS or (line.listener is None and opener_at is None):
            continue
        if link.may_know_more and "RELAY_CTRL_DIR_FD" not in link.environment and opener_at is None:
            continue
        if opener_at is not None and opener_at < at:
            opener = line.chain[opener_at]
            if opener.user is not None and not _comes_there(opener, machine):
                yield Finding(
                    "chdir-too-late",
                    "broken",
                    line.file,
                    opener.step.line,
                    f"relay-ctrl-chdir runs as {opener.user}, who cannot come to the directory of grants:"
                    " it exits with 111 for each connection",
                    "put it before tcpserver, where it is root still",
                )
                return
            continue
        setting = link.environment.get("RELAY_CTRL_DIR")
        if setting is None or not setting.is_known:
            continue
        if _works_without_opener(name, link, setting.text, users, machine):
            continue
        what = (
            "logins are recorded in files of mode 0600, which the SMTP server cannot read, if they can be"
            " recorded at all: nobody may relay"
            if name == "relay-ctrl-allow"
            else "the SMTP server's user cannot come to the directory, and nobody may relay"
        )
        yield Finding(
            "no-chdir",
            "broken",
            line.file,
            link.step.line,
            f"no relay-ctrl-chdir before {name}: {what}",
            "envdir /etc/relay-ctrl relay-ctrl-chdir tcpserver ..., so that root opens the directory",
        )
        return


def _comes_there(link: Link, machine: Machine) -> bool:
    setting = link.environment.get("RELAY_CTRL_DIR")
    if setting is None or not setting.is_known or not setting.text.startswith("/"):
        return True
    uid = _uid(link.user, machine)
    state = machine.state(setting.text)
    return _is_reachable(setting.text, machine) or (state is not None and state.st_uid == uid)


def _works_without_opener(name: str, link: Link, path: str, users: set[int], machine: Machine) -> bool:
    state = machine.state(path)
    if state is None:
        return True  # told already that there is none
    mode = stat.S_IMODE(state.st_mode)
    if _is_private(state.st_uid, mode, users):
        return True
    if name == "relay-ctrl-allow":
        return False
    return _is_reachable(path, machine) or _uid(link.user, machine) in (state.st_uid, machine.superuser)
