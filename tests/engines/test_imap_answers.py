"""The wire form of untagged data: the RFCs' examples, hostile strings, long sets."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from popgate.message.part import Address, Envelope, Part
from popgate.protocols.imap import answers

NOBODY = Envelope(None, None, (), (), (), (), (), (), None, None)


def leaf(type: str, subtype: str, octets: int, lines: int = 0, **fields: object) -> Part:
    parameters = fields.pop("parameters", ())
    return Part(type, subtype, parameters, str(fields.pop("encoding", "7bit")), 0, 0, octets, lines, **fields)  # type: ignore[arg-type]


def structure(part: Part, *, extended: bool = False, **options: bool) -> bytes:
    return answers.body_structure(part, extended=extended, embedded=lambda _: NOBODY, **options)


# Strings


@pytest.mark.parametrize(
    ("text", "wire"),
    [
        ("", b'""'),
        ("a b", b'"a b"'),
        ('say "no\\yes"', b'"say \\"no\\\\yes\\""'),
        ("tab\there", b'"tab\there"'),
        ("a\r\nb OK", b"{7}\r\na\r\nb OK"),
        ("a\nb", b"{3}\r\na\nb"),
        ("a\0b", b"{3}\r\na?b"),
        ("caf\u00e9", b"{5}\r\ncaf\xc3\xa9"),
        ("\udcff", b"{1}\r\n\xff"),
        (b"\xff\xfe", b"{2}\r\n\xff\xfe"),
        ("x" * 1025, b"{1025}\r\n" + b"x" * 1025),
    ],
)
def test_string(text: str | bytes, wire: bytes) -> None:
    assert answers.string(text) == wire


def test_utf8_is_quoted_for_those_who_take_it() -> None:
    assert answers.string("caf\u00e9", is_utf8=True) == b'"caf\xc3\xa9"'
    assert answers.string("\udcff", is_utf8=True) == b"{1}\r\n\xff"
    assert answers.string("\u00e9\r", is_utf8=True) == b"{3}\r\n\xc3\xa9\r"


def test_nstring_tells_nothing_from_empty() -> None:
    assert answers.nstring(None) == b"NIL"
    assert answers.nstring("") == b'""'
    assert answers.nstring("NIL") == b'"NIL"'


@pytest.mark.parametrize(
    ("text", "wire"),
    [
        ("INBOX", b"INBOX"),
        ("a/b.c", b"a/b.c"),
        ("nil", b'"nil"'),
        ("", b'""'),
        ("a]", b'"a]"'),
        ("a*", b'"a*"'),
        ("a b", b'"a b"'),
    ],
)
def test_astring(text: str, wire: bytes) -> None:
    assert answers.astring(text) == wire


def test_mailbox_names() -> None:
    # RFC 3501 5.1.3
    assert (
        answers.mailbox("~peter/mail/\u53f0\u5317/\u65e5\u672c\u8a9e") == b"~peter/mail/&U,BTFw-/&ZeVnLIqe-"
    )
    assert answers.mailbox("Entw\u00fcrfe", is_utf8=True) == b'"Entw\xc3\xbcrfe"'
    assert answers.mailbox("a&b") == b"a&-b"


@given(st.binary(max_size=40) | st.text(max_size=40), st.booleans())
def test_no_string_ends_early(text: str | bytes, is_utf8: bool) -> None:
    wire = answers.string(text, is_utf8=is_utf8)
    if wire.startswith(b"{"):
        head, _, octets = wire.partition(b"\r\n")
        assert head == b"{%d}" % len(octets)
        assert b"\0" not in octets
    else:
        assert wire[:1] == wire[-1:] == b'"'
        inside = wire[1:-1].replace(b"\\\\", b"").replace(b'\\"', b"")
        assert not set(inside) & set(b'"\\\r\n\0')


# Flags, dates, sets


def test_flags() -> None:
    assert answers.flag_list(()) == b"()"
    assert answers.flag_list(["\\Seen", "$Forwarded"]) == b"(\\Seen $Forwarded)"


@pytest.mark.parametrize(
    ("seconds", "offset", "wire"),
    [
        (837596665, 0, b'"17-Jul-1996 09:44:25 +0000"'),
        (837596665, -420, b'"17-Jul-1996 02:44:25 -0700"'),
        (837596665, 345, b'"17-Jul-1996 15:29:25 +0545"'),
        (1767225600, 0, b'" 1-Jan-2026 00:00:00 +0000"'),
        (-5, 0, b'" 2-Jan-1970 00:00:00 +0000"'),
        (1 << 70, 1440, b'"31-Dec-9999 23:59:00 +2359"'),
        (-(1 << 70), -100_000, b'" 1-Jan-1970 00:01:00 -2359"'),
    ],
)
def test_internal_date(seconds: int, offset: int, wire: bytes) -> None:
    assert answers.internal_date(seconds, offset) == wire


@pytest.mark.parametrize(
    ("uids", "wire"),
    [
        ([], b""),
        ([7], b"7"),
        ([1, 2, 3, 7], b"1:3,7"),
        ([1, 3, 5], b"1,3,5"),
        (range(4, 4000), b"4:3999"),
        ([1, 2, 4, 5, 6, 7, 8, 10, 11], b"1:2,4:8,10:11"),
    ],
)
def test_compact(uids: list[int], wire: bytes) -> None:
    assert answers.compact(uids) == wire


def expand(wire: bytes) -> list[int]:
    numbers: list[int] = []
    for part in wire.split(b",") if wire else ():
        first, _, last = part.partition(b":")
        numbers += range(int(first), int(last or first) + 1)
    return numbers


@given(st.sets(st.integers(1, 200)))
def test_compact_names_just_these(uids: set[int]) -> None:
    wire = answers.compact(sorted(uids))
    assert expand(wire) == sorted(uids)
    assert wire.count(b",") <= sum(uid + 1 not in uids for uid in uids)


@given(st.lists(st.integers(1, 60)))
def test_sets_in_order(uids: list[int]) -> None:
    assert expand(answers.in_order(uids)) == uids


def test_compact_is_quick_about_100_000() -> None:
    whole, holes = range(1, 100_001), [uid for uid in range(1, 111_112) if uid % 10]
    for uids, most_seconds in ((whole, 0.01), (holes, 0.2), (range(1, 200_001, 2), 0.5)):
        start = time.process_time()
        answers.compact(uids)
        assert time.process_time() - start < most_seconds


# FETCH


def test_envelope_of_rfc_9051() -> None:
    terry = Address("Terry Gray", None, "gray", "cac.washington.edu")
    envelope = Envelope(
        date="Wed, 17 Jul 1996 02:23:25 -0700 (PDT)",
        subject="IMAP4rev2 WG mtg summary and minutes",
        from_=(terry,),
        sender=(terry,),
        reply_to=(terry,),
        to=(Address(None, None, "imap", "cac.washington.edu"),),
        cc=(Address(None, None, "minutes", "CNRI.Reston.VA.US"), Address("J", None, "KLENSIN", "MIT.EDU")),
        bcc=(),
        in_reply_to=None,
        message_id="<B27397-0100000@cac.washington.ed>",
    )
    person = b'(("Terry Gray" NIL "gray" "cac.washington.edu"))'
    assert answers.envelope(envelope) == (
        b'("Wed, 17 Jul 1996 02:23:25 -0700 (PDT)" "IMAP4rev2 WG mtg summary and minutes" '
        + b" ".join([person] * 3)
        + b' ((NIL NIL "imap" "cac.washington.edu"))'
        b' ((NIL NIL "minutes" "CNRI.Reston.VA.US")("J" NIL "KLENSIN" "MIT.EDU"))'
        b' NIL NIL "<B27397-0100000@cac.washington.ed>")'
    )


def test_groups_of_addresses() -> None:
    group = (
        Address(None, None, "friends", None),
        Address(None, None, "a", "example.org"),
        Address(None, None, None, None),
    )
    told = answers.envelope(Envelope(None, "", (), (), (), group, (), (), None, None))
    assert told == (
        b'(NIL "" NIL NIL NIL ((NIL NIL "friends" NIL)(NIL NIL "a" "example.org")(NIL NIL NIL NIL))'
        b" NIL NIL NIL NIL)"
    )


def test_structure_of_one_text() -> None:
    part = leaf("text", "plain", 3028, 92, parameters=(("charset", "us-ascii"),))
    assert structure(part) == b'("text" "plain" ("charset" "us-ascii") NIL NIL "7bit" 3028 92)'
    assert structure(part, extended=True) == (
        b'("text" "plain" ("charset" "us-ascii") NIL NIL "7bit" 3028 92 NIL NIL NIL NIL)'
    )


def test_structure_of_a_multipart() -> None:
    # RFC 9051 7.5.2's second example, with what the extended form adds
    both = Part(
        "multipart",
        "mixed",
        (("boundary", "b"),),
        "7bit",
        0,
        0,
        6000,
        100,
        disposition=("inline", ()),
        languages=("en", "de"),
        parts=(
            leaf("text", "plain", 1152, 23, parameters=(("charset", "us-ascii"),)),
            leaf(
                "text",
                "plain",
                4554,
                73,
                parameters=(("charset", "us-ascii"), ("name", "cc.diff")),
                id="<960723163407.20117h@cac.washington.edu>",
                description="Compiler diff",
                encoding="base64",
                md5="Q2hlY2sgSW50ZWdyaXR5IQ==",
                disposition=("attachment", (("filename", "cc.diff"),)),
                languages=("en",),
                location="http://example.org/",
            ),
        ),
    )
    first = b'"text" "plain" ("charset" "us-ascii") NIL NIL "7bit" 1152 23'
    second = (
        b'"text" "plain" ("charset" "us-ascii" "name" "cc.diff") "<960723163407.20117h@cac.washington.edu>"'
        b' "Compiler diff" "base64" 4554 73'
    )
    assert structure(both) == b"((" + first + b")(" + second + b') "mixed")'
    assert structure(both, extended=True) == (
        b"((" + first + b" NIL NIL NIL NIL)(" + second + b' "Q2hlY2sgSW50ZWdyaXR5IQ=="'
        b' ("attachment" ("filename" "cc.diff")) "en" "http://example.org/")'
        b' "mixed" ("boundary" "b") ("inline" NIL) ("en" "de") NIL)'
    )


def test_structure_of_a_message_in_a_message() -> None:
    inner = leaf("text", "html", 20, 2)
    outer = leaf("message", "rfc822", 100, 9, parts=(inner,))
    asked: list[Part] = []

    def embedded(part: Part) -> Envelope:
        asked.append(part)
        return Envelope(None, "inside", (), (), (), (), (), (), None, None)

    told = answers.body_structure(outer, extended=False, embedded=embedded)
    assert told == (
        b'("message" "rfc822" NIL NIL NIL "7bit" 100 (NIL "inside" NIL NIL NIL NIL NIL NIL NIL NIL)'
        b' ("text" "html" NIL NIL NIL "7bit" 20 2) 9)'
    )
    assert asked == [inner]


def test_containers_without_contents_are_told_as_something_else() -> None:
    # The grammar has no multipart without parts, and no message/rfc822 without a message
    assert structure(leaf("multipart", "mixed", 9, 1)) == b'("text" "plain" NIL NIL NIL "7bit" 9 1)'
    told = structure(leaf("message", "rfc822", 9, 1))
    assert told == b'("application" "octet-stream" NIL NIL NIL "7bit" 9)'
    assert structure(leaf("message", "partial", 9, 1)) == b'("message" "partial" NIL NIL NIL "7bit" 9)'


def test_depth_is_bounded() -> None:
    part = leaf("text", "plain", 1, 1)
    for _ in range(5000):
        part = leaf("multipart", "mixed", 1, 1, parts=(part,))
    assert structure(part).startswith(b"(" * answers.DEEPEST + b'("text" "plain" ')


def test_names_with_line_ends_in_parameters_stay_strings() -> None:
    part = leaf("image", "png", 1, parameters=(("name", "a\r\n* BYE"),), encoding="")
    assert structure(part) == b'("image" "png" ("name" {8}\r\na\r\n* BYE) NIL NIL "7bit" 1)'


def test_fetch_line() -> None:
    line = answers.fetch_line(12, [b"FLAGS (\\Seen)", b"BODY[HEADER] " + answers.literal(b"a: b\r\n")])
    assert line == b"* 12 FETCH (FLAGS (\\Seen) BODY[HEADER] {6}\r\na: b\r\n)\r\n"
    assert answers.literal_head(7) == b"{7}\r\n"
    assert answers.literal_head(7, is_binary=True) == b"~{7}\r\n"


# Lines: the examples of RFC 2342, 3501, 4731, 5256, 5258, 7162, 8474, 9051, 9208


def test_lists() -> None:
    assert answers.list_line(["\\Noselect"], "foo") == b'* LIST (\\Noselect) "/" foo\r\n'
    assert answers.list_line((), "", delimiter=None) == b'* LIST () NIL ""\r\n'
    assert answers.list_line((), "#news.a", delimiter=".", is_lsub=True) == b'* LSUB () "." #news.a\r\n'
    assert (
        answers.list_line(["\\NonExistent"], "Foo", child_info=["SUBSCRIBED"])
        == b'* LIST (\\NonExistent) "/" Foo ("CHILDINFO" ("SUBSCRIBED"))\r\n'
    )
    assert answers.list_line((), "new", old_name="old") == b'* LIST () "/" new ("OLDNAME" (old))\r\n'


def test_status() -> None:
    told = answers.status_line("blurdybloop", [("MESSAGES", 231), ("UIDNEXT", 44292)])
    assert told == b"* STATUS blurdybloop (MESSAGES 231 UIDNEXT 44292)\r\n"
    told = answers.status_line("INBOX", [("MAILBOXID", "F2212ea87"), ("APPENDLIMIT", None)])
    assert told == b"* STATUS INBOX (MAILBOXID (F2212ea87) APPENDLIMIT NIL)\r\n"


def test_namespaces() -> None:
    assert answers.namespace_line() == b'* NAMESPACE (("" "/")) NIL NIL\r\n'
    told = answers.namespace_line((("", "/"), ("#mh/", "/")), (("~", "/"),))
    assert told == b'* NAMESPACE (("" "/")("#mh/" "/")) (("~" "/")) NIL\r\n'


def test_quota() -> None:
    assert answers.quota_line("", [("STORAGE", 10, 512)]) == b'* QUOTA "" (STORAGE 10 512)\r\n'
    assert answers.quota_root_line("INBOX", [""]) == b'* QUOTAROOT INBOX ""\r\n'
    assert answers.quota_root_line("comp.mail.mime", ()) == b"* QUOTAROOT comp.mail.mime\r\n"


def test_counts() -> None:
    assert answers.exists_line(23) == b"* 23 EXISTS\r\n"
    assert answers.recent_line(5) == b"* 5 RECENT\r\n"
    assert answers.expunge_line(44) == b"* 44 EXPUNGE\r\n"
    assert answers.flags_line(["\\Seen"]) == b"* FLAGS (\\Seen)\r\n"
    assert answers.ok_line(b"UIDNEXT 4392", b"Predicted.") == b"* OK [UIDNEXT 4392] Predicted.\r\n"


def test_vanished() -> None:
    assert answers.vanished_line([300, 301, 310, 405, 411], earlier=True) == (
        b"* VANISHED (EARLIER) 300:301,310,405,411\r\n"
    )
    assert answers.vanished_line([505, 507]) == b"* VANISHED 505,507\r\n"
    assert answers.vanished_line([]) == b""


def test_searches() -> None:
    assert answers.search_line([2, 84, 882]) == b"* SEARCH 2 84 882\r\n"
    assert answers.search_line([]) == b"* SEARCH\r\n"
    assert answers.search_line([2, 5], modseq=917162500) == b"* SEARCH 2 5 (MODSEQ 917162500)\r\n"
    assert answers.search_line([], modseq=917162500) == b"* SEARCH\r\n"
    assert answers.sort_line([5, 3, 4]) == b"* SORT 5 3 4\r\n"


def test_extended_searches() -> None:
    assert answers.esearch_line(b"A282", least=2, count=3) == b'* ESEARCH (TAG "A282") MIN 2 COUNT 3\r\n'
    assert answers.esearch_line(b"A285", uid=True, numbers=b"43,57:60", modseq=9) == (
        b'* ESEARCH (TAG "A285") UID ALL 43,57:60 MODSEQ 9\r\n'
    )
    assert answers.esearch_line(b"A", least=1, greatest=9, count=0) == (
        b'* ESEARCH (TAG "A") MIN 1 MAX 9 COUNT 0\r\n'
    )
    assert answers.esearch_line(b"A283") == b'* ESEARCH (TAG "A283")\r\n'
