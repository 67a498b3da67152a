"""The charsets that SEARCH, SORT and THREAD take their texts in (RFC 9051 6.4.4)."""

from collections.abc import Callable

from popgate.protocols.imap.lexer import Syntax

_CODECS = {
    "US-ASCII": "ascii",
    "UTF-8": "utf-8",
    **{
        f"ISO-8859-{number}": f"iso8859-{number}"
        for number in (1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 13, 14, 15, 16)
    },
    **{f"WINDOWS-{number}": f"cp{number}" for number in range(1250, 1259)},
    "KOI8-R": "koi8-r",
    "KOI8-U": "koi8-u",
    "ISO-2022-JP": "iso2022-jp",
    "EUC-JP": "euc-jp",
    "SHIFT_JIS": "shift-jis",
    "EUC-KR": "euc-kr",
    "GB2312": "gb2312",
    "GBK": "gbk",
    "GB18030": "gb18030",
    "BIG5": "big5",
}
_OTHER_NAMES = {"ASCII": "US-ASCII", "UTF8": "UTF-8"}
CHARSETS = tuple(_CODECS)
_UNICODE = ("US-ASCII", "UTF-8")


def decoder(charset: bytes | None, *, is_utf8: bool) -> Callable[[bytes], str]:
    """What makes text of a string in `charset`; None: the client named none.

    Without one the text is US-ASCII (RFC 3501 6.4.4) or UTF-8 (RFC 9051); clients that send UTF-8 without
    saying so mean nothing else by it. With `is_utf8` strings are in UTF-8 whatever they are for
    (RFC 6855 3), so no other charset is taken. Raises Syntax; what it returns does, too.
    """
    codec = "utf-8"
    if charset is not None:
        name = charset.decode("latin-1").upper()
        name = _OTHER_NAMES.get(name, name)
        taken = _UNICODE if is_utf8 else CHARSETS
        if name not in taken:
            raise Syntax(b"Unknown charset", b"[BADCHARSET (" + " ".join(taken).encode("ascii") + b")]")
        codec = _CODECS[name]

    def decode(octets: bytes) -> str:
        try:
            return octets.decode(codec)
        except UnicodeDecodeError as error:
            raise Syntax(b"Text is not in the charset") from error

    return decode
