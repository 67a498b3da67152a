"""Traps of logins that one host tells another of: useless keys, peers nobody named, unsigned datagrams."""

import stat
from collections.abc import Iterator

from popgate.integrations.findings import Finding, Level
from popgate.integrations.qmail.chain import Link
from popgate.integrations.qmail.lines import ServerLine, server_lines
from popgate.integrations.qmail.machine import Machine
from popgate.integrations.qmail.survey import Survey
from popgate.protocols.relay_ctrl_udp import MIN_KEY_OCTETS

_SENDER, _RECEIVER = "relay-ctrl-send", "relay-ctrl-udp"
_MAKE_KEY = "(umask 077; head -c 32 /dev/urandom | base64 > /etc/popgate/peer-key)"


def peer_traps(survey: Survey) -> Iterator[Finding]:
    for line in server_lines(survey):
        for link in line.links({_SENDER, _RECEIVER}):
            if link.step.option("--envdir") is not None:
                continue  # its variables come from there
            yield from _unsigned(line, link)
            yield from _key(survey.machine, line, link)
            yield from _others(line, link)


def _finding(trap: str, level: Level, line: ServerLine, link: Link, what: str, remedy: str) -> Finding:
    return Finding(trap, level, line.file, link.step.line, what, remedy)


def _unsigned(line: ServerLine, link: Link) -> Iterator[Finding]:
    if "--insecure" not in link.step.flags:
        return
    if link.step.name == _RECEIVER:
        yield _finding(
            "unsigned-logins",
            "danger",
            line,
            link,
            "relay-ctrl-udp --insecure takes logins that nobody has signed: whoever can send a datagram in a"
            " caller's name lets any address relay",
            f"make a key on one host, carry it to the other, and name it in RELAY_CTRL_KEY: {_MAKE_KEY}",
        )
    elif "RELAY_CTRL_KEY" not in link.environment and not link.may_know_more:
        yield _finding(
            "unsigned-logins",
            "advice",
            line,
            link,
            "relay-ctrl-send --insecure signs nothing, so whoever hears it must take what anybody can forge",
            f"make a key on one host, carry it to the other, and name it in RELAY_CTRL_KEY: {_MAKE_KEY}",
        )


def _key(machine: Machine, line: ServerLine, link: Link) -> Iterator[Finding]:
    setting = link.environment.get("RELAY_CTRL_KEY")
    if setting is None or not setting.is_known:
        return
    state, path = machine.state(setting.text), setting.text
    gone = "nothing is sent" if link.step.name == _SENDER else "it does not start"
    what = remedy = ""
    if state is None or not stat.S_ISREG(state.st_mode):
        what, remedy = f"RELAY_CTRL_KEY names {path}, which is no file: {gone}", _MAKE_KEY
    elif state.st_mode & 0o006:
        what, remedy = (
            f"everybody can read or change the key {path}: {gone}",
            f"chmod o= {path}, and make a new one",
        )
    elif len((machine.octets(path, 4096) or b"").strip()) < MIN_KEY_OCTETS and state.st_size < 4096:
        if machine.octets(path) is None:
            return  # not for our eyes
        what, remedy = f"the key {path} has less than {MIN_KEY_OCTETS} octets: {gone}", _MAKE_KEY
    elif (
        link.step.name == _SENDER
        and line.checker_at is not None
        and state.st_uid == machine.superuser
        and not state.st_mode & 0o040
    ):
        what = (
            f"only root can read the key {path}, and relay-ctrl-send has the rights of whoever logged in:"
            " nothing is sent"
        )
        remedy = f"chgrp mailusers {path}, by the name of the mail accounts' first group; chmod 0640 {path}"
    if what:
        yield Finding("peer-key", "broken", setting.file, setting.line, what, remedy)


def _others(line: ServerLine, link: Link) -> Iterator[Finding]:
    """Whom it tells, or hears."""
    is_sender = link.step.name == _SENDER
    environment = link.environment
    setting = environment.get("RELAY_CTRL_REMOTES" if is_sender else "RELAY_CTRL_CALLERS")
    if setting is None and link.may_know_more:
        return
    if setting is not None and not setting.is_known:
        return
    words = "" if setting is None else setting.text.replace(",", " ")
    has_key = "RELAY_CTRL_KEY" in environment or link.may_know_more
    is_insecure = "--insecure" in link.step.flags
    if is_sender and not words.strip():
        yield _finding(
            "nobody-is-told",
            "broken",
            line,
            link,
            "RELAY_CTRL_REMOTES is not set for relay-ctrl-send: no host is told of a login",
            "put a file RELAY_CTRL_REMOTES that names the SMTP hosts into the env directory",
        )
    elif is_sender and not (has_key or is_insecure) and not all(map(_is_loopback, words.split())):
        yield _finding(
            "nobody-is-told",
            "broken",
            line,
            link,
            "RELAY_CTRL_KEY is not set for relay-ctrl-send: unsigned it tells loopback addresses alone",
            f"make a key, carry it to the SMTP host, and name it in RELAY_CTRL_KEY: {_MAKE_KEY}",
        )
    elif not is_sender and not words.strip() and (has_key or is_insecure):
        yield _finding(
            "no-callers",
            "broken",
            line,
            link,
            "RELAY_CTRL_CALLERS is not set for relay-ctrl-udp: only this host may tell it of logins",
            "put a file RELAY_CTRL_CALLERS that names the POP3 hosts into the env directory",
        )


def _is_loopback(word: str) -> bool:
    return word.startswith(("127.", "[::1]")) or word == "::1"
