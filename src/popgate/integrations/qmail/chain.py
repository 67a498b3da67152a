"""Follows a run script's programs, each of which becomes the next by exec, down to the last.

Along the way: the environment that envdir, env and shells change, the memory limit that softlimit
sets, the user that programs run as. `sh -c` is entered, with the variables that the outer shell
exported and no others.
"""

from collections.abc import Iterator, Sequence

from popgate.integrations.qmail import shell
from popgate.integrations.qmail.envdir import EnvDirectory, read_directory
from popgate.integrations.qmail.environment import Argument, Setting, Shell, Vanished
from popgate.integrations.qmail.machine import Machine
from popgate.integrations.qmail.programs import SHELLS, Step, base_name, take
from popgate.integrations.qmail.shell import UNKNOWN, Flaw, Script
from popgate.values.value import value

_MOST_DEPTH = 8
"""Shells within shells; nobody writes more."""


@value
class Memory:
    """A limit that softlimit or chpst sets."""

    octets: int
    program: str
    line: int


@value
class Link:
    """A step of a chain, with what surrounds it when it starts."""

    step: Step
    environment: dict[str, Setting]
    may_know_more: bool
    memory: Memory | None
    user: str | None
    """None: that of the supervisor, root."""
    directory: EnvDirectory | None = None
    """What an envdir step reads."""


Chain = tuple[Link, ...]


@value
class Reading:
    """All chains of a script, its flaws and those of the shells in it, and what the shell was told."""

    chains: tuple[Chain, ...]
    flaws: tuple[Flaw, ...]
    unexported: frozenset[str]
    """Variables that the outermost shell has and does not pass on."""
    empty: dict[str, str]
    """Variables that the outermost shell sets to nothing, and the command that printed it, "" for none."""


def follow(machine: Machine, file: str, source: str, where: str, inherited: dict[str, Setting]) -> Reading:
    """Read the script `file`, started in the directory `where`. Never raises."""
    follower = _Follower(machine, file, where)
    outer = Shell(machine, inherited, may_know_more=False)
    chains = tuple(follower.script(shell.read(source), outer, _Start(), 0))
    empty = {
        name: follower.commands.get(name, "")
        for name, setting in outer.variables.items()
        if not setting.text and name not in inherited
    }
    return Reading(chains, tuple(follower.flaws), frozenset(set(outer.variables) - outer.exported), empty)


class _Start:
    """What a chain begins with: steps before its shell, and what they set."""

    def __init__(
        self, links: Sequence[Link] = (), memory: Memory | None = None, user: str | None = None
    ) -> None:
        self.links = list(links)
        self.memory = memory
        self.user = user


class _Follower:
    def __init__(self, machine: Machine, file: str, where: str) -> None:
        self._machine = machine
        self._file = file
        self._where = where
        self.flaws: list[Flaw] = []
        self.commands: dict[str, str] = {}
        """The command whose output a variable was last set to."""

    def script(self, script: Script, outer: Shell, start: _Start, depth: int) -> Iterator[Chain]:
        self.flaws += script.flaws
        if any(flaw.kind == "quote" for flaw in script.flaws):
            # sh reads the whole of such a script and runs none of the rest; nor do we guess at it
            return
        for command in script.commands:
            yield from self._command(command, outer, start, depth)

    def _command(self, command: shell.Command, outer: Shell, start: _Start, depth: int) -> Iterator[Chain]:
        settings = {
            one.name: Setting(outer.value(one.word), self._file, one.word.line) for one in command.assignments
        }
        arguments, vanished = outer.expand(command.words)
        if not arguments:
            for name, setting in settings.items():
                outer.assign(name, setting)
            for one in command.assignments:
                outputs = [part.command for part in one.word.parts if isinstance(part, shell.Output)]
                if depth == 0:
                    self.commands[one.name] = outputs[0].strip() if outputs else ""
            return
        first = arguments[0].text
        if first in ("export", "readonly", "typeset", "declare", "local"):
            self._export(outer, arguments[1:], is_export=first == "export")
            return
        if first == "set":
            outer.exports_all |= any(
                (word.text.startswith("-") and "a" in word.text.lstrip("-")) or word.text == "allexport"
                for word in arguments[1:]
            )
            return
        if first == "unset":
            for word in arguments[1:]:
                outer.variables.pop(word.text, None)
            return
        if first in (".", "source", "eval"):
            self._source(outer, first, arguments[1:], depth)
            return
        if first == "read":
            for word in arguments[1:]:
                outer.assign(word.text, Setting(UNKNOWN, self._file, word.line))
            return
        if first == "cd" and len(arguments) > 1 and arguments[1].is_known:
            self._where = arguments[1].text
            return
        environment = {**outer.environment(), **settings}
        yield from self._chain(arguments, vanished, environment, outer.may_know_more, start, depth)

    def _export(self, outer: Shell, words: Sequence[Argument], *, is_export: bool) -> None:
        for word in words:
            name, equals, text = word.text.partition("=")
            if equals:
                outer.assign(name, Setting(text, self._file, word.line))
            if is_export:
                outer.exported.add(name)

    def _source(self, outer: Shell, how: str, words: Sequence[Argument], depth: int) -> None:
        text = self._machine.text(words[0].text) if words and how != "eval" and words[0].is_known else None
        if text is None or depth >= _MOST_DEPTH:
            outer.may_know_more = True
            return
        before, self._file = self._file, words[0].text
        flaws = len(self.flaws)
        for _ in self.script(shell.read(text), outer, _Start(), depth + 1):
            pass
        # a flaw there is not on a line of this file
        del self.flaws[flaws:]
        self._file = before

    def _chain(
        self,
        arguments: Sequence[Argument],
        vanished: Sequence[Vanished],
        environment: dict[str, Setting],
        may_know_more: bool,
        start: _Start,
        depth: int,
    ) -> Iterator[Chain]:
        links, memory, user = list(start.links), start.memory, start.user
        while arguments:
            name = base_name(arguments[0].text)
            if name == "command" and len(arguments) > 1 and arguments[1].text in ("-v", "-V"):
                return
            if name in ("exec", "command", "builtin", "time") and len(arguments) > 1:
                skipped = 1
                if name == "exec" and arguments[1].text == "-a":
                    skipped = 3
                arguments, vanished = arguments[skipped:], _shifted(vanished, skipped)
                continue
            if name in SHELLS:
                inner = _inner(arguments)
                if inner is not None and depth < _MOST_DEPTH:
                    within = Shell(self._machine, environment, may_know_more=may_know_more)
                    read = shell.read(inner.text, inner.line)
                    yield from self.script(read, within, _Start(links, memory, user), depth + 1)
                elif links:
                    yield tuple(links)
                return
            step, used = take(arguments, vanished)
            directory = None
            if (path := _directory(step)) is not None:
                directory = read_directory(self._machine, path.text, path.line, self._where)
            links.append(Link(step, dict(environment), may_know_more, memory, user, directory))
            if directory is not None:
                environment = _with_directory(environment, directory)
                may_know_more = may_know_more or not directory.is_read
            if step.name == "env":
                used = _take_env(arguments, used, environment, self._file)
            if step.name == "envuidgid" and step.words:
                environment.update(self._uid_and_gid(step.words[0]))
            memory = _memory(step) or memory
            user = _user(step, environment) or user
            arguments, vanished = arguments[used:], _shifted(vanished, used)
        if links:
            yield tuple(links)

    def _uid_and_gid(self, account: Argument) -> dict[str, Setting]:
        found = self._machine.user(account.text)
        uid, gid = (str(found[0]), str(found[1])) if found else (UNKNOWN, UNKNOWN)
        return {
            "UID": Setting(uid, self._file, account.line),
            "GID": Setting(gid, self._file, account.line),
        }


def _shifted(vanished: Sequence[Vanished], used: int) -> list[Vanished]:
    return [Vanished(one.index - used, one.line, one.unset) for one in vanished if one.index > used]


def _inner(arguments: Sequence[Argument]) -> Argument | None:
    """The script of `sh -c`."""
    for number, word in enumerate(arguments[1:], 1):
        if not word.text.startswith(("-", "+")):
            return None
        if "c" in word.text and not word.text.startswith("--") and number + 1 < len(arguments):
            return arguments[number + 1]
    return None


def _directory(step: Step) -> Argument | None:
    if step.name == "envdir" and step.words:
        return step.words[0]
    if step.name == "chpst":
        return step.option("e")
    return step.option("--envdir")


def _with_directory(environment: dict[str, Setting], directory: EnvDirectory) -> dict[str, Setting]:
    changed = {**environment, **directory.settings}
    for name in directory.removed:
        changed.pop(name, None)
    return changed


def _take_env(arguments: Sequence[Argument], used: int, environment: dict[str, Setting], file: str) -> int:
    """The assignments of env(1), which come before its program."""
    if any(word.text in ("-", "-i", "--ignore-environment") for word in arguments[1 : used + 1]):
        environment.clear()
    while used < len(arguments) and ("=" in arguments[used].text or arguments[used].text == "-"):
        name, _, text = arguments[used].text.partition("=")
        if name != "-":
            environment[name] = Setting(text, file, arguments[used].line)
        used += 1
    return used


def _memory(step: Step) -> Memory | None:
    """softlimit -m sets the same limit on data, stack, locked pages and all pages; -a on all pages."""
    if step.name not in ("softlimit", "chpst"):
        return None
    given = [option for letter in "ma" if (option := step.option(letter)) is not None]
    sizes = [(int(one.text), one.line) for one in given if one.text.isascii() and one.text.isdigit()]
    if not sizes:
        return None
    octets, line = min(sizes)
    return Memory(octets, step.name, line)


def _user(step: Step, environment: dict[str, Setting]) -> str | None:
    if step.name == "setuidgid" and step.words:
        return step.words[0].text
    if step.name in ("chpst", "tcpserver", "sslserver"):
        if step.name != "chpst" and "U" in step.flags:
            setting = environment.get("UID")
            return setting.text if setting else None
        option = step.option("u")
        return option.text.partition(":")[0] if option is not None and option.text else None
    return None
