"""The attack cases on the PROXY protocol: each one is refused, and no address is believed.

What belongs to the listener (who may and must send a header, its one log line) is tested with the
servers; the trusted list of everybody (proxy-026) with the configuration. See docs/attacks.md.
"""

import pytest

from attacks.attack_cases import of_class
from pop3_site import Site
from popgate.protocols.proxy import ProxyError, ProxyParser
from popgate.values.address import ClientAddress

V1 = b"PROXY TCP4 203.0.113.9 192.0.2.1 40000 25\r\n"
SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
IPV4 = bytes([203, 0, 113, 9, 192, 0, 2, 1, 0x9C, 0x40, 0, 25])


def v2(block: bytes, *, command: int = 0x21, length: int | None = None) -> bytes:
    size = len(block) if length is None else length
    return SIGNATURE + bytes([command, 0x11]) + size.to_bytes(2, "big") + block


REFUSED = {
    "proxy-002": b"EHLO client.example.com\r\n",
    "proxy-005": b"PROXY TCP6 203.0.113.9 192.0.2.1 40000 25\r\n",
    "proxy-006": b"PROXY TCP4 1.2.3.4 5.6.7.8 01 65536\r\n",
    "proxy-007": b"PROXY TCP4 01.2.3.4 192.0.2.1 40000 25\r\n",
    "proxy-008": V1.replace(b"\r\n", b"\n") + b"EHLO x\r\n",
    "proxy-009": V1.replace(b"203.0.113.9", b"203.0.113.9\0"),
    "proxy-010": V1.replace(b" 25\r\n", b" 25 x\r\n"),
    "proxy-012": v2(IPV4).replace(b"QUIT\n", b"QUIT\r"),
    "proxy-014": v2(b"", length=65535),
    "proxy-015": v2(IPV4[:11]),
    "proxy-018": v2(IPV4, command=0x31),
    "proxy-019": v2(IPV4 + b"\x04\0\x10short"),
}
PLAYED = {*REFUSED, "proxy-011", "proxy-021", "proxy-023"}
ELSEWHERE = {"proxy-026"}


@pytest.mark.parametrize("name", REFUSED)
@pytest.mark.parametrize("size", [1, 5, 1000])
def test_refused(name: str, size: int) -> None:
    parser = ProxyParser()
    data = REFUSED[name]
    with pytest.raises(ProxyError):
        for at in range(0, len(data), size):
            parser.feed(data[at : at + size])
    assert parser.result is None


def test_proxy_011_twenty_packets() -> None:
    parser = ProxyParser()
    step = -(-len(V1) // 20)
    for at in range(0, len(V1), step):
        parser.feed(V1[at : at + step])
    assert parser.result is not None
    assert parser.result.source == ClientAddress.parse("203.0.113.9")


def test_proxy_021_a_client_certificate_is_not_believed() -> None:
    ssl = b"\x07\0\0\0\0" + b"\x22\0\x03ann"
    parser = ProxyParser()
    parser.feed(v2(IPV4 + b"\x20" + len(ssl).to_bytes(2, "big") + ssl))
    header = parser.result
    assert header is not None
    assert (header.source, header.local, header.rest) == (ClientAddress.parse("203.0.113.9"), False, b"")
    assert not hasattr(header, "tls")


@pytest.mark.parametrize("second", [V1, v2(IPV4)])
def test_proxy_023_a_second_header_is_no_command(second: bytes) -> None:
    parser = ProxyParser()
    parser.feed(V1 + second.replace(b"203", b"198"))
    assert parser.result is not None
    assert parser.result.source == ClientAddress.parse("203.0.113.9")
    site = Site()
    output = site.talk().send(parser.result.rest)
    assert output.startswith(b"-ERR")
    assert b"+OK" not in output


def test_every_case_is_accounted_for() -> None:
    assert set(of_class("proxy")) == PLAYED | ELSEWHERE
