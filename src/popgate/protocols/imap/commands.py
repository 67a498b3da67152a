"""The commands of IMAP as the engine's events: what somebody else must decide.

CAPABILITY, NOOP-like syntax errors, ID's and ENABLE's grammar, literals, tags and phases the
engine settles by itself. Names of mailboxes are str: the parser has taken modified UTF-7 (or,
after ENABLE UTF8=ACCEPT or IMAP4rev2, UTF-8) off, INBOX is upper-case whatever the client wrote.
Flags are str as the client spelt them, `\\Seen` with its backslash.
"""

from typing import Literal

from popgate.protocols.imap.fetch import FetchItem
from popgate.protocols.imap.search import SearchKey, SortKey
from popgate.protocols.imap.sequence import Sequence, SequenceSet
from popgate.protocols.sasl import Credentials
from popgate.values.value import value

# Any state


@value
class Noop:
    """NOOP, and CHECK with `is_check`: tell what has changed. Only asked for after the login."""

    is_check: bool = False


@value
class Logout:
    """Say nothing but OK; the engine sends BYE and closes."""


@value
class ClientId:
    """RFC 2971: what the client says of itself, for the log. The engine answers with the server's."""

    fields: tuple[tuple[str, str], ...]


# Not authenticated


@value
class StartTls:
    """After OK the shell starts TLS."""


@value
class Authenticate:
    """LOGIN (mechanism `LOGIN` with `command` True) or AUTHENTICATE. OK ends the phase."""

    credentials: Credentials
    command: bool = False


# Authenticated


@value
class Enable:
    """RFC 5161: what was newly enabled, upper-case: CONDSTORE, QRESYNC, UTF8=ACCEPT, IMAP4REV2."""

    extensions: tuple[str, ...]


@value
class Resync:
    """RFC 7162 3.2.5, SELECT's QRESYNC parameter: what the client knows."""

    uid_validity: int
    modseq: int
    known_uids: SequenceSet | None
    matching_numbers: SequenceSet | None
    matching_uids: SequenceSet | None


@value
class Select:
    """SELECT, or EXAMINE with `read_only`. A session that has another mailbox selected leaves it,
    whatever becomes of this; the engine is in the selected state after OK alone."""

    mailbox: str
    read_only: bool = False
    condstore: bool = False
    resync: Resync | None = None


@value
class Create:
    """`special_use` (RFC 6154): `\\Sent` and so on, as given."""

    mailbox: str
    special_use: tuple[str, ...] = ()


@value
class Delete:
    mailbox: str


@value
class Rename:
    mailbox: str
    new: str


@value
class Subscribe:
    """Or, with `not_any_more`, UNSUBSCRIBE."""

    mailbox: str
    not_any_more: bool = False


@value
class List:
    """LIST and LSUB (`is_lsub`), RFC 5258 and RFC 5819. `select`, `returns`: upper-case options;
    `status`: the items of RETURN (STATUS (...)). `is_extended`: the client used the extended
    syntax. A single empty pattern asks for the hierarchy delimiter."""

    reference: str
    patterns: tuple[str, ...]
    select: frozenset[str] = frozenset()
    returns: frozenset[str] = frozenset()
    status: tuple[str, ...] = ()
    is_lsub: bool = False
    is_extended: bool = False


@value
class Namespace:
    """RFC 2342."""


@value
class Status:
    """`items`, upper-case: MESSAGES RECENT UIDNEXT UIDVALIDITY UNSEEN DELETED SIZE HIGHESTMODSEQ
    APPENDLIMIT MAILBOXID DELETED-STORAGE."""

    mailbox: str
    items: tuple[str, ...]


@value
class AppendMessage:
    """One message of an APPEND is about to come: `octets` of it, as AppendChunk events. Answer
    GO_ON, or NO and the engine swallows or refuses it and ends the command with that.
    `date`: Unix time and the zone's offset in minutes. `is_first`: begins a command."""

    mailbox: str
    flags: tuple[str, ...]
    date: tuple[int, int] | None
    octets: int
    is_first: bool
    is_binary: bool = False
    is_utf8: bool = False


@value
class AppendChunk:
    """Octets of the message as they came. Wants no answer; an awaitable of None holds the client up."""

    data: bytes


@value
class AppendDone:
    """All messages of the command have come (RFC 3502: all of them or none are stored)."""


@value
class AppendAbort:
    """The command broke off after AppendMessage: forget what has come. Wants no answer."""


@value
class Idle:
    """RFC 2177. Answer GO_ON with what has changed already as `untagged`, or NO. From now on the
    session may `push` what changes, until IdleDone."""


@value
class IdleDone:
    """The client said DONE: no `push` any more; the answer is the tagged line."""


@value
class GetQuota:
    """RFC 9208 GETQUOTA `root`, or GETQUOTAROOT `mailbox`; the other is None."""

    root: str | None
    mailbox: str | None


@value
class SetQuota:
    """RFC 9208; users may not, so the session says NO [NOPERM]."""

    root: str


@value
class Compress:
    """RFC 4978. After OK the engine compresses by itself."""


# Selected


@value
class Close:
    """CLOSE; UNSELECT (RFC 3691) with `keeps_deleted`."""

    keeps_deleted: bool = False


@value
class Expunge:
    """EXPUNGE, or UID EXPUNGE of `uids` (RFC 4315)."""

    uids: Sequence | None = None


@value
class Search:
    """SEARCH. `returns`: RFC 4731 and 5182 options, upper-case: MIN MAX ALL COUNT SAVE; None: the
    client asked without RETURN. RETURN () is ALL already."""

    key: SearchKey
    uid: bool = False
    returns: frozenset[str] | None = None


@value
class Sort:
    """RFC 5256 SORT; `returns` as RFC 5267 has them."""

    sort_keys: tuple[SortKey, ...]
    key: SearchKey
    uid: bool = False
    returns: frozenset[str] | None = None


@value
class Thread:
    """RFC 5256 THREAD; `algorithm`: ORDEREDSUBJECT or REFERENCES."""

    algorithm: str
    key: SearchKey
    uid: bool = False


@value
class Fetch:
    """`changed_since`, `vanished`: RFC 7162."""

    set: Sequence
    items: tuple[FetchItem, ...]
    uid: bool = False
    changed_since: int | None = None
    vanished: bool = False


@value
class Store:
    """`unchanged_since`: RFC 7162 3.1.3."""

    set: Sequence
    operation: Literal["replace", "add", "remove"]
    flags: tuple[str, ...]
    silent: bool
    uid: bool = False
    unchanged_since: int | None = None


@value
class Copy:
    """COPY, or MOVE (RFC 6851) with `is_move`."""

    set: Sequence
    mailbox: str
    uid: bool = False
    is_move: bool = False


ImapEvent = (
    Noop
    | Logout
    | ClientId
    | StartTls
    | Authenticate
    | Enable
    | Select
    | Create
    | Delete
    | Rename
    | Subscribe
    | List
    | Namespace
    | Status
    | AppendMessage
    | AppendChunk
    | AppendDone
    | AppendAbort
    | Idle
    | IdleDone
    | GetQuota
    | SetQuota
    | Compress
    | Close
    | Expunge
    | Search
    | Sort
    | Thread
    | Fetch
    | Store
    | Copy
)
