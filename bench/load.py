"""The load generator of bench/loadgen, and the CPU time and memory of a tree of processes."""

import json
import os
import subprocess
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
BUILD = HERE / ".build"
_TICK = os.sysconf("SC_CLK_TCK")

AT_ONCE = 20
USERS = 128
SOURCES = "127.0.1.0/25"  # as many client addresses as users, so that each has one of its own


class LoadFailed(Exception):
    """The load generator or a server did not do what a row needs."""


@dataclass(frozen=True)
class Trial:
    """One run of one row against one server. `rate` and `cpu_us` are of sessions or messages."""

    rate: float
    cpu_us: float
    milliseconds: float = 0.0
    kib: float = 0.0


@cache
def generator() -> Path:
    """The built load generator. Raises LoadFailed where it cannot be built."""
    program = BUILD / "mailload"
    try:
        done = subprocess.run(
            ["make", "-s", "-C", str(HERE / "loadgen"), f"OUT={program}"], capture_output=True, text=True
        )
    except FileNotFoundError:
        raise LoadFailed("make and a C compiler are needed to build the load generator") from None
    if done.returncode:
        raise LoadFailed(f"the load generator cannot be built:\n{done.stderr}")
    return program


def run(
    mode: str, *options: str | int, port: int, pid: int | str, is_warm_up: bool = False
) -> dict[str, Any]:
    """One run of the generator: its report. `pid`: the server's, or several with commas. Raises LoadFailed
    when a session failed. In a warm-up slow first logins may meet a later one of the same user, which is
    refused."""
    command = [
        *(str(generator()), mode, "--port", str(port), "--server-pid", str(pid)),
        *map(str, options),
    ]
    done = subprocess.run(command, capture_output=True, text=True)
    try:
        report: dict[str, Any] = json.loads(done.stdout)
    except ValueError:
        raise LoadFailed(f"mailload {mode}: {done.stderr or done.stdout}") from None
    if report["errors"] or not report["ok"] or (report["rejected"] and not is_warm_up):
        raise LoadFailed(f"mailload {mode}: {done.stdout}{done.stderr}")
    return report


def sessions(report: dict[str, Any]) -> Trial:
    return Trial(report["sessions_per_s"], report["cpu_us_per_session"])


def tree(pid: int) -> list[int]:
    """`pid` and all its descendants."""
    children: dict[int, list[int]] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(path.read_text().rpartition(")")[2].split()[1])
        except OSError:  # gone meanwhile
            continue
        children.setdefault(parent, []).append(int(path.parent.name))
    found = [pid]
    for each in found:
        found += children.get(each, ())
    return found


def cpu_seconds(pid: int) -> float:
    """CPU time of the tree, that of children already waited for included."""
    ticks = 0
    for each in tree(pid):
        try:
            fields = Path(f"/proc/{each}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        ticks += sum(map(int, fields[11:15]))
    return ticks / _TICK
