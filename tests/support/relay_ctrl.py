"""relay-ctrl's programs as they are installed, where every user of the machine can run them.

The package is copied, because a checkout or an interpreter below a private directory could
not be started by another user; with it go the real launchers.
"""

import compileall
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

ROOT = Path(__file__).parents[2]
PROGRAMS = ("allow", "check", "age", "chdir", "send", "udp")
_PACKAGES = ("commands", "grants", "values", "protocols", "servers", "integrations")


def interpreter_for_everybody() -> str | None:
    """A Python that another user can start; None where this machine has none of a new enough version."""
    for candidate in (os.path.realpath(sys.executable), "/usr/bin/python3"):
        asked = "import sys; sys.exit(sys.version_info < (3, 11))"
        try:
            done = subprocess.run(
                [candidate, "-I", "-c", asked], user=65534 if os.geteuid() == 0 else None, check=False
            )
        except OSError:
            continue
        if done.returncode == 0:
            return candidate
    return None


class Installed:
    """An installation in a directory of its own: `bin` holds the programs."""

    def __init__(self) -> None:
        self.interpreter = interpreter_for_everybody() or sys.executable
        self.root = Path(tempfile.mkdtemp(prefix="popgate-relay-ctrl-"))
        self.root.chmod(0o755)
        self.bin = self.root / "bin"
        self.bin.mkdir()
        site = self.root / "lib/python3/site-packages/popgate"
        site.mkdir(parents=True)
        shutil.copy(ROOT / "src/popgate/__init__.py", site)
        for package in _PACKAGES:
            shutil.copytree(
                ROOT / "src/popgate" / package, site / package, ignore=shutil.ignore_patterns("__pycache__")
            )
        if self.interpreter == os.path.realpath(sys.executable):
            compileall.compile_dir(site, quiet=2)
        else:
            subprocess.run([self.interpreter, "-m", "compileall", "-q", str(site)], check=True)
        (self.bin / "popgate").write_text(f"#!{self.interpreter}\n")
        for program in PROGRAMS:
            shutil.copy(ROOT / "scripts" / f"relay-ctrl-{program}", self.bin)
        table = self.bin / "popgate-table-opensmtpd"  # as pip makes a console script
        table.write_text(
            f"#!{self.interpreter} -I\n"
            f"import sys\nsys.path.insert(0, {str(site.parent)!r})\n"
            "from popgate.integrations.opensmtpd.table import main\nmain()\n"
        )
        table.chmod(0o755)
        for directory, _, _ in os.walk(self.root):
            os.chmod(directory, 0o755)

    def path(self, program: str) -> str:
        return str(self.bin / program)

    def run(
        self,
        command: Sequence[str],
        environment: Mapping[str, str],
        *,
        uid: int | None = None,
        cwd: str | Path = "/",
        umask: int = 0o022,
        timeout: float = 30,
    ) -> subprocess.CompletedProcess[bytes]:
        """Run one of the programs, as another user if asked for (root only)."""
        program, *rest = command
        if program.startswith("relay-ctrl-"):
            program = self.path(program)
        return subprocess.run(
            [program, *rest],
            env={"PATH": "/usr/bin:/bin", **environment},
            user=uid,
            group=uid,
            extra_groups=[] if uid is not None else None,
            cwd=cwd,
            umask=umask,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=timeout,
            check=False,
        )

    def remove(self) -> None:
        shutil.rmtree(self.root, ignore_errors=True)
