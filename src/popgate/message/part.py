"""The structure of a message: its MIME parts, and where in its octets each of them lies.

Offsets count octets of the wire form (CRLF line ends). A tree of parts is made once, by
`popgate.message.structure`, and kept; whoever serves a part reads just its range.
"""

from popgate.values.value import value

Parameters = tuple[tuple[str, str], ...]
"""Names lower-case; RFC 2231 continuations joined, values in Unicode."""


@value
class Part:
    """One MIME entity (RFC 2045). Types, subtypes and encodings are lower-case.

    `start`: of its header; `body`: of its body, behind the empty line; `end`: behind its last
    octet (the line end before a boundary belongs to the boundary). `lines`: of the body.
    `parts`: of a multipart its parts; of message/rfc822 and message/global the one message in it,
    whose header is that message's own. `id`, `description`, `md5`, `location`: None where absent;
    `disposition`: its name and parameters.
    """

    type: str
    subtype: str
    parameters: Parameters
    encoding: str
    start: int
    body: int
    end: int
    lines: int
    id: str | None = None
    description: str | None = None
    md5: str | None = None
    disposition: "tuple[str, Parameters] | None" = None
    languages: tuple[str, ...] = ()
    location: str | None = None
    parts: "tuple[Part, ...]" = ()

    @property
    def octets(self) -> int:
        """The size of the body."""
        return self.end - self.body

    @property
    def is_multipart(self) -> bool:
        return self.type == "multipart"

    @property
    def is_message(self) -> bool:
        return self.type == "message" and self.subtype in ("rfc822", "global") and bool(self.parts)


@value
class Address:
    """RFC 9051 7.5.2: of an ENVELOPE. `name` and the others as they stand in the header, encoded words not
    decoded. A group begins with an entry whose `host` is None and `mailbox` its name, and
    ends with one where both are None."""

    name: str | None
    route: str | None
    mailbox: str | None
    host: str | None


@value
class Envelope:
    """RFC 9051 7.5.2. Texts as in the header, unfolded, encoded words not decoded; None where the
    field is absent. `sender` and `reply_to` are `from_` where they are absent or empty."""

    date: str | None
    subject: str | None
    from_: tuple[Address, ...]
    sender: tuple[Address, ...]
    reply_to: tuple[Address, ...]
    to: tuple[Address, ...]
    cc: tuple[Address, ...]
    bcc: tuple[Address, ...]
    in_reply_to: str | None
    message_id: str | None
