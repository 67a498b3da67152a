"""The SMTP server engine. It reads, answers what is syntax and sequence, and asks for the rest."""

from popgate.protocols.smtp.engine import SmtpServer
from popgate.protocols.smtp.events import (
    Aborted,
    Authenticate,
    BodyChunk,
    BodyEnd,
    Data,
    MailFrom,
    RcptTo,
    SmtpEvent,
    StartTls,
)
from popgate.protocols.smtp.options import SmtpOptions
from popgate.protocols.smtp.replies import Reply, reply

__all__ = [
    "SmtpServer",
    "SmtpOptions",
    "SmtpEvent",
    "Authenticate",
    "StartTls",
    "MailFrom",
    "RcptTo",
    "Data",
    "BodyChunk",
    "BodyEnd",
    "Aborted",
    "Reply",
    "reply",
]
