"""Settings of authentication (table [auth])."""

from dataclasses import dataclass, field
from typing import Annotated

from popgate.values.settings import Bounds, Doc


@dataclass(slots=True)
class AuthSettings:
    """The [auth] table."""

    backends: Annotated[
        list[str],
        Doc(
            "Where logins are checked, asked in this order until one knows the name: accounts (the"
            " database in data_dir), passwd_file:PATH (Dovecot's format), checkpassword:COMMAND.",
            example='["accounts"]',
        ),
    ] = field(default_factory=lambda: ["accounts"])
    apop: Annotated[
        bool,
        Doc(
            "Offer APOP, CRAM-MD5 and SCRAM-SHA-256, for the accounts whose secret is kept recoverable"
            " (popgate account add --recoverable). Off: recoverable secrets are a risk of their own."
        ),
    ] = False
    cache_seconds: Annotated[
        int,
        Doc(
            "How long a verified password is remembered in memory (keyed, never in clear); 0 is off. A"
            " changed or disabled account counts at once all the same. Never for checkpassword."
        ),
        Bounds(0, 86400, "seconds"),
    ] = 3600
    failures_before_close: Annotated[
        int, Doc("Failed logins after which the connection is closed."), Bounds(1, 20, "failures")
    ] = 3
    failure_delay_seconds: Annotated[
        float,
        Doc("Delay of the first failed login; it doubles with each further failure up to 30 seconds."),
        Bounds(0, 30, "seconds"),
    ] = 1.0
