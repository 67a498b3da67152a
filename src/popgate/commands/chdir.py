"""relay-ctrl-chdir: opens the grant directory for the programs behind it, then runs the rest.

It is started with rights that the later programs have no more, and hands them a descriptor.
"""

import fcntl
import os

from popgate.commands.chain import NOT_NOW, EnvdirError, Program, reason

HIGHEST = 1023
"""Courier closes low descriptors, so the number is as high as the limit on open files allows,
but no higher than this: the kernel copies the table up to the highest one at every fork."""


def main(arguments: list[str]) -> None:
    program = Program("relay-ctrl-chdir", arguments)
    try:
        program.take_options()
    except EnvdirError as error:
        program.fail(str(error), NOT_NOW)
    if not program.arguments:
        program.fail("usage: relay-ctrl-chdir program [arguments]\n", 1)
    path = os.environ.get("RELAY_CTRL_DIR")
    if path is None:
        program.fail("$RELAY_CTRL_DIR is not set.", NOT_NOW)
    try:
        directory = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except NotADirectoryError:
        program.fail(f"'{path}' is not a directory", NOT_NOW)
    except (OSError, ValueError) as error:
        why = reason(error) if isinstance(error, OSError) else str(error)
        program.fail(f"Could not open '{path}': {why}", NOT_NOW)
    try:
        number = _move_up(directory)
    except OSError as error:
        program.fail(f"Could not move the descriptor of '{path}': {reason(error)}", NOT_NOW)
    os.environ["RELAY_CTRL_DIR_FD"] = str(number)
    program.become_rest("execution of program failed!\n")


def _move_up(directory: int) -> int:
    """A copy of the descriptor at the highest free number, which programs inherit."""
    number = min(os.sysconf("SC_OPEN_MAX"), HIGHEST + 1)
    while number > directory + 1:
        number -= 1
        try:
            fcntl.fcntl(number, fcntl.F_GETFD)
        except OSError:
            return os.dup2(directory, number)
    os.set_inheritable(directory, True)
    return directory
