"""Names and addresses of clients by dnspython: a remote_name.NameResolver."""

import asyncio
from collections.abc import Sequence

import dns.asyncresolver
import dns.exception
import dns.name
import dns.resolver
import dns.reversename

from popgate.values.address import AddressError, ClientAddress


class DnsNames:
    """Without `nameservers` it reads /etc/resolv.conf, at the first look-up. `port` is for tests."""

    def __init__(self, nameservers: Sequence[str] = (), port: int = 53) -> None:
        self._nameservers = list(nameservers)
        self._port = port
        self._resolver: dns.asyncresolver.Resolver | None = None

    async def names(self, address: ClientAddress) -> Sequence[str]:
        return [
            name.rstrip(".") for name in await self._ask(dns.reversename.from_address(address.text), "PTR")
        ]

    async def addresses(self, name: str) -> Sequence[ClientAddress]:
        try:
            query = dns.name.from_text(name)
        except (dns.exception.DNSException, UnicodeError) as fault:
            raise OSError(f"{name} cannot be looked up") from fault
        found: list[ClientAddress] = []
        answers = await asyncio.gather(
            self._ask(query, "A"), self._ask(query, "AAAA"), return_exceptions=True
        )
        for answer in answers:
            if isinstance(answer, BaseException):
                if not isinstance(answer, OSError):
                    raise answer
                continue
            for text in answer:
                try:
                    found.append(ClientAddress.parse(text))
                except AddressError:
                    continue
        return found

    async def _ask(self, name: dns.name.Name, kind: str) -> list[str]:
        try:
            answer = await self._get().resolve(name, kind, raise_on_no_answer=False, search=False)
        except (dns.exception.DNSException, OSError) as fault:
            raise OSError(f"{kind} of {name}: {type(fault).__name__}") from fault
        return [record.to_text() for record in answer]

    def _get(self) -> dns.asyncresolver.Resolver:
        if self._resolver is None:
            resolver = dns.asyncresolver.Resolver(configure=not self._nameservers)
            if self._nameservers:
                resolver.nameservers = list(self._nameservers)
            resolver.port = self._port
            self._resolver = resolver
        return self._resolver
