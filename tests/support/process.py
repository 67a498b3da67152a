"""Starting and stopping a real server that belongs to a test."""

import os
import signal
import socket
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path


def accepts(port: int, host: str = "127.0.0.1") -> bool:
    """Does somebody listen there?"""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.settimeout(1)
        return probe.connect_ex((host, port)) == 0


class ServerProcess:
    """One server in a session of its own, so that stopping it stops what it started and nothing else."""

    def __init__(self, command: Sequence[str], log: Path, cwd: Path | None = None) -> None:
        self._log = log
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=cwd,
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        return self._process.pid

    def wait_for_ports(self, ports: Sequence[int], seconds: float = 15) -> None:
        """Wait until all accept. Raises AssertionError with the server's log when that does not happen."""
        deadline = time.monotonic() + seconds
        waiting = list(ports)
        while waiting:
            waiting = [port for port in waiting if not accepts(port)]
            if waiting and (self._process.poll() is not None or time.monotonic() > deadline):
                log = self._log.read_text(errors="replace")[-4000:]
                self.stop()
                raise AssertionError(f"ports {waiting} do not accept; the server said:\n{log}")
            if waiting:
                time.sleep(0.02)

    def stop(self, seconds: float = 10) -> int:
        """SIGTERM, then SIGKILL to the whole session; the exit status."""
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(seconds)
            except subprocess.TimeoutExpired:
                pass
        try:
            os.killpg(self._process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        return self._process.wait(seconds)


def children() -> set[int]:
    """Processes whose parent is this one, dead ones that nobody has waited for too."""
    own = str(os.getpid())
    found = set()
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            stat = path.read_text()
        except OSError:  # gone meanwhile
            continue
        if stat.rpartition(")")[2].split()[1] == own:
            found.add(int(path.parent.name))
    return found
