"""Runs every fuzz target below tests/fuzz for a while, one after the other.

A target is a file fuzz_NAME.py that hands its arguments to atheris; its corpus is corpus/NAME beside it.
New inputs go to a directory outside the repository; a crash is left there and named.
"""

import argparse
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

TARGETS = Path("tests/fuzz")


def targets(root: Path) -> list[Path]:
    """The fuzz targets, by name."""
    return sorted((root / TARGETS).glob("fuzz_*.py"))


def run(root: Path, target: Path, seconds: int) -> bool:
    """Fuzz one target; True when nothing was found."""
    name = target.stem.removeprefix("fuzz_")
    found = Path(tempfile.mkdtemp(prefix=f"popgate-fuzz-{name}-"))
    corpus = target.parent / "corpus" / name
    command = [
        sys.executable,
        str(target),
        f"-max_total_time={seconds}",
        f"-artifact_prefix={found}/",
        str(found),
    ]
    if corpus.is_dir():
        command.append(str(corpus))
    environment = dict(
        os.environ, PYTHONPATH=os.pathsep.join(str(root / part) for part in ("src", "tests", "."))
    )
    log = found / "log"
    with log.open("wb") as output:
        status = subprocess.run(
            command, env=environment, stdout=output, stderr=output, check=False
        ).returncode
    if status == 0:
        runs = re.search(r"Done (\d+) runs", log.read_text(errors="replace"))
        print(f"fuzz {name}: nothing found in {runs[1] if runs else '?'} runs ({seconds} s)")
        shutil.rmtree(found)
    else:
        print(f"fuzz {name}: FAILED; input and log are in {found}:")
        print(log.read_text(errors="replace")[-3000:])
    return status == 0


def main() -> int:
    """Exit status 1 when a target failed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("names", nargs="*", help="only these targets")
    options = parser.parse_args()
    root = Path.cwd()
    if importlib.util.find_spec("atheris") is None:
        print("fuzz: atheris is not installed here; the property tests of make test still run")
        return 0
    chosen = [t for t in targets(root) if not options.names or t.stem.removeprefix("fuzz_") in options.names]
    passed = [run(root, target, options.seconds) for target in chosen]
    return 0 if all(passed) else 1


if __name__ == "__main__":
    sys.exit(main())
