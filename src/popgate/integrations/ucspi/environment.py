"""The environment of a program, as tcp-environ(5) names it.

IPv4 clients have PROTO=TCP. IPv6 clients have PROTO=TCP6, as with the IPv6 versions of
ucspi-tcp, and the same facts under TCP... and TCP6... names, because most programs read
only the former. A v4-mapped IPv6 client is an IPv4 client.
"""

from collections.abc import Mapping

from popgate.values.address import ClientAddress
from popgate.values.value import value

OURS = tuple(
    f"{prefix}{name}".encode()
    for prefix in ("TCP", "TCP6")
    for name in ("LOCALIP", "LOCALPORT", "LOCALHOST", "REMOTEIP", "REMOTEPORT", "REMOTEHOST", "REMOTEINFO")
)
"""What is never passed on from our own environment: it is about another connection, if any."""

LOGIN_NAMES = (b"RELAYCLIENT", b"USER", b"DOMAIN")
"""What grants decide, so that it must not come from whoever started us."""

SERVER_NAMES = (
    b"LISTEN_PID",
    b"LISTEN_FDS",
    b"LISTEN_FDNAMES",
    b"NOTIFY_SOCKET",
    b"WATCHDOG_PID",
    b"WATCHDOG_USEC",
)
"""What systemd says to the server itself."""


@value
class Ends:
    """Both ends of one connection. `local_host`, `host` and `info` are None where unknown."""

    local: ClientAddress
    local_port: int
    local_host: str | None
    client: ClientAddress
    client_port: int
    host: str | None = None
    info: str | None = None


def base_environment(own: Mapping[bytes, bytes], without: tuple[bytes, ...]) -> dict[bytes, bytes]:
    """What of our own environment every program gets."""
    return {name: text for name, text in own.items() if name not in OURS and name not in without}


def describe(ends: Ends) -> dict[bytes, bytes]:
    """The variables of one connection."""
    facts = {
        b"LOCALIP": ends.local.text.encode(),
        b"LOCALPORT": b"%d" % ends.local_port,
        b"REMOTEIP": ends.client.text.encode(),
        b"REMOTEPORT": b"%d" % ends.client_port,
    }
    if ends.local_host is not None:
        facts[b"LOCALHOST"] = ends.local_host.encode()
    if ends.host is not None:
        facts[b"REMOTEHOST"] = ends.host.encode()
    if ends.info is not None:
        facts[b"REMOTEINFO"] = ends.info.encode()
    variables = {b"TCP" + name: text for name, text in facts.items()}
    if ends.client.is_ipv6:
        variables |= {b"TCP6" + name: text for name, text in facts.items()}
        variables[b"PROTO"] = b"TCP6"
    else:
        variables[b"PROTO"] = b"TCP"
    return variables
