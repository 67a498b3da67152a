"""The client's host name for TCPREMOTEHOST. What a name server says is checked before it is used.

Whoever owns the address writes the name. It goes into an environment and into rules, so
only the characters of host names pass, and nobody should trust it unless it is `paranoid`:
then one of the name's addresses must be the client's.
"""

import asyncio
from collections.abc import Sequence
from typing import Literal, Protocol

from popgate.values.address import ClientAddress

HostLookup = Literal["off", "on", "paranoid"]
LOOKUP_SECONDS = 10.0
_NAME = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-_")
_NAMES_AT_MOST = 10


class NameResolver(Protocol):
    """Raises nothing but OSError, for a look-up that came to nothing."""

    async def names(self, address: ClientAddress) -> Sequence[str]:
        """The names of an address (PTR), without the final dot."""
        ...

    async def addresses(self, name: str) -> Sequence[ClientAddress]:
        """The addresses of a name (A and AAAA)."""
        ...


async def remote_name(
    resolver: NameResolver, client: ClientAddress, how: HostLookup, seconds: float = LOOKUP_SECONDS
) -> str | None:
    """The name, or None: there is none, it may not be used, or it did not come in time."""
    if how == "off":
        return None
    try:
        async with asyncio.timeout(seconds):
            names = [name for name in await resolver.names(client) if is_host_name(name)]
            if how == "on":
                return names[0] if names else None
            for name in names[:_NAMES_AT_MOST]:
                try:
                    if client in await resolver.addresses(name):
                        return name
                except OSError:
                    continue
    except (TimeoutError, OSError):
        pass
    return None


def is_host_name(name: str) -> bool:
    """Has it only what stands in host names?"""
    return 0 < len(name) <= 253 and _NAME.issuperset(name) and name[0] not in ".-" and ".." not in name
