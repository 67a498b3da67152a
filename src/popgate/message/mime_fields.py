"""The MIME fields of a part: Content-Type and its sisters, read as kindly as senders need.

Knows the grammar of RFC 2045, 2183, 2231 and 3282, nothing of bodies or offsets.
"""

import re
from urllib.parse import unquote_to_bytes

from popgate.message import header as fields
from popgate.message.charset import decoded
from popgate.message.part import Parameters

# RFC 2045 5.1: token = 1*<any (US-ASCII) CHAR except SPACE, CTLs, or tspecials>
_TYPE = re.compile(r"\s*+([^\s()<>@,;:\\\"/\[\]?=]++)\s*+/\s*+([^\s()<>@,;:\\\"/\[\]?=]++)")
_TOKEN = re.compile(r"\s*+([^\s()<>@,;:\\\"/\[\]?=]++)")
_PARAMETER = re.compile(r';\s*+([^\s=;"]++)\s*+=\s*+("(?:[^"\\]|\\.)*+"?|[^;]*+)', re.DOTALL)
_ESCAPE = re.compile(r"\\(.)", re.DOTALL)
_COMMENT_BEHIND = re.compile(r"\s*+\([^()]*+\)\s*+$")
# RFC 2231 3 and 4: name*N*=..., name*N=..., name*=...
_CONTINUED = re.compile(r"^(.+?)\*(?:(\d{1,3})(\*)?)?$", re.DOTALL)
_COMMA = re.compile(r"[\s,]+")


def content_type(value: str) -> tuple[str, str, Parameters] | None:
    """Type, subtype, parameters; None for what is no media type (RFC 2045 5.2: text/plain then)."""
    match = _TYPE.match(value)
    if match is None:
        return None
    return match[1].lower(), match[2].lower(), parameters(value[match.end() :])


def disposition(value: str) -> tuple[str, Parameters] | None:
    """RFC 2183: the disposition and its parameters."""
    match = _TOKEN.match(value)
    if match is None:
        return None
    return match[1].lower(), parameters(value[match.end() :])


def transfer_encoding(value: str) -> str:
    """RFC 2045 6.1, lower-case; 7bit for what is none."""
    match = _TOKEN.match(value)
    return match[1].lower() if match else "7bit"


def languages(value: str) -> tuple[str, ...]:
    """RFC 3282: the tags."""
    return tuple(tag for tag in _COMMA.split(value) if tag)


def parameters(text: str) -> Parameters:
    """What follows the first `;` of `text`. Of parameters of one name the first counts."""
    found: dict[str, str] = {}
    pieces: dict[str, dict[int, tuple[str, bool]]] = {}
    for match in _PARAMETER.finditer(text):
        name, value = match[1].lower(), _unquoted(match[2])
        continued = _CONTINUED.match(name) if "*" in name else None
        if continued is None:
            if name not in pieces:
                found.setdefault(name, value)
            continue
        name = continued[1]
        is_extended = continued[2] is None or continued[3] is not None
        pieces.setdefault(name, {}).setdefault(int(continued[2] or 0), (value, is_extended))
        found.setdefault(name, "")
    for name, numbered in pieces.items():
        found[name] = _joined(numbered)
    return tuple(found.items())


def _unquoted(value: str) -> str:
    if value.startswith('"'):
        value = value[1:-1] if len(value) > 1 and value.endswith('"') else value[1:]
        return _ESCAPE.sub(r"\1", value) if "\\" in value else value
    # RFC 2045 5.1: a comment behind; but "filename=copy (1).pdf" is no comment
    if value.endswith(")"):
        value = _COMMENT_BEHIND.sub("", value)
    return value.strip()


def _joined(numbered: dict[int, tuple[str, bool]]) -> str:
    charset = ""
    octets: list[bytes] = []
    for number in range(len(numbered)):
        if number not in numbered:
            break
        value, is_extended = numbered[number]
        if is_extended and number == 0 and value.count("'") >= 2:
            charset, _, value = value.split("'", 2)
        octets.append(unquote_to_bytes(value) if is_extended else value.encode("utf-8", "replace"))
    return decoded(b"".join(octets), charset or "utf-8")


def text_of(raw: bytes | None) -> str | None:
    """The text of a field that has one."""
    return (fields.text(fields.unfold(raw)) or None) if raw is not None else None
