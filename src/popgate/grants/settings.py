"""Settings of the grants (table [grants])."""

from dataclasses import dataclass, field
from typing import Annotated, Literal

from popgate.values.settings import Bounds, Doc


@dataclass(slots=True)
class GrantSettings:
    """The [grants] table."""

    store: Annotated[
        str,
        Doc(
            "Where grants are kept: directory:PATH (relay-ctrl's format, shared by all processes) or"
            " memory: (one worker only, lost at a restart). A relative PATH is below data_dir.",
            example='"directory:/var/spool/popgate/allow"',
        ),
    ] = "directory:allow"
    window_seconds: Annotated[
        int,
        Doc("How long an address may relay after the last login from it. The classic advice is 60 to 180."),
        Bounds(1, 86400, "seconds"),
    ] = 900
    max_age_seconds: Annotated[
        int,
        Doc(
            "The longest that one login can count, however long its session stays open;"
            " also the period after which a grant's quota starts anew."
        ),
        Bounds(1, 2592000, "seconds"),
    ] = 43200
    renew_while_open: Annotated[
        bool, Doc("Keep a grant alive while the mail session that gave it is still open.")
    ] = True
    revoke_on_logout: Annotated[
        bool, Doc("End a grant when its mail session ends instead of when the window lapses.")
    ] = False
    sender: Annotated[
        Literal["bound", "any"],
        Doc(
            '"bound": the envelope sender must belong to somebody who logged in from the address.'
            ' "any": any live grant serves any sender, as relay-ctrl did.'
        ),
    ] = "bound"
    ipv6_prefix: Annotated[
        int,
        Doc("How many bits of an IPv6 address must agree with the login's; 128 is the very address."),
        Bounds(32, 128, "bits"),
    ] = 128
    trusted: Annotated[list[str], Doc("Networks that relay without a grant.", example='["192.0.2.0/28"]')] = (
        field(default_factory=list)
    )
    never: Annotated[
        list[str],
        Doc(
            "Networks that never get a grant: the server's own addresses, a proxy or container gateway"
            " through which everybody seems to come. Unspecified, multicast and link-local addresses"
            " are always refused."
        ),
    ] = field(default_factory=lambda: ["127.0.0.0/8", "::1", "100.64.0.0/10"])
    who: Annotated[
        Literal["all", "devices"],
        Doc('"all": every account obtains a grant by a login. "devices": only device accounts do.'),
    ] = "all"
    quota_messages: Annotated[
        int, Doc("Messages that one grant may relay; 0 is no limit."), Bounds(0, 1e9, "messages")
    ] = 100
    quota_recipients: Annotated[
        int, Doc("Recipients that one grant may relay to; 0 is no limit."), Bounds(0, 1e9, "recipients")
    ] = 500
    quota_bytes: Annotated[
        int, Doc("Bytes that one grant may relay; 0 is no limit."), Bounds(0, 1e15, "bytes")
    ] = 1073741824
    revoke_over_quota: Annotated[bool, Doc("End a grant that goes over its quota.")] = False
    max_identities_per_address: Annotated[
        int,
        Doc("How many people may hold grants on one address; more than that looks like a shared gateway."),
        Bounds(1, 100, "identities"),
    ] = 10
    over_identities: Annotated[
        Literal["refuse", "alarm"],
        Doc('When more than that log in: "refuse" gives no further grant there, "alarm" only logs it.'),
    ] = "refuse"
