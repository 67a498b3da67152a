"""Sets of sequence numbers and unique identifiers, as clients write them.

They stay ranges: a client may name four thousand million numbers in ten octets, and nothing
here ever walks through them one by one.
"""

from popgate.values.value import value

STAR = 0
"""What `*` is in a range: the largest number that the mailbox has, whatever it is by then."""

MAX_NUMBER = 4294967295


@value
class SequenceSet:
    """RFC 9051 9 sequence-set: `ranges` are pairs in the order that they came in, each from 1 to
    MAX_NUMBER or STAR on either side; neither side need be the smaller one."""

    ranges: tuple[tuple[int, int], ...]


@value
class SavedResult:
    """RFC 5182 `$`: what the last SEARCH with SAVE has found."""


Sequence = SequenceSet | SavedResult
