"""Starts of relay-ctrl-allow and -check, against the barest Python script that does the same file operations.

Both become /bin/true; the peer is started as `python -I -S -E`. Rows `relay-ctrl-allow` and
`relay-ctrl-check` of bench/run.py. The goal is 1.3.
"""

import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.load import LoadFailed, Trial
from support.relay_ctrl import Installed

_ALLOW = """
import fcntl, os, sys, time
name = os.environ["TCPREMOTEIP"]
directory = os.open(os.environ["RELAY_CTRL_DIR"], os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
lock = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=directory)
fcntl.flock(lock, fcntl.LOCK_EX)
flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
try:
    os.stat(name, dir_fd=directory, follow_symlinks=False)
    file = os.open(name, flags, dir_fd=directory)
    os.fstat(file), os.read(file, 8193), os.close(file)
except FileNotFoundError:
    pass
now = time.time_ns()
temporary = ".%d.%06d:%d" % (now // 10**9, now // 1000 % 10**6, os.getpid())
flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
file = os.open(temporary, flags, 0o600, dir_fd=directory)
os.write(file, b"USER=%b\\0" % os.environ["USER"].encode())
os.utime(file, ns=(now, now))
os.close(file)
os.rename(temporary, name, src_dir_fd=directory, dst_dir_fd=directory)
os.close(lock)
os.execv(sys.argv[1], sys.argv[1:])
"""
_CHECK = """
import os, sys, time
name = os.environ["TCPREMOTEIP"]
directory = os.open(os.environ["RELAY_CTRL_DIR"], os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
os.stat(name, dir_fd=directory, follow_symlinks=False)
flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
file = os.open(name, flags, dir_fd=directory)
state, content = os.fstat(file), os.read(file, 8193)
os.close(file)
if state.st_mtime + 900 >= time.time():
    os.environ["RELAYCLIENT"] = ""
    for piece in content.split(b"\\0"):
        variable, equals, value = piece.decode().partition("=")
        if equals:
            os.environ[variable] = value
os.execv(sys.argv[1], sys.argv[1:])
"""
_SCRIPTS = {"allow": _ALLOW, "check": _CHECK}


class StartSite:
    """An installation, and a directory of grants with one login in it."""

    def __init__(self, installed: Installed, path: str) -> None:
        self._installed = installed
        self._environment = {
            "RELAY_CTRL_DIR": path,
            "TCPREMOTEIP": "192.0.2.7",
            "USER": "bob",
            "PATH": "/usr/bin:/bin",
        }
        self.start([installed.path("relay-ctrl-allow"), "/bin/true"])

    def start(self, command: list[str]) -> float:
        """Run it to its end; microseconds of processor time."""
        pid = os.posix_spawn(command[0], command, self._environment)
        _, status, usage = os.wait4(pid, 0)
        if status:
            raise LoadFailed(f"{command[0]} ended with status {os.waitstatus_to_exitcode(status)}")
        return (usage.ru_utime + usage.ru_stime) * 1e6

    def trials(self, name: str, count: int) -> tuple[Callable[[], Trial], Callable[[], Trial]]:
        """Trials of `count` starts: of ours, and of the bare script."""
        script = Path(self._installed.root, f"bare_{name}.py")
        script.write_text(_SCRIPTS[name])
        ours = [self._installed.path(f"relay-ctrl-{name}"), "/bin/true"]
        bare = [self._installed.interpreter, "-I", "-S", "-E", str(script), "/bin/true"]
        return lambda: self._trial(ours, count), lambda: self._trial(bare, count)

    def _trial(self, command: list[str], count: int) -> Trial:
        start = time.perf_counter()
        cpu = sum(self.start(command) for _ in range(count))
        return Trial(count / (time.perf_counter() - start), cpu / count)


@contextmanager
def start_site() -> Iterator[StartSite]:
    installed = Installed()
    try:
        with tempfile.TemporaryDirectory() as path:
            yield StartSite(installed, path)
    finally:
        installed.remove()
