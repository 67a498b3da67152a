"""The fuzz target of IMAP's grammar, for a moment, with its corpus."""

import fuzz_imap_grammar

from support import fuzzing


def test_nothing_is_found() -> None:
    assert fuzzing.run(fuzz_imap_grammar.check, "imap_grammar", 2.0) > 100
