"""A tree of parts as JSON, to be kept: compact, and exactly the same tree when read again.

A part is a list: type, subtype, parameters, encoding, start, body, end, lines, parts, then the rest of
its fields in their order as far as one of them is not empty.
"""

import json
from typing import Any

from popgate.message.part import Parameters, Part

_encoded = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), check_circular=False).encode
_decoded = json.JSONDecoder().decode


def to_json(part: Part) -> bytes:
    return _encoded(_as_list(part)).encode("utf-8", "surrogatepass")


def from_json(octets: bytes) -> Part:
    """Raises ValueError, TypeError or IndexError for what `to_json` has not written."""
    return _as_part(_decoded(octets.decode("utf-8", "surrogatepass")))


def _as_list(part: Part) -> list[Any]:
    found: list[Any] = [
        part.type,
        part.subtype,
        _flat(part.parameters),
        part.encoding,
        part.start,
        part.body,
        part.end,
        part.lines,
        [_as_list(child) for child in part.parts],
        part.id,
        part.description,
        part.md5,
        [part.disposition[0], _flat(part.disposition[1])] if part.disposition else None,
        part.languages,
        part.location,
    ]
    while not found[-1] and len(found) > 8 and found[-1] != "":
        found.pop()
    return found


def _flat(parameters: Parameters) -> list[str]:
    return [text for pair in parameters for text in pair]


def _pairs(flat: list[str]) -> Parameters:
    return tuple(zip(flat[::2], flat[1::2], strict=True))


def _as_part(found: list[Any]) -> Part:
    if len(found) == 8:
        return Part(found[0], found[1], _pairs(found[2]), *found[3:])
    type_, subtype, parameters, encoding, start, body, end, lines, parts, *others = found
    id_, description, md5, disposition, languages, location = others + [None] * (6 - len(others))
    return Part(
        type_,
        subtype,
        _pairs(parameters),
        encoding,
        start,
        body,
        end,
        lines,
        id_,
        description,
        md5,
        (disposition[0], _pairs(disposition[1])) if disposition else None,
        tuple(languages or ()),
        location,
        tuple([_as_part(part) for part in parts]),
    )
