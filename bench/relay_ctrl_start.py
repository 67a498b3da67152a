"""What a start of relay-ctrl-allow and -check costs: `python bench/relay_ctrl_start.py [ROUNDS]`.

The peer is the barest Python script that does the same file operations (`python -I -S -E`), the
two run in turn, and both become /bin/true. Prints medians with minimum and maximum of processor
time and wall-clock time in milliseconds, and the ratio. The goal is 1.3.
"""

import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT / "src"), str(ROOT / "tests")]

from support.relay_ctrl import Installed

GOAL = 1.3
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


def _one(command: list[str], environment: dict[str, str]) -> tuple[float, float]:
    """Milliseconds of processor time and of wall-clock time of one process."""
    start = time.perf_counter()
    pid = os.posix_spawn(command[0], command, environment)
    _, status, usage = os.wait4(pid, 0)
    wall = time.perf_counter() - start
    if status:
        raise SystemExit(f"{command} ended with status {os.waitstatus_to_exitcode(status)}")
    return (usage.ru_utime + usage.ru_stime) * 1000, wall * 1000


def measure(rounds: int) -> dict[str, float]:
    """The ratio of processor time for each program; prints the rows."""
    ratios = {}
    installed = Installed()
    try:
        with tempfile.TemporaryDirectory() as path:
            environment = {
                "RELAY_CTRL_DIR": path,
                "TCPREMOTEIP": "192.0.2.7",
                "USER": "bob",
                "PATH": "/usr/bin:/bin",
            }
            for name, script in (("allow", _ALLOW), ("check", _CHECK)):
                bare = Path(installed.root, f"bare_{name}.py")
                bare.write_text(script)
                peer = [installed.interpreter, "-I", "-S", "-E", str(bare), "/bin/true"]
                ours = [installed.path(f"relay-ctrl-{name}"), "/bin/true"]
                peers, own = [], []
                for _ in range(rounds):
                    peers.append(_one(peer, environment))
                    own.append(_one(ours, environment))
                for column, what in enumerate(("cpu", "wall")):
                    theirs = [each[column] for each in peers]
                    mine = [each[column] for each in own]
                    ratio = statistics.median(mine) / statistics.median(theirs)
                    print(
                        f"relay-ctrl start: {name:5} {what:4}  bare {_spread(theirs)}  ours {_spread(mine)}"
                        f"  ratio {ratio:.2f} (goal {GOAL})"
                    )
                    if what == "cpu":
                        ratios[name] = ratio
    finally:
        installed.remove()
    return ratios


def _spread(values: list[float]) -> str:
    return f"{statistics.median(values):6.2f} ms [{min(values):.2f} {max(values):.2f}]"


if __name__ == "__main__":
    measure(int(sys.argv[1]) if len(sys.argv) > 1 else 200)
