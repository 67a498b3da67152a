"""What SORT and THREAD compare: base subjects (RFC 5256 2.1), mailboxes and names (RFC 5957).

Texts come decoded (`words.decode_words`).
"""

import re

from popgate.message.part import Address
from popgate.message.words import decode_words

_SPACE = re.compile(r"[ \t\r\n]+")
# RFC 5256 5, all without case and anchored where they are tried:
# subj-trailer = "(fwd)" / WSP
_TRAILER = "(fwd)"
# subj-blob = "[" *BLOBCHAR "]" *WSP ; BLOBCHAR has no [ and no ]
_BLOB = re.compile(r"\[[^\[\]]*+\]\s*+")
# subj-refwd = ("re" / ("fw" ["d"])) *WSP [subj-blob] ":"
_REPLY = re.compile(r"(?:re|fwd?)\s*+(?:\[[^\[\]]*+\]\s*+)?:", re.IGNORECASE)
# subj-fwd-hdr = "[fwd:", subj-fwd-trl = "]"
_FORWARD = "[fwd:"


def base_subject(subject: str) -> tuple[str, bool]:
    """The subject without what replies, forwards and lists put around it, and whether a reply or
    forward put anything there."""
    # RFC 5256 2.1 (1)
    text = _SPACE.sub(" ", subject)
    begin, end = 0, len(text)
    is_reply = False
    while True:
        # (2)
        end, was_forward = _without_trailers(text, begin, end)
        is_reply |= was_forward
        # (3) to (5)
        begin, was_reply = _without_leaders(text, begin, end)
        is_reply |= was_reply
        # (6)
        if (
            end - begin > len(_FORWARD)
            and text[end - 1] == "]"
            and text[begin : begin + 5].lower() == _FORWARD
        ):
            begin, end, is_reply = begin + 5, end - 1, True
            continue
        return text[begin:end], is_reply


def _without_trailers(text: str, begin: int, end: int) -> tuple[int, bool]:
    was_forward = False
    while end > begin:
        if text[end - 1] == " ":
            end -= 1
        elif end - begin >= 5 and text[end - 5 : end].lower() == _TRAILER:
            end -= 5
            was_forward = True
        else:
            break
    return end, was_forward


def _without_leaders(text: str, begin: int, end: int) -> tuple[int, bool]:
    """Without subj-leader = (*subj-blob subj-refwd) / WSP, and a subj-blob that leaves something."""
    was_reply = False
    blobs_end = begin
    while begin < end:
        if text[begin] == " ":
            begin += 1
            continue
        reply = _REPLY.match(text, begin, end)
        if reply is not None:
            begin, was_reply = reply.end(), True
            continue
        # blobs are looked through once, whether a reply follows them or not
        at = max(begin, blobs_end)
        while (blob := _BLOB.match(text, at, end)) is not None:
            at = blob.end()
        blobs_end = at
        reply = _REPLY.match(text, at, end) if at > begin else None
        if reply is not None:
            begin, was_reply = reply.end(), True
            continue
        blob = _BLOB.match(text, begin, end)
        if blob is not None and blob.end() < end:
            begin = blob.end()
            continue
        break
    return begin, was_reply


def sort_address(addresses: tuple[Address, ...]) -> str:
    """RFC 5256 3: the mailbox of the first address; of a group its name. "" where there is none."""
    return (addresses[0].mailbox or "") if addresses else ""


def display_name(addresses: tuple[Address, ...]) -> str:
    """RFC 5957 3: what a mail program shows of the first address: its name or, without one, the address."""
    if not addresses:
        return ""
    first = addresses[0]
    if first.host is None:
        return decode_words(first.mailbox or "")
    if first.name:
        return decode_words(first.name)
    return f"{first.mailbox}@{first.host}"
