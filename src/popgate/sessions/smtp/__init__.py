"""The deciding side of an SMTP connection: who may send what to whom, and where it goes."""

from popgate.sessions.smtp.policy import SmtpPolicy
from popgate.sessions.smtp.services import RelayGrants, SmtpServices, Throttle
from popgate.sessions.smtp.session import SmtpSession

__all__ = ["SmtpSession", "SmtpPolicy", "SmtpServices", "RelayGrants", "Throttle"]
