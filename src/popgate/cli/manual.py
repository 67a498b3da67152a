"""Writes docs/command-line.md from the help of every command."""

from collections.abc import Iterator

import click

from popgate.cli.root import popgate

_HEAD = """\
# The command line

What `popgate COMMAND --help` prints, for every command. This page is made from the program.

Results go to stdout, messages for people to stderr. Exit status: 0 done, 1 the answer is no
(refused, not found), 2 wrong usage or configuration, 75 temporary failure: try again later.
Run as root, `account`, `grant` and `queue` become the configured `user` before they touch its files.
"""


def manual() -> str:
    """The page as Markdown."""
    return _HEAD + "".join(_sections(popgate, None, "popgate", "##"))


def _sections(command: click.Command, parent: click.Context | None, name: str, heading: str) -> Iterator[str]:
    # The width is given, so that the page does not depend on somebody's terminal.
    context = click.Context(
        command,
        info_name=name,
        parent=parent,
        help_option_names=popgate.context_settings["help_option_names"],
        terminal_width=90,
        max_content_width=90,
        color=False,
    )
    yield f"\n{heading} {context.command_path}\n\n```\n{command.get_help(context)}\n```\n"
    if isinstance(command, click.Group):
        for sub_name in command.list_commands(context):
            sub = command.get_command(context, sub_name)
            assert sub is not None
            yield from _sections(sub, context, sub_name, "##" if parent is None else "###")
