"""Character sets by the names that mail uses, and text without half characters.

A name is looked up in a fixed table before Python's codecs are asked: they look for a module of any
name, and remember each that they did not find for ever.
"""

import codecs
from encodings.aliases import aliases

# No character sets, whatever Python calls them; decoding some takes time that is quadratic in the length.
_NOT_CHARSETS = {"idna", "punycode", "undefined", "unicode_escape", "raw_unicode_escape", "mbcs", "oem"}
_NOT_CHARSETS |= {"base64_codec", "bz2_codec", "hex_codec", "quopri_codec", "rot_13"}
_NOT_CHARSETS |= {"uu_codec", "zlib_codec"}
# Names that senders write and Python lacks, and sets whose larger brother is meant.
_OTHER_NAMES = {
    "ascii": "utf_8",
    "us_ascii": "utf_8",
    "unknown_8bit": "utf_8",
    "utf8": "utf_8",
    "x_utf_8": "utf_8",
    "gb2312": "gb18030",
    "gbk": "gb18030",
    "x_gbk": "gb18030",
    "euc_kr": "cp949",
    "ks_c_5601_1987": "cp949",
    "x_sjis": "cp932",
    "x_mac_roman": "mac_roman",
    "macintosh": "mac_roman",
    "windows_874": "cp874",
    "iso_8859_8_i": "iso8859_8",
    "iso_8859_8_e": "iso8859_8",
    "iso_8859_6_i": "iso8859_6",
    "unicode_1_1_utf_7": "utf_7",
    "shift_jis": "cp932",
    "iso_2022_jp": "iso2022_jp_2",
}
_KNOWN = {name: codec for name, codec in aliases.items() if codec not in _NOT_CHARSETS}
_KNOWN.update((codec, codec) for codec in aliases.values() if codec not in _NOT_CHARSETS)
_NO_ALIASES = ("utf_8_sig", "koi8_u", "koi8_t", "cp720", "cp737", "cp856", "cp874", "cp875", "cp1006")
_KNOWN.update((name, name) for name in (*_NO_ALIASES, "mac_croatian", "mac_farsi", "mac_romanian"))
_KNOWN.update(_OTHER_NAMES)
_KNOWN.update((f"iso_8859_{number}", f"iso8859_{number}") for number in range(1, 17) if number != 12)
_LONGEST_NAME = 40


def codec_of(charset: str) -> str | None:
    """The name of Python's codec for `charset`; None for what is no character set that we know."""
    if len(charset) > _LONGEST_NAME:
        return None
    name = charset.strip().lower().replace("-", "_").replace(" ", "_")
    codec = _KNOWN.get(name) or _KNOWN.get(name.partition("*")[0])
    if codec is None and name.startswith(("x_", "cs")):
        codec = _KNOWN.get(name.removeprefix("x_").removeprefix("cs"))
    return codec


def whole(text: str) -> str:
    """The text with U+FFFD for lone surrogates, which some codecs let through: any encoder takes it."""
    return text if text.isascii() else text.encode("utf-8", "surrogatepass").decode("utf-8", "replace")


def decoded(octets: bytes, charset: str) -> str:
    """`octets` as text, with U+FFFD for what is none; an unknown `charset` is UTF-8 or else Latin-1."""
    codec = codec_of(charset) or "utf_8"
    if codec == "utf_8":
        try:
            return octets.decode()
        except UnicodeDecodeError:
            return octets.decode("latin-1" if codec_of(charset) != "utf_8" else "utf-8", "replace")
    return whole(octets.decode(codec, "replace"))


def decoder(charset: str) -> codecs.IncrementalDecoder:
    """The same in pieces, for text that is too long to hold."""
    return codecs.getincrementaldecoder(codec_of(charset) or "utf_8")("replace")
