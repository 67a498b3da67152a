"""The settings of popgate-table-opensmtpd, a few lines of TOML that smtpd.conf names.

They are no part of popgate.toml: the program runs as smtpd's user, who may not read that.
"""

import os
import stat
import tomllib
from dataclasses import dataclass, fields
from typing import Final

MAX_OCTETS: Final = 65536
LEAST_SECONDS: Final = 0.05
MOST_SECONDS: Final = 30.0


class TableConfigError(Exception):
    """The file cannot be used; says why."""


@dataclass(frozen=True, slots=True)
class TableSettings:
    """`socket`: path of a `line` listener's unix socket. Over TCP any user of this machine could answer while
    popgate is down. `deadline_seconds`: how long smtpd waits for us in the worst case. `on_fault`: what a
    client hears while popgate does not answer: "refuse" 550 (as a client without a grant), "defer" 451."""

    socket: str
    deadline_seconds: float = 2.0
    on_fault: str = "refuse"


def read_settings(path: str) -> TableSettings:
    """Raises TableConfigError."""
    try:
        # a FIFO would keep smtpd waiting for ever
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise TableConfigError(f"{path}: no plain file")
            octets = os.read(descriptor, MAX_OCTETS + 1)
        finally:
            os.close(descriptor)
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else error
        raise TableConfigError(f"{path}: {why}") from None
    if len(octets) > MAX_OCTETS:
        raise TableConfigError(f"{path}: longer than {MAX_OCTETS} octets")
    try:
        table = tomllib.loads(octets.decode("utf-8"))
        return _checked(table)
    except (ValueError, RecursionError, TableConfigError) as error:
        raise TableConfigError(f"{path}: {error}") from None


def _checked(table: dict[str, object]) -> TableSettings:
    known = {field.name for field in fields(TableSettings)}
    for name in table:
        if name not in known:
            raise TableConfigError(f"{name}: unknown; known are {', '.join(sorted(known))}")
    defaults = TableSettings("")
    socket = table.get("socket")
    if not isinstance(socket, str) or not socket.removeprefix("unix:").startswith("/") or "\0" in socket:
        raise TableConfigError('socket: the path of a listener is needed, such as "/run/popgate/line"')
    deadline = table.get("deadline_seconds", defaults.deadline_seconds)
    if isinstance(deadline, bool) or not isinstance(deadline, int | float):
        raise TableConfigError("deadline_seconds: a number is needed")
    if not LEAST_SECONDS <= deadline <= MOST_SECONDS:
        raise TableConfigError(f"deadline_seconds: from {LEAST_SECONDS} to {MOST_SECONDS:g}")
    on_fault = table.get("on_fault", defaults.on_fault)
    if on_fault not in ("refuse", "defer"):
        raise TableConfigError('on_fault: "refuse" or "defer"')
    return TableSettings(socket.removeprefix("unix:"), float(deadline), str(on_fault))
