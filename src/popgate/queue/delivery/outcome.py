"""What came of an attempt for one recipient, in the words of RFC 3463 and RFC 3464.

What a peer says is untrusted text: it goes into logs, bounces and lists, so it passes
`clean` here and nowhere else.
"""

import re
from typing import Literal

from popgate.values.value import value

MAX_TEXT = 400
# RFC 3463 2: status-code = class "." subject "." detail
_ENHANCED = re.compile(r"([245])\.(\d{1,3})\.(\d{1,3})(?=\s|$)")


@value
class Outcome:
    """`code`: enhanced status code. `text`: clean text for people. `host`: the peer, "" when none
    was involved. `is_reply`: `text` is the peer's SMTP reply. `peer_reports`: the peer takes
    care of delivery reports from here on (it offers DSN)."""

    state: Literal["delivered", "deferred", "failed"]
    code: str
    text: str
    host: str = ""
    is_reply: bool = False
    peer_reports: bool = False


def clean(text: str) -> str:
    """One line of printable ASCII of bounded length."""
    words = " ".join(text.split())
    plain = "".join(char if " " <= char <= "~" else "?" for char in words[: MAX_TEXT * 2])
    return plain if len(plain) <= MAX_TEXT else plain[: MAX_TEXT - 3] + "..."


def from_reply(code: int, text: str, host: str) -> Outcome:
    """What a reply that was not the hoped-for one means (RFC 5321 4.2.1).

    5xx is final; everything else, nonsense too, is tried again.
    """
    state: Literal["deferred", "failed"] = "failed" if 500 <= code <= 599 else "deferred"
    family = "5" if state == "failed" else "4"
    found = _ENHANCED.match(text)
    status = found[0] if found and found[1] == family else f"{family}.0.0"
    return Outcome(state, status, clean(f"{code} {text}"), host, is_reply=True)


def deferred(code: str, text: str, host: str = "") -> Outcome:
    return Outcome("deferred", code, clean(text), host)


def failed(code: str, text: str, host: str = "") -> Outcome:
    return Outcome("failed", code, clean(text), host)


class Unreachable(Exception):
    """The destination cannot be used now, whatever the message: no connection, a greeting of
    4xx or 5xx, no TLS where it is asked for, a refused login."""

    def __init__(self, code: str, text: str, host: str = "") -> None:
        super().__init__(text)
        self.outcome = deferred(code, text, host)


class Unroutable(Exception):
    """There is no way to the domain, for good: no such domain, null MX, a loop."""

    def __init__(self, code: str, text: str) -> None:
        super().__init__(text)
        self.outcome = failed(code, text)
