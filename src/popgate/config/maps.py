"""Checks of [[map]]: what a file cannot hold, and who may write where it lies."""

import grp
import os
import re
import stat

from popgate.config.lines import KeyPath
from popgate.config.networks import Findings
from popgate.config.schema import Finding
from popgate.config.settings import Config
from popgate.integrations.maps.map_file import MapError
from popgate.integrations.maps.open import open_map
from popgate.integrations.maps.rule_lines import Rules, instructions
from popgate.integrations.maps.settings import MapSettings
from popgate.integrations.ucspi.rules import RuleError

_MODE = re.compile(r"0?[0-7]{3}\Z")
_ENDINGS = {"cdb": ".cdb", "lmdb": ".lmdb"}


def map_findings(config: Config) -> Findings:
    """What the values themselves say."""
    seen: set[str] = set()
    for index, settings in enumerate(config.map):
        path: KeyPath = ("map", index)
        if settings.path in seen:
            yield True, Finding((*path, "path"), "is written by two maps", "give each a file of its own")
        seen.add(settings.path)
        ending = _ENDINGS.get(settings.kind, "")
        if not settings.path.endswith(ending):
            message = f"does not end in {ending}, which Postfix adds to the name of a {settings.kind}: table"
            yield False, Finding((*path, "path"), message)
        yield from _values(settings, path)
        if not _MODE.match(settings.file_mode):
            yield True, Finding((*path, "file_mode"), "is no mode of a file", 'such as "0644"')
        elif int(settings.file_mode, 8) & 0o022:
            message = "lets others write the file: they could let any address relay"
            yield True, Finding((*path, "file_mode"), message, 'such as "0644"')
        if settings.lines and settings.kind != "text":
            yield False, Finding((*path, "lines"), f"says nothing of a map of kind {settings.kind}")
        if any(ord(char) < 32 and char != "\t" for line in settings.lines for char in line):
            yield True, Finding((*path, "lines"), "holds a control character")
        if any("\0" in word for word in settings.command) or settings.command[:1] == [""]:
            yield True, Finding((*path, "command"), "is no program with arguments")
    if config.map:
        yield from _grants(config)


def _values(settings: MapSettings, path: KeyPath) -> Findings:
    if settings.kind == "tcprules":
        try:
            if settings.value:
                instructions(settings.value)
        except RuleError as fault:
            yield True, Finding((*path, "value"), str(fault), 'such as allow,RELAYCLIENT=""')
        try:
            Rules(settings.rules)
        except RuleError as fault:
            yield True, Finding((*path, "rules"), str(fault))
        if settings.spelling != "plain":
            yield False, Finding((*path, "spelling"), "says nothing: tcprules holds IPv4 addresses alone")
        return
    if settings.rules != [":allow"]:
        yield False, Finding((*path, "rules"), f"says nothing of a map of kind {settings.kind}")
    if any(not ord(char) >= 32 for char in settings.value):
        yield True, Finding((*path, "value"), "holds a control character")


def _grants(config: Config) -> Findings:
    path: KeyPath = ("map",)
    if config.grant_directory is None:
        message = "maps are written by a process of its own, which sees no grants in another's memory"
        yield True, Finding(path, message, 'write grants.store = "directory:allow"', shows_value=False)
    if config.grants.sender == "bound":
        message = (
            'grants.sender = "bound" cannot be held by a map: it names no sender, and any live grant serves'
        )
        remedy = 'let the server ask by postfix_policy or line, or write sender = "any"'
        yield False, Finding(path, message, remedy, shows_value=False)
    if config.grants.ipv6_prefix != 128:
        message = (
            f"maps hold no networks: with grants.ipv6_prefix = {config.grants.ipv6_prefix} no IPv6 address"
        )
        yield False, Finding(path, f"{message} is in them", shows_value=False)


def map_file_findings(config: Config) -> Findings:
    """What lies on the disk."""
    for index, settings in enumerate(config.map):
        path: KeyPath = ("map", index, "path")
        directory = os.path.dirname(settings.path)
        try:
            found = os.stat(directory)
        except OSError as error:
            message = f"its directory cannot be reached: {error.strerror}"
            yield True, Finding(path, message, f"install -d -o {config.user or 'root'} -m 0755 {directory}")
            continue
        if not stat.S_ISDIR(found.st_mode):
            yield True, Finding(path, f"{directory} is no directory")
        elif found.st_mode & stat.S_IWOTH:
            message = f"everybody can write in {directory}, and so let any address relay"
            yield True, Finding(path, message, "give the maps a directory of their own")
        if os.path.lexists(settings.path) and not stat.S_ISREG(os.lstat(settings.path).st_mode):
            yield True, Finding(path, "is there, and is no file")
        if settings.file_group:
            try:
                grp.getgrnam(settings.file_group)
            except KeyError:
                yield True, Finding(("map", index, "file_group"), "there is no such group on this machine")
        try:
            open_map(settings).close()
        except MapError as fault:
            yield True, Finding(path, str(fault), shows_value=False)
