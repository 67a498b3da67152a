"""Settings of the queue and of delivery (table [delivery])."""

from dataclasses import dataclass, field
from typing import Annotated

from popgate.values.settings import Bounds, Doc


@dataclass(slots=True)
class RouteSettings:
    """One [[delivery.route]]."""

    domains: Annotated[
        list[str],
        Doc("Recipient domains; a leading dot takes all subdomains too.", example='["partner.example"]'),
    ]
    to: Annotated[
        str,
        Doc(
            "smtp://HOST:PORT, smtp+starttls://HOST:PORT or smtps://HOST:PORT, with USER:PASSWORD@ before"
            " HOST where the other side wants a login; or mx: for the domain's MX hosts.",
            example='"smtp://192.0.2.25:25"',
        ),
    ]


@dataclass(slots=True)
class DeliverySettings:
    """The [delivery] table."""

    smarthost: Annotated[
        str,
        Doc(
            "Where mail for other domains goes: smtp://, smtp+starttls:// or smtps://[USER:PASSWORD@]HOST[:PORT]."
            " Empty: the MX hosts of the recipient's domain.",
            example='"smtp+starttls://relay.example.net:587"',
        ),
    ] = ""
    password_file: Annotated[
        str,
        Doc(
            "A file with the smart host's password, when it shall not stand in this file.",
            example='"/etc/popgate/smarthost.password"',
        ),
    ] = ""
    verify_certificate: Annotated[
        bool,
        Doc("Check the smart host's certificate and name. MX hosts are never checked (opportunistic TLS)."),
    ] = True
    ca_file: Annotated[str, Doc("Certificates (PEM) to trust for smart hosts instead of the system's.")] = ""
    route: Annotated[
        list[RouteSettings], Doc("Routes for some domains, the first that fits is taken, before smarthost.")
    ] = field(default_factory=list)
    first_retry_seconds: Annotated[
        int, Doc("The wait before the second attempt; it then doubles."), Bounds(1, 86400, "seconds")
    ] = 300
    max_retry_seconds: Annotated[
        int, Doc("The longest wait between two attempts."), Bounds(1, 86400, "seconds")
    ] = 14400
    lifetime_seconds: Annotated[
        int,
        Doc("How long delivery is tried before the sender gets a bounce; five days is usual."),
        Bounds(1, 2592000, "seconds"),
    ] = 432000
    concurrency: Annotated[
        int, Doc("Deliveries under way at the same time."), Bounds(1, 1000, "deliveries")
    ] = 50
    destination_concurrency: Annotated[
        int, Doc("Connections to one destination at the same time."), Bounds(1, 100, "connections")
    ] = 5
    connect_timeout_seconds: Annotated[
        int, Doc("How long to wait for a connection to a host."), Bounds(1, 600, "seconds")
    ] = 30
    command_timeout_seconds: Annotated[
        int, Doc("How long to wait for a reply."), Bounds(1, 3600, "seconds")
    ] = 300
    max_hops: Annotated[
        int,
        Doc("Received: fields after which a message is taken to be in a loop."),
        Bounds(5, 1000, "fields"),
    ] = 100
