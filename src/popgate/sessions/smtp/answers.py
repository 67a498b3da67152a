"""What an SMTP session tells its client, built once."""

from popgate.grants.grant import Decision
from popgate.protocols.smtp import Reply, reply

AUTH_REQUIRED = reply(530, "5.7.0", "authentication is required")
AUTH_FAILED = reply(535, "5.7.8", "authentication failed")
AUTH_UNAVAILABLE = reply(454, "4.7.0", "authentication is not possible now, try again later")
TOO_MANY_SESSIONS = reply(454, "4.7.0", "too many sessions of this account are open")
TOO_MANY_FAILURES = Reply(421, AUTH_FAILED.wire + reply(421, "4.7.0", "too many failed logins").wire)
NOT_YOUR_SENDER = reply(553, "5.7.1", "this sender address does not belong to who logged in")
NO_SUCH_USER = reply(550, "5.1.1", "no such mailbox here")
LOOKUP_FAILED = reply(451, "4.3.0", "recipients cannot be looked up now, try again later")
ROUTED_ADDRESS = reply(553, "5.1.3", "an address that holds %, ! or @ before its domain is not relayed")
LITERAL_DOMAIN = reply(550, "5.7.1", "relaying to address literals is denied")
TOO_MANY_RECIPIENTS = reply(452, "4.5.3", "too many recipients")
QUEUE_FAILED = reply(451, "4.3.0", "the message cannot be stored now, try again later")
QUEUE_FULL = reply(452, "4.3.1", "no space for the message now, try again later")
LOOP = reply(554, "5.4.6", "too many hops, this message is in a loop")
HEADER_TOO_LARGE = reply(552, "5.3.4", "the message header is too large")
TIMEOUT = reply(421, "4.4.2", "you took too long")
SHUTDOWN = reply(421, "4.3.2", "the service stops now, try again later")


def refusal_of(decision: Decision) -> Reply:
    """The reply to a decision that does not permit; its text says what would help."""
    text = decision.text or "relaying denied"
    if decision.verdict == "quota":
        return reply(452, "4.5.3" if decision.reason == "quota-recipients" else "4.7.1", text)
    if decision.verdict == "defer":
        return reply(451, "4.7.1", text)
    return reply(550, "5.7.1", text)
