"""Listeners for programs: ours as shipped against Debian's tcpserver with a checker in C that is exec'd.

The same program in C runs for each connection behind both, and every client has a grant. What is told
is CPU a connection over that of the program itself: the cost of spawning and reaping it bare is
measured in the same run and taken off all. Row `ucspi` of bench/run.py.
"""

import os
import resource
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Self

from bench import load
from bench.load import LoadFailed, Trial
from support import peers, ports
from support.popgate import Popgate
from support.process import ServerProcess

_SOURCES = load.HERE / "ucspi"
_AT_ONCE = 4
_GRANT = b"USER=alice\0DOMAIN=example.org\0"
_SETTINGS = """\
[grants]
store = "directory:{directory}"
sender = "any"
never = []
"""
_LISTENER = """\
command = ["{program}"]
grant = "check"
max_connections = 40
"""


class Listeners:
    """The programs in C, a directory of grants, and the listeners before them."""

    def __init__(self) -> None:
        self._root = Path(tempfile.mkdtemp(prefix="popgate-ucspi-"))
        self._directory = self._root / "allow"
        self._directory.mkdir(mode=0o755)
        self._servers: list[ServerProcess] = []
        self._popgate: Popgate | None = None

    def __enter__(self) -> Self:
        for name in ("checker", "program", "connect"):
            command = ["cc", "-O2", "-o", str(self._root / name), str(_SOURCES / f"{name}.c")]
            try:
                done = subprocess.run(command, capture_output=True, text=True)
            except FileNotFoundError:
                raise LoadFailed("a C compiler is needed for the row ucspi") from None
            if done.returncode:
                raise LoadFailed(f"{name}.c cannot be built:\n{done.stderr}")
        return self

    def __exit__(self, *_: object) -> None:
        for server in self._servers:
            server.stop()
        if self._popgate is not None:
            self._popgate.stop()
        shutil.rmtree(self._root, ignore_errors=True)

    def ours(self, count: int) -> Callable[[], Trial]:
        """`popgate serve` with one listener, log and limits as shipped."""
        self._popgate = Popgate(
            self._root / "site",
            [("ucspi", _LISTENER.format(program=self._root / "program"))],
            _SETTINGS.format(directory=self._directory),
            workers=0,
        )
        self._popgate.start()
        return self._trial(self._popgate.port("ucspi"), self._popgate.pid, count)

    def tcpserver(self, count: int) -> Callable[[], Trial] | None:
        """Debian's with the checker in the chain; None where it is not installed."""
        path = peers.find("ucspi-tcp")
        if path is None:
            return None
        port = ports.free_port()
        chain = [str(self._root / "checker"), str(self._root / "program")]
        command = [path, "-HRl0", "-c", "40", "127.0.0.1", str(port), *chain]
        setting = f"RELAY_CTRL_DIR={self._directory}"
        server = ServerProcess(["env", setting, *command], self._root / "output")
        self._servers.append(server)
        server.wait_for_ports([port])
        return self._trial(port, server.pid, count)

    def alone(self, count: int) -> Callable[[], Trial]:
        """The program itself, spawned bare: what is taken off the others."""

        def trial() -> Trial:
            start = time.perf_counter()
            cpu = self._own_cost(count)
            return Trial(count / (time.perf_counter() - start), cpu)

        return trial

    def _trial(self, port: int, pid: int, count: int) -> Callable[[], Trial]:
        each = max(1, count // _AT_ONCE)

        def trial() -> Trial:
            own = self._own_cost(max(50, count // 10))
            (self._directory / "127.0.0.1").write_bytes(_GRANT)
            before, start = load.cpu_seconds(pid), time.perf_counter()
            clients = [
                subprocess.Popen(
                    [self._root / "connect", str(port), str(each)], stdout=subprocess.PIPE, text=True
                )
                for _ in range(_AT_ONCE)
            ]
            told = sum(int(client.communicate()[0] or 0) for client in clients)
            seconds = time.perf_counter() - start
            time.sleep(0.3)  # the last programs are reaped
            if told != each * _AT_ONCE:
                raise LoadFailed(f"{told} of {each * _AT_ONCE} connections were let relay")
            cpu = (load.cpu_seconds(pid) - before) / told * 1e6
            return Trial(told / seconds, max(0.0, cpu - own))

        return trial

    def _own_cost(self, count: int) -> float:
        """CPU of the program itself, in microseconds: exec, its work and its end, without who starts it."""
        program, sink = str(self._root / "program"), os.open(os.devnull, os.O_WRONLY)
        try:
            before = resource.getrusage(resource.RUSAGE_CHILDREN)
            for _ in range(count):
                pid = os.posix_spawn(program, [program], {}, file_actions=[(os.POSIX_SPAWN_DUP2, sink, 1)])
                os.waitpid(pid, 0)
            after = resource.getrusage(resource.RUSAGE_CHILDREN)
        finally:
            os.close(sink)
        return (after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime) / count * 1e6
