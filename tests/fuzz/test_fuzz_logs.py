"""The fuzz target of log lines for a moment, with its corpus."""

import fuzz_logs

from support import fuzzing


def test_nothing_is_found() -> None:
    assert fuzzing.run(fuzz_logs.check, "logs", 1.0) > 100
