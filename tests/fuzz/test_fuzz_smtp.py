"""The fuzz target of SMTP for a moment, with its corpus."""

import fuzz_smtp

from support import fuzzing


def test_nothing_is_found() -> None:
    assert fuzzing.run(fuzz_smtp.check, "smtp", 3.0) > 100
