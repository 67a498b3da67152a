"""The resolver by dnspython: the system's name servers, or given ones."""

import asyncio
from collections.abc import Sequence
from typing import Any

import dns.asyncresolver
import dns.exception
import dns.name
import dns.rdatatype
import dns.resolver

from popgate.queue.delivery.mx import DnsUnavailable, NoSuchDomain
from popgate.values.address import AddressError, ClientAddress

LOOKUP_SECONDS = 20.0


class DnsResolver:
    """Obeys delivery.mx.Resolver. Without `nameservers` it reads /etc/resolv.conf, at the first
    look-up, so that a server starts without one. `port` is for tests."""

    def __init__(self, nameservers: Sequence[str] = (), port: int = 53) -> None:
        self._nameservers = list(nameservers)
        self._port = port
        self._resolver: dns.asyncresolver.Resolver | None = None

    async def mx(self, domain: str) -> Sequence[tuple[int, str]]:
        return [
            (int(record.preference), record.exchange.to_text(omit_final_dot=True).rstrip("."))
            for record in await self._ask(domain, "MX")
        ]

    async def addresses(self, host: str) -> Sequence[ClientAddress]:
        answers = await asyncio.gather(self._ask(host, "A"), self._ask(host, "AAAA"), return_exceptions=True)
        found: list[ClientAddress] = []
        for answer in answers:
            if isinstance(answer, list):
                for record in answer:
                    try:
                        found.append(ClientAddress.parse(record.address))
                    except AddressError:
                        continue
        if found:
            return found
        # One family that cannot be looked up is as good as both: it may be the one that is there.
        for kind in (DnsUnavailable, NoSuchDomain, BaseException):
            for answer in answers:
                if isinstance(answer, kind):
                    raise answer
        return []

    async def _ask(self, name: str, kind: str) -> list[Any]:
        try:
            answer = await self._get().resolve(
                dns.name.from_text(name),
                dns.rdatatype.from_text(kind),
                raise_on_no_answer=False,
                lifetime=LOOKUP_SECONDS,
                search=False,
            )
        except dns.resolver.NXDOMAIN:
            raise NoSuchDomain(name) from None
        except (
            dns.exception.SyntaxError,
            dns.name.NameTooLong,
            dns.name.LabelTooLong,
            dns.name.EmptyLabel,
            dns.name.IDNAException,
            UnicodeError,
        ):
            raise NoSuchDomain(f"{name} cannot be a domain name") from None
        except dns.resolver.NoAnswer:
            return []
        except (dns.exception.DNSException, OSError) as error:
            raise DnsUnavailable(f"{type(error).__name__}") from error
        return list(answer)

    def _get(self) -> dns.asyncresolver.Resolver:
        if self._resolver is None:
            resolver = dns.asyncresolver.Resolver(configure=not self._nameservers)
            if self._nameservers:
                resolver.nameservers = list(self._nameservers)
            resolver.port = self._port
            self._resolver = resolver
        return self._resolver
