"""The rules of grants: pure functions of grants, settings and a given time.

What may relay is decided here and nowhere else. Every comparison is written so that a
doubt (a time in the future, not-a-number, a length out of bounds) ends in "no".
This module knows no store, no clock and no protocol.

Terms of the rules
- a grant is *live* while `renewed_at + window >= now` and `login_at + max_age >= now`,
  and neither time is later than `now` by more than two seconds;
- a *retired* grant (revoked, or lapsed and noticed) has `login_at = renewed_at = 0`: it
  is never live and stays only because its quota period still counts;
- a quota period begins at `since` and ends at `since + max_age`; only a login after
  that begins a new one.
"""

from collections.abc import Sequence
from typing import Final

from popgate.grants.grant import Grant, Terms, Usage
from popgate.grants.settings import GrantSettings
from popgate.values.address import ClientAddress
from popgate.values.identity import Identity
from popgate.values.mail import MailAddress

FUTURE_SECONDS: Final = 2.0
"""How far clocks of two processes may differ. A time further ahead is not believed."""

MAX_WINDOW_SECONDS: Final = 86400
MAX_MAX_AGE_SECONDS: Final = 2592000

MAX_RECORDS: Final = 100
"""How many records of one address are kept at all, live ones first."""

ANONYMOUS: Final = Identity("anonymous")
"""Who logged in where relay-ctrl's programs recorded no USER. No sender belongs to it."""


def key_address(address: ClientAddress, settings: GrantSettings) -> ClientAddress:
    """The address under which grants of `address` are kept."""
    return address.prefix(settings.ipv6_prefix) if address.is_ipv6 else address


def max_age_seconds(terms: Terms, settings: GrantSettings) -> float:
    """How long one login counts at most; 0 where the number makes no sense."""
    seconds = settings.max_age_seconds if terms.max_age_seconds is None else terms.max_age_seconds
    return min(seconds, MAX_MAX_AGE_SECONDS) if seconds > 0 else 0


def window_seconds(terms: Terms, settings: GrantSettings) -> float:
    """How long a login or renewal counts; 0 where the number makes no sense."""
    seconds = settings.window_seconds if terms.window_seconds is None else terms.window_seconds
    return min(seconds, MAX_WINDOW_SECONDS) if seconds > 0 else 0


def ends_at(grant: Grant, settings: GrantSettings) -> float:
    """The last moment at which `grant` is live if nobody renews or revokes it."""
    return min(
        grant.renewed_at + window_seconds(grant.terms, settings),
        grant.login_at + max_age_seconds(grant.terms, settings),
    )


def is_live(grant: Grant, settings: GrantSettings, now: float) -> bool:
    """May the grant's address relay at `now`? The boundary itself counts."""
    latest = now + FUTURE_SECONDS
    if not (0 < grant.renewed_at <= latest and 0 < grant.login_at <= latest):
        return False
    window = window_seconds(grant.terms, settings)
    max_age = max_age_seconds(grant.terms, settings)
    return window > 0 and max_age > 0 and grant.renewed_at + window >= now and grant.login_at + max_age >= now


def is_retired(grant: Grant) -> bool:
    return grant.renewed_at <= 0


def retired(grant: Grant) -> Grant:
    """The same grant, dead for good; only its quota period lives on."""
    return with_times(grant, grant.since, 0.0, 0.0)


def redated(grant: Grant, delta_seconds: float) -> Grant:
    """The same grant after the clock was stepped; what is retired stays so."""

    def moved(at: float) -> float:
        return max(0.0, at + delta_seconds) if at > 0 else at

    return with_times(grant, moved(grant.since), moved(grant.login_at), moved(grant.renewed_at))


def in_order(grants: Sequence[Grant]) -> list[Grant]:
    """As a store keeps them: one an identity, the last login first, not too many."""
    if len(grants) < 2:
        return list(grants)
    by_identity: dict[Identity, Grant] = {}
    for grant in sorted(grants, key=_login_at, reverse=True):
        by_identity.setdefault(grant.identity, grant)
    return list(by_identity.values())[:MAX_RECORDS]


def _login_at(grant: Grant) -> float:
    return grant.login_at


def with_times(grant: Grant, since: float, login_at: float, renewed_at: float) -> Grant:
    return Grant(
        grant.address, grant.identity, grant.protocol, since, login_at, renewed_at, grant.terms, grant.used
    )


def with_used(grant: Grant, used: Usage) -> Grant:
    return Grant(
        grant.address,
        grant.identity,
        grant.protocol,
        grant.since,
        grant.login_at,
        grant.renewed_at,
        grant.terms,
        used,
    )


def in_period(grant: Grant, terms: Terms, settings: GrantSettings, now: float) -> bool:
    """Would a login at `now` under `terms` go on in the grant's quota period?"""
    return grant.since <= now + FUTURE_SECONDS and grant.since + max_age_seconds(terms, settings) >= now


def still_counts(grant: Grant, settings: GrantSettings, now: float) -> bool:
    """Must a dead grant be kept, so that the next login does not get a fresh quota?"""
    return grant.used != _NOTHING and in_period(grant, grant.terms, settings, now)


_NOTHING = Usage()


def logged_in(before: Grant | None, fresh: Grant, settings: GrantSettings) -> Grant:
    """The grant after a login: `fresh`, with the counts of `before` while its period lasts."""
    if before is None or not in_period(before, fresh.terms, settings, fresh.login_at):
        return fresh
    return Grant(
        fresh.address,
        fresh.identity,
        fresh.protocol,
        min(before.since, fresh.since),
        fresh.login_at,
        fresh.renewed_at,
        fresh.terms,
        before.used,
    )


def quota(terms: Terms, settings: GrantSettings) -> Usage:
    """The limits of a grant; 0 is no limit."""
    return Usage(
        settings.quota_messages if terms.quota_messages < 0 else terms.quota_messages,
        settings.quota_recipients if terms.quota_recipients < 0 else terms.quota_recipients,
        settings.quota_bytes if terms.quota_bytes < 0 else terms.quota_bytes,
    )


def added(used: Usage, usage: Usage) -> Usage:
    return Usage(used.messages + usage.messages, used.recipients + usage.recipients, used.bytes + usage.bytes)


def taken_back(used: Usage, usage: Usage) -> Usage:
    return Usage(
        max(0, used.messages - usage.messages),
        max(0, used.recipients - usage.recipients),
        max(0, used.bytes - usage.bytes),
    )


def over_quota(grant: Grant, usage: Usage, settings: GrantSettings) -> str | None:
    """The reason why `usage` more would be too much (`quota-messages`, ...), or None."""
    limit, used = quota(grant.terms, settings), grant.used
    if limit.messages and used.messages + usage.messages > limit.messages:
        return "quota-messages"
    if limit.recipients and used.recipients + usage.recipients > limit.recipients:
        return "quota-recipients"
    if limit.bytes and used.bytes + usage.bytes > limit.bytes:
        return "quota-bytes"
    return None


def is_bound(
    sender: MailAddress | None, identity: Identity, terms: Terms, local_domains: frozenset[str]
) -> bool:
    """Does the envelope sender belong to `identity`?

    The null sender belongs to everyone who logged in: devices send reports, bounces and read
    receipts with it. An identity without a domain (relay-ctrl knows
    only USER) owns its name in each local domain.
    """
    if identity == ANONYMOUS:
        return False
    if sender is None or not (sender.local or sender.domain):
        return True
    if not sender.is_ascii:
        # lower() makes ASCII of some letters (the Kelvin sign): as it is written, or not at all
        return f"{sender.local}@{sender.domain}" in terms.senders or f"@{sender.domain}" in terms.senders
    local, domain = sender.local.lower(), sender.domain.lower()
    if local == identity.user and (domain == identity.domain if identity.domain else domain in local_domains):
        return True
    if not terms.senders:
        return False
    return bool(domain) and (f"{local}@{domain}" in terms.senders or f"@{domain}" in terms.senders)


def candidates(
    live: Sequence[Grant],
    sender: MailAddress | None,
    settings: GrantSettings,
    local_domains: frozenset[str],
) -> list[Grant]:
    """The live grants under which `sender` may relay, the best first.

    bound: those to whom the sender belongs. any: all, those to whom it belongs first,
    otherwise the last login first.
    """
    bound = [grant for grant in live if is_bound(sender, grant.identity, grant.terms, local_domains)]
    if settings.sender == "bound":
        return bound
    return bound + [grant for grant in live if grant not in bound]
