"""A message on its way into a folder: a file in tmp that becomes one in cur or new.

As a delivery does, it is on disk whole before it has a name that anybody reads; `file_drafts` gives all
messages of one APPEND their names, makes them safe, and only then gives them uids.
"""

from collections.abc import Sequence

from popgate.mailbox.backends.maildir_home import Home
from popgate.mailbox.backends.maildir_letters import name_with
from popgate.mailbox.backends.maildir_names import email_id_of
from popgate.mailbox.backends.maildir_open_folder import NO_LINK, copy_in, letters_given
from popgate.mailbox.backends.maildir_rows import Message, add_messages
from popgate.mailbox.backends.maildir_work import Work, withdraw
from popgate.mailbox.folders import Draft, Placed
from popgate.mailbox.line_ends import BLOCK, StoredForm
from popgate.mailbox.mailbox import MailboxError

_LATEST = 0xFFFFFFFF


class MaildirDraft:
    """`popgate.mailbox.folders.Draft`: a file in the tmp of the INBOX."""

    def __init__(self, home: Home) -> None:
        """Raises MailboxError."""
        self._home = home
        self._disk = home.site.disk
        self._form = StoredForm()
        self._waiting: list[bytes] = []
        self._octets_waiting = 0
        self._fd = -1
        self.unique = home.site.unique()
        self.is_whole = False
        try:
            with home.directory() as inbox:
                self._fd = self._disk.create(self.unique, inbox.tmp)
        except OSError as error:
            raise home.mailbox_error(error) from error

    @property
    def octets(self) -> int:
        return self._form.wire_octets

    @property
    def disk_octets(self) -> int:
        return self._form.stored_octets

    @property
    def base(self) -> str:
        return f"{self.unique},S={self.disk_octets},W={self.octets}"

    def write(self, data: bytes) -> None:
        """Raises MailboxFull, MailboxError; the draft is of no use then."""
        stored = self._form.feed(data)
        self._waiting.append(stored)
        self._octets_waiting += len(stored)
        if self._octets_waiting >= BLOCK:
            self._put_down()

    def _put_down(self) -> None:
        if self._fd < 0:
            raise MailboxError("the draft is finished, or was discarded")
        data = b"".join(self._waiting)
        self._waiting.clear()
        self._octets_waiting = 0
        try:
            self._disk.write(self._fd, data)
        except OSError as error:
            self.discard()
            raise self._home.mailbox_error(error) from error

    def finish(self) -> None:
        self._waiting.append(self._form.finish())
        self._put_down()
        fd, self._fd = self._fd, -1
        try:
            try:
                self._disk.sync(fd)
            finally:
                self._disk.close(fd)
        except OSError as error:
            self.discard()
            raise self._home.mailbox_error(error) from error
        self.is_whole = True

    def discard(self) -> None:
        fd, self._fd = self._fd, -1
        unique, self.unique = self.unique, ""
        self.is_whole = False
        self._waiting.clear()
        try:
            if fd >= 0:
                self._disk.close(fd)
        except OSError:
            pass
        if unique:
            try:
                with self._home.directory() as inbox:
                    self._disk.unlink(unique, inbox.tmp)
            except (OSError, MailboxError):
                pass  # a later session finds it stale


def file_drafts(work: Work, drafts: Sequence[tuple[Draft, frozenset[str], int]]) -> Placed:
    """Names, then uids, for all of them or none. Raises TooMany, OSError."""
    row = work.row
    if not drafts:
        return Placed(row.uid_validity, (), ())
    letters = [letters_given(work, flags, True) for _, flags, _ in drafts]
    row.modseq += 1
    made: list[tuple[str, int]] = []
    messages: list[Message] = []
    try:
        with work.home.directory() as inbox:
            for (draft, _, received), each in zip(drafts, letters, strict=True):
                if not isinstance(draft, MaildirDraft) or not draft.is_whole:
                    raise MailboxError("the draft is not finished, or was discarded")
                message = _message(work, draft, each, received)
                directory = work.directory(message.in_new)
                _link(work, draft, inbox.tmp, message, directory)
                made.append((message.name, directory))
                messages.append(message)
        for directory in {directory for _, directory in made}:
            work.disk.sync_directory(directory)
    except BaseException:
        for name, directory in made:
            withdraw(work.disk, name, directory)
        raise
    for message in messages:
        row.count(message.letters, message.octets, message.disk_octets)
    add_messages(work.connection, row.id, messages)
    work.save()
    return Placed(row.uid_validity, (), [message.uid for message in messages])


def _message(work: Work, draft: MaildirDraft, letters: str, received: int) -> Message:
    base = draft.base
    return Message(
        work.row.take_uid(),
        name_with(base, letters) if letters else base,
        base,
        int(not letters),  # without flags it is as if it had just been delivered
        letters,
        work.row.modseq,
        draft.octets,
        draft.disk_octets,
        min(max(received, 0), _LATEST),
        email_id_of(base),
    )


def _link(work: Work, draft: MaildirDraft, tmp: int, message: Message, directory: int) -> None:
    disk = work.disk
    # RFC 9051 6.3.12: the internal date is kept, in the file's time as other programs expect it
    disk.set_mtime(draft.unique, tmp, message.received)
    try:
        # link, not rename: it never replaces a message of the same name
        disk.link(draft.unique, tmp, message.name, directory)
        return
    except OSError as error:
        if error.errno not in NO_LINK:
            raise
    fd = disk.open_file(draft.unique, tmp)
    try:
        copy_in(work, fd, message.name, directory, message.received)
    finally:
        disk.close(fd)
