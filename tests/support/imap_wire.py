"""What an IMAP server says, read by the grammar of RFC 9051 and its extensions: anything else is an error.

A check that is independent of the server under test, so it imports nothing of popgate. `parse` takes
one response with its literals inside and returns a Response; `tree` gives the same octets as atoms,
strings and lists, for comparison with what a script expects.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, field

Node = str | bytes | None | list["Node"]
Envelope = tuple[object, ...]


class Malformed(AssertionError):
    """The server's words are no IMAP."""


@dataclass
class Response:
    """`tag`: `*`, `+` or the command's. `kind`: upper-case word. `code`: the response code's atom and what
    follows it in the brackets; `items`: of FETCH, by upper-case name; `values`: of other data."""

    tag: str
    kind: str
    raw: bytes
    number: int = 0
    code: str = ""
    code_values: list[Node] = field(default_factory=list)
    text: str = ""
    items: dict[str, object] = field(default_factory=dict)
    values: list[Node] = field(default_factory=list)


_ATOM = re.compile(rb"[^\x00-\x20\x7f-\xff(){%*\"\\\]]+")
_ASTRING = re.compile(rb"[^\x00-\x20\x7f-\xff(){%*\"\\]+")
_FLAG = re.compile(rb"\\?[^\x00-\x20\x7f-\xff(){%*\"\\\]]+|\\\*")
_NUMBER = re.compile(rb"0|[1-9][0-9]*")
_SET = re.compile(rb"[1-9][0-9]*(?::[1-9][0-9]*)?(?:,[1-9][0-9]*(?::[1-9][0-9]*)?)*")
_QUOTED = re.compile(rb"\"((?:[^\x00\r\n\"\\]|\\[\"\\])*)\"")
_LITERAL = re.compile(rb"(~?)\{([0-9]+)\}\r\n")
_DATE = re.compile(
    rb"(?: [1-9]|0[1-9]|[12][0-9]|3[01])-(?:Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec)-[0-9]{4} "
    rb"[0-2][0-9]:[0-5][0-9]:[0-6][0-9] [+-][0-9]{4}"
)
_SECTION = re.compile(
    rb"\[(?:[1-9][0-9]*(?:\.[1-9][0-9]*)*)?(?:(?:(?<=[0-9])\.)?"
    rb"(?:HEADER\.FIELDS(?:\.NOT)? \([^()\r\n]+\)|HEADER|TEXT|(?<=\.)MIME))?\](?:<[0-9]+>)?",
    re.IGNORECASE,
)
_OBJECT_ID = re.compile(rb"[A-Za-z0-9_-]{1,255}")


def numbers(text: str) -> list[int]:
    """The members of a set, in its order, ranges written out upward."""
    result: list[int] = []
    for part in text.split(","):
        low, _, high = part.partition(":")
        ends = sorted((int(low), int(high or low)))
        result.extend(range(ends[0], ends[1] + 1))
    return result


class Reader:
    """A place in the octets of one response."""

    def __init__(self, data: bytes, *, is_utf8: bool = False) -> None:
        self.data, self.at, self.is_utf8 = data, 0, is_utf8

    def fail(self, wanted: str) -> Malformed:
        return Malformed(f"{wanted} wanted at {self.data[self.at : self.at + 60]!r} of {self.data[:600]!r}")

    def match(self, pattern: re.Pattern[bytes], wanted: str) -> bytes:
        found = pattern.match(self.data, self.at)
        if not found:
            raise self.fail(wanted)
        self.at = found.end()
        return found[0]

    def has(self, octets: bytes) -> bool:
        """Take these octets if they come next."""
        if self.data.startswith(octets, self.at):
            self.at += len(octets)
            return True
        return False

    def need(self, octets: bytes) -> None:
        if not self.has(octets):
            raise self.fail(repr(octets))

    def end(self) -> None:
        if self.at != len(self.data):
            raise self.fail("the end")

    def atom(self) -> str:
        return self.match(_ATOM, "an atom").decode()

    def number(self) -> int:
        return int(self.match(_NUMBER, "a number"))

    def positive(self) -> int:
        number = self.number()
        if not number:
            raise self.fail("a number above 0 before this")
        return number

    def string(self) -> bytes:
        if quoted := _QUOTED.match(self.data, self.at):
            self.at = quoted.end()
            if not self.is_utf8 and not quoted[1].isascii():
                raise Malformed(f"octets above 127 in a quoted string: {quoted[0]!r}")
            return re.sub(rb"\\(.)", rb"\1", quoted[1])
        literal = _LITERAL.match(self.data, self.at)
        if not literal:
            raise self.fail("a string")
        start = literal.end()
        self.at = start + int(literal[2])
        content = self.data[start : self.at]
        if not literal[1] and b"\0" in content:
            raise Malformed("NUL in a literal that is no literal8")
        return content

    def nstring(self) -> bytes | None:
        return None if self.has(b"NIL") else self.string()

    def astring(self) -> bytes:
        if self.data[self.at : self.at + 1] in (b'"', b"{"):
            return self.string()
        return self.match(_ASTRING, "an astring")

    def flags(self) -> frozenset[str]:
        found = [flag.decode() for flag in self.many(lambda: self.match(_FLAG, "a flag"))]
        folded = [flag.lower() for flag in found]
        if len(set(folded)) != len(folded):
            raise Malformed(f"a flag twice: {self.data!r}")
        return frozenset(found)

    def many(self, one: Callable[[], object], *, least: int = 0) -> list:  # type: ignore[type-arg]
        """`(one one ...)`, separated by one space each."""
        self.need(b"(")
        found: list[object] = []
        while not self.has(b")"):
            if found:
                self.need(b" ")
            found.append(one())
        if len(found) < least:
            raise self.fail(f"at least {least} in the list before this")
        return found


# FETCH


def _address(read: Reader) -> tuple[bytes | None, ...]:
    read.need(b"(")
    parts = [read.nstring()]
    for _ in range(3):
        read.need(b" ")
        parts.append(read.nstring())
    read.need(b")")
    return tuple(parts)


def _addresses(read: Reader) -> list[tuple[bytes | None, ...]] | None:
    if read.has(b"NIL"):
        return None
    read.need(b"(")
    found = [_address(read)]
    while not read.has(b")"):  # RFC 9051 9: address after address, no space
        found.append(_address(read))
    return found


def envelope(read: Reader) -> Envelope:
    read.need(b"(")
    values: list[object] = []
    for index in range(10):
        if index:
            read.need(b" ")
        values.append(_addresses(read) if 2 <= index <= 7 else read.nstring())
    read.need(b")")
    return tuple(values)


def _parameters(read: Reader) -> list[bytes] | None:
    if read.has(b"NIL"):
        return None
    found = read.many(read.string, least=2)
    if len(found) % 2:
        raise read.fail("a value for each parameter before this")
    return found


def _disposition(read: Reader) -> object:
    if read.has(b"NIL"):
        return None
    read.need(b"(")
    kind = read.string()
    read.need(b" ")
    parameters = _parameters(read)
    read.need(b")")
    return kind, parameters


def _language(read: Reader) -> object:
    if read.data[read.at : read.at + 1] == b"(":
        return read.many(read.string, least=1)
    return read.nstring()


def _extension(read: Reader) -> object:
    if read.data[read.at : read.at + 1] == b"(":
        return read.many(lambda: _extension(read), least=1)
    if _NUMBER.match(read.data, read.at):
        return read.number()
    return read.nstring()


def body(read: Reader, *, is_extended: bool) -> list[object]:
    """RFC 9051 9, body: of a multipart its parts, a list each, come first."""
    read.need(b"(")
    found: list[object] = []
    if read.data[read.at : read.at + 1] == b"(":
        while read.data[read.at : read.at + 1] == b"(":
            found.append(body(read, is_extended=is_extended))
        read.need(b" ")
        found.append(read.string())
        further: list[Callable[[], object]] = [lambda: _parameters(read)]
    else:
        further = _single_part(read, found, is_extended=is_extended)
    further += [lambda: _disposition(read), lambda: _language(read), read.nstring]
    while not read.has(b")"):
        if not is_extended:
            raise read.fail("no extension data in BODY")
        read.need(b" ")
        found.append(further.pop(0)() if further else _extension(read))
    return found


def _single_part(read: Reader, found: list[object], *, is_extended: bool) -> list[Callable[[], object]]:
    fields: list[Callable[[], object]] = [
        *(read.string, read.string, lambda: _parameters(read), read.nstring, read.nstring, read.string),
        read.number,
    ]
    for index, one in enumerate(fields):
        if index:
            read.need(b" ")
        found.append(one())
    kind, subtype = (bytes(word).lower() for word in found[:2])  # type: ignore[call-overload]
    if kind == b"message" and subtype in (b"rfc822", b"global"):
        read.need(b" ")
        found.append(envelope(read))
        read.need(b" ")
        found.append(body(read, is_extended=is_extended))
        read.need(b" ")
        found.append(read.number())
    elif kind == b"text":
        read.need(b" ")
        found.append(read.number())
    return [read.nstring]


def _in_parentheses(read: Reader, one: Callable[[], object]) -> object:
    read.need(b"(")
    value = one()
    read.need(b")")
    return value


def _date_time(read: Reader) -> str:
    read.need(b'"')
    date = read.match(_DATE, "a date and time").decode()
    read.need(b'"')
    return date


def _object_id(read: Reader) -> object:
    return _in_parentheses(read, lambda: read.match(_OBJECT_ID, "an object id").decode())


_ITEMS: dict[str, Callable[[Reader], object]] = {
    "FLAGS": Reader.flags,
    "UID": Reader.positive,
    "INTERNALDATE": _date_time,
    "RFC822.SIZE": Reader.number,
    "ENVELOPE": envelope,
    "BODYSTRUCTURE": lambda read: body(read, is_extended=True),
    "BODY": lambda read: body(read, is_extended=False),
    "RFC822": Reader.nstring,
    "RFC822.HEADER": Reader.nstring,
    "RFC822.TEXT": Reader.nstring,
    "MODSEQ": lambda read: _in_parentheses(read, read.positive),
    "PREVIEW": Reader.nstring,
    "EMAILID": _object_id,
    "THREADID": lambda read: None if read.has(b"NIL") else _object_id(read),
    "SAVEDATE": lambda read: None if read.has(b"NIL") else _date_time(read),
}
_ITEM_NAME = re.compile(rb"[A-Z0-9.]+", re.IGNORECASE)


def _fetch_item(read: Reader, items: dict[str, object]) -> None:
    start = read.at
    name = read.match(_ITEM_NAME, "a FETCH item").decode().upper()
    has_section = name in ("BODY", "BINARY", "BINARY.SIZE") and read.data[read.at : read.at + 1] == b"["
    if has_section:
        read.match(_SECTION, "a section")
        name = read.data[start : read.at].decode().upper()
    read.need(b" ")
    if name in items:
        raise Malformed(f"{name} twice in {read.data!r}")
    if name.startswith("BINARY.SIZE["):
        items[name] = read.number()
    elif has_section:
        items[name] = read.nstring()
    elif name in _ITEMS:
        items[name] = _ITEMS[name](read)
    else:
        raise Malformed(f"unknown FETCH item {name}")


def _fetch(read: Reader, response: Response) -> None:
    read.need(b"(")
    while True:
        _fetch_item(read, response.items)
        if read.has(b")"):
            return
        read.need(b" ")


# Other data


def _mailbox_list(read: Reader, response: Response) -> None:
    attributes = read.many(lambda: read.match(_FLAG, "an attribute"))
    read.need(b" ")
    delimiter = None
    if not read.has(b"NIL"):
        delimiter = read.match(re.compile(rb'"(?:[^\x00\r\n"\\]|\\["\\])"'), "a delimiter")
    read.need(b" ")
    name = read.astring()
    response.values = [[word.decode() for word in attributes], delimiter, name]
    if read.has(b" "):  # RFC 5258 6: extended data
        read.many(lambda: _extended_item(read), least=1)


def _extended_item(read: Reader) -> None:
    read.astring()
    read.need(b" ")
    read.many(read.astring)


_STATUS_NUMBERS = frozenset(
    [
        "MESSAGES",
        "RECENT",
        "UIDNEXT",
        "UIDVALIDITY",
        "UNSEEN",
        "DELETED",
        "SIZE",
        "HIGHESTMODSEQ",
        "APPENDLIMIT",
        "DELETED-STORAGE",
    ]
)


def _status(read: Reader, response: Response) -> None:
    response.values = [read.astring()]
    read.need(b" ")

    def one() -> None:
        name = read.atom().upper()
        read.need(b" ")
        if name == "MAILBOXID":
            response.items[name] = _object_id(read)
        elif name == "APPENDLIMIT" and read.has(b"NIL"):
            response.items[name] = None
        elif name in _STATUS_NUMBERS:
            response.items[name] = read.number()
        else:
            raise Malformed(f"unknown STATUS item {name}")

    read.many(one)


def _search(read: Reader, response: Response) -> None:
    while read.has(b" "):
        if read.has(b"(MODSEQ "):
            response.items["MODSEQ"] = read.positive()
            read.need(b")")
            break
        response.values.append(str(read.positive()))


def _esearch(read: Reader, response: Response) -> None:
    if read.has(b" (TAG "):
        response.items["TAG"] = read.string().decode()
        read.need(b")")
    if read.has(b" UID"):
        response.items["UID"] = True
    while read.has(b" "):
        name = read.atom().upper()
        read.need(b" ")
        if name in ("MIN", "MAX", "MODSEQ"):
            response.items[name] = read.positive()
        elif name == "COUNT":
            response.items[name] = read.number()
        elif name == "ALL":
            response.items[name] = read.match(_SET, "a set").decode()
        else:
            raise Malformed(f"unknown ESEARCH item {name}")


def _thread_list(read: Reader) -> Node:
    read.need(b"(")
    members: list[Node] = []
    while not read.has(b")"):
        if read.data[read.at : read.at + 1] == b"(":
            members.append(_thread_list(read))
            continue
        if members:
            read.need(b" ")
        if read.data[read.at : read.at + 1] != b"(":
            members.append(str(read.positive()))
    if not members:
        raise read.fail("no empty thread before this")
    return members


def _thread(read: Reader, response: Response) -> None:
    if read.has(b" "):
        while read.at < len(read.data):
            response.values.append(_thread_list(read))


def _words(read: Reader, response: Response) -> None:
    while read.has(b" "):
        response.values.append(read.atom())


def _namespace(read: Reader, response: Response) -> None:
    def one() -> Node:
        read.need(b"(")
        prefix = read.string()
        read.need(b" ")
        delimiter = None if read.has(b"NIL") else read.string()
        while read.has(b" "):
            read.string()
            read.need(b" ")
            read.many(read.string, least=1)
        read.need(b")")
        return [prefix, delimiter]

    for _ in range(3):
        if response.values:
            read.need(b" ")
        if read.has(b"NIL"):
            response.values.append(None)
            continue
        read.need(b"(")
        spaces: list[Node] = [one()]
        while not read.has(b")"):
            spaces.append(one())
        response.values.append(spaces)


def _identification(read: Reader, response: Response) -> None:
    if not read.has(b"NIL"):
        names: list[bytes | None] = []
        read.many(lambda: names.append(read.nstring()))
        if len(names) % 2:
            raise read.fail("a value for each ID field before this")
        response.values = list(names)


def _quota(read: Reader, response: Response) -> None:
    response.values = [read.astring()]
    read.need(b" ")

    def one() -> None:
        name = read.atom().upper()
        read.need(b" ")
        used = read.number()
        read.need(b" ")
        response.items[name] = (used, read.number())

    read.need(b"(")
    while not read.has(b")"):
        if response.items:
            read.need(b" ")
        one()


def _quota_root(read: Reader, response: Response) -> None:
    response.values = [read.astring()]
    while read.has(b" "):
        response.values.append(read.astring())


def _vanished(read: Reader, response: Response) -> None:
    if read.has(b"(EARLIER) "):
        response.items["EARLIER"] = True
    response.values = [read.match(_SET, "a set").decode()]


def _flags(read: Reader, response: Response) -> None:
    response.values = list(read.flags())


_DATA: dict[str, tuple[bool, Callable[[Reader, Response], None]]] = {
    "CAPABILITY": (False, _words),
    "ENABLED": (False, _words),
    "FLAGS": (True, _flags),
    "LIST": (True, _mailbox_list),
    "LSUB": (True, _mailbox_list),
    "STATUS": (True, _status),
    "SEARCH": (False, _search),
    "SORT": (False, _search),
    "ESEARCH": (False, _esearch),
    "THREAD": (False, _thread),
    "NAMESPACE": (True, _namespace),
    "ID": (True, _identification),
    "QUOTA": (True, _quota),
    "QUOTAROOT": (True, _quota_root),
    "VANISHED": (True, _vanished),
}
_NUMBERED = {"EXISTS", "RECENT", "EXPUNGE", "FETCH"}

# Response codes


def _code_number(read: Reader) -> list[Node]:
    read.need(b" ")
    return [str(read.number())]


def _code_flags(read: Reader) -> list[Node]:
    read.need(b" ")
    return [list(read.flags())]


def _code_set(read: Reader) -> list[Node]:
    read.need(b" ")
    return [read.match(_SET, "a set").decode()]


def _code_uids(sets: int) -> Callable[[Reader], list[Node]]:
    def parse_uids(read: Reader) -> list[Node]:
        read.need(b" ")
        values: list[Node] = [str(read.positive())]
        for _ in range(sets):
            values += _code_set(read)
        if sets == 2 and len(numbers(str(values[1]))) != len(numbers(str(values[2]))):
            raise read.fail("sets of one length before this")
        return values

    return parse_uids


def _code_words(read: Reader) -> list[Node]:
    words: list[Node] = []
    while read.has(b" "):
        words.append(read.atom())
    return words


def _code_charsets(read: Reader) -> list[Node]:
    return [read.many(read.astring, least=1)] if read.has(b" ") else []


def _code_mailbox_id(read: Reader) -> list[Node]:
    read.need(b" ")
    return [[str(_object_id(read))]]


_CODES: dict[str, Callable[[Reader], list[Node]]] = {
    "UIDNEXT": _code_number,
    "UIDVALIDITY": _code_number,
    "UNSEEN": _code_number,
    "HIGHESTMODSEQ": _code_number,
    "PERMANENTFLAGS": _code_flags,
    "APPENDUID": _code_uids(1),
    "COPYUID": _code_uids(2),
    "MODIFIED": _code_set,
    "CAPABILITY": _code_words,
    "BADCHARSET": _code_charsets,
    "MAILBOXID": _code_mailbox_id,
}
_PLAIN_CODES = frozenset(
    [
        "ALERT",
        "PARSE",
        "READ-ONLY",
        "READ-WRITE",
        "TRYCREATE",
        "UNAVAILABLE",
        "AUTHENTICATIONFAILED",
        "AUTHORIZATIONFAILED",
        "EXPIRED",
        "PRIVACYREQUIRED",
        "CONTACTADMIN",
        "NOPERM",
        "INUSE",
        "EXPUNGEISSUED",
        "CORRUPTION",
        "SERVERBUG",
        "CLIENTBUG",
        "CANNOT",
        "LIMIT",
        "OVERQUOTA",
        "ALREADYEXISTS",
        "NONEXISTENT",
        "HASCHILDREN",
        "NOTSAVED",
        "CLOSED",
        "NOMODSEQ",
        "UNKNOWN-CTE",
        "USEATTR",
        "TOOBIG",
        "COMPRESSIONACTIVE",
        "UIDNOTSTICKY",
    ]
)


def _status_text(read: Reader, response: Response) -> None:
    if read.has(b"["):
        response.code = read.atom().upper()
        if response.code in _CODES:
            response.code_values = _CODES[response.code](read)
        elif response.code not in _PLAIN_CODES:
            raise Malformed(f"unknown response code {response.code}")
        read.need(b"]")
        read.need(b" ")
    text = read.data[read.at :]
    if not text or b"\0" in text or b"\n" in text or b"\r" in text or not (read.is_utf8 or text.isascii()):
        raise read.fail("text")
    response.text = text.decode()
    read.at = len(read.data)


def parse(raw: bytes, *, is_utf8: bool = False) -> Response:
    """One response, without its last CRLF. Raises Malformed."""
    read = Reader(raw, is_utf8=is_utf8)
    if raw.startswith(b"+"):
        read.need(b"+ ")
        return Response("+", "+", raw, text=raw[2:].decode("ascii"))
    tag = "*" if read.has(b"*") else read.match(re.compile(rb"[A-Za-z0-9.]+"), "a tag").decode()
    read.need(b" ")
    number = None
    if tag == "*" and _NUMBER.match(raw, read.at):
        number = read.number()
        read.need(b" ")
    kind = read.atom().upper()
    response = Response(tag, kind, raw, number or 0)
    if number is not None:
        if kind not in _NUMBERED or (not number and kind not in ("EXISTS", "RECENT")):
            raise Malformed(f"no such data: {raw!r}")
        if kind == "FETCH":
            read.need(b" ")
            _fetch(read, response)
    elif kind in ("OK", "NO", "BAD") or (tag == "*" and kind in ("BYE", "PREAUTH")):
        read.need(b" ")
        _status_text(read, response)
    elif tag == "*" and kind in _DATA:
        has_space, parse_data = _DATA[kind]
        if has_space:
            read.need(b" ")
        parse_data(read, response)
    else:
        raise Malformed(f"no such response: {raw[:200]!r}")
    read.end()
    return response


_TREE_ATOM = re.compile(rb"[^ ()\"{\[]*(?:\[[^\]]*\])?[^ ()\"{]*")


def tree(data: bytes) -> list[Node]:
    """Atoms as str (with the section that belongs to them), strings as bytes, NIL as None, lists."""
    read = Reader(data, is_utf8=True)
    levels: list[list[Node]] = [[]]
    while read.at < len(data):
        if read.has(b" "):
            continue
        if read.has(b"("):
            levels.append([])
        elif read.has(b")"):
            closed = levels.pop()
            if not levels:
                raise Malformed(f"a parenthesis too many: {data!r}")
            levels[-1].append(closed)
        elif data[read.at : read.at + 1] in (b'"', b"{") or data.startswith(b"~{", read.at):
            levels[-1].append(read.string())
        else:
            word = read.match(_TREE_ATOM, "an atom").decode("utf-8", "surrogateescape")
            levels[-1].append(None if word == "NIL" else word)
    if len(levels) != 1:
        raise Malformed(f"a parenthesis too few: {data!r}")
    return levels[0]
