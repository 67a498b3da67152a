"""Benchmarks of popgate against the real servers on this machine.

usage: python bench/run.py [--only ROW]... [--runs N] [--quick] [--output docs/benchmarks.md]

Each row starts its servers, warms them up, and runs ours and the peers alternately, so that
whatever else the machine does meets all alike. Printed are medians with minimum and maximum, CPU
of the server's whole tree of processes, and the ratio to the peers in the same run. A full run
writes docs/benchmarks.md; peers that the machine lacks are named as missing.
"""

import argparse
import statistics
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "src"), str(ROOT / "tests")]

from bench import report
from bench.load import LoadFailed, Trial
from bench.rows import Bench, Row, Scale, every

RUNS = 5
DOCUMENT = ROOT / "docs/benchmarks.md"


@dataclass
class Measured:
    """One row as it came out: all trials of each contender, and who was missing and why."""

    row: Row
    trials: dict[str, list[Trial]] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)

    def median(self, contender: str, column: str) -> float:
        return statistics.median(getattr(trial, column) for trial in self.trials[contender])


def measure(row: Row, runs: int, scale: Scale, tell: Callable[[str], None]) -> Measured:
    measured = Measured(row)
    with Bench(scale) as bench:
        contenders = row.contenders(bench)
        measured.missing = bench.missing
        for name, trial in contenders.items():
            tell(f"warming up {name}")
            trial()
            measured.trials[name] = []
        for number in range(runs):
            for name, trial in contenders.items():
                tell(f"run {number + 1} of {runs}: {name}")
                measured.trials[name].append(trial())
    return measured


def _tell(text: str) -> None:
    if sys.stderr.isatty():
        print(f"\r\x1b[K{text}", end="", file=sys.stderr, flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else "")
    parser.add_argument(
        "--only", action="append", default=[], metavar="ROW", help="only this row; repeatable"
    )
    parser.add_argument("--runs", type=int, default=RUNS, help=f"runs of each contender ({RUNS})")
    parser.add_argument("--quick", action="store_true", help="a tenth of the work, two runs; no document")
    parser.add_argument("--output", type=Path, default=None, help=f"the document ({DOCUMENT})")
    options = parser.parse_args()
    runs = min(options.runs, 2) if options.quick else options.runs
    scale = Scale(10) if options.quick else Scale()
    done: list[Measured] = []
    try:
        for row in every(options.only):
            done.append(measure(row, runs, scale, _tell))
            _tell("")
            print(report.as_text(done[-1]), flush=True)
    except LoadFailed as fault:
        print(f"\nbench: {fault}", file=sys.stderr)
        return 1
    if options.output or not (options.only or options.quick):
        path = options.output or DOCUMENT
        path.write_text(report.document(done, runs))
        print(f"written: {path}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
