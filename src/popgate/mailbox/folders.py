"""The folders of one user, as an IMAP session sees them.

Folders are named by str with `/` between the levels; INBOX is spelt so. A message in a folder
is named by its uid, a number that only grows; (uid_validity, uid) never names another message
(RFC 9051 2.3.1.1). Each change of a message gives it a modseq above all before it in that folder
(RFC 7162), also a change that another program made in the same Maildir.

All calls may block on the disk, so sessions make them in a thread, and any thread may make
them. They raise MailboxError or one of its kinds below.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Literal, Protocol

from popgate.mailbox.mailbox import MailboxError
from popgate.message.part import Part
from popgate.values.identity import Identity
from popgate.values.value import value


class NoSuchFolder(MailboxError):
    """There is no folder of that name (NO [NONEXISTENT], [TRYCREATE])."""


class FolderExists(MailboxError):
    """There is one already (NO [ALREADYEXISTS])."""


class BadFolderName(MailboxError):
    """The name cannot be a folder's here (NO [CANNOT]); the text may be told to the client."""


class FolderHasChildren(MailboxError):
    """It cannot be removed before its children (NO [HASCHILDREN])."""


class TooMany(MailboxError):
    """A limit is reached, of folders, or of keywords in a folder (NO [LIMIT])."""


class MessageGone(MailboxError):
    """The message was expunged (NO [EXPUNGEISSUED])."""


@value
class FolderInfo:
    """`exists`: False for a name that is only subscribed to, or only the parent of others.
    `special_use`: `\\Sent` and so on, "" for none. `id`: RFC 8474 MAILBOXID, which a rename keeps."""

    name: str
    exists: bool = True
    is_subscribed: bool = False
    special_use: str = ""
    id: str = ""


@value
class FolderState:
    """Counts of all messages in a folder; sizes in octets of the wire form. `recent_from`: messages
    of this uid and above no session has been told of as recent."""

    uid_validity: int
    uid_next: int
    highest_modseq: int
    messages: int
    unseen: int
    deleted: int
    octets: int
    deleted_octets: int
    recent_from: int
    id: str


@value
class MessageRow:
    """`flags`: system flags with backslash, keywords; never `\\Recent`. `octets`: RFC822.SIZE.
    `received`: INTERNALDATE in Unix seconds. `email_id`, `thread_id`: RFC 8474, "" for no thread id."""

    uid: int
    flags: frozenset[str]
    modseq: int
    octets: int
    received: int
    email_id: str
    thread_id: str


@value
class Parsed:
    """What is kept of a message's content. `header`: with its empty line, wire form; of a header above
    64 KiB the first 64 KiB. `preview`: RFC 8970, at most 200 characters."""

    header: bytes
    root: Part
    preview: str


@value
class Changes:
    """What differs since a modseq: `changed` messages (new ones too, in order of uid) and uids that are
    gone (in order; where the folder no longer knows since when, all uids that it has not)."""

    state: FolderState
    changed: Sequence[MessageRow]
    vanished: Sequence[int]


@value
class Stored:
    """`rows`: the messages that were to be changed as they are now, changed or not; `modified`: uids whose
    modseq was above the limit, left as they were; `gone`: uids that were expunged."""

    rows: Sequence[MessageRow]
    modified: Sequence[int]
    gone: Sequence[int]


@value
class Placed:
    """Messages put into a folder: COPYUID and APPENDUID. `source` is in the order of `target`."""

    uid_validity: int
    source: Sequence[int]
    target: Sequence[int]


class Draft(Protocol):
    """A message that is coming, in no folder yet. One thread at a time."""

    def write(self, data: bytes) -> None:
        """More of it, CRLF line ends, cut anywhere."""
        ...

    def finish(self) -> None:
        """It is whole; on disk for sure when this returns."""
        ...

    def discard(self) -> None:
        """Forget it, whether it has been filed or not: of a filed one only the draft goes."""
        ...


class Folder(Protocol):
    """One folder, open. It has no state of a session's: any number of sessions may share it."""

    name: str

    def refresh(self) -> FolderState:
        """Take in what other programs have changed in the directory, and count."""
        ...

    def uids(self) -> Sequence[int]:
        """All uids in order, as of the last refresh: a compact sequence that is never changed in place,
        so sessions may keep and share it."""
        ...

    def claim_recent(self) -> int:
        """Messages of the returned uid and above are recent to whoever called: nobody else is told so."""
        ...

    def changes(self, since_modseq: int) -> Changes:
        """Refresh, and tell what differs since then; 0: every message."""
        ...

    def rows(self, uids: Iterable[int] | None = None) -> Iterator[MessageRow]:
        """The messages of these uids that exist (None: all), in order of uid."""
        ...

    def parsed(self, uids: Iterable[int]) -> Iterator[tuple[int, Parsed]]:
        """What is known of their content, in order of uid; parsed and kept where it was not yet. Messages
        that are gone are left out."""
        ...

    def read(self, uid: int, start: int = 0, octets: int | None = None) -> Iterator[bytes]:
        """The message, or that range of it, in blocks of up to 64 KiB of the wire form.

        Raises MessageGone, MailboxError, before the first block where it can."""
        ...

    def store(
        self,
        uids: Iterable[int],
        operation: Literal["replace", "add", "remove"],
        flags: frozenset[str],
        unchanged_since: int | None = None,
    ) -> Stored:
        """Change flags; durable when it returns. Raises TooMany."""
        ...

    def expunge(self, uids: Iterable[int] | None = None) -> Sequence[int]:
        """Remove for good the messages with `\\Deleted` (of these uids); returns the uids removed."""
        ...

    def copy(self, uids: Iterable[int], target: str) -> Placed:
        """Copies of the messages with flags and received dates, in their order, all or none.
        Raises NoSuchFolder, MailboxFull."""
        ...

    def move(self, uids: Iterable[int], target: str) -> Placed:
        """Likewise, and they are gone from here."""
        ...

    def watch(self, changed: Callable[[], None]) -> Callable[[], None]:
        """Have `changed` called, on the thread of the event loop, soon after something may have
        changed in the folder, whoever changed it. Returns what ends that; call both on that thread."""
        ...

    def close(self) -> None:
        """The session needs it no longer. Safe to call twice."""
        ...


class Account(Protocol):
    """The folders of one user."""

    def folders(self) -> Sequence[FolderInfo]:
        """All of them, INBOX always among them, and names that are only subscribed to; in order of name."""
        ...

    def open(self, name: str) -> Folder:
        """Raises NoSuchFolder."""
        ...

    def create(self, name: str, special_use: str = "") -> FolderInfo:
        """Its parents too. Raises FolderExists, BadFolderName, TooMany."""
        ...

    def delete(self, name: str) -> None:
        """With its messages, for good; children stay. Raises NoSuchFolder, BadFolderName (INBOX)."""
        ...

    def rename(self, name: str, new: str) -> None:
        """With its children. Of INBOX the messages move and it stays (RFC 9051 6.3.6).
        Raises NoSuchFolder, FolderExists, BadFolderName."""
        ...

    def subscribe(self, name: str, *, subscribed: bool = True) -> None:
        """The folder need not exist."""
        ...

    def state(self, name: str) -> FolderState:
        """Refreshed. Raises NoSuchFolder."""
        ...

    def draft(self) -> Draft: ...

    def append(self, name: str, drafts: Sequence[tuple[Draft, frozenset[str], int]]) -> Placed:
        """File finished drafts with flags and received dates (Unix seconds), all or none; durable when
        it returns. Raises NoSuchFolder, MailboxFull."""
        ...

    def used(self) -> tuple[int, int]:
        """Messages in all folders, and their octets on disk (for QUOTA)."""
        ...

    def close(self) -> None:
        """The session is over. Safe to call twice."""
        ...


class Accounts(Protocol):
    """The folders of every user of the site."""

    def open_account(self, identity: Identity) -> Account:
        """Made where it does not exist yet. Raises MailboxError."""
        ...


class ChangeNotices(Protocol):
    """Who tells that names in a directory have changed; the event loop's side gives one to the back end."""

    def watch(self, directory: int, changed: Callable[[], None]) -> Callable[[], None]:
        """`directory`: a descriptor, needed for the call alone. `changed` is called on the loop's thread
        after changes, several of a moment gathered. Returns what ends it. Raises OSError."""
        ...
