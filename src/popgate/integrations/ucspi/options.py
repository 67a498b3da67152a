"""The command line of tcpserver, as its manual page describes it, and our additions.

A run script that works must go on working, so letters mean what they mean there; where a
value makes no sense the program refuses to start, while tcpserver reads it as 0 and stays root.
"""

import getopt
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from popgate.integrations.ucspi.remote_name import HostLookup

USAGE = (
    "tcpserver [-1UXpPhHrRoOdDqQv46] [-c limit] [-C limit[:message]] [-x rules.cdb] [-B banner]"
    " [-g gid] [-u uid] [-b backlog] [-l localname] [-t timeout]"
    " [--check | --allow | --no-grant] [--envdir DIR] [--trust-user USER] host port program"
)
_LETTERS = "1UXpPhHrRoOdDqQv46c:C:x:B:g:u:b:l:t:"
_WORDS = ("check", "allow", "no-grant", "trust-user=", "envdir=", "help")
_NUMBER = re.compile(r"[0-9]{1,10}\Z")


class UsageError(ValueError):
    """A command line that cannot be followed; the text says why."""


@dataclass(slots=True)
class TcpserverOptions:
    """What was asked for. `user` and `group` are as written: a number or a name, "" for none."""

    host: str = ""
    port: str = ""
    command: list[str] = field(default_factory=list)
    verbosity: int = 1  # 0 quiet, 1 errors, 2 status
    limit: int = 40
    address_limit: int = 0
    address_reply: bytes = b""
    rules: str = ""
    rules_may_be_missing: bool = False
    banner: bytes = b""
    user: str = ""
    group: str = ""
    prints_port: bool = False
    backlog: int = 20
    kills_ip_options: bool = True
    nodelay: bool = False
    host_lookup: HostLookup = "on"
    local_host: str | None = None
    info_seconds: float = 0.0
    family: Literal["any", "ipv4", "ipv6"] = "any"
    grant: Literal["auto", "none", "check", "allow"] = "auto"
    trusted_users: list[str] = field(default_factory=list)
    envdir: str = ""
    wants_help: bool = False


def parse(arguments: Sequence[str], environment: Mapping[str, str]) -> TcpserverOptions:
    """Raises UsageError. `environment` is for -U alone."""
    try:
        given, rest = getopt.getopt(list(arguments), _LETTERS, _WORDS)
    except getopt.GetoptError as fault:
        raise UsageError(str(fault)) from None
    options = TcpserverOptions()
    is_paranoid, looks_up_host, asks_info, seconds = False, True, False, 26
    for name, text in given:
        if name == "-p":
            is_paranoid = True
        elif name == "-P":
            is_paranoid = False
        elif name in ("-h", "-H"):
            looks_up_host = name == "-h"
        elif name in ("-r", "-R"):
            asks_info = name == "-r"
        elif name == "-t":
            seconds = _number(name, text, 1, 3600)
        elif name == "-U":
            options.user = _from_environment("UID", environment)
            options.group = _from_environment("GID", environment)
        elif name == "-C":
            count, _, message = text.partition(":")
            options.address_limit = _number(name, count, 1, 1000000)
            options.address_reply = message.encode("utf-8", "surrogateescape")
        else:
            _one(options, name, text)
    options.host_lookup = ("paranoid" if is_paranoid else "on") if looks_up_host else "off"
    options.info_seconds = float(seconds) if asks_info else 0.0
    if not options.wants_help:
        if len(rest) < 3:
            missing = ("a host", "a port", "a program")[len(rest)]
            raise UsageError(f"{missing} is missing")
        options.host, options.port, options.command = rest[0], rest[1], rest[2:]
    return options


def _one(options: TcpserverOptions, name: str, text: str) -> None:
    match name:
        case "-q" | "-Q" | "-v":
            options.verbosity = {"-q": 0, "-Q": 1, "-v": 2}[name]
        case "-c":
            options.limit = _number(name, text, 1, 1000000)
        case "-x":
            options.rules = text
        case "-X":
            options.rules_may_be_missing = True
        case "-B":
            options.banner = text.encode("utf-8", "surrogateescape")
        case "-u":
            options.user = _name(name, text)
        case "-g":
            options.group = _name(name, text)
        case "-1":
            options.prints_port = True
        case "-b":
            options.backlog = _number(name, text, 1, 65535)
        case "-o" | "-O":
            options.kills_ip_options = name == "-O"
        case "-d" | "-D":
            options.nodelay = name == "-D"
        case "-l":
            options.local_host = text
        case "-4" | "-6":
            options.family = "ipv4" if name == "-4" else "ipv6"
        case "--check" | "--allow":
            options.grant = "check" if name == "--check" else "allow"
        case "--no-grant":
            options.grant = "none"
        case "--trust-user":
            options.trusted_users.append(_name(name, text))
        case "--envdir":
            options.envdir = text
        case _:
            options.wants_help = True


def _number(name: str, text: str, least: int, most: int) -> int:
    if not _NUMBER.match(text) or not least <= int(text) <= most:
        raise UsageError(f"{name} wants a number from {least} to {most}, not {text!r}")
    return int(text)


def _name(name: str, text: str) -> str:
    if not text or text.startswith("-"):
        raise UsageError(f"{name} wants a user or group, not {text!r}: is a variable empty or not exported?")
    return text


def _from_environment(name: str, environment: Mapping[str, str]) -> str:
    text = environment.get(name, "")
    if not text:
        raise UsageError(f"-U wants ${name}, which is not set: envuidgid sets it")
    return text
