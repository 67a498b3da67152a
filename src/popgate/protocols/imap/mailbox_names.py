"""Names of mailboxes on the wire: modified UTF-7 (RFC 3501 5.1.3), or UTF-8.

Decoding is strict, so that a name has one spelling only and what looks harmless on the wire is
not something else in the directory: `&AC8-` is no `/`, and `&-&-` is nobody's way to hide a name.
What a folder may be called is the mailbox's business, not this module's.
"""

import binascii
import re

_SHIFTED = re.compile(rb"&([A-Za-z0-9+,]*)-")
_PLAIN = re.compile(rb"[\x20-\x25\x27-\x7e]*")
_NOT_PLAIN = re.compile(r"&|[^\x20-\x7e]+")
# RFC 5198 2 and 4: no control characters, C1 and the Unicode line ends among them
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]")

MAX_NAME_OCTETS = 1000


class BadName(ValueError):
    """It is no name in this encoding."""


def decode_utf7(octets: bytes) -> str:
    """Modified UTF-7. Raises BadName, also for a spelling that encode_utf7 would not choose."""
    parts: list[str] = []
    at = 0
    while True:
        plain = _PLAIN.match(octets, at)
        if plain:
            parts.append(plain[0].decode("ascii"))
            at = plain.end()
        if at == len(octets):
            break
        shifted = _SHIFTED.match(octets, at)
        if not shifted:
            raise BadName("not modified UTF-7")
        parts.append(_decode_shifted(shifted[1]) if shifted[1] else "&")
        at = shifted.end()
    name = "".join(parts)
    # Catches shifts of what needs none, two shifts in a row and stray bits in the last character.
    if b"&" in octets and encode_utf7(name) != octets:
        raise BadName("modified UTF-7 is not in its one form")
    return name


def _decode_shifted(letters: bytes) -> str:
    padding = b"=" * (-len(letters) % 4)
    try:
        units = binascii.a2b_base64(letters.replace(b",", b"/") + padding)
        return units.decode("utf-16-be")  # no half of a surrogate pair alone
    except ValueError as error:
        raise BadName("not modified UTF-7") from error


def encode_utf7(name: str) -> bytes:
    return _NOT_PLAIN.sub(_shift, name).encode("ascii")


def _shift(found: re.Match[str]) -> str:
    text = found[0]
    if text == "&":
        return "&-"
    letters = binascii.b2a_base64(text.encode("utf-16-be"), newline=False)
    return "&" + letters.rstrip(b"=").replace(b"/", b",").decode("ascii") + "-"


def encode_name(name: str, *, is_utf8: bool) -> bytes:
    """The name as it goes to the client, without quotes."""
    return name.encode("utf-8") if is_utf8 else encode_utf7(name)


def decode_name(octets: bytes, *, is_utf8: bool) -> str:
    """The name, with INBOX (RFC 9051 5.1: in any case) spelt so, also as the first of several levels.

    Raises BadName: it is not in the encoding, too long, or holds control characters.
    """
    if len(octets) > MAX_NAME_OCTETS:
        raise BadName("too long")
    if is_utf8:
        try:
            name = octets.decode("utf-8")
        except UnicodeDecodeError as error:
            raise BadName("not UTF-8") from error
    else:
        name = decode_utf7(octets)
    if _CONTROL.search(name):
        raise BadName("control character")
    if name[:5].upper() == "INBOX" and name[5:6] in ("", "/"):
        name = "INBOX" + name[5:]
    return name


_WILDCARDS = re.compile(r"[*%]{2,}")


def decode_pattern(octets: bytes, *, is_utf8: bool) -> str:
    """A pattern of LIST: a name with wildcards, runs of which are made one: `%*%` matches what `*` does."""
    pattern = decode_name(octets, is_utf8=is_utf8)
    return _WILDCARDS.sub(lambda run: "*" if "*" in run[0] else "%", pattern)
