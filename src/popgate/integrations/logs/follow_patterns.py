"""The patterns that a site names for a log: those that are shipped, and files of its own."""

from collections.abc import Sequence

from popgate.integrations.logs.pattern import Pattern
from popgate.integrations.logs.pattern_files import shipped
from popgate.integrations.logs.pattern_set import PatternSetError, pattern_set

_SYSLOG = "syslog"
"""The syntax of patterns that have none of their own."""


class FollowError(ValueError):
    """A log cannot be followed as it is asked for; the text says why and what would be right."""


def patterns_of(names: Sequence[str]) -> list[Pattern]:
    """The patterns named, or in the files named; where no name is given all that are shipped and whose
    lines syslog writes. Raises FollowError."""
    if not names:
        return [pattern for pattern in shipped().values() if pattern.syntax == _SYSLOG]
    try:
        return pattern_set(names)
    except PatternSetError as error:
        raise FollowError(str(error)) from None
