"""The first words of a message for lists of messages (RFC 8970): plain text before HTML, quotes last."""

import html
import re
from collections.abc import Callable, Iterator

from popgate.message.decode import charset_of, text_of
from popgate.message.part import Part

# RFC 8970 3.1: at most 200 characters, and all the client gets
MOST_CHARACTERS = 200
_MOST_PLAIN = 16384
_MOST_HTML = 131072
_SPACE = re.compile(r"[\s\u200b\u200c\u200d\u2060\ufeff\u034f\u00ad]+")
_CONTROL = re.compile(r"[\x00-\x08\x0e-\x1f\x7f]")
_SKIPPED = ("style", "script", "head", "title")
_NAME = re.compile(r"/?([A-Za-z][A-Za-z0-9]*+)")

Read = Callable[[int, int], Iterator[bytes]]


def preview(root: Part, read: Read) -> str:
    """Up to 200 characters of text; "" where there is none. `read(start, octets)` as for SEARCH."""
    plain, rich = _texts(root)
    for part in (plain, rich):
        if part is not None:
            found = _shortened(_words(_lines(part, read)))
            if found:
                return found
    return ""


def _texts(root: Part) -> tuple[Part | None, Part | None]:
    """The first text/plain and the first text/html that are no attachments."""
    plain = rich = None
    open_parts = [root]
    while open_parts:
        part = open_parts.pop()
        if part.disposition and part.disposition[0] == "attachment":
            continue
        if part.is_multipart:
            open_parts += reversed(part.parts)
        elif part.type == "text" and part.octets:
            if part.subtype == "html":
                rich = rich or part
            elif part.subtype == "plain":
                plain = plain or part
    return plain, rich


def _lines(part: Part, read: Read) -> list[str]:
    most = _MOST_HTML if part.subtype == "html" else _MOST_PLAIN
    blocks = read(part.body, min(part.octets, most))
    text = "".join(text_of(blocks, part.encoding, charset_of(part.parameters)))
    return (_without_tags(text) if part.subtype == "html" else text).splitlines()


def _without_tags(text: str) -> str:
    """HTML's text: elements that show nothing are skipped, other tags are white space."""
    pieces = []
    lower = text.lower() if text.isascii() else "".join([character.lower()[:1] for character in text])
    at = 0
    while True:
        begin = text.find("<", at)
        if begin < 0:
            pieces.append(text[at:])
            break
        pieces.append(text[at:begin])
        if text.startswith("<!--", begin):
            closing, begin = "-->", begin + 4
        else:
            name = _NAME.match(text, begin + 1)
            if name is None and not text.startswith("!", begin + 1):
                pieces.append("<")
                at = begin + 1
                continue
            element = name[1].lower() if name and text[begin + 1] != "/" else ""
            if element in ("br", "p", "div", "tr", "li", "blockquote"):
                pieces.append("\n> " if element == "blockquote" else "\n")
            else:
                pieces.append(" " if element not in _INLINE else "")
            closing = f"</{element}" if element in _SKIPPED else ">"
        end = lower.find(closing, begin)
        if end < 0:
            break
        at = end if closing.startswith("</") else end + len(closing)
    return html.unescape("".join(pieces))


_INLINE = ("", "b", "i", "u", "em", "strong", "a", "span", "font", "code", "tt", "small", "big", "sub", "sup")


def _words(lines: list[str]) -> str:
    """The lines that are not quoted, as one; where all are quoted, all of them."""
    own: list[str] = []
    for number, line in enumerate(lines):
        stripped = line.strip()
        if stripped.startswith(">"):
            continue
        if stripped == "--" and line.startswith("-- ") and any(own):
            break  # the signature
        if stripped.endswith(":") and _is_quoted_next(lines, number + 1):
            continue  # "On Monday Ann wrote:"
        own.append(stripped)
    return _one_line(own) or _one_line([line.strip().lstrip("> ") for line in lines])


def _is_quoted_next(lines: list[str], number: int) -> bool:
    for line in lines[number : number + 2]:
        stripped = line.strip()
        if stripped:
            return stripped.startswith(">")
    return False


def _one_line(lines: list[str]) -> str:
    return _SPACE.sub(" ", _CONTROL.sub("", " ".join(lines))).strip()


def _shortened(text: str) -> str:
    if len(text) <= MOST_CHARACTERS:
        return text
    cut = text.rfind(" ", MOST_CHARACTERS // 2, MOST_CHARACTERS + 1)
    return text[: cut if cut > 0 else MOST_CHARACTERS]
