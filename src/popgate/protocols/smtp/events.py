"""What the SMTP engine asks somebody else to decide, and what it tells."""

from popgate.protocols.envelope import MailFrom, RcptTo
from popgate.protocols.sasl import Credentials
from popgate.values.value import value


@value
class Authenticate:
    """A finished SASL exchange. 235 logs the client in; anything from 400 up does not."""

    credentials: Credentials


@value
class StartTls:
    """The client asked for TLS and may have it. Answer START_TLS, or 454."""


@value
class Data:
    """May the body come? START_BODY takes it (also where it comes by BDAT and the client reads no
    354); any other reply ends the transaction, and no Aborted follows."""

    is_chunked: bool


@value
class BodyChunk:
    """A piece of the message, of any size: CRLF line ends, no dot-stuffing. Takes no answer."""

    octets: bytes


@value
class BodyEnd:
    """The message is complete; what was given ends in CRLF. The answer ends the transaction."""


@value
class Aborted:
    """A transaction that had begun is gone. Takes no answer. `reason`: a short constant."""

    reason: str


SmtpEvent = Authenticate | StartTls | MailFrom | RcptTo | Data | BodyChunk | BodyEnd | Aborted

__all__ = [
    "Aborted",
    "Authenticate",
    "BodyChunk",
    "BodyEnd",
    "Data",
    "MailFrom",
    "RcptTo",
    "SmtpEvent",
    "StartTls",
]
