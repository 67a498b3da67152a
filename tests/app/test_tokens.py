"""Random tokens from a pool."""

import re

from popgate.app.runtime import Tokens


def test_tokens_are_22_printable_characters_and_never_the_same() -> None:
    tokens = Tokens()
    given = [tokens() for _ in range(2000)]
    assert len(set(given)) == 2000
    assert all(re.fullmatch("[A-Za-z0-9_-]{22}", token) for token in given)
    assert len({token[:11] for token in given}) == 2000
    # every place of a token takes every character: nothing of it is padding
    assert all(len({token[place] for token in given}) == 64 for place in range(22))
