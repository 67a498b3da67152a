"""Queue ids: short, safe in a shell and a file name, in the order of time, never used again.

An id is a number, written in eleven digits and letters. Numbers are handed out in blocks;
the next free block stands in the database, so neither a restart nor a clock that was
stepped back brings a number up again. A block begins at the present microsecond where
that is later than the last block's end: so ids sort by time, and those of a queue that
was deleted and made anew are not given out a second time either.
"""

# No vowels, so that no id spells a word, and none of the letters that people take for digits.
_DIGITS = "0123456789bcdfghjkmnpqrstvwxyz"
_VALUES = {digit: index for index, digit in enumerate(_DIGITS)}
_PAIRS = [first + second for first in _DIGITS for second in _DIGITS]
_WIDTH = 11  # 30**11 microseconds last for five centuries
BLOCK = 4096
"""How many numbers a process takes at a time."""


def to_text(number: int) -> str:
    """The id of `number`, which is at least 0 and below 30**11."""
    text = ""
    for _ in range(_WIDTH // 2):
        number, pair = divmod(number, 900)
        text = _PAIRS[pair] + text
    return _DIGITS[number] + text


def to_number(queue_id: str) -> int | None:
    """The number of an id, None for text that is none."""
    if len(queue_id) != _WIDTH:
        return None
    number = 0
    for char in queue_id:
        digit = _VALUES.get(char)
        if digit is None:
            return None
        number = number * 30 + digit
    return number


def next_block(recorded: int, now: float) -> int:
    """The first number of a new block; `recorded` is the end of the last one."""
    return max(recorded, int(now * 1e6))
