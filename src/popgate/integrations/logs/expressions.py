"""Regular expressions that meet lines which strangers write: which are allowed, and what they need.

An expression must tell the program's own words from what a user typed, and must never
take long. So it begins with fixed text, and it may not hold what makes a backtracking
matcher try more ways than the line has characters. The rules, on the parsed expression:

- it begins with ^, and no text of any length, nor a long one with blanks, comes before its first fixed text;
- no back reference, no condition, no flag but (?x);
- what is repeated without bound is one character's width, or fixed in length with
  alternatives that begin differently, or possessive (`*+`, `++`) or atomic (`(?>...)`) inside;
- repeats whose text can also be what follows them do not multiply beyond the square of the length.

What the rules cannot see, a probe finds: strings made from the expression itself, grown
step by step, with a limit of time.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from re import _constants as _c  # type: ignore[attr-defined]
from re import _parser  # type: ignore[attr-defined]
from typing import Any

from popgate.values.value import value

MIN_LITERAL = 4
# What JSON writers may write as something else.
ESCAPED = frozenset("\"\\/<>&'")
_ALL = frozenset(range(256))
_UNICODE = 256
"""Stands for every character above 255 in a set of characters."""


class ExpressionError(ValueError):
    """An expression that is not allowed; `remedy` says what to write instead."""

    def __init__(self, message: str, remedy: str) -> None:
        super().__init__(message)
        self.remedy = remedy


@value
class Expression:
    """An allowed expression. One of `literals` stands in every text it matches, in the same octets
    whether or not the line is inside JSON; `leads`: it is how the text begins."""

    pattern: "re.Pattern[str]"
    literals: tuple[bytes, ...]
    leads: bool


def expression(text: str, groups: frozenset[str], contains: tuple[bytes, ...] = ()) -> Expression:
    """Compile `text`, whose named groups must be among `groups`. `contains` are the literals, where the
    expression itself has none that can be searched for. Raises ExpressionError."""
    try:
        pattern = re.compile(text, re.ASCII)
        tree = _parser.parse(text, re.ASCII)
    except (re.error, RecursionError, OverflowError) as error:
        raise ExpressionError(f"is not a regular expression: {error}", "see docs/logs.md") from None
    for name in pattern.groupindex:
        if name not in groups:
            raise ExpressionError(
                f"has a group named {name}", f"known here: {', '.join(sorted(groups))}; others need no name"
            )
    if tree.state.flags & ~(re.ASCII | re.VERBOSE):
        raise ExpressionError("sets a flag", "only (?x) is allowed")
    nodes = list(tree)
    _check_beginning(nodes)
    _Checker().sequence(nodes, in_loop=False)
    if contains:
        return Expression(pattern, contains, leads=False)
    found = list(_literals(nodes[1:]))
    literals = max(found, key=_usefulness)
    if _usefulness(literals) < MIN_LITERAL:
        raise ExpressionError(
            "holds no fixed text by which its lines can be found",
            f"it needs {MIN_LITERAL} characters in a row that are always there",
        )
    encoded = tuple(literal.encode() for literal in literals)
    return Expression(pattern, encoded, leads=literals is found[0] and len(literals) == 1)


def _check_beginning(nodes: Sequence[Any]) -> None:
    if not nodes or nodes[0] != (_c.AT, _c.AT_BEGINNING):
        raise ExpressionError(
            "does not begin with ^",
            "begin with ^ and the program's own words, so that no user can write them",
        )
    _begins_fixed(nodes[1:])


def _begins_fixed(nodes: Sequence[Any]) -> bool:
    """Do all texts begin with text of the expression's own? Raises ExpressionError where long free text
    can stand before that; False where there is none."""
    for op, argument in _flat(nodes):
        if op in _REPEATS and (
            argument[1] == _c.MAXREPEAT
            or (argument[1] > _LONG and ord(" ") in _first(list(argument[2]), frozenset()))
        ):
            raise ExpressionError(
                "begins with text of any length", "put the program's own words between ^ and the first * or +"
            )
        if op is _c.BRANCH:
            begins = [_begins_fixed(list(branch)) for branch in argument[1]]  # all: each may raise
            if all(begins):
                return True
        elif op in (_c.LITERAL, _c.IN):
            return True
    return False


_REPEATS = (_c.MAX_REPEAT, _c.MIN_REPEAT, _c.POSSESSIVE_REPEAT)


def _flat(nodes: Iterable[Any]) -> Iterator[Any]:
    """The nodes of a sequence, with groups opened."""
    for op, argument in nodes:
        if op is _c.SUBPATTERN:
            yield from _flat(argument[3])
        elif op is _c.ATOMIC_GROUP:
            yield from _flat(argument)
        else:
            yield op, argument


def _usefulness(literals: Sequence[str]) -> float:
    """Long text is rare text; a choice of several costs a search for each."""
    return min(map(len, literals), default=0) - (len(literals) - 1) / 4


def _literals(nodes: Sequence[Any]) -> Iterator[tuple[str, ...]]:
    """Sets of texts; of each, one stands in whatever the sequence matches."""
    run = ""
    for op, argument in _flat(nodes):
        char = chr(argument) if op is _c.LITERAL else ""
        if char and char.isascii() and char.isprintable() and char not in ESCAPED:
            run += char
            continue
        yield (run,)
        run = ""
        if op in _REPEATS and argument[0] >= 1:
            yield from _literals(argument[2])
        elif op is _c.BRANCH:
            best = [max(_literals(list(branch)), key=_usefulness) for branch in argument[1]]
            yield tuple(dict.fromkeys(text for texts in best for text in texts))
    yield (run,)


# What the rules look at: which characters can begin a part, and where a matcher could try again.

_LONG = 16
"""A repeat of more than this counts as one without bound."""
_DEGREE_AT_MOST = 2
_NEST = "make the inner one possessive (*+, ++) or the group atomic: (?>...)"
_Degree = tuple[int, int]
"""For a part and n characters: it can match in n**first ways, and one try of it takes n**second steps."""


class _Checker:
    """Walks the parsed expression and adds up what matching can cost.

    A long repeat whose text can also be what follows it gives a way for each length; each way
    is tried when a later part fails. Possessive repeats, atomic groups and lookarounds are left in one way.
    """

    def sequence(
        self, nodes: Sequence[Any], *, in_loop: bool, after: frozenset[int] = frozenset()
    ) -> _Degree:
        ways = cost = 0
        for index, (op, argument) in enumerate(nodes):
            follows = _first(nodes[index + 1 :], after)
            more_ways, one_try = self._node(op, argument, follows, in_loop=in_loop)
            cost = max(cost, ways + one_try)
            ways += more_ways
        if cost > _DEGREE_AT_MOST:
            raise ExpressionError(
                "has too many repeats of any length whose text can also be what follows",
                "use [^x]+ with the next character for x, or possessive repeats (*+, ++)",
            )
        return ways, cost

    def _node(self, op: Any, argument: Any, follows: frozenset[int], *, in_loop: bool) -> _Degree:
        if op is _c.SUBPATTERN:
            if argument[1] or argument[2]:
                raise ExpressionError("sets a flag in a group", "only (?x) at the beginning is allowed")
            return self.sequence(list(argument[3]), in_loop=in_loop, after=follows)
        if op is _c.BRANCH:
            branches = [list(branch) for branch in argument[1]]
            if in_loop and _overlap(branches):
                raise ExpressionError(
                    "repeats alternatives that can begin alike", "let each begin with another character"
                )
            degrees = [self.sequence(branch, in_loop=in_loop, after=follows) for branch in branches]
            return max(ways for ways, _ in degrees), max(cost for _, cost in degrees)
        if op is _c.ATOMIC_GROUP:
            return 0, self.sequence(list(argument), in_loop=False)[1]
        if op in (_c.ASSERT, _c.ASSERT_NOT):
            return 0, self.sequence(list(argument[1]), in_loop=False)[1]
        if op in _REPEATS:
            return self._repeat(op, argument, follows, in_loop=in_loop)
        if op in (_c.LITERAL, _c.NOT_LITERAL, _c.IN, _c.ANY, _c.AT):
            return 0, 0
        raise ExpressionError("refers to a group that it matched before", "write out what may stand there")

    def _repeat(self, op: Any, argument: Any, follows: frozenset[int], *, in_loop: bool) -> _Degree:
        least, most, body = argument[0], argument[1], list(argument[2])
        is_long = most == _c.MAXREPEAT or most > _LONG
        if op is _c.POSSESSIVE_REPEAT:
            return 0, self.sequence(body, in_loop=False)[1] + is_long
        if in_loop and least != most:
            raise ExpressionError("repeats what is itself repeated", _NEST)
        ways, cost = self.sequence(body, in_loop=in_loop or is_long, after=_first(body, follows))
        is_free = is_long and bool(_first(body, frozenset()) & follows)
        return ways + is_free, cost + is_long


def _overlap(branches: Sequence[Sequence[Any]]) -> bool:
    seen: frozenset[int] = frozenset()
    for branch in branches:
        begins = _first(branch, frozenset())
        if begins & seen or all(_is_nullable(op, argument) for op, argument in branch):
            return True
        seen |= begins
    return False


def _first(nodes: Sequence[Any], after: frozenset[int]) -> frozenset[int]:
    """The characters that can stand first in `nodes`, or after them where they can be empty."""
    found: frozenset[int] = frozenset()
    for op, argument in nodes:
        found |= _begins(op, argument)
        if not _is_nullable(op, argument):
            return found
    return found | after


def _begins(op: Any, argument: Any) -> frozenset[int]:
    if op is _c.SUBPATTERN:
        return _first(list(argument[3]), frozenset())
    if op is _c.ATOMIC_GROUP:
        return _first(list(argument), frozenset())
    if op is _c.BRANCH:
        return frozenset().union(*(_first(list(branch), frozenset()) for branch in argument[1]))
    if op in _REPEATS:
        return _first(list(argument[2]), frozenset())
    return _characters(op, argument)


def _is_nullable(op: Any, argument: Any) -> bool:
    if op is _c.SUBPATTERN:
        return all(_is_nullable(*node) for node in argument[3])
    if op is _c.ATOMIC_GROUP:
        return all(_is_nullable(*node) for node in argument)
    if op is _c.BRANCH:
        return any(all(_is_nullable(*node) for node in branch) for branch in argument[1])
    if op in _REPEATS:
        return bool(argument[0] == 0) or all(_is_nullable(*node) for node in argument[2])
    if op is _c.AT:
        return argument not in (_c.AT_END, _c.AT_END_STRING)
    return op in (_c.ASSERT, _c.ASSERT_NOT)


def _characters(op: Any, argument: Any) -> frozenset[int]:
    """The set of one character's node; characters above 255 count as one."""
    everything = _ALL | {_UNICODE}
    if op is _c.LITERAL:
        return frozenset({min(argument, _UNICODE)})
    if op is _c.NOT_LITERAL:
        return everything - ({argument} if argument < _UNICODE else set())
    if op is _c.ANY:
        return everything - {10}
    if op is not _c.IN:
        return frozenset()
    found: set[int] = set()
    negated = False
    for kind, what in argument:
        if kind is _c.NEGATE:
            negated = True
        elif kind is _c.LITERAL:
            found.add(min(what, _UNICODE))
        elif kind is _c.RANGE:
            found.update(range(min(what[0], _UNICODE), min(what[1], _UNICODE) + 1))
        else:
            found |= _CATEGORIES.get(what, everything)
    return frozenset(everything - found if negated else found)


def _category(test: Callable[[str], bool], *, is_other: bool) -> frozenset[int]:
    inside = frozenset(number for number in range(128) if test(chr(number)))
    return (_ALL | {_UNICODE}) - inside if is_other else inside


_CATEGORIES = {
    name: _category(test, is_other=is_other)
    for name, test, is_other in (
        (_c.CATEGORY_DIGIT, str.isdigit, False),
        (_c.CATEGORY_NOT_DIGIT, str.isdigit, True),
        (_c.CATEGORY_SPACE, str.isspace, False),
        (_c.CATEGORY_NOT_SPACE, str.isspace, True),
        (_c.CATEGORY_WORD, lambda char: char.isalnum() or char == "_", False),
        (_c.CATEGORY_NOT_WORD, lambda char: char.isalnum() or char == "_", True),
    )
}


# The probe.

PROBE_SECONDS = 0.05


def probe(text: str, timer: Callable[[], float], longest: int) -> None:
    """Match `text` against strings that make a backtracking matcher work, up to `longest` characters.

    Raises ExpressionError when one of them takes longer than PROBE_SECONDS by `timer` (of
    the processor's time, so that a busy machine is not mistaken for a bad expression).
    """
    pattern = re.compile(text, re.ASCII)
    for prefix, pump in _pumps(list(_parser.parse(text, re.ASCII)), ""):
        count = 4
        while len(prefix) + count * len(pump) < longest:
            for ending in ("", "\x01", pump[:1]):
                hostile = prefix + pump * count + ending
                if _takes_long(pattern, hostile, timer):
                    raise ExpressionError(
                        f"takes too long on text such as {hostile[:60]!r}...",
                        "use possessive repeats (*+, ++), and sets that exclude the next character",
                    )
            count += max(1, count // 4)


def _takes_long(pattern: "re.Pattern[str]", text: str, timer: Callable[[], float]) -> bool:
    """Always, or once beyond doubt: whatever else the machine did is not the expression's fault."""
    for _ in range(3):
        begin = timer()
        pattern.match(text)
        seconds = timer() - begin
        if seconds > 10 * PROBE_SECONDS:
            return True
        if seconds <= PROBE_SECONDS:
            return False
    return True


def _pumps(nodes: Sequence[Any], prefix: str) -> Iterator[tuple[str, str]]:
    """For every repeat without a small bound: a text that leads to it, and what it can repeat."""
    for index, (op, argument) in enumerate(nodes):
        if op is _c.BRANCH:
            for branch in argument[1]:
                yield from _pumps(list(branch), prefix)
        elif op is _c.SUBPATTERN:
            yield from _pumps(list(argument[3]), prefix)
        elif op is _c.ATOMIC_GROUP:
            yield from _pumps(list(argument), prefix)
        elif op in (_c.ASSERT, _c.ASSERT_NOT):
            yield from _pumps(list(argument[1]), prefix)
        elif op in _REPEATS:
            body = list(argument[2])
            yield from _pumps(body, prefix)
            if argument[1] == _c.MAXREPEAT or argument[1] > _LONG:
                yield from ((prefix, pump) for pump in _samples(body))
                shared = _first(body, frozenset()) & _first(nodes[index + 1 :], frozenset())
                if shared:
                    yield prefix, chr(min(shared, key=_unlikeliness))
                follows = _sample(nodes[index + 1 :])
                if follows:  # what would end the repeat, again and again
                    yield prefix, follows
        prefix += _sample([(op, argument)])


def _samples(body: Sequence[Any]) -> set[str]:
    """Texts that a loop can repeat: each alternative of its body, and all of them."""
    found = {_sample(body) or "a"}
    for op, argument in _flat(body):
        if op is _c.BRANCH:
            branches = [_sample(branch) for branch in argument[1]]
            found.update(text for text in (*branches, "".join(branches)) if text)
    return found


def _sample(nodes: Iterable[Any]) -> str:
    """The shortest text that `nodes` match, about; lookarounds are not obeyed."""
    out = ""
    for op, argument in nodes:
        if op is _c.SUBPATTERN:
            out += _sample(argument[3])
        elif op is _c.ATOMIC_GROUP:
            out += _sample(argument)
        elif op is _c.BRANCH:
            out += _sample(argument[1][0])
        elif op in _REPEATS:
            out += _sample(argument[2]) * min(argument[0], _LONG)
        elif op in (_c.LITERAL, _c.NOT_LITERAL, _c.IN, _c.ANY):
            chosen = _characters(op, argument)
            if chosen:
                out += chr(min(chosen, key=_unlikeliness))
    return out


def _unlikeliness(number: int) -> tuple[bool, bool, int]:
    """Letters and digits first, then what is printable."""
    char = chr(number)
    return not (char.isascii() and char.isalnum()), not char.isprintable(), number
