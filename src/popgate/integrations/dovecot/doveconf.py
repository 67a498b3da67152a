"""Dovecot's configuration as `doveconf` prints it, with or without the defaults.

One setting a line, blocks in braces, the version in a comment on top. It is read and never
interpreted further: what Dovecot would do with a value is the traps' knowledge.
"""

import re
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

from popgate.values.value import value

MAX_OCTETS: Final = 4 * 1024 * 1024
_SECONDS = 20.0
# "# 2.3.19.1 (9b53102964): /etc/dovecot/dovecot.conf"
_VERSION = re.compile(r"#\s*(?P<version>\d+\.\d+[\w.~-]*)\s*(?:\([^)]*\))?:\s")
_SETTING = re.compile(r"(?P<name>[A-Za-z0-9_/@.+-]+)\s*=\s*(?P<content>.*)")
_BLOCK = re.compile(r"(?P<kind>[A-Za-z0-9_@-]+)(?:\s+(?P<name>[^{}]*?))?\s*\{")


class DoveconfError(Exception):
    """There is no configuration to look at; the text says why."""


@value
class Setting:
    """`content` without its quotes; `line` in what doveconf printed."""

    content: str
    line: int


@dataclass(slots=True)
class Block:
    """The whole configuration, or one block of it."""

    kind: str = ""
    name: str = ""
    line: int = 0
    settings: dict[str, Setting] = field(default_factory=dict)
    blocks: "list[Block]" = field(default_factory=list)

    def find(self, kind: str) -> "Iterator[Block]":
        """The blocks of a kind right in this one."""
        return (block for block in self.blocks if block.kind == kind)


@dataclass(slots=True)
class Doveconf:
    """`source`: where it comes from, for findings. `version`: as the comment on top says, "" where
    it says nothing. `complaints`: what doveconf itself had against the configuration."""

    source: str
    version: str
    root: Block
    complaints: Sequence[str] = ()

    def get(self, name: str) -> Setting | None:
        return self.root.settings.get(name)

    @property
    def is_new(self) -> bool:
        """Is it of version 2.4 or later, whose settings are spelled differently?"""
        if "dovecot_config_version" in self.root.settings:
            return True
        numbers = re.findall(r"\d+", self.version)[:2]
        return len(numbers) == 2 and (int(numbers[0]), int(numbers[1])) >= (2, 4)


def read(text: str, source: str, complaints: Sequence[str] = ()) -> Doveconf:
    """What doveconf printed. Lines that cannot be read are passed over. Raises DoveconfError where
    nothing is a setting."""
    version = ""
    root = Block()
    open_blocks = [root]
    for number, raw in enumerate(text.splitlines(), 1):
        line = raw.strip()
        if not version and (found := _VERSION.match(line)):
            version = found["version"]
        if not line or line.startswith("#"):
            continue
        if line == "}":
            if len(open_blocks) > 1:
                open_blocks.pop()
        elif found := _SETTING.fullmatch(line):
            open_blocks[-1].settings[found["name"]] = Setting(_unquoted(found["content"].strip()), number)
        elif found := _BLOCK.match(line):
            block = Block(found["kind"], _unquoted((found["name"] or "").strip()), number)
            open_blocks[-1].blocks.append(block)
            if not line.endswith("}"):
                open_blocks.append(block)
    if not root.settings and not root.blocks:
        raise DoveconfError(f"{source}: this is not what doveconf -n prints")
    return Doveconf(source, version, root, complaints)


def _unquoted(text: str) -> str:
    return text[1:-1] if len(text) >= 2 and text[0] == text[-1] == '"' else text


def read_file(path: str) -> Doveconf:
    """The saved output of doveconf. Raises DoveconfError."""
    try:
        with open(path, "rb") as file:
            octets = file.read(MAX_OCTETS + 1)
    except OSError as error:
        raise DoveconfError(f"{path}: {error.strerror}") from None
    if len(octets) > MAX_OCTETS:
        raise DoveconfError(f"{path}: too large for what doveconf prints")
    return read(octets.decode("utf-8", "replace"), path)


def ask(program: str = "doveconf") -> Doveconf:
    """What the installed Dovecot's own program prints. Raises DoveconfError."""
    command = [program, "-n"]
    try:
        done = subprocess.run(  # noqa: S603 - its name is ours
            command, stdin=subprocess.DEVNULL, capture_output=True, timeout=_SECONDS, check=False
        )
    except FileNotFoundError:
        raise DoveconfError(
            f"there is no {program} here; on the host of Dovecot run doveconf -n > FILE, and give"
            " --doveconf-output FILE"
        ) from None
    except (OSError, subprocess.TimeoutExpired) as error:
        raise DoveconfError(f"{program}: {error}") from None
    # it prints what it read even where it would not start with it
    complaints = [
        line.partition("doveconf: ")[2] for line in done.stderr.decode("utf-8", "replace").splitlines()
    ]
    try:
        return read(done.stdout.decode("utf-8", "replace"), "doveconf -n", [one for one in complaints if one])
    except DoveconfError:
        raise DoveconfError("\n".join(complaints) or f"{program} printed nothing") from None
