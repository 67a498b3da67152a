"""Sets of numbers as a client writes them."""

from popgate.protocols.imap.sequence import STAR, SequenceSet


def format_numbers(numbers: SequenceSet) -> bytes:
    """The text form of `numbers`."""
    return ",".join(
        _word(low) if low == high else f"{_word(low)}:{_word(high)}" for low, high in numbers.ranges
    ).encode("ascii")


def _word(number: int) -> str:
    return "*" if number == STAR else str(number)
