"""Encoded words (RFC 2047): text beyond ASCII in header fields.

Senders break the rules in every way, so what can be read is read: words within quoted strings, spaces
in a word, base64 without its padding. What cannot be read stays as it is written.
"""

import binascii
import re

from popgate.message.charset import decoded, whole

# RFC 2047 2: encoded-word = "=?" charset ["*" language] "?" encoding "?" encoded-text "?="
_WORD = re.compile(r"=\?([^?\s]{1,60}+)\?([bBqQ])\?([^?]*+)\?=")
_GAP = re.compile(r"(?<=\?=)[ \t\r\n]++(?==\?[^?\s]{1,60}\?[bBqQ]\?)")


def decode_words(text: str) -> str:
    """`text`, unfolded, with its encoded words as what they stand for."""
    if "=?" not in text:
        return text
    pieces: list[str] = []
    at = 0
    # RFC 2047 6.2: white space between adjacent words is dropped; octets of one character may
    # be split over two words of one charset, though 5 forbids it
    pending, charset = b"", ""
    text = _GAP.sub("", text)
    for match in _WORD.finditer(text):
        octets = _octets(match[2], match[3])
        between = text[at : match.start()]
        if octets is None:
            continue
        if between or match[1].lower() != charset:
            pieces += (decoded(pending, charset) if pending else "", between)
            pending, charset = b"", match[1].lower()
        pending += octets
        at = match.end()
    if pending:
        pieces.append(decoded(pending, charset))
    pieces.append(text[at:])
    return whole("".join(pieces))


def _octets(encoding: str, written: str) -> bytes | None:
    try:
        raw = written.encode("ascii")
    except UnicodeEncodeError:
        return None
    if encoding in "qQ":
        # RFC 2047 4.2: "_" is always the octet 20
        return binascii.a2b_qp(raw, header=True)
    raw = raw.rstrip(b"=")
    try:
        return binascii.a2b_base64(raw + b"=" * (-len(raw) % 4))
    except binascii.Error:
        return None
