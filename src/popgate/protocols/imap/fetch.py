"""What FETCH asks for, item by item. Macros (ALL, FAST, FULL) are resolved by the parser."""

from typing import Literal

from popgate.values.value import value


@value
class Attribute:
    """An item without arguments; `envelope`, `body` (structure without extension data),
    `bodystructure` and the rest of what RFC 9051 6.4.5, 7162, 8474 and 8970 name."""

    name: Literal[
        "uid",
        "flags",
        "internaldate",
        "rfc822.size",
        "envelope",
        "body",
        "bodystructure",
        "modseq",
        "emailid",
        "threadid",
    ]


@value
class Preview:
    """RFC 8970; `lazy`: only what is at hand."""

    lazy: bool = False


@value
class Section:
    """A part of the message. `label`: how the answer names it, partial origin included, such as
    `BODY[1.HEADER.FIELDS (FROM)]<0>` or `RFC822.TEXT`.

    `part`: numbers of the nested parts, () for the message itself. `what`: `all`, or the part of
    it that is meant. `fields`: upper-case names for HEADER.FIELDS and HEADER.FIELDS.NOT.
    `partial`: first octet and most octets. `peek`: \\Seen is not set. `binary` (RFC 3516): with the
    content transfer encoding taken off; `size_only`: BINARY.SIZE.
    """

    label: bytes
    part: tuple[int, ...] = ()
    what: Literal["all", "header", "header.fields", "header.fields.not", "text", "mime"] = "all"
    fields: tuple[str, ...] = ()
    partial: tuple[int, int] | None = None
    peek: bool = False
    binary: bool = False
    size_only: bool = False


FetchItem = Attribute | Preview | Section
