"""Runs the program that tells a server of a changed map.

One runs at a time, and once more for what changed meanwhile.
"""

import asyncio
import subprocess
from collections.abc import Callable, Sequence
from typing import Final

COMMAND_SECONDS: Final = 10.0
_TOLD = 200


class MapCommand:
    """`tell` gets a line about a program that failed."""

    def __init__(self, command: Sequence[str], tell: Callable[[str], None]) -> None:
        self._command = list(command)
        self._tell = tell
        self._task: asyncio.Task[None] | None = None
        self._is_due = False

    def run(self) -> None:
        """Soon; the map is as it shall be already."""
        self._is_due = True
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._run())

    def run_at_end(self) -> None:
        """Now, and wait for its end."""
        run_now(self._command, self._tell)

    async def _run(self) -> None:
        while self._is_due:
            self._is_due = False
            # in a thread: this process has nothing else to do that would mind one
            await asyncio.to_thread(run_now, self._command, self._tell)


def run_now(command: Sequence[str], tell: Callable[[str], None]) -> None:
    """Run it and wait; never raises."""
    try:
        done = subprocess.run(  # noqa: S603  # what the administrator configured, without a shell
            list(command),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=COMMAND_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        tell(f"{command[0]}: did not end within {COMMAND_SECONDS:g} seconds, and was killed")
    except (OSError, ValueError) as fault:
        tell(f"{command[0]}: {fault}")
    else:
        if done.returncode:
            said = done.stdout.decode("utf-8", "replace").strip()[-_TOLD:]
            tell(f"{command[0]}: exit status {done.returncode}: {said}")
