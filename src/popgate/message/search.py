"""Whether a message contains a text, as SEARCH asks: without case, encodings taken off.

Texts are compared as i;unicode-casemap (RFC 5051) does, with full case folding where that has title
case: both sides by `fold`, then octet for octet. Searched are the text of text parts and the headers of
messages within messages; with `in_header` all headers. What other parts contain, images and documents, is
not searched; nor are a multipart's preamble and epilogue, which no mail program shows. HTML is searched
as it is written, tags and all.
"""

import unicodedata
from collections.abc import Callable, Iterable, Iterator

from popgate.message.decode import charset_of, text_of
from popgate.message.header import end_of_field, text, unfold, value_of, values_of
from popgate.message.part import Part
from popgate.message.words import decode_words

__all__ = ["fold", "header_contains", "body_contains"]

Read = Callable[[int, int], Iterator[bytes]]
"""The octets of a message from an offset on, so many of them."""

_MOST_HEADER = 65536
_MOST_COMBINING = 32


def fold(text: str) -> str:
    """The form in which two texts that differ in case or in how they are composed are the same."""
    if text.isascii():
        return text.lower()
    # RFC 5051 2
    return unicodedata.normalize("NFKD", unicodedata.normalize("NFKD", text).casefold())


def header_contains(header: bytes, name: str, folded: str) -> bool:
    """Whether a field `name` contains the text; "" is in any such field (RFC 9051 6.4.4)."""
    if not folded:
        return value_of(header, name) is not None
    # a line may be folded at a tab, where the writer and the reader mean a space
    folded = folded.replace("\t", " ")
    return any(folded in fold(decode_words(value).replace("\t", " ")) for value in values_of(header, name))


def body_contains(root: Part, read: Read, folded: str, *, in_header: bool) -> bool:
    """Whether the body contains the text, or with `in_header` the whole message.

    `read(start, octets)` gives a range of the message in blocks; of them one is held at a time.
    """
    if not folded:
        return True
    open_parts = [(root, in_header)]
    while open_parts:
        part, searches_header = open_parts.pop()
        if searches_header and part.body > part.start:
            octets = b"".join(read(part.start, min(part.body - part.start, _MOST_HEADER)))
            if _in_text(iter((_header_text(octets),)), folded):
                return True
        if part.parts:
            open_parts += [(child, in_header or part.is_message) for child in reversed(part.parts)]
        elif part.type == "text" and part.end > part.body:
            blocks = read(part.body, part.end - part.body)
            if _in_text(text_of(blocks, part.encoding, charset_of(part.parameters)), folded):
                return True
    return False


def _header_text(octets: bytes) -> str:
    """The fields of a header in a line each, decoded."""
    lines = []
    at = 0
    while at < len(octets):
        end = end_of_field(octets, at)
        lines.append(decode_words(text(unfold(octets[at:end]))))
        at = end
    return "\n".join(lines)


def _in_text(pieces: Iterable[str], folded: str) -> bool:
    kept, before = "", ""
    for piece in pieces:
        piece = kept + piece
        cut = _cut(piece)
        kept = piece[cut:]
        window = before + fold(piece[:cut])
        if folded in window:
            return True
        before = window[-len(folded) + 1 :] if len(folded) > 1 else ""
    return folded in before + fold(kept)


def _cut(piece: str) -> int:
    """Where to cut so that no character is parted from those that combine with it."""
    if piece.isascii():
        return len(piece) - 1 if piece else 0
    for index in range(len(piece) - 1, max(len(piece) - _MOST_COMBINING, 0), -1):
        if not unicodedata.combining(piece[index]):
            return index
    return len(piece) if len(piece) > _MOST_COMBINING else 0
