"""Sets, search keys, FETCH items and names of mailboxes: what is written is what is read again, however it is
spelt, and any octets at all are a value or a Syntax."""

import contextlib
import datetime

from hypothesis import example, given, settings
from hypothesis import strategies as st

from popgate.protocols.imap import search
from popgate.protocols.imap.commands import Fetch, Search
from popgate.protocols.imap.fetch import Attribute, FetchItem, Preview, Section
from popgate.protocols.imap.flags import SYSTEM_FLAGS
from popgate.protocols.imap.lexer import Arguments, Context, Cursor, Syntax, literal_at_end
from popgate.protocols.imap.mailbox_names import BadName, decode_name, decode_utf7, encode_name, encode_utf7
from popgate.protocols.imap.parser import (
    _VERBS,
    parse_append_next,
    parse_append_start,
    parse_authenticate,
    parse_command,
)
from popgate.protocols.imap.sequence import MAX_NUMBER, STAR, SavedResult, Sequence, SequenceSet
from popgate.protocols.imap.sequence_sets import parse_numbers, read_sequence
from support.imap_sets import format_numbers

MONTHS = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"]
numbers = st.integers(1, MAX_NUMBER) | st.integers(1, 99)
ends = numbers | st.just(STAR)
sets = st.lists(st.tuples(ends, ends) | ends.map(lambda one: (one, one)), min_size=1, max_size=20).map(
    lambda ranges: SequenceSet(tuple(ranges))
)
sequences: st.SearchStrategy[Sequence] = sets | st.just(SavedResult())
atoms = st.from_regex(r"[A-Za-z0-9$_.+-]{1,12}", fullmatch=True)
field_names = st.from_regex(r"[!-9;-~]{1,12}", fullmatch=True)
texts = st.text(st.characters(exclude_characters="\0", codec="utf-8"), max_size=20)
number64 = st.integers(0, 2**63 - 1)


class Writer:
    """Arguments in the making; `chance` chooses among spellings that mean the same."""

    def __init__(self, chance) -> None:  # type: ignore[no-untyped-def]
        self.chance = chance
        self.pieces = [b""]
        self.literals: list[bytes] = []

    def put(self, octets: bytes | str) -> None:
        self.pieces[-1] += octets if isinstance(octets, bytes) else octets.encode()

    def word(self, word: str) -> None:
        self.put("".join(self.chance.choice((one.upper(), one.lower())) for one in word))

    def astring(self, octets: bytes) -> None:
        forms = ["literal"]
        if not set(octets) & set(b"\r\n"):
            forms.append("quoted")
        with contextlib.suppress(Syntax):
            if Cursor(Arguments([octets], [])).atom() == octets:
                forms.append("atom")
        form = self.chance.choice(forms)
        if form == "atom":
            self.put(octets)
        elif form == "quoted":
            self.put(b'"' + octets.replace(b"\\", b"\\\\").replace(b'"', b'\\"') + b'"')
        else:
            self.put(b"{%d%s}" % (len(octets), self.chance.choice((b"", b"+"))))
            self.literals.append(octets)
            self.pieces.append(b"")

    def set(self, one: Sequence) -> None:
        self.put(b"$" if isinstance(one, SavedResult) else format_numbers(one))

    @property
    def arguments(self) -> Arguments:
        return Arguments(self.pieces, self.literals)


@given(sets)
def test_a_set_is_read_as_it_was_written(one: SequenceSet) -> None:
    text = format_numbers(one)
    assert parse_numbers(text) == one
    cursor = Cursor(Arguments([text + b" FLAGS"], []))
    assert read_sequence(cursor) == one
    assert cursor.peek() == 0x20


@given(st.text("0123456789*:,", max_size=30).map(str.encode))
def test_a_set_has_one_spelling(text: bytes) -> None:
    try:
        one = parse_numbers(text)
    except Syntax:
        return
    assert parse_numbers(format_numbers(one)) == one
    assert all(end == STAR or 1 <= end <= MAX_NUMBER for both in one.ranges for end in both)
    words = [word.partition(b":") for word in text.split(b",")]
    assert format_numbers(one) == b",".join(
        first if first == last else a for a, (first, _, last) in zip(text.split(b","), words, strict=True)
    )


@given(st.text(st.characters(codec="utf-8"), max_size=40))
@example("&-")
def test_modified_utf7_goes_both_ways(name: str) -> None:
    octets = encode_utf7(name)
    assert octets.isascii()
    assert decode_utf7(octets) == name


@given(st.binary(max_size=30) | st.text("&-,+AbCdJjo4./", max_size=20).map(str.encode), st.booleans())
def test_a_name_has_one_spelling(octets: bytes, is_utf8: bool) -> None:
    try:
        name = decode_name(octets, is_utf8=is_utf8)
    except BadName:
        return
    again = encode_name(name, is_utf8=is_utf8)
    assert again == octets or (again[:5] == b"INBOX" and octets[:5].upper() + octets[5:] == again)
    assert not any(ord(one) < 32 for one in name)


days = st.dates()
leaves = st.one_of(
    st.just(search.All()),
    st.sampled_from(sorted(SYSTEM_FLAGS.values())).map(search.HasFlag) | atoms.map(search.HasFlag),
    st.just(search.HasFlag("\\Recent")),
    st.builds(search.Day, st.sampled_from(["before", "on", "since"]), days, st.booleans()),
    st.builds(search.Within, st.sampled_from(["older", "younger"]), numbers),
    st.builds(search.Size, st.sampled_from(["larger", "smaller"]), number64),
    st.builds(
        search.HeaderHas, field_names.map(str.lower) | st.sampled_from(["from", "subject", "bcc"]), texts
    ),
    st.builds(search.TextHas, texts, st.booleans()),
    st.builds(search.Numbers, sequences, st.booleans()),
    st.builds(search.ModSeq, number64),
    st.builds(
        search.ObjectId,
        st.sampled_from(["email", "thread"]),
        st.from_regex(r"[A-Za-z0-9_-]{1,30}", fullmatch=True),
    ),
)
keys = st.recursive(
    leaves,
    lambda inner: st.one_of(
        inner.map(search.Not),
        st.builds(search.Or, inner, inner),
        st.lists(inner, min_size=2, max_size=4).map(lambda keys: search.And(tuple(keys))),
    ),
    max_leaves=15,
)


def write_key(out: Writer, key: search.SearchKey) -> None:
    if isinstance(key, search.And):
        out.put("(")
        for index, one in enumerate(key.keys):
            out.put(" " * bool(index))
            write_key(out, one)
        out.put(out.chance.choice((")", " )")))
    elif isinstance(key, search.Or):
        out.word("OR")
        out.put(" ")
        write_key(out, key.left)
        out.put(" ")
        write_key(out, key.right)
    elif isinstance(key, search.Not):
        out.word("NOT")
        out.put(" ")
        write_key(out, key.key)
    elif out.chance.random() < 0.1:
        out.put("(")
        write_leaf(out, key)
        out.put(")")
    else:
        write_leaf(out, key)


def write_leaf(out: Writer, key: search.SearchKey) -> None:
    match key:
        case search.All():
            out.word("ALL")
        case search.HasFlag(flag):
            if flag.startswith("\\"):
                out.word(flag[1:])
            else:
                out.word("KEYWORD")
                out.put(" " + flag)
        case search.Day(relation, day, sent):
            out.word("SENT" * sent + relation)
            quote = out.chance.choice(("", '"'))
            out.put(f" {quote}{day.day}-{MONTHS[day.month - 1]}-{day.year:04}{quote}")
        case search.Within(relation, number) | search.Size(relation, number):
            out.word(relation)
            out.put(f" {number}")
        case search.HeaderHas(name, text):
            if name in ("from", "subject", "bcc") and out.chance.random() < 0.5:
                out.word(name)
            else:
                out.word("HEADER")
                out.put(" ")
                out.astring(name.upper().encode())
            out.put(" ")
            out.astring(text.encode())
        case search.TextHas(text, in_header):
            out.word("TEXT" if in_header else "BODY")
            out.put(" ")
            out.astring(text.encode())
        case search.Numbers(one, uid):
            out.word("UID " * uid)
            out.set(one)
        case search.ModSeq(least):
            out.word("MODSEQ ")
            out.word(out.chance.choice(('"/flags/x" priv ', "")))
            out.put(f"{least}")
        case search.ObjectId(kind, id):
            out.word(f"{kind}ID")
            out.put(f" {id}")
        case _:
            raise AssertionError(key)


@given(keys, st.booleans(), st.randoms(use_true_random=False))
@settings(max_examples=200, deadline=None)
def test_search_keys_are_read_as_they_were_written(key: search.SearchKey, uid: bool, chance) -> None:  # type: ignore[no-untyped-def]
    out = Writer(chance)
    out.put(" ")
    if chance.random() < 0.3:
        out.word("CHARSET ")
        out.astring(b"UTF-8")
        out.put(" ")
    keys = key.keys if isinstance(key, search.And) and chance.random() < 0.5 else (key,)
    for index, one in enumerate(keys):
        out.put(" " * bool(index))
        write_key(out, one)
    event = parse_command(b"UID SEARCH" if uid else b"SEARCH", out.arguments, Context())
    assert event == Search(key, uid)


texts_of_part = st.sampled_from(["all", "header", "header.fields", "header.fields.not", "text", "mime"])


@st.composite
def sections(draw) -> Section:  # type: ignore[no-untyped-def]
    """Sections without their labels."""
    part = tuple(draw(st.lists(numbers, max_size=4)))
    binary = draw(st.booleans())
    what = "all" if binary else draw(texts_of_part)
    if what == "mime" and not part:
        what = "text"
    fields = (
        tuple(draw(st.lists(field_names.map(str.upper), min_size=1, max_size=4, unique=True)))
        if "fields" in what
        else ()
    )
    size_only = binary and draw(st.booleans())
    partial = None if size_only else draw(st.none() | st.tuples(number64, st.integers(1, 2**63 - 1)))
    peek = size_only or draw(st.booleans())
    return Section(b"", part, what, fields, partial, peek, binary, size_only)


attributes = st.sampled_from(
    [
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
).map(Attribute)
items = st.lists(
    attributes | st.builds(Preview, st.booleans()) | sections(), min_size=1, max_size=8, unique=True
)


def write_item(out: Writer, item: FetchItem) -> None:
    if isinstance(item, Attribute):
        out.word(item.name)
    elif isinstance(item, Preview):
        out.word("PREVIEW (LAZY)" if item.lazy else "PREVIEW")
    else:
        name = "BINARY.SIZE" if item.size_only else "BINARY" if item.binary else "BODY"
        out.word(name + (".PEEK" if item.peek and not item.size_only else "") + "[")
        out.put(
            ".".join(
                [str(number) for number in item.part] + ([""] if item.part and item.what != "all" else [])
            )
        )
        if item.what != "all":
            out.word(item.what)
        if item.fields:
            out.put(" (")
            for index, field in enumerate(item.fields):
                out.put(" " * bool(index))
                out.astring(field.lower().encode())
            out.put(")")
        out.put("]")
        if item.partial:
            out.put(f"<{item.partial[0]}.{item.partial[1]}>")


@given(sequences, items, st.none() | number64, st.booleans(), st.randoms(use_true_random=False))
@settings(max_examples=200, deadline=None)
def test_fetch_items_are_read_as_they_were_written(
    numbers: Sequence, items: list[FetchItem], since: int | None, uid: bool, chance
) -> None:  # type: ignore[no-untyped-def]
    out = Writer(chance)
    out.put(" ")
    out.set(numbers)
    out.put(" (")
    for index, item in enumerate(items):
        out.put(" " * bool(index))
        write_item(out, item)
    out.put(")")
    if since is not None:
        out.word(f" (CHANGEDSINCE {since})")
    event = parse_command(b"UID FETCH" if uid else b"FETCH", out.arguments, Context())
    assert isinstance(event, Fetch)
    bare = tuple(
        Section(b"", one.part, one.what, one.fields, one.partial, one.peek, one.binary, one.size_only)
        if isinstance(one, Section)
        else one
        for one in event.items
    )
    assert Fetch(event.set, bare, event.uid, event.changed_since) == Fetch(numbers, tuple(items), uid, since)
    for one in event.items:
        if isinstance(one, Section) and not one.partial:
            # The label asks for the same thing again, but for the word that says not to set \\Seen.
            again = parse_command(b"FETCH", Arguments([b" 1 " + one.label], []), Context())
            assert isinstance(again, Fetch)
            (same,) = again.items
            assert isinstance(same, Section)
            assert (same.label, same.part, same.what, same.fields) == (
                one.label,
                one.part,
                one.what,
                one.fields,
            )


WORDS = rb"""( ) " \ 1:* ALL NOT OR UID BODY[ ] <0.1> RETURN STATUS CHARSET UTF-8 \Seen FLAGS &Jjo- * $ {1}
    HEADER.FIELDS QRESYNC ~{1} CHANGEDSINCE 1 0 99999999999 1-Feb-1994 inbox DATE USE NIL"""
words = st.sampled_from([*WORDS.split(), b" ", b"\xff", b"\0"])
pieces = st.lists(words, max_size=12).map(b"".join) | st.binary(max_size=20)


@given(
    st.sampled_from(sorted(_VERBS)) | st.binary(max_size=10),
    st.lists(st.tuples(pieces.map(b" ".__add__), st.binary(max_size=5)), max_size=3),
    pieces,
    st.booleans(),
)
@settings(max_examples=500, deadline=None)
def test_any_octets_are_a_value_or_a_syntax(
    verb: bytes, before: list[tuple[bytes, bytes]], last: bytes, is_utf8: bool
) -> None:
    announced = [piece + b"{%d}" % len(literal) for piece, literal in before]
    arguments = Arguments([*announced, b" " + last], [literal for _, literal in before])
    with contextlib.suppress(Syntax):
        hash(parse_command(verb, arguments, Context(is_utf8)))
    with contextlib.suppress(Syntax):
        parse_authenticate(arguments)
    with contextlib.suppress(Syntax):
        literal_at_end(last)
    with contextlib.suppress(Syntax):
        message = parse_append_start(
            Arguments([*announced, b" " + last + b"{5}"], arguments.literals), Context(is_utf8)
        )
        if message is not None:
            parse_append_next(last, message)


@given(st.datetimes(datetime.datetime(1, 1, 2), datetime.datetime(9999, 12, 30)), st.integers(-1439, 1439))
def test_a_date_is_read_as_it_was_written(moment: datetime.datetime, zone: int) -> None:
    moment = moment.replace(microsecond=0, tzinfo=datetime.timezone(datetime.timedelta(minutes=zone)))
    hours, minutes = divmod(abs(zone), 60)
    text = (
        f"{moment.day:2}-{MONTHS[moment.month - 1]}-{moment.year:04} "
        f"{moment.hour:02}:{moment.minute:02}:{moment.second:02} {'-' if zone < 0 else '+'}"
        f"{hours:02}{minutes:02}"
    )
    message = parse_append_start(Arguments([f' inbox "{text}" {{5}}'.encode()], []), Context())
    assert message is not None
    epoch = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)
    assert message.date == ((moment - epoch) // datetime.timedelta(seconds=1), zone)
