"""Message ids as RFC 5256 compares them: without quoting, comments and white space."""

import re

_ID = re.compile(r"<([^<>]++)>")
_QUOTED = re.compile(r'"((?:[^"\\]|\\.)*+)"', re.DOTALL)
_ESCAPE = re.compile(r"\\(.)", re.DOTALL)
_SPACE = re.compile(r"\s+")


def message_ids(value: str) -> list[str]:
    """The ids in a field such as References, in their order, without angle brackets and normalised.

    What stands around them is skipped: RFC 5322 4.5.4 let phrases in.
    """
    return [normal for found in _ID.findall(value) if "@" in found and (normal := _normal(found))]


def _normal(written: str) -> str:
    # RFC 5256 3: <"01KF8JCEOCBS0045PS"@xxx.yyy.com> and <01KF8JCEOCBS0045PS@xxx.yyy.com> are one
    if '"' in written:
        written = _QUOTED.sub(lambda match: _ESCAPE.sub(r"\1", match[1]), written)
    return _SPACE.sub("", written)
