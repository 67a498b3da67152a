"""The Received: field that we add, and what is counted in the header of a message as it streams."""

from functools import lru_cache
from time import gmtime

from popgate.grants.grant import Grant
from popgate.values.address import ClientAddress
from popgate.values.mail import MailAddress

_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


def date_time(seconds: float) -> str:
    """RFC 5322 3.3 date-time in UTC."""
    return _date_time(int(seconds // 1))


@lru_cache(maxsize=256)  # that of now for every message of a second, those of logins again and again
def _date_time(seconds: int) -> str:
    when = gmtime(seconds)
    return "%s, %d %s %d %02d:%02d:%02d +0000" % (
        _DAYS[when.tm_wday],
        when.tm_mday,
        _MONTHS[when.tm_mon - 1],
        when.tm_year,
        when.tm_hour,
        when.tm_min,
        when.tm_sec,
    )


def with_protocol(*, is_extended: bool, is_tls: bool, is_authenticated: bool, smtputf8: bool) -> str:
    """The word after `with`: RFC 3848, and RFC 6531 4.3 for UTF8SMTP."""
    if smtputf8:
        word = "UTF8SMTP"
    elif is_extended or is_tls or is_authenticated:
        word = "ESMTP"
    else:
        return "SMTP"
    return word + ("S" if is_tls else "") + ("A" if is_authenticated else "")


def authority_of(grant: Grant) -> str:
    """The comment that says by whose login a message was relayed."""
    return f"grant: {grant.identity} by {grant.protocol} at {date_time(grant.login_at)}"


def received(
    *,
    helo: str,
    client: ClientAddress,
    hostname: str,
    protocol: str,
    queue_id: str,
    authority: str,
    recipients: list[MailAddress],
    now: float,
) -> bytes:
    """RFC 5321 4.4. `helo` holds only letters, digits and -._:[]? by now; `authority` is a comment
    without parentheses, "" for none. A recipient is named only when it is the only one."""
    literal = f"[IPv6:{client}]" if client.is_ipv6 else f"[{client}]"
    lines = [
        f"Received: from {helo or 'unknown'} ({literal})",
        f"\tby {hostname} with {protocol} id {queue_id}",
    ]
    if authority:
        lines.append(f"\t({authority})")
    if len(recipients) == 1 and recipients[0].is_ascii:
        lines.append(f"\tfor <{recipients[0]}>")
    return ("\r\n".join(lines) + f";\r\n\t{date_time(now)}\r\n").encode("ascii", "replace")


class HeaderWatch:
    """Counts octets and Received: fields of a header that comes in blocks."""

    __slots__ = ("_tail", "hops", "is_complete", "octets")

    def __init__(self) -> None:
        self._tail = b"\r\n"
        self.is_complete = False
        self.octets = 0
        self.hops = 0

    def feed(self, block: bytes) -> None:
        data = self._tail + block
        end = data.find(b"\r\n\r\n")
        if end >= 0:
            self.is_complete = True
            self.octets += end + 2 - len(self._tail)
            data = data[: end + 2]
        else:
            self.octets += len(block)
        self.hops += data.lower().count(_RECEIVED)
        # shorter than what is looked for, so that nothing is counted twice
        self._tail = data[1 - len(_RECEIVED) :]


_RECEIVED = b"\r\nreceived:"
