"""What SEARCH, SORT and THREAD ask for: the criteria as a tree of values.

Text in a criterion is str: the parser has taken its charset off. Dates are days without a
time zone, as RFC 9051 6.4.4 compares them. Negations and alternatives nest, so whoever walks
the tree may trust that the parser has bounded its depth.
"""

import datetime
from typing import Literal

from popgate.protocols.imap.sequence import Sequence
from popgate.values.value import value


@value
class All:
    """Every message."""


@value
class HasFlag:
    """`flag`: a system flag with its backslash (`\\Seen`) or a keyword, as the client spelt it;
    flags are compared without case. UNSEEN and the like are Not(HasFlag(...))."""

    flag: str


@value
class Day:
    """The message's internal date (INTERNALDATE) or, with `sent`, the day in its Date field."""

    relation: Literal["before", "on", "since"]
    day: datetime.date
    sent: bool = False


@value
class Within:
    """RFC 5032: OLDER or YOUNGER than so many `seconds` by the internal date."""

    relation: Literal["older", "younger"]
    seconds: int


@value
class Size:
    """RFC822.SIZE above (`larger`) or below (`smaller`) `octets`."""

    relation: Literal["larger", "smaller"]
    octets: int


@value
class HeaderHas:
    """A header field `name` (lower-case) that contains `text`, without case; "" is any such field.
    FROM, TO, CC, BCC and SUBJECT are this, too."""

    name: str
    text: str


@value
class TextHas:
    """`text`, without case, somewhere in the body (BODY) or, with `in_header`, in the whole
    message (TEXT)."""

    text: str
    in_header: bool


@value
class Numbers:
    """Messages of these sequence numbers, or with `uid` of these unique identifiers."""

    set: Sequence
    uid: bool


@value
class ModSeq:
    """RFC 7162 3.1.5: changed at or after this mod-sequence."""

    least: int


@value
class ObjectId:
    """RFC 8474 EMAILID or THREADID."""

    kind: Literal["email", "thread"]
    id: str


@value
class Not:
    key: "SearchKey"


@value
class Or:
    left: "SearchKey"
    right: "SearchKey"


@value
class And:
    keys: "tuple[SearchKey, ...]"


SearchKey = (
    All | HasFlag | Day | Within | Size | HeaderHas | TextHas | Numbers | ModSeq | ObjectId | Not | Or | And
)


def asks_for_modseq(key: SearchKey) -> bool:
    """Whether MODSEQ is among the criteria: RFC 7162 has the answer tell the highest one then."""
    open_keys: list[SearchKey] = [key]
    while open_keys:
        one = open_keys.pop()
        if type(one) is ModSeq:
            return True
        if type(one) is Not:
            open_keys.append(one.key)
        elif type(one) is Or:
            open_keys += (one.left, one.right)
        elif type(one) is And:
            open_keys += one.keys
    return False


@value
class SortKey:
    """RFC 5256: `arrival`, `cc`, `date`, `from`, `size`, `subject`, `to`; RFC 5957: `displayfrom`,
    `displayto`."""

    name: str
    reverse: bool = False
