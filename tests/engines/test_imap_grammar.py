"""The grammar of IMAP's commands, verb by verb: what is taken, as which value, and what is not."""

import datetime

import pytest

from popgate.protocols.imap.commands import (
    Authenticate,
    ClientId,
    Close,
    Compress,
    Copy,
    Create,
    Delete,
    Enable,
    Expunge,
    Fetch,
    GetQuota,
    Idle,
    List,
    Logout,
    Namespace,
    Noop,
    Rename,
    Resync,
    Search,
    Select,
    SetQuota,
    Sort,
    StartTls,
    Status,
    Store,
    Subscribe,
    Thread,
)
from popgate.protocols.imap.fetch import Attribute, Preview, Section
from popgate.protocols.imap.lexer import Arguments, Context, Syntax
from popgate.protocols.imap.parser import parse_authenticate, parse_command
from popgate.protocols.imap.search import (
    All,
    And,
    Day,
    HasFlag,
    HeaderHas,
    ModSeq,
    Not,
    Numbers,
    ObjectId,
    Or,
    Size,
    SortKey,
    TextHas,
    Within,
)
from popgate.protocols.imap.sequence import STAR, SavedResult, SequenceSet
from popgate.protocols.sasl import PlainCredentials


def parsed(line: str | bytes, *literals: bytes, is_utf8: bool = False) -> object:
    """The value of a command; each `{}` in it announces the next of `literals`."""
    octets = line.encode("utf-8") if isinstance(line, str) else line
    verb, space, rest = octets.partition(b" ")
    if verb == b"UID":
        second, space, rest = rest.partition(b" ")
        verb += b" " + second
    pieces = (space + rest).split(b"{}")
    pieces[:-1] = [piece + b"{%d}" % len(one) for piece, one in zip(pieces, literals, strict=False)]
    assert len(pieces) == len(literals) + 1
    return parse_command(verb, Arguments(pieces, list(literals)), Context(is_utf8))


def refusal(line: str | bytes, *literals: bytes, is_utf8: bool = False) -> Syntax:
    with pytest.raises(Syntax) as caught:
        parsed(line, *literals, is_utf8=is_utf8)
    assert caught.value.text.isascii()
    assert b"\r" not in caught.value.text
    return caught.value


def a_set(*ranges: tuple[int, int]) -> SequenceSet:
    return SequenceSet(ranges)


ONE = a_set((1, 1))

WITHOUT_ARGUMENTS = {
    "NOOP": Noop(),
    "CHECK": Noop(is_check=True),
    "LOGOUT": Logout(),
    "STARTTLS": StartTls(),
    "NAMESPACE": Namespace(),
    "IDLE": Idle(),
    "CLOSE": Close(),
    "UNSELECT": Close(keeps_deleted=True),
    "EXPUNGE": Expunge(),
}


@pytest.mark.parametrize("verb", WITHOUT_ARGUMENTS)
def test_commands_without_arguments(verb: str) -> None:
    assert parsed(verb) == WITHOUT_ARGUMENTS[verb]
    assert parsed(verb + " ") == WITHOUT_ARGUMENTS[verb]  # some clients leave a space there
    assert refusal(verb + " x").code == b""
    assert refusal(verb + " {}", b"x").code == b""


def login(name: str, password: bytes) -> Authenticate:
    return Authenticate(PlainCredentials("LOGIN", name, password), command=True)


TAKEN = [
    ("LOGIN ann secret", login("ann", b"secret")),
    ('LOGIN "ann b" "a\\"b\\\\c"', login("ann b", b'a"b\\c')),
    ("LOGIN ann a]b}", login("ann", b"a]b}")),
    ("LOGIN \u00e4nn x".replace("\u00e4nn", '"\u00e4nn"'), login("\u00e4nn", b"x")),
    ("ID NIL", ClientId(())),
    ("ID ()", ClientId(())),
    ('ID ("name" "Mail" "version" NIL)', ClientId((("name", "Mail"), ("version", "")))),
    ("ENABLE condstore X-Y CONDSTORE", Enable(("CONDSTORE", "X-Y"))),
    ("ENABLE UTF8=ACCEPT", Enable(("UTF8=ACCEPT",))),
    ("COMPRESS deflate", Compress()),
    ("SELECT inbox", Select("INBOX")),
    ("EXAMINE a/b", Select("a/b", read_only=True)),
    ("SELECT InBox/x", Select("INBOX/x")),
    ("SELECT inboxes", Select("inboxes")),
    ("SELECT x (CONDSTORE)", Select("x", condstore=True)),
    ("SELECT x (condstore ) ", Select("x", condstore=True)),
    (
        "SELECT x (QRESYNC (67890007 20050715194045000))",
        Select("x", resync=Resync(67890007, 20050715194045000, None, None, None)),
    ),
    (
        "SELECT x (QRESYNC (7 9 41,43:211))",
        Select("x", resync=Resync(7, 9, a_set((41, 41), (43, 211)), None, None)),
    ),
    (
        "SELECT x (QRESYNC (7 9 (1,3 2,5)))",
        Select("x", resync=Resync(7, 9, None, a_set((1, 1), (3, 3)), a_set((2, 2), (5, 5)))),
    ),
    (
        "EXAMINE x (QRESYNC (7 9 1:5 (1 2)) CONDSTORE)",
        Select("x", True, True, Resync(7, 9, a_set((1, 5)), ONE, a_set((2, 2)))),
    ),
    ("CREATE a", Create("a")),
    ("CREATE a (USE (\\Sent \\Drafts))", Create("a", ("\\Sent", "\\Drafts"))),
    ("CREATE a (USE ())", Create("a")),
    ("DELETE a", Delete("a")),
    ('RENAME a "b c"', Rename("a", "b c")),
    ("SUBSCRIBE a", Subscribe("a")),
    ("UNSUBSCRIBE a", Subscribe("a", not_any_more=True)),
    ('LIST "" ""', List("", ("",))),
    ('LIST "" *', List("", ("*",))),
    ('LIST "a/" %', List("a/", ("%",))),
    ('LIST "" a%*%%b%%', List("", ("a*b%",))),
    ('LIST "" inbox', List("", ("INBOX",))),
    ('LIST "" &Jjo-%', List("", ("\u263a%",))),
    ('LIST () "" *', List("", ("*",), is_extended=True)),
    ('LIST "" (a b a)', List("", ("a", "b"), is_extended=True)),
    (
        'LIST (SUBSCRIBED recursivematch) "" % RETURN (CHILDREN SPECIAL-USE)',
        List(
            "",
            ("%",),
            frozenset({"SUBSCRIBED", "RECURSIVEMATCH"}),
            frozenset({"CHILDREN", "SPECIAL-USE"}),
            is_extended=True,
        ),
    ),
    ('LIST "" % RETURN ()', List("", ("%",), is_extended=True)),
    (
        'LIST "" % RETURN (STATUS (MESSAGES unseen) SUBSCRIBED)',
        List(
            "",
            ("%",),
            returns=frozenset({"STATUS", "SUBSCRIBED"}),
            status=("MESSAGES", "UNSEEN"),
            is_extended=True,
        ),
    ),
    ('LSUB "" *', List("", ("*",), is_lsub=True)),
    ("STATUS a (messages UIDNEXT MESSAGES)", Status("a", ("MESSAGES", "UIDNEXT"))),
    (
        "STATUS a (DELETED-STORAGE MAILBOXID SIZE APPENDLIMIT)",
        Status("a", ("DELETED-STORAGE", "MAILBOXID", "SIZE", "APPENDLIMIT")),
    ),
    ('GETQUOTA ""', GetQuota("", None)),
    ("GETQUOTAROOT inbox", GetQuota(None, "INBOX")),
    ('SETQUOTA "" (STORAGE 512)', SetQuota("")),
    ("SETQUOTA x ()", SetQuota("x")),
    ("UID EXPUNGE 1:5", Expunge(a_set((1, 5)))),
    ("UID EXPUNGE $", Expunge(SavedResult())),
    ("COPY 2:4 MEETING", Copy(a_set((2, 4)), "MEETING")),
    ("UID COPY 1 a", Copy(ONE, "a", uid=True)),
    ("MOVE * a", Copy(a_set((STAR, STAR)), "a", is_move=True)),
    ("UID MOVE 4:*,1 a", Copy(a_set((4, STAR), (1, 1)), "a", uid=True, is_move=True)),
    ("STORE 1 FLAGS ()", Store(ONE, "replace", (), silent=False)),
    ("STORE 1 +flags (\\seen $MDNSent)", Store(ONE, "add", ("\\Seen", "$MDNSent"), silent=False)),
    ("STORE 1 +FLAGS \\Deleted a A \\DELETED", Store(ONE, "add", ("\\Deleted", "a"), silent=False)),
    (
        "UID STORE $ -FLAGS.SILENT (\\Draft )",
        Store(SavedResult(), "remove", ("\\Draft",), silent=True, uid=True),
    ),
    (
        "STORE 1 (UNCHANGEDSINCE 0) FLAGS.SILENT (\\Answered \\Flagged)",
        Store(ONE, "replace", ("\\Answered", "\\Flagged"), silent=True, unchanged_since=0),
    ),
]


@pytest.mark.parametrize(("line", "event"), TAKEN, ids=lambda one: one if isinstance(one, str) else "")
def test_what_is_taken(line: str, event: object) -> None:
    assert parsed(line) == event


REFUSED = [
    "LOGIN",
    "LOGIN ",
    "LOGIN ann",
    "LOGIN ann b c",
    "LOGIN  ann b",
    'LOGIN "ann b',
    'LOGIN "a\\nn" b',
    "LOGIN ann pass(word",
    b"LOGIN \xff b",
    "ID",
    'ID ("name")',
    'ID ("name" "x"',
    'ID ("a" (NIL))',
    "ENABLE",
    "ENABLE (CONDSTORE)",
    "COMPRESS",
    "COMPRESS LZ4",
    "SELECT",
    "SELECT a b",
    "SELECT a ()",
    "SELECT a (X)",
    "SELECT a (CONDSTORE",
    "SELECT a (QRESYNC)",
    "SELECT a (QRESYNC ())",
    "SELECT a (QRESYNC (0 1))",
    "SELECT a (QRESYNC (1 0))",
    "SELECT a (QRESYNC (1 9223372036854775808))",
    "SELECT a (QRESYNC (1 2 1:*))",
    "SELECT a (QRESYNC (1 2 (1)))",
    "SELECT a (QRESYNC (1 2 (1 2) 3))",
    "SELECT a (QRESYNC (1 2) QRESYNC (1 2))",
    "SELECT %",
    "CREATE",
    "CREATE a (X)",
    "CREATE a (USE)",
    "CREATE a (USE (Sent))",
    "CREATE a (USE (\\Sent) USE (\\Sent))",
    "RENAME a",
    "RENAME a b c",
    'LIST ""',
    'LIST "" (',
    'LIST "" ()',
    'LIST (X) "" *',
    'LIST (RECURSIVEMATCH) "" *',
    'LIST (REMOTE RECURSIVEMATCH) "" *',
    'LIST "" * RETURN',
    'LIST "" * RETURN (X)',
    'LIST "" * RETURN (STATUS)',
    'LIST "" * RETURN (STATUS ())',
    'LIST "" * CHILDREN',
    'LSUB "" (a)',
    'LSUB () "" a',
    "STATUS a",
    "STATUS a ()",
    "STATUS a MESSAGES",
    "STATUS a (X)",
    "STATUS a (MESSAGES,UNSEEN)",
    "SETQUOTA x",
    "SETQUOTA x (STORAGE)",
    "SETQUOTA x (STORAGE -1)",
    "UID EXPUNGE",
    "COPY 1",
    "COPY 0 a",
    "COPY 1:0 a",
    "COPY 01 a",
    "COPY 4294967296 a",
    "COPY 1:4294967296 a",
    "COPY 10000000000 a",
    "COPY 1, a",
    "COPY ,1 a",
    "COPY 1: a",
    "COPY 1:2:3 a",
    "COPY ** a",
    "COPY 1,$ a",
    "COPY $1 a",
    "STORE 1",
    "STORE 1 FLAGS",
    "STORE 1 FLAGS ",
    "STORE 1 FLAG (a)",
    "STORE 1 +-FLAGS (a)",
    "STORE 1 FLAGS.LOUD (a)",
    "STORE 1 FLAGS (\\Recent)",
    "STORE 1 FLAGS (\\*)",
    "STORE 1 FLAGS (\\Foo)",
    "STORE 1 FLAGS (\\)",
    "STORE 1 FLAGS (a]b)",
    "STORE 1 FLAGS (a(b))",
    "STORE 1 FLAGS (a b",
    'STORE 1 FLAGS ("a")',
    "STORE 1 () FLAGS (a)",
    "STORE 1 (UNCHANGEDSINCE) FLAGS (a)",
    "STORE 1 (UNCHANGEDSINCE 1 UNCHANGEDSINCE 1) FLAGS (a)",
    "STORE 1 (UNCHANGEDSINCE 9223372036854775808) FLAGS (a)",
    "XYZZY",
    "UID LOGIN a b",
    "UID NOOP",
]


@pytest.mark.parametrize("line", REFUSED)
def test_what_is_bad(line: str | bytes) -> None:
    assert refusal(line).code == b""


def test_literals_stand_wherever_a_string_does() -> None:
    assert parsed("LOGIN {} {}", b"ann b", b'"') == login("ann b", b'"')
    assert parsed("SELECT {} (CONDSTORE)", b"InBoX") == Select("INBOX", condstore=True)
    assert parsed('ID ({} "x" "y" {})', b"a", b"") == ClientId((("a", "x"), ("y", "")))
    assert parsed("FETCH 1 BODY.PEEK[HEADER.FIELDS ({} b)]", b"a") == Fetch(
        ONE,
        (Section(b"BODY[HEADER.FIELDS (A B)]", what="header.fields", fields=("A", "B"), peek=True),),
    )
    assert parsed("SEARCH CHARSET {} SUBJECT {}", b"UTF-8", "\u00e9".encode()) == Search(
        HeaderHas("subject", "\u00e9")
    )
    assert parsed('LIST "" ({} b)', b"a%") == List("", ("a%", "b"), is_extended=True)


@pytest.mark.parametrize(
    ("line", "literal"),
    [
        ("STORE 1 FLAGS ({})", b"a"),
        ("FETCH {} FLAGS", b"1"),
        ("FETCH 1 {}", b"FLAGS"),
        ("SEARCH {}", b"ALL"),
        ("SELECT a{}", b"b"),
        ("SELECT ~{}", b"b"),  # binary
        ("SELECT {}", b"a\0b"),
        ('LOGIN a "{}', b"b"),
        ('LOGIN a "b{}"', b"b"),
        ("SEARCH SINCE {}", b"1-Feb-1994"),
        ("ENABLE {}", b"CONDSTORE"),
    ],
)
def test_and_nowhere_else(line: str, literal: bytes) -> None:
    assert refusal(line, literal).code == b""


def test_two_strings_need_a_space_between() -> None:
    refusal('LOGIN "a""b"')
    refusal("LOGIN {}{}", b"a", b"b")
    refusal('SELECT "a"(CONDSTORE)')


def test_a_password_that_nobody_has_is_a_wrong_one() -> None:
    for line in (
        'LOGIN ann ""',
        'LOGIN "" x',
        'LOGIN "a\tb" x',
        f"LOGIN {'a' * 256} x",
        f"LOGIN a {'x' * 1025}",
    ):
        assert refusal(line).code == b"[AUTHENTICATIONFAILED]"


def test_authenticate() -> None:
    def asked(text: bytes) -> object:
        return parse_authenticate(Arguments([text], []))

    assert asked(b" plain") == ("PLAIN", None)
    assert asked(b" SCRAM-SHA-256 biws") == ("SCRAM-SHA-256", b"biws")
    assert asked(b" PLAIN =") == ("PLAIN", b"=")
    assert asked(b" PLAIN dGVzdAB0ZXN0AHRlc3Q= ") == ("PLAIN", b"dGVzdAB0ZXN0AHRlc3Q=")
    assert asked(b" PLAIN ") == ("PLAIN", None)
    for text in (
        b"",
        b" ",
        b" PLAIN *",
        b" PLAIN a b",
        b" PLAIN a=b",
        b' "PLAIN"',
        b"  PLAIN",
        b" PLAIN \xff",
    ):
        with pytest.raises(Syntax):
            asked(text)
    with pytest.raises(Syntax):
        parse_authenticate(Arguments([b" PLAIN {4}", b""], [b"AAAA"]))


FLAGS, UID = Attribute("flags"), Attribute("uid")
FAST = (FLAGS, Attribute("internaldate"), Attribute("rfc822.size"))
ITEMS = [
    ("FAST", FAST),
    ("all", (*FAST, Attribute("envelope"))),
    ("FULL", (*FAST, Attribute("envelope"), Attribute("body"))),
    ("FLAGS", (FLAGS,)),
    ("(flags Uid FLAGS)", (FLAGS, UID)),
    ("( UID  FLAGS )", (UID, FLAGS)),
    ("(BODY BODYSTRUCTURE)", (Attribute("body"), Attribute("bodystructure"))),
    ("(MODSEQ EMAILID THREADID)", (Attribute("modseq"), Attribute("emailid"), Attribute("threadid"))),
    ("PREVIEW", (Preview(),)),
    ("PREVIEW (lazy)", (Preview(lazy=True),)),
    ("(PREVIEW (LAZY) UID)", (Preview(lazy=True), UID)),
    ("RFC822", (Section(b"RFC822"),)),
    ("rfc822.header", (Section(b"RFC822.HEADER", what="header", peek=True),)),
    ("RFC822.TEXT", (Section(b"RFC822.TEXT", what="text"),)),
    ("BODY[]", (Section(b"BODY[]"),)),
    ("body.peek[]", (Section(b"BODY[]", peek=True),)),
    ("BODY[]<0.2048>", (Section(b"BODY[]<0>", partial=(0, 2048)),)),
    ("BODY[]<4294967295.4294967295>", (Section(b"BODY[]<4294967295>", partial=(4294967295, 4294967295)),)),
    ("BODY[text]", (Section(b"BODY[TEXT]", what="text"),)),
    ("BODY[1]", (Section(b"BODY[1]", part=(1,)),)),
    ("BODY[3.12.1]", (Section(b"BODY[3.12.1]", part=(3, 12, 1)),)),
    ("BODY[1.mime]", (Section(b"BODY[1.MIME]", part=(1,), what="mime"),)),
    ("BODY[4.2.HEADER]<5.6>", (Section(b"BODY[4.2.HEADER]<5>", part=(4, 2), what="header", partial=(5, 6)),)),
    (
        "BODY.PEEK[2.HEADER.FIELDS (Date from DATE)]",
        (
            Section(
                b"BODY[2.HEADER.FIELDS (DATE FROM DATE)]",
                part=(2,),
                what="header.fields",
                fields=("DATE", "FROM"),
                peek=True,
            ),
        ),
    ),
    (
        'BODY[header.fields.not ("a]b" "c\\"d" e)]',
        (
            Section(
                b'BODY[HEADER.FIELDS.NOT ("A]B" "C\\"D" E)]',
                what="header.fields.not",
                fields=("A]B", 'C"D', "E"),
            ),
        ),
    ),
    ("BINARY[1.2]", (Section(b"BINARY[1.2]", part=(1, 2), binary=True),)),
    ("BINARY.PEEK[1]<2.3>", (Section(b"BINARY[1]<2>", part=(1,), partial=(2, 3), peek=True, binary=True),)),
    ("BINARY[]", (Section(b"BINARY[]", binary=True),)),
    ("BINARY.SIZE[1]", (Section(b"BINARY.SIZE[1]", part=(1,), peek=True, binary=True, size_only=True),)),
    ("(BODY.PEEK[] BODY[])", (Section(b"BODY[]", peek=True), Section(b"BODY[]"))),
]


@pytest.mark.parametrize(("text", "items"), ITEMS)
def test_fetch_items(text: str, items: object) -> None:
    assert parsed(f"FETCH 1 {text}") == Fetch(ONE, items)  # type: ignore[arg-type]
    assert parsed(f"UID FETCH 1 {text}") == Fetch(ONE, items, uid=True)  # type: ignore[arg-type]
    assert parsed(f"FETCH 1 {text} (CHANGEDSINCE 7)") == Fetch(ONE, items, changed_since=7)  # type: ignore[arg-type]
    if not text.startswith("("):
        refusal(f"FETCH 1 {text}x")


@pytest.mark.parametrize(
    "rest",
    [
        "",
        "X",
        "()",
        "(FLAGS",
        "FLAGS)",
        "FLAGS UID",
        "(ALL)",
        "(FLAGS FAST)",
        "(FLAGS,UID)",
        "((FLAGS))",
        "BODY[",
        "BODY[1",
        "BODY[0]",
        "BODY[01]",
        "BODY[1.]",
        "BODY[.1]",
        "BODY[1..2]",
        "BODY[4294967296]",
        "BODY[MIME]",
        "BODY[FOO]",
        "BODY[TEXT.1]",
        "BODY[1TEXT]",
        "BODY[HEADER.FIELDS]",
        "BODY[HEADER.FIELDS ()]",
        "BODY[HEADER.FIELDS (a:b)]",
        'BODY[HEADER.FIELDS ("a b")]',
        'BODY[HEADER.FIELDS ("")]',
        "BODY[HEADER.FIELDS (a)",
        "BODY[HEADER.FIELDS a]",
        "BODY[]<0.0>",
        "BODY[]<0>",
        "BODY[]<.1>",
        "BODY[]<-1.5>",
        "BODY[]<0.1",
        "BODY[]<9223372036854775808.1>",
        "BODY[]<0.9223372036854775808>",
        "BODY []",
        "BODYSTRUCTURE[]",
        "RFC822[]",
        "RFC822.PEEK",
        "BINARY",
        "BINARY[TEXT]",
        "BINARY[1.MIME]",
        "BINARY.SIZE[1]<0.5>",
        "PREVIEW (EAGER)",
        "PREVIEW ()",
        "(PREVIEW (CHANGEDSINCE 1))",
        "FLAGS ()",
        "FLAGS (CHANGEDSINCE)",
        "FLAGS (CHANGEDSINCE -1)",
        "FLAGS (CHANGEDSINCE 9223372036854775808)",
        "FLAGS (CHANGEDSINCE 1 CHANGEDSINCE 1)",
        "FLAGS (VANISHED)",
        "FLAGS (CHANGEDSINCE 1 VANISHED)",
        "FLAGS (X 1)",
    ],
)
def test_fetch_items_that_are_bad(rest: str) -> None:
    assert refusal(f"FETCH 1 {rest}").code == b""


def test_vanished_is_of_uid_fetch() -> None:
    assert parsed("UID FETCH 300:500 (FLAGS) (CHANGEDSINCE 12345 VANISHED)") == Fetch(
        a_set((300, 500)), (FLAGS,), uid=True, changed_since=12345, vanished=True
    )
    refusal("UID FETCH 1 FLAGS (VANISHED)")


SEEN, RECENT = HasFlag("\\Seen"), HasFlag("\\Recent")
FEBRUARY = datetime.date(1994, 2, 1)
KEYS = [
    ("ALL", All()),
    ("answered", HasFlag("\\Answered")),
    ("UNANSWERED", Not(HasFlag("\\Answered"))),
    ("DELETED", HasFlag("\\Deleted")),
    ("UNDELETED", Not(HasFlag("\\Deleted"))),
    ("DRAFT", HasFlag("\\Draft")),
    ("UNDRAFT", Not(HasFlag("\\Draft"))),
    ("FLAGGED", HasFlag("\\Flagged")),
    ("UNFLAGGED", Not(HasFlag("\\Flagged"))),
    ("SEEN", SEEN),
    ("UNSEEN", Not(SEEN)),
    ("RECENT", RECENT),
    ("OLD", Not(RECENT)),
    ("NEW", And((RECENT, Not(SEEN)))),
    ("KEYWORD $Junk", HasFlag("$Junk")),
    ("UNKEYWORD x", Not(HasFlag("x"))),
    ('FROM "Smith"', HeaderHas("from", "Smith")),
    ("TO a", HeaderHas("to", "a")),
    ("CC a", HeaderHas("cc", "a")),
    ("BCC a", HeaderHas("bcc", "a")),
    ('SUBJECT ""', HeaderHas("subject", "")),
    ('HEADER Message-ID "<a@example.org>"', HeaderHas("message-id", "<a@example.org>")),
    ("BODY a", TextHas("a", in_header=False)),
    ('TEXT "string not in mailbox"', TextHas("string not in mailbox", in_header=True)),
    ("BEFORE 1-Feb-1994", Day("before", FEBRUARY)),
    ('ON "01-FEB-1994"', Day("on", FEBRUARY)),
    ("SINCE 1-feb-1994", Day("since", FEBRUARY)),
    ("SENTBEFORE 1-Feb-1994", Day("before", FEBRUARY, sent=True)),
    ("SENTON 1-Feb-1994", Day("on", FEBRUARY, sent=True)),
    ("SENTSINCE 29-Feb-2000", Day("since", datetime.date(2000, 2, 29), sent=True)),
    ("OLDER 3600", Within("older", 3600)),
    ("YOUNGER 1", Within("younger", 1)),
    ("LARGER 0", Size("larger", 0)),
    ("SMALLER 9223372036854775807", Size("smaller", 9223372036854775807)),
    ("2,4:7,9,12:*", Numbers(a_set((2, 2), (4, 7), (9, 9), (12, STAR)), uid=False)),
    ("*", Numbers(a_set((STAR, STAR)), uid=False)),
    ("$", Numbers(SavedResult(), uid=False)),
    ("UID *:4", Numbers(a_set((STAR, 4)), uid=True)),
    ("UID $", Numbers(SavedResult(), uid=True)),
    ("MODSEQ 620162338", ModSeq(620162338)),
    ("MODSEQ 0", ModSeq(0)),
    ('MODSEQ "/flags/\\\\draft" all 620162338', ModSeq(620162338)),
    ("EMAILID M6d99ac3275bb4e", ObjectId("email", "M6d99ac3275bb4e")),
    ("THREADID T_-1", ObjectId("thread", "T_-1")),
    ("NOT SEEN", Not(SEEN)),
    ("NOT NOT SEEN", Not(Not(SEEN))),
    ("OR SEEN ALL", Or(SEEN, All())),
    ("OR OR SEEN ALL NOT SEEN", Or(Or(SEEN, All()), Not(SEEN))),
    ("OR SEEN OR ALL SEEN", Or(SEEN, Or(All(), SEEN))),
    ("(SEEN)", SEEN),
    ("( SEEN  ALL )", And((SEEN, All()))),
    ("NOT (SEEN ALL)", Not(And((SEEN, All())))),
    (
        "OR (SEEN ALL) (1 2)",
        Or(And((SEEN, All())), And((Numbers(ONE, False), Numbers(a_set((2, 2)), False)))),
    ),
    ("((((ALL))))", All()),
    (f"{'(' * 49}SEEN{')' * 49}", SEEN),
]


@pytest.mark.parametrize(("text", "key"), KEYS)
def test_search_keys(text: str, key: object) -> None:
    assert parsed(f"SEARCH {text}") == Search(key)  # type: ignore[arg-type]
    assert parsed(f"UID SEARCH {text} ALL ") == Search(And((key, All())), uid=True)  # type: ignore[arg-type]
    assert parsed(f"SORT (DATE) UTF-8 {text}") == Sort((SortKey("date"),), key)  # type: ignore[arg-type]
    assert parsed(f"THREAD REFERENCES US-ASCII {text}") == Thread("REFERENCES", key)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "rest",
    [
        "",
        "X",
        "()",
        "(ALL",
        "ALL)",
        "(ALL))",
        "ALL,SEEN",
        "ALL(SEEN)",
        "NOT",
        "NOT ",
        "NOT )",
        "(NOT)",
        "(NOT )",
        "OR",
        "OR ALL",
        "OR ALL ",
        "(OR ALL )",
        "(OR ALL) ALL",
        "FROM",
        "FROM (a)",
        'FROM "a"b"',
        "HEADER a",
        "HEADER a:b c",
        'HEADER "" c',
        "KEYWORD \\Seen",
        "KEYWORD a]b",
        "BEFORE 30-Feb-1994",
        "BEFORE 29-Feb-1900",
        "BEFORE 1-Foo-1994",
        "BEFORE 0-Feb-1994",
        "BEFORE 1-Feb-94",
        "BEFORE 1-Feb-0000",
        "BEFORE 001-Feb-1994",
        'BEFORE "1-Feb-1994',
        "BEFORE 1-Feb-19945",
        "OLDER 0",
        "OLDER -1",
        "YOUNGER 4294967296",
        "LARGER -1",
        "LARGER 1k",
        "LARGER 9223372036854775808",
        "LARGER 00000000000000000001x",
        "0",
        "1:",
        "1,,2",
        "4294967296",
        "UID",
        "UID x",
        "UID 0",
        "MODSEQ",
        "MODSEQ -1",
        'MODSEQ "/flags/x" mine 5',
        'MODSEQ "/flags/x" 5',
        "MODSEQ 9223372036854775808",
        "EMAILID a.b",
        'EMAILID ""',
        f"EMAILID {'a' * 256}",
        "RETURN (ALL)",
        "CHARSET UTF-8",
        "$$",
        "$1",
    ],
)
def test_search_keys_that_are_bad(rest: str) -> None:
    assert refusal(f"SEARCH {rest}").code == b""


def test_return_options_of_searches() -> None:
    assert parsed("SEARCH RETURN () ALL") == Search(All(), returns=frozenset({"ALL"}))
    assert parsed("SEARCH RETURN (min MAX COUNT ALL) ALL") == Search(
        All(), returns=frozenset({"MIN", "MAX", "COUNT", "ALL"})
    )
    assert parsed("UID SEARCH RETURN (SAVE) CHARSET UTF-8 SEEN") == Search(
        SEEN, uid=True, returns=frozenset({"SAVE"})
    )
    assert parsed("SORT RETURN (COUNT) (REVERSE DATE subject) UTF-8 ALL") == Sort(
        (SortKey("date", reverse=True), SortKey("subject")), All(), returns=frozenset({"COUNT"})
    )
    for line in (
        "SEARCH RETURN (X) ALL",
        "SEARCH RETURN ALL",
        "SEARCH RETURN (MIN)",
        "SORT RETURN (SAVE) (DATE) UTF-8 ALL",
    ):
        assert refusal(line).code == b""


def test_sort_and_thread() -> None:
    assert parsed("UID SORT (REVERSE arrival CC FROM SIZE TO DISPLAYFROM DISPLAYTO) US-ASCII ALL") == Sort(
        (
            SortKey("arrival", reverse=True),
            *map(SortKey, ("cc", "from", "size", "to", "displayfrom", "displayto")),
        ),
        All(),
        uid=True,
    )
    assert parsed("UID THREAD orderedsubject UTF-8 ALL") == Thread("ORDEREDSUBJECT", All(), uid=True)
    for line in (
        "SORT",
        "SORT DATE UTF-8 ALL",
        "SORT () UTF-8 ALL",
        "SORT (X) UTF-8 ALL",
        "SORT (REVERSE) UTF-8 ALL",
        "SORT (REVERSE REVERSE DATE) UTF-8 ALL",
        "SORT (DATE) UTF-8",
        "THREAD REFERENCES UTF-8",
        "THREAD JWZ UTF-8 ALL",
    ):
        assert refusal(line).code == b""


def test_charsets() -> None:
    def subject(line: str, text: bytes, *, is_utf8: bool = False) -> object:
        event = parsed(line, text, is_utf8=is_utf8)
        assert isinstance(event, Search)
        assert isinstance(event.key, HeaderHas)
        return event.key.text

    assert subject("SEARCH CHARSET iso-8859-1 SUBJECT {}", b"caf\xe9") == "caf\u00e9"
    assert subject("SEARCH CHARSET KOI8-R SUBJECT {}", b"\xd4\xc5\xd3\xd4") == "\u0442\u0435\u0441\u0442"
    assert subject("SEARCH CHARSET ISO-2022-JP SUBJECT {}", b"\x1b$B4A;z\x1b(B") == "\u6f22\u5b57"
    assert subject("SEARCH SUBJECT {}", "caf\u00e9".encode()) == "caf\u00e9"
    assert subject("SEARCH CHARSET utf-8 SUBJECT {}", "\u00e9".encode(), is_utf8=True) == "\u00e9"
    assert parsed('SEARCH CHARSET UTF-8 SUBJECT "\u00e9"') == Search(HeaderHas("subject", "\u00e9"))
    assert refusal("SEARCH CHARSET US-ASCII SUBJECT {}", b"caf\xe9").code == b""
    assert refusal("SEARCH CHARSET UTF-8 SUBJECT {}", b"caf\xe9").code == b""
    assert refusal("SEARCH SUBJECT {}", b"caf\xe9").code == b""
    # the first that fails is told, the charset before the keys
    for name in ("X-FOO", "UTF-7", "UTF-16", '"rot13"', '"utf-8\u00e9"', "idna", '""'):
        code = refusal(f"SEARCH CHARSET {name} X").code
        assert code.startswith(b"[BADCHARSET (US-ASCII UTF-8 ")
        assert code.endswith(b")]")
        assert len(code) < 1000
    assert refusal("SORT (DATE) FOO ALL").code.startswith(b"[BADCHARSET")
    assert refusal("THREAD REFERENCES FOO ALL").code.startswith(b"[BADCHARSET")
    assert refusal("SEARCH CHARSET ISO-8859-1 ALL", is_utf8=True).code == b"[BADCHARSET (US-ASCII UTF-8)]"


def test_every_charset_has_a_codec() -> None:
    from popgate.protocols.imap.charsets import CHARSETS

    for name in CHARSETS:
        assert parsed(f"SEARCH CHARSET {name} SUBJECT abc") == Search(HeaderHas("subject", "abc"))
