"""Every observation of relay-ctrl's programs (behaviour.jsonl), made again with ours.

A row holds exactly, or the difference is named in differences.py and explained in
docs/relay-ctrl.md. The rows of relay-ctrl-send wait for answers that never come, so they all
run at once before the first is looked at.
"""

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from popgate.grants.stores import spool
from relay_ctrl.differences import DIFFERENCES, difference
from support import peers
from support.ports import free_port
from support.relay_ctrl import ROOT, Installed, interpreter_for_everybody

ROWS = {
    row["id"]: row
    for row in map(json.loads, (Path(__file__).parent / "behaviour.jsonl").read_text("ascii").splitlines())
}
_APART = ("allow-concurrent", "allow-syscalls")
_SHOW = (
    'for v in RELAYCLIENT USER DOMAIN FOO RELAY_CTRL_DIR_FD; do eval "test -n \\"\\${$v+x}\\" &&'
    ' echo $v=[\\$$v]"; done; echo cwd=$(pwd -P); exit 7'
)
_LONG = {
    "check-env-8192": "DOMAIN=d\0USER=" + "u" * 9000 + "\0",
    "check-env-8192-fit": "FOO=" + "u" * 8187 + "\0",
}
_CLOSED = ("allow-dir-readonly", "age-noperm", "check-expired-noperm", "udp-noperm")
"""The directory cannot be written by others in these rows."""


class Run:
    """One row made real in a directory of its own, and what came of it."""

    def __init__(self, row: dict[str, Any], programs: Installed) -> None:
        self.row = row
        self.programs = programs
        self.top = Path(tempfile.mkdtemp(prefix="popgate-row-")).resolve()
        self.setup = row["setup"]
        self.env = dict(self.setup["env"])
        self.port = 0
        if self.env.get("RELAY_CTRL_PORT", "").isdigit():
            self.port = free_port()
            self.env["RELAY_CTRL_PORT"] = str(self.port)
        elif row["program"] in ("relay-ctrl-send", "relay-ctrl-udp"):
            self.port = 811
        self.packets: list[str] = []
        self.replies: list[str | None] = []
        try:
            self._prepare()
            {"relay-ctrl-send": self._send, "relay-ctrl-udp": self._udp}.get(row["program"], self._run)()
            self.after = dict(self._files())
        finally:
            shutil.rmtree(self.top)

    def _prepare(self) -> None:
        os.umask(0o022)
        self.top.chmod(0o755)
        for name in ("allow", "cwd"):
            (self.top / name).mkdir()
            (self.top / name).chmod(0o777)
        if time.time() % 1 > 0.5:
            time.sleep(1 - time.time() % 1)  # ages are in whole seconds
        now = int(time.time())
        for entry in self.setup["files"]:
            kind, colon, name = entry[0].partition(":")
            path = self.top / (name if colon and kind in ("dir", "link") else entry[0])
            if kind == "dir":
                path.mkdir()
            elif kind == "link":
                path.symlink_to(entry[1])
                continue
            else:
                path.write_bytes(_LONG.get(self.row["id"], entry[1]).encode("latin-1"))
                path.chmod(entry[3] if len(entry) > 3 else 0o666)
            age = entry[1] if kind == "dir" else entry[2]
            os.utime(path, (now - age, now - age))
        if self.row["id"] in _CLOSED:
            (self.top / "allow").chmod(0o755)

    def _fill(self, text: str) -> str:
        text = text.replace("{T}", str(self.top)).replace("{BIN}", str(self.programs.bin))
        return text.replace("{FD}", "4").replace("SHOWENV", _SHOW)

    def _command(self) -> list[str]:
        command = [self._fill(word) for word in self.row["command"]]
        command[0] = self.programs.path(command[0])
        before = ""
        if "RLIMIT_NOFILE" in self.setup:
            before += f"ulimit -n {self.setup['RLIMIT_NOFILE']}; "
        if "RELAY_CTRL_DIR_FD" in self.setup:
            before += f"exec 4<{self.top}/allow; "
        return ["/bin/sh", "-c", before + 'exec "$@"', "sh", *command] if before else command

    def _start(self) -> "subprocess.Popen[bytes]":
        uid = self.setup["uid"] or None
        return subprocess.Popen(
            self._command(),
            env={"PATH": "/usr/bin:/bin", **{name: self._fill(text) for name, text in self.env.items()}},
            user=uid,
            group=uid,
            extra_groups=[] if uid else None,
            cwd=self.top / "cwd",
            umask=int(self.setup["umask"], 8),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )

    def _run(self) -> None:
        self._finish(self._start())

    def _finish(self, process: "subprocess.Popen[bytes]") -> None:
        out, err = process.communicate(timeout=30)
        self.exit: Any = process.returncode
        self.stdout, self.stderr = self._normal(out), self._normal(err)

    def _normal(self, data: bytes) -> str:
        text = data.decode("latin-1").replace(str(self.top), "{T}")
        text = re.sub(r"\[\d+\]: ", "[PID]: ", text)
        return re.sub(r"\.\d+\.\d{6}:\d+", ".SECS.USECS:PID", text)

    def _send(self) -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as here:
            here.bind(("127.0.0.1", self.port))
            self._finish(self._start())
            here.setblocking(False)
            try:
                while True:
                    self.packets.append(here.recv(2000).decode("latin-1"))
            except BlockingIOError:
                pass

    def _udp(self) -> None:
        process = self._start()
        if "packets_sent" not in self.row or not self.row["packets_sent"]:
            self._finish(process)
            return
        try:
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as here:
                here.connect(("127.0.0.1", self.port))
                for text in self.row["packets_sent"]:
                    if self.row["id"] == "udp-long":
                        text = text[0] * 600
                    self.replies.append(self._exchange(here, text.encode("latin-1")))
            self.exit = "runs until a signal" if process.poll() is None else process.returncode
        finally:
            process.terminate()
            out, err = process.communicate(timeout=10)
        self.stdout, self.stderr = self._normal(out), self._normal(err)

    def _exchange(self, here: socket.socket, data: bytes) -> str | None:
        """Until it listens, a datagram is refused by the kernel."""
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            try:
                here.send(data)
                here.settimeout(0.25)
                return here.recv(100).decode("latin-1")
            except ConnectionRefusedError:
                time.sleep(0.02)
            except TimeoutError:
                return None
        raise AssertionError("relay-ctrl-udp does not listen")

    def _files(self) -> Iterator[tuple[str, dict[str, Any]]]:
        now = time.time()
        for path in sorted([*self.top.glob("allow/*"), *self.top.glob("cwd/*")]):
            state = path.lstat()
            seen: dict[str, Any] = {"mode": f"{state.st_mode & 0o7777:o}", "uid": state.st_uid}
            if path.is_symlink() or path.is_dir():
                seen["type"] = "link" if path.is_symlink() else "dir"
            else:
                content = path.read_bytes().decode("latin-1")
                seen |= {"size": state.st_size, "content": content, "age": round(now - state.st_mtime)}
            yield str(path.relative_to(self.top)), seen


def problems(run: Run) -> list[str]:
    """What is neither as observed nor as the named difference says."""
    row = dict(run.row)
    expected = difference(row)
    after = {name: seen for name, seen in row["after"].items() if "/" in name}
    if expected is not None:
        row |= expected.changed
        if "stdout" not in expected.changed:
            row["stdout"] = row["stdout"].replace("cwd={T}/allow\n", "cwd={T}/cwd\n")
        after |= expected.after
        after = {name: seen for name, seen in after.items() if seen is not None}
    found = [
        f"{what}: {getattr(run, what)!r}, not {row[what]!r}"
        for what in ("exit", "stdout", "stderr")
        if getattr(run, what) != row[what]
    ]
    if "packets" in row and run.packets != row["packets"]:
        found.append(f"packets: {run.packets}")
    if row.get("packets_sent") and run.replies != row["replies"]:
        found.append(f"replies: {run.replies}")
    if set(run.after) != set(after):
        found.append(f"files: {sorted(run.after)}, not {sorted(after)}")
    for name in set(after) & set(run.after):
        found += _file_problems(name, run, after[name])
    return found


def _file_problems(name: str, run: Run, wanted: Any) -> list[str]:
    seen = run.after[name]
    if wanted == "as before":
        (before,) = [entry for entry in run.setup["files"] if entry[0] == name]
        return (
            [] if (seen["content"], seen["age"] // 5) == (before[1], before[2] // 5) else [f"{name}: {seen}"]
        )
    if wanted == "merged":
        records = spool.parse(seen["content"].encode(), int((time.time() - seen["age"]) * 1e6))
        names = [str(record.identity) for record in records or ()]
        fresh, old = ("None", "bob") if run.row["id"].startswith("udp") else ("new", "old")
        return [] if names == [fresh, old] and seen["age"] <= 2 else [f"{name}: {names} {seen}"]
    found = []
    for what, value in wanted.items():
        if what == "content" and value.endswith("..."):
            if not seen[what].startswith(value[:-3]):
                found.append(f"{name}: {what}")
        elif what == "age":
            if abs(seen[what] - value) > 3:
                found.append(f"{name}: {what} {seen[what]}, not {value}")
        elif seen.get(what) != value:
            found.append(f"{name}: {what} {seen.get(what)!r}, not {value!r}")
    return found


def _skip_reason(row: dict[str, Any]) -> str | None:
    if os.geteuid() != 0:
        if row["setup"]["uid"] or any(seen.get("uid") == 0 for seen in row["after"].values()):
            return "only root can be these users"
    elif row["setup"]["uid"] and interpreter_for_everybody() is None:
        return "no interpreter here that another user could start"
    return None


@pytest.fixture(scope="module")
def sent(programs: Installed) -> Iterator[dict[str, Run]]:
    """The rows of relay-ctrl-send; those on port 811 one after the other."""
    rows = [row for row in ROWS.values() if row["program"] == "relay-ctrl-send" and not _skip_reason(row)]
    fixed = [row for row in rows if not row["setup"]["env"].get("RELAY_CTRL_PORT", "").isdigit()]
    with ThreadPoolExecutor(len(rows) + 1) as pool:
        others = [pool.submit(Run, row, programs) for row in rows if row not in fixed]
        one_by_one = pool.submit(lambda: [Run(row, programs) for row in fixed])
        runs = [future.result() for future in others] + one_by_one.result()
    yield {run.row["id"]: run for run in runs}


@pytest.mark.parametrize("name", [name for name in ROWS if name not in _APART])
def test_row(name: str, programs: Installed, request: pytest.FixtureRequest) -> None:
    row = ROWS[name]
    if reason := _skip_reason(row):
        pytest.skip(reason)
    if row["program"] == "relay-ctrl-send":
        assert problems(request.getfixturevalue("sent")[name]) == []
        return
    # Ages are in whole seconds: on a busy machine the second may be over before the program looks.
    for _ in range(3):
        found = problems(Run(row, programs))
        if not found or "age = expiry" not in row["note"]:
            break
    assert found == []


def test_row_allow_concurrent(programs: Installed, tmp_path: Path) -> None:
    """Two hundred logins in parallel: one file, nobody lost before the file is full, nothing left over."""
    waiting = [f"u{number:03}" for number in range(200)]
    running: list[subprocess.Popen[bytes]] = []
    exits: Counter[int] = Counter()
    while waiting or running:
        while waiting and len(running) < 16:
            environment = {"RELAY_CTRL_DIR": str(tmp_path), "TCPREMOTEIP": "192.0.2.7", "USER": waiting.pop()}
            running.append(subprocess.Popen([programs.path("relay-ctrl-allow")], env=environment))
        exits[running.pop(0).wait()] += 1
    assert exits == {0: 200}
    assert [path.name for path in tmp_path.iterdir()] == ["192.0.2.7"]
    content = (tmp_path / "192.0.2.7").read_bytes()
    records = spool.parse(content, (tmp_path / "192.0.2.7").stat().st_mtime_ns // 1000)
    assert records is not None and content.startswith(b"USER=%b\0" % str(records[0].identity).encode())
    assert len(records) > 50 or len(content) > spool.MAX_BYTES - 200


def test_row_allow_syscalls(programs: Installed, tmp_path: Path) -> None:
    peers.require("strace")
    log = tmp_path / "log"
    directory = tmp_path / "allow"
    directory.mkdir()
    calls = "trace=openat,write,rename,renameat,renameat2,fsync,fdatasync,chdir,fchdir,unlink,unlinkat,execve"
    done = programs.run(
        [
            "/usr/bin/strace",
            "-f",
            "-o",
            str(log),
            "-e",
            calls,
            programs.path("relay-ctrl-allow"),
            "/bin/true",
        ],
        {"RELAY_CTRL_DIR": str(directory), "TCPREMOTEIP": "192.0.2.7", "USER": "bob", "DOMAIN": "d"},
        cwd=tmp_path,
    )
    if b"ptrace" in done.stderr:
        pytest.skip("strace may not trace here")
    assert done.returncode == 0, done.stderr
    text = log.read_text()
    ours = text[text.index(f'"{directory}"') :]
    assert re.search(r'openat\(\d+, "\.\d+\.\d+:\d+", [^)]*O_EXCL[^)]*, 0600\)', ours)
    assert re.search(r'write\(\d+, "USER=bob\\0DOMAIN=d\\0", 18\)', ours)
    assert re.search(r'renameat2?\(\d+, "\.\d+\.\d+:\d+", \d+, "192\.0\.2\.7"', ours)
    assert ours.index("O_EXCL") < ours.index("write(") < ours.index("rename") < ours.index("execve(")
    assert not re.search(r"\b(fsync|fdatasync|f?chdir)\(", ours)


def test_all_rows_run_and_every_difference_is_explained() -> None:
    assert len(ROWS) == 119
    assert set(DIFFERENCES) <= set(ROWS)
    text = (ROOT / "docs/relay-ctrl.md").read_text()
    differing = [row for row in ROWS.values() if difference(row)]
    for row in differing:
        for name in difference(row).names:  # type: ignore[union-attr]
            assert f"**{name}**" in text, f"docs/relay-ctrl.md does not explain {name}"
            assert f"`{row['id']}`" in text, f"docs/relay-ctrl.md does not name the row {row['id']}"
    assert f"{len(ROWS) - len(differing)} of the {len(ROWS)} observations" in text


if __name__ == "__main__":  # the rows that differ, for the document
    for name in sorted({name for row in ROWS.values() if difference(row) for name in difference(row).names}):  # type: ignore[union-attr]
        rows = [row["id"] for row in ROWS.values() if (found := difference(row)) and name in found.names]
        print(f"- **{name}**:", ", ".join(f"`{each}`" for each in rows), file=sys.stdout)
