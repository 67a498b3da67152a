"""The frame of the command: which commands there are, and how failures become exit statuses.

Nothing but click is imported before a command is chosen: `popgate --help` and shell
completion must not wait for cryptography and asyncio.
"""

import importlib
import os
import sys
from typing import NoReturn

import click

from popgate import __version__

COMMANDS = {
    "init": "popgate.cli.init:init",
    "serve": "popgate.cli.serve:serve",
    "demo": "popgate.cli.demo.command:demo",
    "doctor": "popgate.cli.doctor:doctor",
    "config": "popgate.cli.configuration:config",
    "account": "popgate.cli.account:account",
    "grant": "popgate.cli.grant:grant",
    "queue": "popgate.cli.queue:queue",
    "map": "popgate.cli.map:map_",
    "logs": "popgate.cli.logs:logs",
    "tcpserver": "popgate.cli.tcpserver:tcpserver",
}
"""Name of the command and where it is; in the order of the help."""

NO, USAGE, TEMPORARY = 1, 2, 75


class Refusal(click.ClickException):
    """The answer is no: not found, exists already, may not."""

    exit_code = NO


class BadUsage(click.ClickException):
    """Wrong usage or configuration, where click itself cannot know it."""

    exit_code = USAGE


class TemporaryFailure(click.ClickException):
    """It may work later."""

    exit_code = TEMPORARY


class CommandGroup(click.Group):
    """A group whose commands are listed in the order in which they were written."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)


class RootGroup(click.Group):
    """Loads a command when it is asked for, and turns the failures of all into messages."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module_name, _, name = COMMANDS[cmd_name].partition(":")
        command = getattr(importlib.import_module(module_name), name)
        assert isinstance(command, click.Command)
        return command

    def invoke(self, ctx: click.Context) -> object:
        try:
            return super().invoke(ctx)
        except (click.ClickException, click.exceptions.Exit, click.Abort, BrokenPipeError):
            raise
        except Exception as error:
            raise _explained(error) from error


def _explained(error: Exception) -> Exception:
    """The message for an exception that a command let pass; the exception itself where it is a bug."""
    from popgate.app.privileges import PrivilegeError
    from popgate.config import ConfigError

    if isinstance(error, ConfigError):
        from popgate.cli.output import tell_problems

        tell_problems(error)
        return click.exceptions.Exit(USAGE)
    if isinstance(error, PrivilegeError):
        return BadUsage(str(error))
    from popgate.app.backends import AccountError, AccountStoreError, BackendError, QueueError, StoreError

    if isinstance(error, AccountStoreError | StoreError | QueueError | OSError):
        return TemporaryFailure(f"{error}{_permission_hint(error)}")
    if isinstance(error, BackendError):
        return BadUsage(str(error))
    if isinstance(error, AccountError):
        return Refusal(str(error))
    return error


def _permission_hint(error: BaseException | None) -> str:
    while error is not None:
        if isinstance(error, PermissionError) and os.geteuid() != 0:
            return " (run it as root, or as the user that the server runs as)"
        error = error.__cause__ or error.__context__
    return ""


@click.group(
    cls=RootGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Each command explains itself: popgate COMMAND --help",
)
@click.version_option(__version__, message="popgate %(version)s")
def popgate() -> None:
    """POP before SMTP: a mail login by POP3 lets its address send mail for a short while."""


def main() -> NoReturn:
    """The console script."""
    try:
        popgate.main(prog_name="popgate")
    except BrokenPipeError:
        # whoever read our output has seen enough; keep Python from complaining when it flushes
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(0)
