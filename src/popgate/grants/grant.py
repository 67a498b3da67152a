"""The values that the rules, the stores and the service speak of."""

from typing import Literal

from popgate.values.address import ClientAddress
from popgate.values.identity import Identity
from popgate.values.value import value

LoginProtocol = Literal["pop3", "apop", "imap", "relay-ctrl", "cli", "peer", "ucspi", "whoson"]


@value
class Terms:
    """What a login is good for. A value of None (or -1 for quotas) means the site's setting.

    `senders`: further envelope senders that belong to the identity, lower-case
    `user@domain`, or `@domain` for a whole domain. `is_device`: the account is marked as a device.
    """

    window_seconds: int | None = None
    max_age_seconds: int | None = None
    quota_messages: int = -1
    quota_recipients: int = -1
    quota_bytes: int = -1
    senders: tuple[str, ...] = ()
    is_device: bool = False


DEFAULT_TERMS = Terms()


@value
class Usage:
    """What has been relayed under a grant, or is about to be."""

    messages: int = 0
    recipients: int = 0
    bytes: int = 0


@value
class Grant:
    """One identity's right on one address. All times are Unix seconds.

    `since`: when this quota period began; `login_at`: the last completed login;
    `renewed_at`: the last login or renewal, from which the window runs.
    """

    address: ClientAddress
    identity: Identity
    protocol: str
    since: float
    login_at: float
    renewed_at: float
    terms: Terms
    used: Usage


@value
class Decision:
    """The answer to: may this address relay this, and as whom?

    `verdict`: "permit", "refuse" (5xx), "defer" (4xx) or "quota" (452).
    `reason`: a short constant for logs, such as `granted`, `trusted`, `no-grant`,
    `sender-not-bound`, `quota-messages`, `store-unavailable`.
    `text`: what the client is told, without codes; empty for permit.
    `grant`: the grant that permits (None for a trusted network and for refusals).
    """

    verdict: Literal["permit", "refuse", "defer", "quota"]
    reason: str
    text: str
    grant: Grant | None
