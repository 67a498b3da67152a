"""Why is a line a login, or why not? For people who write patterns."""

import re
from collections.abc import Sequence
from re import _compiler, _parser  # type: ignore[attr-defined]

from popgate.integrations.logs.pattern import Form, Pattern
from popgate.integrations.logs.recogniser import Recogniser
from popgate.integrations.logs.records import LogRecord, Seen
from popgate.integrations.logs.syntaxes import MAX_LINE, OWN_FILES, read_line
from popgate.integrations.logs.times import Reference
from popgate.values.address import AddressError, ClientAddress
from popgate.values.identity import Identity, IdentityError
from popgate.values.value import value


@value
class Tried:
    """One expression of a pattern that is for the line's program. `matched` is as much of the text as it
    accepts; `fault` is why nothing comes of it, "" where it does."""

    pattern: str
    kind: str
    matched: str
    fault: str


@value
class Reading:
    """What became of a line. `fault` says why no pattern was tried."""

    record: LogRecord | None
    fault: str
    tried: tuple[Tried, ...]
    seen: tuple[Seen, ...]


def explain(line: str, patterns: Sequence[Pattern], reference: Reference, recogniser: Recogniser) -> Reading:
    """Read `line` as `recogniser`, made of `patterns`, does, and tell each step."""
    line = line.rstrip("\r\n")
    seen = tuple(recogniser.feed(line.encode("utf-8", "replace"), reference.latest))
    if len(line.encode("utf-8", "replace")) > MAX_LINE:
        return Reading(None, f"is longer than {MAX_LINE} octets", (), seen)
    own = tuple(syntax for name, syntax in OWN_FILES.items() if any(name == each.syntax for each in patterns))
    record = read_line(line, reference, own)
    if record is None:
        return Reading(None, "has no syntax that is known: time, host, program, text", (), seen)
    fitting = [pattern for pattern in patterns if record.program in pattern.programs]
    if not fitting:
        return Reading(record, f"is of the program {record.program!r}, and no pattern is for that", (), seen)
    tried = tuple(_tried(pattern, form, record) for pattern in fitting for form in pattern.forms)
    return Reading(record, "", tried, seen)


def _tried(pattern: Pattern, form: Form, record: LogRecord) -> Tried:
    match = form.expression.pattern.match(record.text)
    if match is None:
        return Tried(
            pattern.name, form.kind, _accepted(form.expression.pattern, record.text), "does not match"
        )
    if not pattern.may_come_from(record.origin):
        return Tried(pattern.name, form.kind, match[0], "comes from a unit that is not the program's")
    fault = ""
    groups = match.groupdict()
    try:
        if groups.get("user"):
            Identity(groups["user"], groups["domain"]) if groups.get("domain") else Identity.parse(
                groups["user"]
            )
        if groups.get("address"):
            ClientAddress.parse(groups["address"])
    except (AddressError, IdentityError) as error:
        fault = str(error)
    return Tried(pattern.name, form.kind, match[0], fault)


def _accepted(pattern: "re.Pattern[str]", text: str) -> str:
    """The longest beginning of `text` that the first parts of the expression match."""
    try:
        tree = _parser.parse(pattern.pattern, re.ASCII)
        for count in range(len(tree) - 1, 0, -1):
            part = _parser.SubPattern(tree.state, list(tree)[:count])
            match = _compiler.compile(part, re.ASCII).match(text)
            if match is not None:
                return str(match[0])
    except (re.error, AttributeError, TypeError):  # parts of re that are nobody's interface
        pass
    return ""
