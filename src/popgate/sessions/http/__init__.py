"""Sessions that answer HTTP requests: who may ask, and which handler answers."""

from popgate.sessions.http.refusals import Refusals
from popgate.sessions.http.session import Handler, HttpPolicy, HttpSession, Refused, Route

__all__ = ["Handler", "HttpPolicy", "HttpSession", "Refusals", "Refused", "Route"]
