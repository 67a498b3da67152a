"""What a refused client is told: what to do, and never anybody's name.

The texts follow a reply code and an enhanced status code, so they hold neither.
"""

from popgate.grants import rules
from popgate.grants.grant import DEFAULT_TERMS, Grant
from popgate.grants.settings import GrantSettings
from popgate.values.address import ClientAddress


def duration(seconds: float) -> str:
    """`15 minutes`, `90 seconds`, `1 hour`: the largest unit that divides the time exactly."""
    whole = max(1, round(seconds))
    for unit, length in (("day", 86400), ("hour", 3600), ("minute", 60)):
        if whole % length == 0:
            return _plural(whole // length, unit)
    return _plural(whole, "second")


def about(seconds: float) -> str:
    """A time to wait, rounded up to the minute or hour so that waiting that long suffices."""
    if seconds <= 120:
        return _plural(max(1, -int(-seconds // 1)), "second")
    if seconds <= 7200:
        return _plural(-int(-seconds // 60), "minute")
    return _plural(-int(-seconds // 3600), "hour")


def _plural(count: int, unit: str) -> str:
    return f"{count} {unit}" if count == 1 else f"{count} {unit}s"


def no_grant(address: ClientAddress, settings: GrantSettings) -> str:
    window = duration(rules.window_seconds(DEFAULT_TERMS, settings))
    return (
        f"relaying denied for [{address}]: no mail login from this address in the last"
        f" {window}; check mail by POP3 or IMAP first, or use authentication"
    )


def never(address: ClientAddress) -> str:
    return (
        f"relaying denied for [{address}]: a mail login gives no right to relay from this address;"
        " use authentication"
    )


def not_bound(address: ClientAddress) -> str:
    return (
        f"relaying denied for [{address}]: this sender address does not belong to the account of the"
        " mail login; set the device's sender (From) address to that of the account it checks mail with,"
        " or use authentication"
    )


def unavailable() -> str:
    return "the right to relay cannot be checked now; try again later"


def quota(grant: Grant, reason: str, settings: GrantSettings, now: float) -> str:
    limit = rules.quota(grant.terms, settings)
    what = {
        "quota-messages": _plural(limit.messages, "message"),
        "quota-recipients": _plural(limit.recipients, "recipient"),
        "quota-bytes": _plural(limit.bytes, "byte"),
    }[reason]
    left = grant.since + rules.max_age_seconds(grant.terms, settings) - now
    return (
        f"the limit of {what} for this mail login would be exceeded; the count starts anew with a mail login"
        f" in {about(max(left, 1.0))}, or ask the mail administrator to raise the limit"
    )
