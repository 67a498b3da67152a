"""The patterns that a site names for a log: those that are shipped, and files of its own."""

from collections.abc import Sequence

from popgate.integrations.logs.pattern import Pattern, PatternError
from popgate.integrations.logs.pattern_files import read_pattern, shipped

_PATTERN_OCTETS = 1 << 20
_SYSLOG = "syslog"
"""The syntax of patterns that have none of their own."""


class FollowError(ValueError):
    """A log cannot be followed as it is asked for; the text says why and what would be right."""


def patterns_of(names: Sequence[str]) -> list[Pattern]:
    """The patterns named, or in the files named; where no name is given all that are shipped and whose
    lines syslog writes. Raises FollowError."""
    if not names:
        return [pattern for pattern in shipped().values() if pattern.syntax == _SYSLOG]
    found = []
    for name in names:
        if "/" in name:
            found.append(_from_file(name))
        elif name in shipped():
            found.append(shipped()[name])
        else:
            raise FollowError(f"there is no pattern {name!r}; there are {', '.join(shipped())}")
    return found


def _from_file(path: str) -> Pattern:
    try:
        with open(path, encoding="utf-8") as file:
            return read_pattern(file.read(_PATTERN_OCTETS))
    except PatternError as error:
        key = ".".join(str(step) for step in error.key)
        raise FollowError(f"{path}: {key} {error}; {error.remedy}") from None
    except OSError as error:
        raise FollowError(f"{path}: {error.strerror}") from None
    except ValueError as error:
        raise FollowError(f"{path} is no pattern file: {error}") from None
