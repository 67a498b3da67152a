"""Measured rows as text for a terminal and as docs/benchmarks.md."""

import datetime
import os
import platform
import sqlite3
import statistics
import subprocess
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from bench.rows import OURS, Target
from popgate import __version__

if TYPE_CHECKING:
    from bench.run import Measured

_HEADS = {"rate": "{unit}s/s", "cpu_us": "server CPU µs", "milliseconds": "ms", "kib": "KiB"}


def as_text(measured: "Measured") -> str:
    """A row for the terminal."""
    table = _table(measured)
    widths = [max(len(line[column]) for line in table) for column in range(len(table[0]))]
    lines = [f"\n{measured.row.name}: {measured.row.title}"]
    for line in table:
        cells = [
            cell.ljust(width) if not column else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        ]
        lines.append("  " + "  ".join(cells))
    lines += [f"  {name}: missing, {why}" for name, why in measured.missing.items()]
    lines += [
        f"  {_judged(measured, target)}" for target in measured.row.targets if _is_there(measured, target)
    ]
    return "\n".join(lines)


def document(rows: "Sequence[Measured]", runs: int) -> str:
    """docs/benchmarks.md."""
    parts = [
        "# Benchmarks\n",
        "Written by `make bench`; run it to see the same for your machine. Ours and the peers run"
        f" alternately, {runs} times each; shown are medians, with minimum and maximum in brackets. CPU is"
        " that of the server's whole tree of processes. popgate runs as shipped: log on, quotas on, passwords"
        " verified"
        " before, one worker a core; the load generator shares the machine with every server. Absolute"
        " figures move with the machine; the ratios were taken in one run.\n",
        "| | |\n|---|---|\n" + "".join(f"| {name} | {text} |\n" for name, text in _machine()),
    ]
    judged = [
        (measured, target)
        for measured in rows
        for target in measured.row.targets
        if _is_there(measured, target)
    ]
    if judged:
        parts.append(
            "## Targets\n\n| row | what | measured | floor | goal | |\n|---|---|---|---|---|---|\n"
            + "".join(_target_line(measured, target) for measured, target in judged)
        )
    for measured in rows:
        head, *lines = _table(measured)
        table = f"| {' | '.join(head)} |\n|---|{'---:|' * (len(head) - 1)}\n"
        table += "".join(f"| {' | '.join(line)} |\n" for line in lines)
        table += "".join(f"| {name} | missing: {why} |\n" for name, why in measured.missing.items())
        parts.append(f"## {measured.row.name}\n\n{measured.row.title}.\n\n{table}")
    return "\n".join(parts)


def _table(measured: "Measured") -> list[list[str]]:
    columns = measured.row.columns
    names = list(measured.trials)
    first = names[0]
    has_ratio = len(names) > 1 and first.startswith(OURS)
    head = [""] + [_HEADS[column].format(unit=measured.row.unit) for column in columns]
    if has_ratio:
        head += [f"{head[1 + number]}, popgate over it" for number in range(len(columns))]
    table = [head]
    for name in names:
        line = [name]
        for column in columns:
            figures = [getattr(trial, column) for trial in measured.trials[name]]
            line.append(
                f"{_figure(statistics.median(figures))} ({_figure(min(figures))} to {_figure(max(figures))})"
            )
        if has_ratio:
            for column in columns:
                theirs = measured.median(name, column)
                ratio = measured.median(first, column) / theirs if theirs else 0.0
                line.append("" if name == first else f"{ratio:.2f}")
        table.append(line)
    return table


def _figure(number: float) -> str:
    return f"{number:,.0f}" if number >= 100 else f"{number:.1f}"


def _is_there(measured: "Measured", target: Target) -> bool:
    return not target.peer or target.peer in measured.trials


def _measured(measured: "Measured", target: Target) -> float:
    ours = measured.median(next(iter(measured.trials)), target.of)
    return ours / measured.median(target.peer, target.of) if target.peer else ours


def _verdict(figure: float, target: Target) -> str:
    def is_met(bound: float) -> bool:
        return figure >= bound if target.is_least else figure <= bound

    return "goal met" if is_met(target.goal) else "floor met" if is_met(target.floor) else "floor not met"


def _bound(target: Target, bound: float) -> str:
    sign = "≥" if target.is_least else "≤"
    return f"{sign} {bound:.2f} x" if target.peer else f"{sign} {bound:.0f} {target.what}"


def _shown(figure: float, target: Target) -> str:
    return f"{figure:.2f} x" if target.peer else f"{_figure(figure)} {target.what}"


def _judged(measured: "Measured", target: Target) -> str:
    figure = _measured(measured, target)
    over = f" of {target.peer}" if target.peer else ""
    return (
        f"{target.what}: {_shown(figure, target)}{over}; floor {_bound(target, target.floor)},"
        f" goal {_bound(target, target.goal)}: {_verdict(figure, target)}"
    )


def _target_line(measured: "Measured", target: Target) -> str:
    figure = _measured(measured, target)
    what = f"{target.what}, over {target.peer}" if target.peer else target.what
    cells = [
        measured.row.name,
        what,
        _shown(figure, target),
        _bound(target, target.floor),
        _bound(target, target.goal),
        _verdict(figure, target),
    ]
    return f"| {' | '.join(cells)} |\n"


def _machine() -> list[tuple[str, str]]:
    model = "unknown"
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
            break
    return [
        ("date", datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d")),
        ("machine", f"{model}, {len(os.sched_getaffinity(0))} cores, Linux {platform.release()}"),
        ("popgate", f"{__version__}, commit {_said('git', 'rev-parse', '--short', 'HEAD')}"),
        (
            "Python",
            f"{platform.python_version()}{_build()}, uvloop {version('uvloop')},"
            f" SQLite {sqlite3.sqlite_version}",
        ),
        ("Dovecot", _said("/usr/sbin/dovecot", "--version")),
        ("Postfix", _said("/usr/sbin/postconf", "-d", "-h", "mail_version")),
    ]


def _build() -> str:
    """The distribution's interpreter is a third faster than one that was compiled without profile."""
    program = os.path.realpath(sys.executable)
    return " of the distribution" if program.startswith("/usr/bin/") else " compiled on this machine"


def _said(*command: str) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parent)
    except OSError:
        return "missing"
    return done.stdout.strip() if done.returncode == 0 else "unknown"
