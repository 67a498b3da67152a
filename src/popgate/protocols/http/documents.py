"""JSON documents and query strings, read strictly: one meaning or none."""

import json
from collections.abc import Sequence
from urllib.parse import unquote

from popgate.values.value import value


class DocumentError(ValueError):
    """What cannot be read; the text says why, without what the client sent."""


@value
class Fields:
    """An object of JSON. Each method raises DocumentError where a field has another type."""

    document: dict[str, object]

    def text(self, name: str) -> str | None:
        """A string, None where the field is missing or null."""
        found = self.document.get(name)
        if found is not None and not isinstance(found, str):
            raise DocumentError(f"{name} is not a string")
        return found

    def truth(self, name: str) -> bool:
        """A boolean that must be there."""
        found = self.document.get(name)
        if not isinstance(found, bool):
            raise DocumentError(f"{name} is not true or false")
        return found

    def object(self, name: str) -> "Fields":
        """An object that must be there."""
        found = self.document.get(name)
        if not isinstance(found, dict):
            raise DocumentError(f"{name} is not an object")
        return Fields(found)


def read_object(body: bytes) -> Fields:
    """RFC 8259 in UTF-8, an object, no name twice. Raises DocumentError."""
    try:
        document = json.loads(body.decode("utf-8"), object_pairs_hook=_once, parse_constant=_no_constant)
    except DocumentError:
        raise
    except (ValueError, RecursionError):
        raise DocumentError("the body is not JSON") from None
    if not isinstance(document, dict):
        raise DocumentError("the body is not an object")
    return Fields(document)


def _once(pairs: list[tuple[str, object]]) -> dict[str, object]:
    # RFC 8259 4: what a name that stands there twice means differs from reader to reader
    document = dict(pairs)
    if len(document) != len(pairs):
        raise DocumentError("a name stands there twice")
    return document


def _no_constant(name: str) -> object:
    raise DocumentError(f"{name} is not JSON")


def read_query(query: str, known: Sequence[str]) -> dict[str, list[str]]:
    """The parameters of a query string, each with its values. Raises DocumentError for a name that is
    not `known`, so that a misspelt one is not passed over.

    A plus sign is a plus sign: mail addresses have them more often than blanks.
    """
    found: dict[str, list[str]] = {}
    for pair in query.split("&") if query else ():
        name, equals, content = pair.partition("=")
        if name not in known or not equals:
            raise DocumentError(f"the parameters here are {', '.join(known)}, each with = and its value")
        try:
            found.setdefault(name, []).append(unquote(content, encoding="utf-8", errors="strict"))
        except UnicodeDecodeError:
            raise DocumentError(f"{name} is not UTF-8") from None
    return found
