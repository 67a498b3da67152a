"""How results and messages look: tables and colours for people on a terminal, plain text else."""

import json
import sys
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from popgate.config import ConfigError, Problem


def print_json(document: object) -> None:
    click.echo(json.dumps(document, indent=2, ensure_ascii=False))


def print_table(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Rows under their headings. On a terminal lines are drawn and fit its width; elsewhere
    columns are aligned by blanks."""
    cells = [[printable(str(cell)) for cell in row] for row in rows]
    if sys.stdout.isatty():
        _draw(columns, cells)
        return
    widths = [max(map(len, column)) for column in zip(columns, *cells, strict=True)]
    for row in [list(columns), *cells]:
        padded = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        click.echo("  ".join(padded).rstrip())


def _draw(columns: Sequence[str], cells: list[list[str]]) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, header_style="bold")
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in cells:
        table.add_row(*map(Text, row))
    Console().print(table)


def print_fields(fields: Sequence[tuple[str, object]]) -> None:
    """Name and value a line."""
    width = max(len(name) for name, _ in fields)
    for name, item in fields:
        click.echo(f"{click.style(name.ljust(width), bold=True)}  {printable(str(item))}")


def tell(message: str) -> None:
    """A message for people."""
    click.echo(message, err=True)


def tell_problems(error: "ConfigError") -> None:
    for problem in error.problems:
        tell_problem(problem, is_error=True)
    for problem in error.warnings:
        tell_problem(problem, is_error=False)


def tell_problem(problem: "Problem", *, is_error: bool) -> None:
    kind = click.style("error", fg="red", bold=True) if is_error else click.style("warning", fg="yellow")
    tell(f"{kind}: {printable(str(problem))}")


def printable(text: str) -> str:
    """`text` without what a terminal would obey: names and reasons may come from strangers."""
    return "".join(char if char.isprintable() else f"\\x{ord(char):02x}" for char in text)


def when(seconds: float) -> str:
    """Unix time as local date and time."""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds))


def how_long(seconds: float) -> str:
    """A duration in the two largest units that matter."""
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min" + (f" {whole % 60} s" if whole < 600 and whole % 60 else "")
    if whole < 86400:
        return f"{whole // 3600} h {whole % 3600 // 60} min"
    return f"{whole // 86400} d {whole % 86400 // 3600} h"
