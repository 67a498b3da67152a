"""The wire form of what an IMAP server tells: strings, the items of FETCH, and whole untagged lines.

Pure functions from values to octets. Text is str as `popgate.message` and the folders have it:
octets of a header that are no UTF-8 come in as surrogate escapes and go out as they came. A
string is quoted where its octets permit and a literal where not, so nothing that a message
holds can end a line or a string early. `is_utf8`: the client has enabled UTF8=ACCEPT or
IMAP4rev2, and takes UTF-8 in quoted strings and in names of mailboxes.

Kept whole: it is a list of forms, each of which is looked up and none of which knows another.
"""

import datetime
import re
from collections.abc import Callable, Iterable, Sequence

from popgate.message.part import Address, Envelope, Parameters, Part
from popgate.protocols.imap.mailbox_names import encode_name

NIL = b"NIL"

MOST_QUOTED = 1024
"""A longer string is a literal: some clients have a bound on a line, none on what a literal holds."""

DEEPEST = 100
"""Parts nested deeper than so are told as a block of octets."""

# RFC 9051 9: ATOM-CHAR without "]", which is legal in an astring and which some clients fail on
_ATOM = re.compile(rb"[!#$&'+,\-./0-9:;<=>?@A-Z\[^_`a-z|}~]+")
_QUOTABLE = re.compile(rb"[\x01-\x09\x0b\x0c\x0e-\x7f]*")
_QUOTABLE_UTF8 = re.compile(rb"[\x01-\x09\x0b\x0c\x0e-\x7f\x80-\xff]*")
_MONTHS = b"Jan Feb Mar Apr May Jun Jul Aug Sep Oct Nov Dec".split()


# Strings


def string(text: str | bytes, *, is_utf8: bool = False) -> bytes:
    """RFC 9051 4.3: quoted where possible. A NUL, which no string can hold, becomes `?`."""
    octets = text if isinstance(text, bytes) else text.encode("utf-8", "surrogateescape")
    if len(octets) <= MOST_QUOTED:
        if _QUOTABLE.fullmatch(octets):
            return _quote(octets)
        if is_utf8 and _QUOTABLE_UTF8.fullmatch(octets) and _is_utf8(octets):
            return _quote(octets)
    return literal(octets.replace(b"\0", b"?"))


def nstring(text: str | bytes | None, *, is_utf8: bool = False) -> bytes:
    """`string`, or NIL for None."""
    return NIL if text is None else string(text, is_utf8=is_utf8)


def astring(text: str | bytes, *, is_utf8: bool = False) -> bytes:
    """An atom where it can be one, else `string`."""
    octets = text if isinstance(text, bytes) else text.encode("utf-8", "surrogateescape")
    # NIL as an astring is a word like others, but a client may read it otherwise
    if len(octets) <= MOST_QUOTED and _ATOM.fullmatch(octets) and octets.upper() != NIL:
        return octets
    return string(octets, is_utf8=is_utf8)


def mailbox(name: str, *, is_utf8: bool = False) -> bytes:
    """A mailbox's name: UTF-8, or modified UTF-7 (RFC 3501 5.1.3) for clients that want that."""
    return astring(encode_name(name, is_utf8=is_utf8), is_utf8=is_utf8)


def literal(octets: bytes) -> bytes:
    return b"{%d}\r\n%b" % (len(octets), octets)


def literal_head(octets: int, *, is_binary: bool = False) -> bytes:
    """What stands before a literal that is sent in pieces; `is_binary`: literal8 (RFC 3516 4.3),
    for content that may hold NUL."""
    return b"~{%d}\r\n" % octets if is_binary else b"{%d}\r\n" % octets


def flag_list(flags: Iterable[str]) -> bytes:
    """`(\\Seen $Forwarded)`, in the order given."""
    return b"(" + " ".join(flags).encode("ascii", "replace") + b")"


def internal_date(seconds: int, offset_minutes: int = 0) -> bytes:
    """RFC 9051 9 date-time of a Unix time, told in the zone `offset_minutes` east of UTC."""
    seconds = min(max(seconds, 86400), 253402214400)  # 1970 to 9999: what a date can be in any zone
    offset_minutes = min(max(offset_minutes, -1439), 1439)
    local = _EPOCH + datetime.timedelta(seconds=seconds, minutes=offset_minutes)
    hours, minutes = divmod(abs(offset_minutes), 60)
    return b'"%2d-%b-%04d %02d:%02d:%02d %b%02d%02d"' % (
        local.day,
        _MONTHS[local.month - 1],
        local.year,
        local.hour,
        local.minute,
        local.second,
        b"-" if offset_minutes < 0 else b"+",
        hours,
        minutes,
    )


_EPOCH = datetime.datetime(1970, 1, 1)


def compact(uids: Sequence[int]) -> bytes:
    """The set that names just these numbers, which rise: `1:3,7`. b"" for none.

    Between two numbers that lie as far apart as their places there is nothing but the numbers
    between them; so the end of a run is searched for in growing steps, not walked to.
    """
    count = len(uids)
    ranges: list[bytes] = []
    at = 0
    while at < count:
        first, last, step = uids[at], at, 1
        while last + step < count and uids[last + step] - first == last + step - at:
            last += step
            step *= 2
        while step > 1:
            step //= 2
            if last + step < count and uids[last + step] - first == last + step - at:
                last += step
        ranges.append(b"%d" % first if last == at else b"%d:%d" % (first, uids[last]))
        at = last + 1
    return b",".join(ranges)


def in_order(uids: Sequence[int]) -> bytes:
    """The set that names these numbers in this order, as COPYUID's pairs need it (RFC 4315 3)."""
    ranges: list[bytes] = []
    at, count = 0, len(uids)
    while at < count:
        first = last = uids[at]
        at += 1
        while at < count and uids[at] == last + 1:
            last += 1
            at += 1
        ranges.append(b"%d" % first if last == first else b"%d:%d" % (first, last))
    return b",".join(ranges)


# FETCH


def envelope(of: Envelope, *, is_utf8: bool = False) -> bytes:
    """RFC 9051 7.5.2 ENVELOPE's value."""
    return b"(%b %b %b %b %b %b %b %b %b %b)" % (
        nstring(of.date, is_utf8=is_utf8),
        nstring(of.subject, is_utf8=is_utf8),
        _addresses(of.from_, is_utf8),
        _addresses(of.sender, is_utf8),
        _addresses(of.reply_to, is_utf8),
        _addresses(of.to, is_utf8),
        _addresses(of.cc, is_utf8),
        _addresses(of.bcc, is_utf8),
        nstring(of.in_reply_to, is_utf8=is_utf8),
        nstring(of.message_id, is_utf8=is_utf8),
    )


def body_structure(
    part: Part, *, extended: bool, embedded: Callable[[Part], Envelope], is_utf8: bool = False
) -> bytes:
    """RFC 9051 7.5.2 BODYSTRUCTURE's value, or with `extended` False BODY's. `embedded` gives the
    envelope of the one message in a message/rfc822 part, whose own part it is called with."""
    return _structure(part, extended, embedded, is_utf8, DEEPEST)


def fetch_line(number: int, items: Sequence[bytes]) -> bytes:
    """`items`: each with its name, such as b"UID 7"."""
    return b"* %d FETCH (%b)\r\n" % (number, b" ".join(items))


def _structure(
    part: Part, extended: bool, embedded: Callable[[Part], Envelope], is_utf8: bool, deepest: int
) -> bytes:
    if part.is_multipart and part.parts and deepest:
        told = [b"("]
        told += [_structure(one, extended, embedded, is_utf8, deepest - 1) for one in part.parts]
        told += (b" ", string(part.subtype, is_utf8=is_utf8))
        if extended:
            told += (b" ", _parameters(part.parameters, is_utf8), _extension(part, is_utf8))
        told.append(b")")
        return b"".join(told)
    kind, subtype = part.type, part.subtype
    fields: list[bytes] = []
    if part.is_message and deepest:
        inner = part.parts[0]
        fields = [
            envelope(embedded(inner), is_utf8=is_utf8),
            _structure(inner, extended, embedded, is_utf8, deepest - 1),
            b"%d" % part.lines,
        ]
    elif kind == "text":
        fields = [b"%d" % part.lines]
    elif kind == "multipart" or (kind == "message" and subtype in ("rfc822", "global")):
        # The grammar has them with parts or a message in them only; nobody saw any in this one
        kind, subtype = ("text", "plain") if kind == "multipart" else ("application", "octet-stream")
        fields = [b"%d" % part.lines] if kind == "text" else []
    told = [
        string(kind, is_utf8=is_utf8),
        string(subtype, is_utf8=is_utf8),
        _parameters(part.parameters, is_utf8),
        nstring(part.id, is_utf8=is_utf8),
        nstring(part.description, is_utf8=is_utf8),
        string(part.encoding or "7bit", is_utf8=is_utf8),
        b"%d" % part.octets,
        *fields,
    ]
    if extended:
        told.append(nstring(part.md5, is_utf8=is_utf8) + _extension(part, is_utf8))
    return b"(" + b" ".join(told) + b")"


def _extension(part: Part, is_utf8: bool) -> bytes:
    """What RFC 9051 has at the end of both forms: disposition, languages, location."""
    disposition = NIL
    if part.disposition is not None:
        name, parameters = part.disposition
        disposition = b"(%b %b)" % (string(name, is_utf8=is_utf8), _parameters(parameters, is_utf8))
    languages = NIL
    if len(part.languages) == 1:
        languages = string(part.languages[0], is_utf8=is_utf8)
    elif part.languages:
        languages = b"(" + b" ".join([string(one, is_utf8=is_utf8) for one in part.languages]) + b")"
    return b" %b %b %b" % (disposition, languages, nstring(part.location, is_utf8=is_utf8))


def _parameters(parameters: Parameters, is_utf8: bool) -> bytes:
    if not parameters:
        return NIL
    told = [string(text, is_utf8=is_utf8) for parameter in parameters for text in parameter]
    return b"(" + b" ".join(told) + b")"


def _addresses(addresses: tuple[Address, ...], is_utf8: bool) -> bytes:
    if not addresses:
        return NIL
    return b"(" + b"".join([_address(one, is_utf8) for one in addresses]) + b")"


def _address(one: Address, is_utf8: bool) -> bytes:
    return b"(%b %b %b %b)" % (
        nstring(one.name, is_utf8=is_utf8),
        nstring(one.route, is_utf8=is_utf8),
        nstring(one.mailbox, is_utf8=is_utf8),
        nstring(one.host, is_utf8=is_utf8),
    )


# Lines about mailboxes


def list_line(
    attributes: Iterable[str],
    name: str,
    *,
    delimiter: str | None = "/",
    is_utf8: bool = False,
    child_info: Iterable[str] = (),
    old_name: str | None = None,
    is_lsub: bool = False,
) -> bytes:
    """RFC 9051 7.3.1. `child_info`: the options whose criteria a child of it matches (RFC 5258 3.5)."""
    extended = []
    children = [b'"%b"' % one.encode("ascii", "replace") for one in child_info]
    if children:
        extended.append(b'"CHILDINFO" (' + b" ".join(children) + b")")
    if old_name is not None:
        extended.append(b'"OLDNAME" (' + mailbox(old_name, is_utf8=is_utf8) + b")")
    return b"* %b %b %b %b%b\r\n" % (
        b"LSUB" if is_lsub else b"LIST",
        flag_list(attributes),
        nstring(delimiter),
        mailbox(name, is_utf8=is_utf8),
        b" (" + b" ".join(extended) + b")" if extended else b"",
    )


def status_line(name: str, items: Iterable[tuple[str, int | str | None]], *, is_utf8: bool = False) -> bytes:
    """RFC 9051 7.3.4. An item's value: a number, an object id (told in parentheses), or None (NIL)."""
    told = []
    for item, amount in items:
        if amount is None:
            text = NIL
        elif isinstance(amount, int):
            text = b"%d" % amount
        else:
            text = b"(" + amount.encode("ascii", "replace") + b")"
        told.append(item.encode("ascii", "replace") + b" " + text)
    return b"* STATUS %b (%b)\r\n" % (mailbox(name, is_utf8=is_utf8), b" ".join(told))


def namespace_line(
    personal: Sequence[tuple[str, str | None]] = (("", "/"),),
    others: Sequence[tuple[str, str | None]] = (),
    shared: Sequence[tuple[str, str | None]] = (),
    *,
    is_utf8: bool = False,
) -> bytes:
    """RFC 2342 5: each namespace a prefix and its delimiter."""
    told = []
    for spaces in (personal, others, shared):
        pairs = [
            b"(%b %b)" % (string(encode_name(prefix, is_utf8=is_utf8), is_utf8=is_utf8), nstring(delimiter))
            for prefix, delimiter in spaces
        ]
        told.append(b"(" + b"".join(pairs) + b")" if pairs else NIL)
    return b"* NAMESPACE " + b" ".join(told) + b"\r\n"


def quota_line(root: str, resources: Iterable[tuple[str, int, int]], *, is_utf8: bool = False) -> bytes:
    """RFC 9208 4.2.1: each resource with its usage and its limit (STORAGE in units of 1024 octets)."""
    told = [
        b"%b %d %d" % (resource.encode("ascii", "replace"), usage, limit)
        for resource, usage, limit in resources
    ]
    return b"* QUOTA %b (%b)\r\n" % (_root(root, is_utf8), b" ".join(told))


def quota_root_line(name: str, roots: Iterable[str], *, is_utf8: bool = False) -> bytes:
    """RFC 9208 4.2.2."""
    told = [mailbox(name, is_utf8=is_utf8), *[_root(one, is_utf8) for one in roots]]
    return b"* QUOTAROOT " + b" ".join(told) + b"\r\n"


def _root(root: str, is_utf8: bool) -> bytes:
    return astring(root, is_utf8=is_utf8)


# Lines about the selected mailbox


def exists_line(count: int) -> bytes:
    return b"* %d EXISTS\r\n" % count


def recent_line(count: int) -> bytes:
    return b"* %d RECENT\r\n" % count


def expunge_line(number: int) -> bytes:
    return b"* %d EXPUNGE\r\n" % number


def flags_line(flags: Iterable[str]) -> bytes:
    return b"* FLAGS " + flag_list(flags) + b"\r\n"


def ok_line(code: bytes, text: bytes) -> bytes:
    """An untagged OK with a response code: `* OK [UIDNEXT 7] text`."""
    return b"* OK [%b] %b\r\n" % (code, text)


def vanished_line(uids: Sequence[int], *, earlier: bool = False) -> bytes:
    """RFC 7162 3.2.10; `uids` rise. b"" for none."""
    if not uids:
        return b""
    return b"* VANISHED %b%b\r\n" % (b"(EARLIER) " if earlier else b"", compact(uids))


def search_line(numbers: Iterable[int], *, modseq: int | None = None) -> bytes:
    """RFC 3501 7.2.5; `modseq` (RFC 7162 3.1.5) is told only with results."""
    return _numbers_line(b"* SEARCH", numbers, modseq)


def sort_line(numbers: Iterable[int], *, modseq: int | None = None) -> bytes:
    """RFC 5256 4."""
    return _numbers_line(b"* SORT", numbers, modseq)


def _numbers_line(name: bytes, numbers: Iterable[int], modseq: int | None) -> bytes:
    told = " ".join(map(str, numbers)).encode("ascii")
    if not told:
        return name + b"\r\n"
    return name + b" " + told + (b"" if modseq is None else b" (MODSEQ %d)" % modseq) + b"\r\n"


def esearch_line(
    tag: bytes,
    *,
    uid: bool = False,
    least: int | None = None,
    greatest: int | None = None,
    numbers: bytes = b"",
    count: int | None = None,
    modseq: int | None = None,
) -> bytes:
    """RFC 9051 7.3.4 ESEARCH, MIN and MAX first. `numbers`: what `compact` makes of ALL; b"" is left
    out, as ALL is of a search without results."""
    told = [b'* ESEARCH (TAG "%b")' % tag]
    if uid:
        told.append(b"UID")
    if least is not None:
        told.append(b"MIN %d" % least)
    if greatest is not None:
        told.append(b"MAX %d" % greatest)
    if numbers:
        told.append(b"ALL " + numbers)
    if count is not None:
        told.append(b"COUNT %d" % count)
    if modseq is not None:
        told.append(b"MODSEQ %d" % modseq)
    return b" ".join(told) + b"\r\n"


def _quote(octets: bytes) -> bytes:
    if b"\\" in octets or b'"' in octets:
        octets = octets.replace(b"\\", b"\\\\").replace(b'"', b'\\"')
    return b'"' + octets + b'"'


def _is_utf8(octets: bytes) -> bool:
    try:
        octets.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True
