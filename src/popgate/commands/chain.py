"""A program's place in a chain of programs: its environment, its messages, and the start of the next.

Each of relay-ctrl's programs does its work and then becomes the rest of its command line,
in the same process and on the same connection. So whatever Python changed in the process
is put back before, and nothing of ours is left open.

Imports os and the modules that are part of the interpreter: `signal` and `subprocess` alone
would cost a third of the start. Knows no grants.
"""

import _signal  # type: ignore[import-not-found]  # signal without its enumerations
import os

TYPE_CHECKING = False
if TYPE_CHECKING:  # typing takes as long to import as the rest of a command takes to run
    from typing import NoReturn

NOT_NOW = 111
"""The exit status of Bernstein's programs for "it may work another time"."""

_TEXT_BYTES = 512
_ENVDIR_BYTES = 65536
_DEFAULT_PATH = "/bin:/usr/bin"


class EnvdirError(Exception):
    """The directory of --envdir cannot be used."""


class Program:
    """The running program: its `name` in messages, and what is left of its command line."""

    __slots__ = ("arguments", "name", "shows_pid")

    def __init__(self, name: str, arguments: list[str], *, shows_pid: bool = True) -> None:
        self.name = name
        self.arguments = arguments
        self.shows_pid = shows_pid

    def say(self, text: str) -> None:
        name = f"{self.name}[{os.getpid()}]" if self.shows_pid else self.name
        line = text.rstrip("\n")  # relay-ctrl ends some of its messages with two
        try:
            os.write(2, f"{name}: {printable(line)}{text[len(line) :]}\n".encode("utf-8", "replace"))
        except OSError:
            pass  # nobody listens; no reason to fail

    def warn(self, text: str) -> None:
        self.say("Warning: " + text)

    def fail(self, text: str, status: int) -> "NoReturn":
        self.say("Fatal: " + text)
        os._exit(status)

    def take_options(self, known: tuple[str, ...] = ()) -> frozenset[str]:
        """Take `--envdir DIR` and the flags of `known` from the front; returns the flags given.

        Raises EnvdirError, with the arguments taken all the same.
        """
        given = set()
        envdir = None
        arguments = self.arguments
        while arguments:
            word = arguments[0]
            if word == "--envdir" and len(arguments) > 1:
                envdir, arguments = arguments[1], arguments[2:]
            elif word.startswith("--envdir="):
                envdir, arguments = word[9:], arguments[1:]
            elif word in known:
                given.add(word)
                arguments = arguments[1:]
            elif word == "--":
                arguments = arguments[1:]
                break
            else:
                break
        self.arguments = arguments
        if envdir is not None:
            read_envdir(envdir)
        return frozenset(given)

    def become_rest(self, failure: str | None = None) -> "NoReturn":
        """Become the program of the remaining arguments, looked up in PATH; status 111, after the
        message `failure`, where there is none."""
        restore_process()
        run(self.arguments)
        if failure is not None:
            self.fail(failure, NOT_NOW)
        os._exit(NOT_NOW)


def printable(text: str) -> str:
    """One line of bounded length: what a client or a file says must not make lines of its own."""
    if text.isprintable() and len(text) <= _TEXT_BYTES:
        return text
    text = text if len(text) <= _TEXT_BYTES else text[:_TEXT_BYTES] + "..."
    return "".join(char if char.isprintable() else "?" for char in text)


def reason(error: OSError) -> str:
    return os.strerror(error.errno) if error.errno else str(error)


def positive_number(name: str, default: int) -> int:
    """The variable as C's atol reads it, digits at its front; `default` where that is no positive number."""
    text = os.environ.get(name, "").lstrip(" \t\n\r\v\f")
    digits = text[1:] if text.startswith("+") else text
    length = 0
    while length < len(digits) and length < 19 and digits[length] in "0123456789":
        length += 1
    return (int(digits[:length]) if length else 0) or default


def read_envdir(path: str) -> None:
    """Set variables as envdir of daemontools does: a file each, its first line without trailing
    blanks, NUL standing for a line's end; an empty file unsets. Raises EnvdirError."""
    try:
        directory = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            for name in os.listdir(directory):
                if name.startswith("."):
                    continue
                if "=" in name:
                    raise EnvdirError(f"'{path}' holds '{name}', which is no name of a variable")
                # A FIFO would keep a login waiting for ever.
                file = os.open(name, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=directory)
                try:
                    content = os.read(file, _ENVDIR_BYTES)
                finally:
                    os.close(file)
                if not content:
                    os.environ.pop(name, None)
                    continue
                line = content.partition(b"\n")[0].rstrip(b" \t").replace(b"\0", b"\n")
                os.environ[name] = os.fsdecode(line)
        finally:
            os.close(directory)
    except OSError as error:
        raise EnvdirError(f"Could not read '{path}': {reason(error)}") from None


def restore_process() -> None:
    """Python ignores SIGPIPE and SIGXFSZ, and a program would inherit that."""
    for number in (_signal.SIGPIPE, _signal.SIGXFSZ):
        _signal.signal(number, _signal.SIG_DFL)


def run(arguments: list[str]) -> None:
    """execvp: returns only where no such program can be run. (os.execvp imports warnings.)"""
    program = arguments[0]
    if not program:
        return
    if "/" in program:
        places = [program]
    else:
        path = os.environ.get("PATH", _DEFAULT_PATH)
        places = [f"{directory or '.'}/{program}" for directory in path.split(":")]
    for place in places:
        try:
            os.execv(place, arguments)  # noqa: S606  becoming it is the purpose
        except (OSError, ValueError):
            pass
