"""Starts the program of a connection by posix_spawn, which costs a third of fork and exec here.

posix_spawn cannot set resource limits, and limits set from outside would come after the
program's first instructions. So where limits are asked for, /bin/sh sets them on itself
and becomes the program (about half a millisecond); otherwise nothing stands between.
"""

import os
import resource
import shutil
import signal
from collections.abc import Mapping, Sequence

from popgate.values.value import value

LOGIN_DESCRIPTOR = 7
"""Where the program finds the recorder's socket: a shell can name one digit only, 3 and 4 carry
passwords from qmail-popup to checkpassword, and 5 and 6 are what such programs open next."""

_TO_DEFAULT = [
    number
    for number in signal.valid_signals()
    if number not in (signal.SIGKILL, signal.SIGSTOP) and number < signal.SIGRTMIN
]


class ProgramError(Exception):
    """The program cannot be run; the text says which and why."""


@value
class ProgramLimits:
    """What softlimit sets, in octets and descriptors; None leaves it as it is."""

    memory_bytes: int | None = None
    data_bytes: int | None = None
    open_files: int | None = None

    def commands(self) -> list[str]:
        """The shell's commands that set them (soft limits, as softlimit sets)."""
        commands = []
        if self.memory_bytes is not None:
            commands.append(f"ulimit -S -v {max(1, self.memory_bytes // 1024)}")
        if self.data_bytes is not None:
            commands.append(f"ulimit -S -d {max(1, self.data_bytes // 1024)}")
        if self.open_files is not None:
            commands.append(f"ulimit -S -n {self.open_files}")
        return commands


class Program:
    """A command line that can be started many times."""

    def __init__(
        self,
        command: Sequence[str],
        limits: ProgramLimits | None = None,
        *,
        descriptors: tuple[int, int] | None = None,
    ) -> None:
        """Raises ProgramError where there is no such program. `descriptors`: the limit of open
        files (soft, hard) that the program finds where this process has raised its own."""
        if not command or any("\0" in word for word in command):
            raise ProgramError("there is no program to run")
        self.path = find_program(command[0])
        self._argv = [os.fsencode(word) for word in command]
        self._descriptors = descriptors
        commands = limits.commands() if limits is not None else []
        if commands:
            script = " && ".join([*commands, 'exec "$@"']) + "; exit 111"
            self._argv = [b"/bin/sh", b"-c", script.encode(), b"popgate-limits", *self._argv]
            self._argv[4] = os.fsencode(self.path)
            self._run = "/bin/sh"
        else:
            self._run = self.path

    def start(self, connection: int, environment: Mapping[bytes, bytes], login: int = -1) -> int:
        """Start it with descriptors 0 and 1 on the socket `connection`, and `login` as
        LOGIN_DESCRIPTOR; returns the process id. Raises ProgramError.

        All other descriptors of ours are closed by exec, because Python opens them so.
        """
        actions = [(os.POSIX_SPAWN_DUP2, connection, 0), (os.POSIX_SPAWN_DUP2, connection, 1)]
        if login >= 0:
            # last, because the connection may have that very number in this process
            actions.append((os.POSIX_SPAWN_DUP2, login, LOGIN_DESCRIPTOR))
        try:
            pid = os.posix_spawn(
                self._run,
                self._argv,
                environment,
                file_actions=actions,
                setsigmask=(),
                setsigdef=_TO_DEFAULT,
            )
        except OSError as fault:
            raise ProgramError(f"unable to run {self.path}: {fault.strerror}") from fault
        if self._descriptors is not None:
            try:
                resource.prlimit(pid, resource.RLIMIT_NOFILE, self._descriptors)
            except (OSError, ValueError):
                pass  # gone already, or not ours any more: it is a courtesy only
        return pid


def find_program(name: str) -> str:
    """The path of a program, by PATH unless `name` has a slash. Raises ProgramError."""
    found = shutil.which(name)
    if found is None:
        raise ProgramError(f"unable to run {name}: there is no such program that can be run")
    return found
