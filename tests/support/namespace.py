"""A private machine for a mail server whose package excludes Postfix: its own mounts, the host's loopback.

The package is only unpacked (tools/unpack-peers); for the processes of one mount namespace its files lie
where they belong, over the machine's own, with the users that its installation would have made.
"""

import shutil
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from support import peers
from support.process import accepts

_NAMESPACE = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]
_FIRST_UID = 64040
START_SECONDS = 20.0

# Layers over the machine's own directories; nobody outside sees them.
_MOUNTS = """\
set -e
mount -t overlay -o lowerdir={site}/usr:{unpacked}/usr:/usr none /usr
mount -t overlay -o lowerdir={site}/etc:{unpacked}/etc:/etc none /etc
for directory in /var/spool /var/log /var/lib /run; do
    mount -t tmpfs none $directory
done
"""


class Namespace:
    """A context manager. `script` is run by sh once all is mounted, and starts the server; `files` are put
    below /etc, `users` are added to those of this machine, each with a group of its own.

    `run` is a directory outside that both sides see, in the place of /run/popgate.
    """

    def __init__(self, package: str, script: str, files: Mapping[str, str], users: Sequence[str]) -> None:
        self._package = package
        self._script = script
        self._files = files
        self._users = users
        self._machine: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> "Namespace":
        peers.require(self._package)
        require_namespaces(self._package)
        self.site = Path(tempfile.mkdtemp(prefix="popgate-beside-"))
        self.site.chmod(0o755)
        self.run = self.site / "run"
        self.run.mkdir()
        try:
            self._start()
        except BaseException:
            self._end()
            raise
        return self

    def _start(self) -> None:
        etc = self.site / "etc"
        (self.site / "usr").mkdir(exist_ok=True)
        etc.mkdir()
        for name, form in (
            ("passwd", "{}:x:{}:{}::/nonexistent:/usr/sbin/nologin\n"),
            ("group", "{}:x:{}:\n"),
        ):
            lines = [form.format(user, _FIRST_UID + n, _FIRST_UID + n) for n, user in enumerate(self._users)]
            (etc / name).write_text(Path("/etc", name).read_text() + "".join(lines))
        for name, text in self._files.items():
            path = etc / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        script = self.site / "start"
        script.write_text(
            _MOUNTS.format(site=self.site, unpacked=peers.UNPACKED) + self._script + "read -r _ || :\n"
        )
        with self._log.open("wb") as log:
            self._machine = subprocess.Popen(
                [*_NAMESPACE, "sh", str(script)],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    @property
    def _log(self) -> Path:
        return self.site / "log"

    @property
    def log(self) -> str:
        return self._log.read_text(errors="replace")

    def wait_for_port(self, port: int) -> None:
        deadline = time.monotonic() + START_SECONDS
        while not accepts(port):
            assert self._machine is not None
            if time.monotonic() > deadline or self._machine.poll() is not None:
                raise AssertionError(f"{self._package} does not start:\n{self.log[-4000:]}")
            time.sleep(0.05)

    @property
    def first(self) -> int:
        """The first process in there, as it is called outside."""
        assert self._machine is not None
        pid = self._machine.pid
        return int(Path(f"/proc/{pid}/task/{pid}/children").read_text().split()[0])

    def command(self, *words: str, stdin: str = "") -> str:
        """Run a program in there; what it said."""
        done = subprocess.run(
            ["nsenter", "--mount", "--pid", "--target", str(self.first), *words],
            input=stdin, capture_output=True, text=True, timeout=30, check=False,
        )  # fmt: skip
        assert done.returncode == 0, f"{words}: {done.stdout}{done.stderr}"
        return done.stdout

    def __exit__(self, *_: object) -> None:
        self._end()

    def _end(self) -> None:
        if self._machine is not None:
            assert self._machine.stdin is not None
            self._machine.stdin.close()  # the namespace's first process ends, and with it every other
            try:
                self._machine.wait(10)
            except subprocess.TimeoutExpired:
                self._machine.kill()
                self._machine.wait()
        shutil.rmtree(self.site, ignore_errors=True)


def require_namespaces(package: str) -> None:
    peers.require_root(package)
    tried = subprocess.run(
        [*_NAMESPACE, "mount", "-t", "tmpfs", "none", "/mnt"], capture_output=True, text=True, check=False
    )
    if tried.returncode:
        pytest.skip(f"peer missing: {package} (no private mounts here: {tried.stderr.strip()[:100]})")
