"""MX look-up: the rules with a table for DNS, then the real resolver against a real DNS server."""

import asyncio
import random
from pathlib import Path
from typing import Any

import dns.flags
import dns.message
import dns.rcode
import dns.rrset
import pytest

from popgate.queue.delivery.dns import DnsResolver
from popgate.queue.delivery.mx import (
    MAX_ADDRESSES_PER_HOST,
    MAX_ENDPOINTS,
    MAX_HOSTS,
    DnsUnavailable,
    MxLookup,
    NoSuchDomain,
)
from popgate.queue.delivery.outcome import Unreachable, Unroutable
from popgate.values.address import ClientAddress
from support.queue_site import QueueSite, TableResolver
from support.smtp_peer import SmtpPeer


def lookup(resolver: Any, seed: int = 1, **options: Any) -> MxLookup:
    own = frozenset({ClientAddress.parse("192.0.2.1")})
    return MxLookup(resolver, "mail.example.org", own, random.Random(seed).random, **options)


async def hosts(resolver: TableResolver, domain: str = "example.net", **options: Any) -> list[str]:
    return [f"{one.host} {one.address}" for one in await lookup(resolver, **options).endpoints(domain)]


async def code(resolver: TableResolver, domain: str = "example.net") -> str:
    with pytest.raises((Unroutable, Unreachable)) as caught:
        await lookup(resolver).endpoints(domain)
    return caught.value.outcome.code


@pytest.fixture
def resolver() -> TableResolver:
    table = TableResolver()
    table.address_records = {f"mx{number}.example.net": [f"198.51.100.{number}"] for number in range(1, 60)}
    return table


async def test_preferences_are_kept(resolver: TableResolver) -> None:
    resolver.mx_records["example.net"] = [(20, "mx2.example.net"), (10, "MX1.example.net")]
    assert await hosts(resolver) == ["mx1.example.net 198.51.100.1", "mx2.example.net 198.51.100.2"]


async def test_equal_preferences_are_shuffled(resolver: TableResolver) -> None:
    resolver.mx_records["example.net"] = [(10, f"mx{number}.example.net") for number in (1, 2, 3)]
    orders = {tuple(await hosts(resolver, seed=seed)) for seed in range(40)}
    assert len(orders) == 6


async def test_a_domain_without_mx_is_its_own_host(resolver: TableResolver) -> None:
    resolver.mx_records["example.net"] = []
    resolver.address_records["example.net"] = ["198.51.100.9", "2001:db8::9"]
    assert await hosts(resolver) == ["example.net 198.51.100.9", "example.net 2001:db8::9"]


async def test_null_mx(resolver: TableResolver) -> None:
    resolver.mx_records["example.net"] = [(0, "")]
    assert await code(resolver) == "5.1.10"
    resolver.mx_records["example.net"] = [(0, ""), (10, "mx1.example.net")]  # not a null MX: RFC 7505 3
    assert await hosts(resolver) == ["mx1.example.net 198.51.100.1"]


async def test_no_such_domain(resolver: TableResolver) -> None:
    assert await code(resolver) == "5.1.2"


async def test_hosts_without_addresses(resolver: TableResolver) -> None:
    resolver.mx_records["example.net"] = [(10, "none.example.net")]
    assert await code(resolver) == "5.4.4"
    resolver.mx_records["example.net"] += [(20, "mx1.example.net")]
    assert await hosts(resolver) == ["mx1.example.net 198.51.100.1"]


async def test_a_dns_fault_never_bounces(resolver: TableResolver) -> None:
    resolver.mx_records["example.net"] = DnsUnavailable("SERVFAIL")
    assert await code(resolver) == "4.4.3"
    resolver.mx_records["example.net"] = [(10, "slow.example.net"), (20, "none.example.net")]
    resolver.address_records["slow.example.net"] = DnsUnavailable("timeout")
    assert await code(resolver) == "4.4.3"


@pytest.mark.parametrize("own", ["mail.example.org", "other.example.net"])
async def test_our_own_host_cuts_the_list(resolver: TableResolver, own: str) -> None:
    resolver.address_records["other.example.net"] = ["192.0.2.1"]  # our address under another name
    resolver.mx_records["example.net"] = [
        (10, "mx1.example.net"),
        (20, own),
        (20, "mx2.example.net"),
        (30, "mx3.example.net"),
    ]
    for seed in range(10):
        assert await hosts(resolver, seed=seed) == ["mx1.example.net 198.51.100.1"]
    resolver.mx_records["example.net"] = [(5, own), (10, "mx1.example.net")]
    assert await code(resolver) == "5.4.6"


@pytest.mark.parametrize(
    "address", ["127.0.0.1", "127.8.9.1", "0.0.0.0", "::1", "::", "224.0.0.1", "255.255.255.255", "fe80::1"]
)
async def test_mx_that_points_into_this_machine(resolver: TableResolver, address: str) -> None:
    resolver.mx_records["example.net"] = [(10, "bad.example.net")]
    resolver.address_records["bad.example.net"] = [address]
    assert await code(resolver) == "5.4.6"
    resolver.mx_records["example.net"] = [(10, "bad.example.net"), (20, "mx1.example.net")]
    assert await hosts(resolver) == ["mx1.example.net 198.51.100.1"]


async def test_the_number_of_tries_is_bounded(resolver: TableResolver) -> None:
    resolver.mx_records["example.net"] = [(number, f"mx{number}.example.net") for number in range(1, 60)]
    assert len(await hosts(resolver)) == MAX_HOSTS
    resolver.address_records["mx1.example.net"] = [f"203.0.113.{number}" for number in range(1, 50)]
    found = await hosts(resolver)
    assert len(found) <= MAX_ENDPOINTS
    assert len([one for one in found if one.startswith("mx1.")]) == MAX_ADDRESSES_PER_HOST


@pytest.mark.parametrize(
    ("domain", "address"),
    [
        ("[198.51.100.7]", "198.51.100.7"),
        ("[ipv6:2001:db8::7]", "2001:db8::7"),
        ("[IPv6:2001:db8::7]", "2001:db8::7"),
    ],
)
async def test_address_literals(resolver: TableResolver, domain: str, address: str) -> None:
    (endpoint,) = await lookup(resolver).endpoints(domain)
    assert endpoint.address == address


@pytest.mark.parametrize(
    ("domain", "expected"),
    [
        ("[127.0.0.1]", "5.4.6"),
        ("[192.0.2.1]", "5.4.6"),
        ("[IPv6:::1]", "5.4.6"),
        ("[x]", "5.1.3"),
        ("[1]", "5.1.3"),
    ],
)
async def test_bad_address_literals(resolver: TableResolver, domain: str, expected: str) -> None:
    assert await code(resolver, domain) == expected


# A DNS server of a few lines on loopback


class DnsServer(asyncio.DatagramProtocol):
    def __init__(self, zone: dict[tuple[str, str], list[str] | int]) -> None:
        self.zone = zone

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def datagram_received(self, data: bytes, address: Any) -> None:
        query = dns.message.from_wire(data)
        reply = dns.message.make_response(query)
        reply.flags |= dns.flags.RA
        (question,) = query.question
        name, kind = question.name.to_text().rstrip(".").lower(), dns.rdatatype.to_text(question.rdtype)
        found = self.zone.get((name, kind))
        if isinstance(found, int):
            if found < 0:
                return  # says nothing
            reply.set_rcode(dns.rcode.from_text("SERVFAIL") if found == 2 else dns.rcode.from_text("REFUSED"))
        elif found:
            reply.answer.append(dns.rrset.from_text(question.name, 60, "IN", kind, *found))
        elif found is None and not any(known == name for known, _ in self.zone):
            reply.set_rcode(dns.rcode.from_text("NXDOMAIN"))
        self.transport.sendto(reply.to_wire(), address)


@pytest.fixture
async def zone() -> Any:
    records: dict[tuple[str, str], Any] = {
        ("example.net", "MX"): ["10 mx1.example.net.", "20 mx2.example.net."],
        ("mx1.example.net", "A"): ["198.51.100.1"],
        ("mx1.example.net", "AAAA"): ["2001:db8::1"],
        ("mx2.example.net", "A"): ["198.51.100.2"],
        ("null.example", "MX"): ["0 ."],
        ("plain.example", "A"): ["198.51.100.3"],
        ("fail.example", "MX"): 2,
        ("half.example", "A"): [],
        ("half.example", "AAAA"): 2,
        ("xn--mller-kva.example", "MX"): ["10 mx1.example.net."],
    }
    transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(
        lambda: DnsServer(records), local_addr=("127.0.0.1", 0)
    )
    yield records, transport.get_extra_info("sockname")[1]
    transport.close()


async def test_the_real_resolver(zone: Any) -> None:
    _, port = zone
    resolver = DnsResolver(["127.0.0.1"], port)
    assert sorted(await resolver.mx("example.net")) == [(10, "mx1.example.net"), (20, "mx2.example.net")]
    assert [one.text for one in await resolver.addresses("mx1.example.net")] == [
        "198.51.100.1",
        "2001:db8::1",
    ]
    assert [one.text for one in await resolver.addresses("mx2.example.net")] == ["198.51.100.2"]
    assert await resolver.mx("null.example") == [(0, "")]
    assert await resolver.mx("plain.example") == []
    assert await resolver.mx("müller.example") == [(10, "mx1.example.net")]
    for name in ("none.example", "a..b", "x" * 64 + ".example", ".".join(["x" * 60] * 6), ""):
        with pytest.raises(NoSuchDomain):
            await resolver.mx(name or "none.example")
    with pytest.raises(DnsUnavailable):
        await resolver.mx("fail.example")
    with pytest.raises(DnsUnavailable):
        await resolver.addresses("half.example")


async def test_from_mx_to_a_real_peer(zone: Any, tmp_path: Path) -> None:
    """The first host refuses the connection, the second takes the message."""
    records, port = zone
    async with SmtpPeer(host="127.0.0.3") as peer:
        records["example.net", "MX"] = ["10 dead.example.net.", "20 mx.example.net."]
        records["dead.example.net", "A"] = ["127.0.0.2"]
        records["mx.example.net", "A"] = ["127.0.0.3"]
        site = QueueSite(tmp_path)
        site.resolver = DnsResolver(["127.0.0.1"], port)  # type: ignore[assignment]
        site.options["mx_port"] = peer.port
        async with site:
            await site.send("you@example.net", sender="")
            (event,) = await site.wait_for("delivery.sent")
            assert event.fields["host"] == "mx.example.net"
            await site.send("you@null.example", sender="")
            (event,) = await site.wait_for("delivery.failed")
            assert event.fields["status"] == "5.1.10"
            await site.send("you@fail.example", sender="")
            (event,) = await site.wait_for("delivery.deferred")
            assert event.fields["status"] == "4.4.3"


async def test_opportunistic_tls_is_used_and_given_up(zone: Any, tmp_path: Path) -> None:
    import ssl

    import trustme

    records, port = zone
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert("unrelated.example").configure_cert(context)

    def broken(line: str) -> str | None:
        return "454 4.7.0 no TLS now" if line == "STARTTLS" else None

    for answer, greetings in ((lambda line: None, 2), (broken, 2)):
        async with SmtpPeer(answer, tls=context) as peer:
            records["example.net", "MX"] = ["10 mx.example.net."]
            records["mx.example.net", "A"] = ["127.0.0.1"]
            site = QueueSite(tmp_path / answer.__name__.strip("<>"))
            site.resolver = DnsResolver(["127.0.0.1"], port)  # type: ignore[assignment]
            site.options["mx_port"] = peer.port
            async with site:
                await site.send("you@example.net", sender="")
                await site.wait_for("delivery.sent")
                assert peer.commands.count("STARTTLS") == 1
                assert len([line for line in peer.commands if line.startswith("EHLO")]) == greetings
                assert peer.connections == (2 if answer is broken else 1)
