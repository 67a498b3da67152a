"""Which hosts take mail for a domain (RFC 5321 5.1, RFC 7505), and which of them must not be tried.

A reply of DNS that cannot be had now is never a reason to bounce; that the domain does
not exist, has a null MX or leads back to us is.
"""

from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

from popgate.queue.delivery.outcome import Unreachable, Unroutable
from popgate.values.address import AddressError, ClientAddress, Network
from popgate.values.value import value

MAX_HOSTS = 10
MAX_ADDRESSES_PER_HOST = 4
MAX_ENDPOINTS = 12


class NoSuchDomain(Exception):
    """NXDOMAIN."""


class DnsUnavailable(Exception):
    """No usable answer now: SERVFAIL, a timeout, no server."""


class Resolver(Protocol):
    """DNS as far as mail needs it. Names are without the final dot, "" is the root."""

    def mx(self, domain: str) -> Awaitable[Sequence[tuple[int, str]]]:
        """(preference, host), () when the domain has none. Raises NoSuchDomain, DnsUnavailable."""
        ...

    def addresses(self, host: str) -> Awaitable[Sequence[ClientAddress]]:
        """IPv4 addresses first, () when there are none. Raises NoSuchDomain, DnsUnavailable."""
        ...


@value
class Endpoint:
    """`host`: the name for logs and certificates; `address`: where to connect to."""

    host: str
    address: str
    port: int


_NEVER = tuple(
    Network.parse(text)
    for text in ("0.0.0.0/8", "127.0.0.0/8", "224.0.0.0/3", "::/128", "::1/128", "ff00::/8", "fe80::/10")
)


class MxLookup:
    """`hostname`, `own_addresses`: who we are, to see loops. `chance()`: a number from 0 to
    below 1. `allow_loopback`: for tests on one machine. `port`: 25 but for tests."""

    def __init__(
        self,
        resolver: Resolver,
        hostname: str,
        own_addresses: frozenset[ClientAddress],
        chance: Callable[[], float],
        *,
        allow_loopback: bool = False,
        port: int = 25,
    ) -> None:
        self._resolver = resolver
        self._hostname = hostname.lower().rstrip(".")
        self._own_addresses = own_addresses
        self._chance = chance
        self._allow_loopback = allow_loopback
        self._port = port

    async def endpoints(self, domain: str) -> list[Endpoint]:
        """Where to try, the best first, never empty. Raises Unroutable or Unreachable."""
        if domain.startswith("["):
            return self._literal(domain)
        try:
            records = await self._resolver.mx(domain)
        except NoSuchDomain:
            raise Unroutable("5.1.2", f"the domain {domain} does not exist") from None
        except DnsUnavailable as error:
            raise Unreachable("4.4.3", f"MX look-up of {domain}: {error}") from None
        # RFC 7505 3: a single MX of "." says that the domain takes no mail
        if records and all(not host for _, host in records):
            raise Unroutable("5.1.10", f"the domain {domain} takes no mail (null MX)")
        # RFC 5321 5.1: without MX records the domain itself is its host
        named = [(preference, host) for preference, host in records if host] or [(0, domain)]
        return await self._resolve(domain, named)

    async def _resolve(self, domain: str, records: list[tuple[int, str]]) -> list[Endpoint]:
        # RFC 5321 5.1: preferences in order, equal ones in random order
        ordered = sorted((preference, self._chance(), host.lower()) for preference, host in records)
        found: list[Endpoint] = []
        temporary, has_loop = "", False
        for index, (preference, _, host) in enumerate(ordered[:MAX_HOSTS]):
            # RFC 5321 5.1: at our own name all hosts of the same and of lower priority are out
            if host == self._hostname or (
                any(
                    other == self._hostname
                    for other_preference, _, other in ordered[index:]
                    if other_preference == preference
                )
            ):
                has_loop = True
                break
            try:
                addresses = await self._resolver.addresses(host)
            except NoSuchDomain:
                continue
            except DnsUnavailable as error:
                temporary = f"address look-up of {host}: {error}"
                continue
            if any(address in self._own_addresses for address in addresses) and not self._allow_loopback:
                has_loop = True
                found = [endpoint for endpoint in found if _preference(ordered, endpoint.host) < preference]
                break
            usable = [address for address in addresses if self._is_usable(address)]
            has_loop = has_loop or len(usable) < len(addresses)
            found += [Endpoint(host, address.text, self._port) for address in usable[:MAX_ADDRESSES_PER_HOST]]
            if len(found) >= MAX_ENDPOINTS:
                break
        if found:
            return found[:MAX_ENDPOINTS]
        if temporary:
            raise Unreachable("4.4.3", temporary)
        if has_loop:
            raise Unroutable("5.4.6", f"mail for {domain} would come back to this host")
        raise Unroutable("5.4.4", f"no host that takes mail for {domain} has an address")

    def _literal(self, domain: str) -> list[Endpoint]:
        """RFC 5321 4.1.3: [192.0.2.1] or [IPv6:2001:db8::1]."""
        text = domain.removeprefix("[").removesuffix("]")
        if text[:5].lower() == "ipv6:":
            text = text[5:]
        try:
            address = ClientAddress.parse(text)
        except AddressError:
            raise Unroutable("5.1.3", f"{domain} is not an address") from None
        if not self._is_usable(address) or (address in self._own_addresses and not self._allow_loopback):
            raise Unroutable("5.4.6", f"mail for {domain} would come back to this host")
        return [Endpoint(domain, address.text, self._port)]

    def _is_usable(self, address: ClientAddress) -> bool:
        return self._allow_loopback or not any(address in network for network in _NEVER)


def _preference(ordered: Sequence[tuple[int, float, str]], host: str) -> int:
    return next(preference for preference, _, name in ordered if name == host)
