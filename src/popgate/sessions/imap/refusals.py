"""What a client is told of a command that a mailbox refused (RFC 5530's codes)."""

from popgate.mailbox.folders import (
    BadFolderName,
    FolderExists,
    FolderHasChildren,
    MessageGone,
    NoSuchFolder,
    TooMany,
)
from popgate.mailbox.mailbox import MailboxError, MailboxFull
from popgate.protocols.imap.replies import Reply
from popgate.sessions.imap.selected import FolderLost

_TEXTS: tuple[tuple[type[MailboxError], bytes], ...] = (
    (NoSuchFolder, b"[NONEXISTENT] There is no such mailbox."),
    (FolderExists, b"[ALREADYEXISTS] There is such a mailbox already."),
    (BadFolderName, b"[CANNOT] A mailbox cannot have that name here."),
    (FolderHasChildren, b"[HASCHILDREN] There are mailboxes below it."),
    (TooMany, b"[LIMIT] There are too many of them."),
    (MessageGone, b"[EXPUNGEISSUED] The message is gone."),
    (MailboxFull, b"[OVERQUOTA] There is no room left."),
)
UNAVAILABLE = b"[UNAVAILABLE] The mailbox cannot be used now, try again later."


def is_fault(error: MailboxError) -> bool:
    """Whether it is the administrator's rather than the client's: the disk is full, or files or the index
    cannot be used."""
    return type(error) in (MailboxError, MailboxFull)


def refusal(error: MailboxError, *, creates: bool = False) -> Reply:
    """`creates`: the mailbox was to take messages, and the client may create it (RFC 9051 7.1 TRYCREATE)."""
    if isinstance(error, FolderLost):
        return Reply("NO", b"[UNAVAILABLE] The mailbox is no longer what was selected.", closes=True)
    if creates and isinstance(error, NoSuchFolder):
        return Reply("NO", b"[TRYCREATE] There is no such mailbox.")
    for kind, text in _TEXTS:
        if isinstance(error, kind):
            return Reply("NO", text)
    return Reply("NO", UNAVAILABLE)
