"""How one program's log lines tell of logins, as read from a data file or from the settings.

A pattern is tied to program names, because any program may write any text. Its forms are
- login: a login is complete. A form that lacks the user or the address takes it from the
  last `first` line of the same host, program and pid;
- first: names the user or the address, and the login comes in a later line;
- forget: what `first` lines said is no longer true (the login failed, the connection ended);
- logout: the session has ended.

This module knows the values only; files are read by `pattern_files`, lines matched by `recogniser`.
"""

import time
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Literal

from popgate.grants.grant import LoginProtocol
from popgate.integrations.logs.expressions import (
    ESCAPED,
    MIN_LITERAL,
    Expression,
    ExpressionError,
    expression,
    probe,
)
from popgate.integrations.logs.records import Origin
from popgate.integrations.logs.syntaxes import MAX_LINE
from popgate.values.value import value

FormKind = Literal["login", "first", "forget", "logout"]
KINDS: tuple[FormKind, ...] = ("login", "first", "forget", "logout")
GROUPS = frozenset({"user", "domain", "address", "protocol", "session", "port", "key"})

KnownFrom = Literal["verified", "source", "documentation", "public logs", "unverified"]


@value
class Form:
    """One expression of a pattern, matched against the text of a record."""

    kind: FormKind
    expression: Expression

    def has(self, group: str) -> bool:
        return group in self.expression.pattern.groupindex


@value
class Pattern:
    """The lines of one program.

    `programs` maps each program name to the protocol that it speaks; "" where the line itself
    says it (group `protocol`). `units` are the systemd units (with * for any text) from which the journal
    may have such lines; empty: any service unit of root's. `as_root`: only root's processes write
    them, so what a server runs for its users cannot. `session_is_pid`: login and logout of a session
    have the same pid.
    """

    name: str
    title: str
    versions: str
    known_from: KnownFrom
    source: str
    syntax: str
    programs: Mapping[str, LoginProtocol | Literal[""]]
    units: tuple[str, ...]
    as_root: bool
    forms: tuple[Form, ...]
    session_is_pid: bool

    @property
    def tells_logouts(self) -> bool:
        """Do the program's lines tell of the end of sessions?"""
        return any(form.kind == "logout" for form in self.forms)

    def may_come_from(self, origin: Origin | None) -> bool:
        """Can this program have written a journal entry of `origin`? A user can write any text into the
        journal, but not from the unit of a mail server."""
        if origin is None:
            return True
        if self.as_root and origin.uid != 0:
            return False
        if self.units:
            return any(fnmatchcase(origin.unit, unit) for unit in self.units)
        return origin.uid == 0 and origin.unit.endswith(".service") and not origin.unit.startswith("user@")


class PatternError(ValueError):
    """A pattern that cannot be used: `key` (login.0, program, ...), what is wrong and what to write."""

    def __init__(self, key: tuple[str | int, ...], message: str, remedy: str) -> None:
        super().__init__(message)
        self.key = key
        self.remedy = remedy


def make_forms(texts: Mapping[FormKind, Sequence[str]], contains: Sequence[str] = ()) -> tuple[Form, ...]:
    """The forms of a pattern from their expressions; `contains` as `expression` says. Raises PatternError
    for the first that is not allowed."""
    for index, literal in enumerate(contains):
        if len(literal) < MIN_LITERAL or not set(literal).isdisjoint(ESCAPED) or not literal.isascii():
            raise PatternError(
                ("contains", index), "cannot be searched for", f"{MIN_LITERAL} or more plain characters"
            )
    needed = tuple(literal.encode() for literal in contains)
    forms = []
    for kind in KINDS:
        for index, text in enumerate(texts.get(kind, ())):
            try:
                form = Form(kind, expression(text, GROUPS, needed))
            except ExpressionError as error:
                raise PatternError((kind, index), str(error), error.remedy) from None
            forms.append(form)
    _check_together(forms)
    return tuple(forms)


def _check_together(forms: Sequence[Form]) -> None:
    remembered = {
        group for form in forms if form.kind == "first" for group in ("user", "address") if form.has(group)
    }
    logins = [form for form in forms if form.kind == "login"]
    if not logins:
        raise PatternError(
            ("login",), "names no line by which a login is recognised", "give login = ['^...']"
        )
    for index, form in enumerate(logins):
        for group, example in (("user", r"(?P<user>[^ ,]+)"), ("address", r"(?P<address>[0-9A-Fa-f.:]+)")):
            if not form.has(group) and group not in remembered:
                raise PatternError(
                    ("login", index),
                    f"names no {group}",
                    f"write {example}, here or in an expression of first",
                )
    for index, form in enumerate(form for form in forms if form.kind == "first"):
        if not form.has("user") and not form.has("address"):
            raise PatternError(("first", index), "names neither user nor address", r"write (?P<user>[^ ,]+)")


def probe_forms(pattern: Pattern) -> None:
    """Try the expressions on text that is made to take long. Raises PatternError. Patterns that are shipped
    were tried before."""
    seen: dict[FormKind, int] = {}
    for form in pattern.forms:
        index = seen[form.kind] = seen.get(form.kind, -1) + 1
        try:
            probe(form.expression.pattern.pattern, time.process_time, MAX_LINE)
        except ExpressionError as error:
            raise PatternError((form.kind, index), str(error), error.remedy) from None
