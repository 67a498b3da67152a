"""What a device account is answered, which may log in and has no mailbox: an INBOX in which nothing is."""

from popgate.protocols.imap import answers
from popgate.protocols.imap import commands as imap
from popgate.protocols.imap.replies import GO_ON, Reply

_NOTHING_HERE = Reply("NO", b"[CANNOT] This account has no mailbox.")
_NO_MESSAGE = Reply("BAD", b"There is no message of that number.")
_EMPTY = b"".join(
    (
        answers.flags_line(()),
        answers.ok_line(b"PERMANENTFLAGS ()", b"Nothing can be changed."),
        answers.exists_line(0),
        answers.recent_line(0),
        answers.ok_line(b"UIDVALIDITY 1", b"UIDs are valid."),
        answers.ok_line(b"UIDNEXT 1", b"The next UID."),
    )
)
_OK = Reply("OK")


def answer_without_mailbox(event: imap.ImapEvent, append_limit: int) -> "Reply | None":
    """The reply to any event behind the login."""
    if isinstance(event, imap.Idle):
        return GO_ON
    if isinstance(event, imap.Noop | imap.IdleDone | imap.Close | imap.Enable):
        return _OK
    if isinstance(event, imap.AppendChunk | imap.AppendAbort):
        return None
    if isinstance(event, imap.Select) and event.mailbox == "INBOX":
        return Reply("OK", b"[READ-ONLY] Selected.", untagged=_EMPTY)
    if isinstance(event, imap.List):
        return Reply("OK", untagged=answers.list_line(("\\HasNoChildren",), "INBOX", is_lsub=event.is_lsub))
    if isinstance(event, imap.Namespace):
        return Reply("OK", untagged=answers.namespace_line())
    if isinstance(event, imap.Status) and event.mailbox == "INBOX":
        ones = ("UIDNEXT", "UIDVALIDITY", "HIGHESTMODSEQ")
        told = [
            (item, append_limit if item == "APPENDLIMIT" else int(item in ones))
            for item in event.items
            if item != "MAILBOXID"
        ]
        return Reply("OK", untagged=answers.status_line("INBOX", told))
    if isinstance(event, imap.Fetch | imap.Store | imap.Copy):
        return _OK if event.uid else _NO_MESSAGE
    if isinstance(event, imap.Search) and event.returns is None:
        return Reply("OK", untagged=answers.search_line(()))
    if isinstance(event, imap.Expunge):
        return _OK
    return _NOTHING_HERE
