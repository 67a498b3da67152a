"""Where a password comes from: standard input, a person at a terminal, or chance."""

import secrets
import sys

import click

from popgate.cli.root import BadUsage

_LETTERS = "abcdefghijkmnpqrstuvwxyz23456789"  # none that look alike on a printer's display


def generated_password() -> str:
    """Eighty random bits that can be typed on a device's keypad."""
    return "-".join("".join(secrets.choice(_LETTERS) for _ in range(4)) for _ in range(4))


def read_password(*, from_stdin: bool, prompt: str) -> tuple[str, bool]:
    """The password, and whether it was generated, so that it must be shown.

    An empty answer at the prompt, and no terminal to ask at, mean a generated one.
    """
    if from_stdin:
        text = sys.stdin.readline().rstrip("\r\n")
        if not text:
            raise BadUsage("no password came on standard input")
        return text, False
    if sys.stdin.isatty() and sys.stderr.isatty():
        text = click.prompt(
            f"{prompt} (empty: make one up)",
            default="",
            hide_input=True,
            show_default=False,
            confirmation_prompt=True,
            err=True,
        )
        if text:
            return str(text), False
    return generated_password(), True
