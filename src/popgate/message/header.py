"""The header of a message as octets: its fields, some of them by name, their text.

Input is the wire form with or without the closing empty line, whatever the octets: a line end is LF
with or without a CR before it, and a line that is no field is kept where it stands. Names of fields
are compared without case. What a field means is other modules' business.
"""

import re
from collections.abc import Iterable, Iterator

# RFC 5322 2.2.3: a field goes on in lines that begin with a space or a tab
_FIELD = re.compile(rb"[^\n]*+\n(?:[ \t][^\n]*+(?:\n|\Z))*+|[^\n]++\Z")
_FOLD = re.compile(rb"\r?\n(?=[ \t])")


def fields(header: bytes) -> list[tuple[bytes, bytes]]:
    """Each field's name as written and its octets with fold and line end, up to the empty line.

    The name of a line without a colon is b"".
    """
    found = []
    for raw in _FIELD.findall(header):
        if raw in (b"\r\n", b"\n"):
            break
        found.append((_name(raw), raw))
    return found


def _name(raw: bytes) -> bytes:
    colon = raw.find(b":", 0, raw.find(b"\n") if b"\n" in raw else len(raw))
    return raw[:colon].rstrip(b" \t") if colon > 0 else b""


def select(header: bytes, names: Iterable[str], *, but_not: bool = False) -> bytes:
    """The fields of these names, or all others, in their order and with an empty line behind."""
    # RFC 9051 6.4.5: HEADER.FIELDS and HEADER.FIELDS.NOT
    wanted = {name.lower().encode("utf-8", "replace") for name in names}
    chosen = [raw for name, raw in fields(header) if (name.lower() in wanted) is not but_not]
    if chosen and not chosen[-1].endswith(b"\n"):
        chosen[-1] += b"\r\n"
    chosen.append(b"\r\n")
    return b"".join(chosen)


def raw_values(header: bytes, name: str) -> Iterator[bytes]:
    """What stands behind the colon in each field of that name, folds and line end included."""
    wanted = name.lower().encode("utf-8", "replace")
    lower = header.lower()
    at = 0 if lower.startswith(wanted) else lower.find(b"\n" + wanted) + 1
    while at or lower.startswith(wanted):
        begin = at + len(wanted)
        while header[begin : begin + 1] in (b" ", b"\t"):
            begin += 1
        end = end_of_field(header, begin)
        if header[begin : begin + 1] == b":" and wanted:
            yield header[begin + 1 : end]
        at = lower.find(b"\n" + wanted, end - 1) + 1
        if not at:
            return


def end_of_field(header: bytes, at: int) -> int:
    while True:
        at = header.find(b"\n", at) + 1
        if not at:
            return len(header)
        if header[at : at + 1] not in (b" ", b"\t"):
            return at


def unfold(value: bytes) -> bytes:
    """The value in one line: only the line ends of folds go (RFC 5322 2.2.3), and white space around it."""
    if b"\n" in value:
        value = _FOLD.sub(b"", value)
    return value.strip(b" \t\r\n")


def text(octets: bytes) -> str:
    """Octets of a header as text: UTF-8 where they are (RFC 6532), Latin-1 where not."""
    try:
        return octets.decode()
    except UnicodeDecodeError:
        return octets.decode("latin-1")


def value_of(header: bytes, name: str) -> str | None:
    """The first field of that name, unfolded; encoded words stay. None where there is none."""
    for value in raw_values(header, name):
        return text(unfold(value))
    return None


def values_of(header: bytes, name: str) -> list[str]:
    """All fields of that name, unfolded, in their order."""
    return [text(unfold(value)) for value in raw_values(header, name)]
