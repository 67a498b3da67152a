"""SORT and THREAD (RFC 5256, RFC 5957): the messages that a search found, in an order or in threads."""

from collections.abc import Callable, Sequence

from popgate.mailbox.folders import Folder, MessageRow
from popgate.message import threads
from popgate.message.dates import sent_date
from popgate.message.envelope import envelope
from popgate.message.header import value_of
from popgate.message.message_ids import message_ids
from popgate.message.part import Envelope
from popgate.message.search import fold
from popgate.message.subjects import base_subject, display_name, sort_address
from popgate.message.words import decode_words
from popgate.protocols.imap.search import SortKey
from popgate.values.value import value


@value
class _Known:
    """A message and what its order may depend on."""

    row: MessageRow
    envelope: Envelope
    header: bytes
    sent: int
    number: int


_Key = Callable[[_Known], int | str]
_KEYS: dict[str, _Key] = {
    "arrival": lambda known: known.row.received,
    "size": lambda known: known.row.octets,
    "date": lambda known: known.sent,
    "subject": lambda known: _subject(known)[0],
    "from": lambda known: fold(sort_address(known.envelope.from_)),
    "to": lambda known: fold(sort_address(known.envelope.to)),
    "cc": lambda known: fold(sort_address(known.envelope.cc)),
    "displayfrom": lambda known: fold(display_name(known.envelope.from_)),
    "displayto": lambda known: fold(display_name(known.envelope.to)),
}


def sort(
    folder: Folder, uids: Sequence[int], keys: Sequence[SortKey], number: Callable[[int], int]
) -> list[int]:
    """`uids` in the order that `keys` ask for; those that are alike in order of their numbers."""
    known = _known(folder, uids, number)
    for key in reversed(keys):  # sorting is stable, so the first key comes last
        known.sort(key=_KEYS[key.name], reverse=key.reverse)
        # RFC 5256 3: only the key is reversed, and Python keeps the order of equals in reverse too
    return [each.row.uid for each in known]


def thread(
    folder: Folder, uids: Sequence[int], algorithm: str, number: Callable[[int], int], *, by_uid: bool
) -> str:
    """The threads of `uids` as THREAD's answer writes them."""
    items = []
    for known in _known(folder, uids, number):
        subject, is_reply = _subject(known)
        items.append(
            threads.ThreadItem(
                known.row.uid if by_uid else known.number,
                next(iter(message_ids(known.envelope.message_id or "")), None),
                _references(known),
                subject,
                is_reply,
                known.sent,
            )
        )
    forest = threads.ordered_subject(items) if algorithm == "ORDEREDSUBJECT" else threads.references(items)
    return threads.thread_list(forest)


def _references(known: _Known) -> tuple[str, ...]:
    found = tuple(message_ids(value_of(known.header, "references") or ""))
    # RFC 5256 3: without a valid reference, the first of In-Reply-To
    return found or tuple(message_ids(known.envelope.in_reply_to or ""))[:1]


def _subject(known: _Known) -> tuple[str, bool]:
    subject, is_reply = base_subject(decode_words(known.envelope.subject or ""))
    return fold(subject), is_reply


def _known(folder: Folder, uids: Sequence[int], number: Callable[[int], int]) -> list[_Known]:
    rows = {row.uid: row for row in folder.rows(uids)}
    found = []
    for uid, parsed in folder.parsed(uids):
        row = rows.get(uid)
        if row is not None:
            sent = sent_date(parsed.header)
            # RFC 5256 2.2: where there is no date, the internal one
            when = row.received if sent is None else sent[0]
            found.append(_Known(row, envelope(parsed.header), parsed.header, when, number(uid)))
    return found
