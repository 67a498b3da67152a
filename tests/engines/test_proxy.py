"""The PROXY protocol parser: what it believes and what it refuses."""

import random
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from popgate.protocols.engine import MisuseError
from popgate.protocols.proxy import ProxyError, ProxyHeader, ProxyParser, _crc32c
from popgate.values.address import ClientAddress

SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
IPV4 = bytes([203, 0, 113, 9, 192, 0, 2, 1]) + (40000).to_bytes(2, "big") + (25).to_bytes(2, "big")
IPV6 = bytes.fromhex("20010db8" + "00" * 11 + "09" + "20010db8" + "00" * 11 + "01" + "9c40" + "0019")
MAPPED = bytes(10) + b"\xff\xff" + bytes([203, 0, 113, 9]) + IPV6[16:]
CLIENT = ClientAddress.parse("203.0.113.9")


def v2(block: bytes, command: int = 0x21, family: int = 0x11, length: int | None = None) -> bytes:
    size = len(block) if length is None else length
    return SIGNATURE + bytes([command, family]) + size.to_bytes(2, "big") + block


def tlv(kind: int, content: bytes) -> bytes:
    return bytes([kind]) + len(content).to_bytes(2, "big") + content


def with_checksum(block: bytes, wrong: int = 0) -> bytes:
    blank = v2(block + tlv(3, bytes(4)))
    return blank[:-4] + (_crc32c(blank) ^ wrong).to_bytes(4, "big")


def parse(data: bytes) -> ProxyHeader | None:
    parser = ProxyParser()
    parser.feed(data)
    return parser.result


GOOD = {
    "v1-tcp4": (b"PROXY TCP4 203.0.113.9 192.0.2.1 40000 25\r\n", "203.0.113.9", 40000, False),
    "v1-tcp6": (b"PROXY TCP6 2001:DB8::9 2001:db8::1 40000 25\r\n", "2001:db8::9", 40000, False),
    "v1-mapped": (b"PROXY TCP6 ::ffff:203.0.113.9 ::1 0 65535\r\n", "203.0.113.9", 0, False),
    "v1-unknown": (b"PROXY UNKNOWN\r\n", None, 0, False),
    "v1-unknown-more": (b"PROXY UNKNOWN 203.0.113.9 and so on\r\n", None, 0, False),
    "v1-longest": (b"PROXY UNKNOWN " + b"x" * 91 + b"\r\n", None, 0, False),
    "v2-ipv4": (v2(IPV4), "203.0.113.9", 40000, False),
    "v2-ipv6": (v2(IPV6, family=0x21), "2001:db8::9", 40000, False),
    "v2-mapped": (v2(MAPPED, family=0x21), "203.0.113.9", 40000, False),
    "v2-local": (v2(b"", command=0x20, family=0), None, 0, True),
    "v2-local-with-block": (v2(IPV4 + b"junk", command=0x20, family=0x55), None, 0, True),
    "v2-unspecified": (v2(b"whatever", family=0), None, 0, False),
    "v2-unix": (v2(bytes(216), family=0x31), None, 0, False),
    "v2-tlvs": (v2(IPV4 + tlv(4, b"") + tlv(2, b"name") + tlv(0xEE, b"x")), "203.0.113.9", 40000, False),
    "v2-ssl": (v2(IPV4 + tlv(0x20, b"\x07\0\0\0\0" + tlv(0x22, b"ann"))), "203.0.113.9", 40000, False),
    "v2-checksum": (with_checksum(IPV4), "203.0.113.9", 40000, False),
    "v2-longest": (v2(IPV4 + tlv(4, bytes(505))), "203.0.113.9", 40000, False),
}  # fmt: skip

BAD = {
    "smtp": b"EHLO x\r\n",
    "empty-line": b"\r\nQUIT\r\n",
    "v1-lower-case": b"proxy TCP4 203.0.113.9 192.0.2.1 40000 25\r\n",
    "v1-no-fields": b"PROXY \r\n",
    "v1-family": b"PROXY UDP4 203.0.113.9 192.0.2.1 40000 25\r\n",
    "v1-family-case": b"PROXY tcp4 203.0.113.9 192.0.2.1 40000 25\r\n",
    "v1-too-few": b"PROXY TCP4 203.0.113.9 192.0.2.1 40000\r\n",
    "v1-too-many": b"PROXY TCP4 203.0.113.9 192.0.2.1 40000 25 x\r\n",
    "v1-two-spaces": b"PROXY TCP4  203.0.113.9 192.0.2.1 40000 25\r\n",
    "v1-space-at-end": b"PROXY TCP4 203.0.113.9 192.0.2.1 40000 25 \r\n",
    "v1-tab": b"PROXY TCP4\t203.0.113.9 192.0.2.1 40000 25\r\n",
    "v1-tcp6-with-v4": b"PROXY TCP6 203.0.113.9 192.0.2.1 40000 25\r\n",
    "v1-tcp4-with-v6": b"PROXY TCP4 2001:db8::9 2001:db8::1 40000 25\r\n",
    "v1-mixed": b"PROXY TCP4 203.0.113.9 2001:db8::1 40000 25\r\n",
    "v1-octal": b"PROXY TCP4 0203.0.113.9 192.0.2.1 40000 25\r\n",
    "v1-octal-destination": b"PROXY TCP4 203.0.113.9 192.0.02.1 40000 25\r\n",
    "v1-short-form": b"PROXY TCP4 203.113.9 192.0.2.1 40000 25\r\n",
    "v1-zone": b"PROXY TCP6 fe80::1%eth0 2001:db8::1 40000 25\r\n",
    "v1-port-zero": b"PROXY TCP4 203.0.113.9 192.0.2.1 01 25\r\n",
    "v1-port-over": b"PROXY TCP4 203.0.113.9 192.0.2.1 40000 65536\r\n",
    "v1-port-sign": b"PROXY TCP4 203.0.113.9 192.0.2.1 +40 25\r\n",
    "v1-port-other-digits": "PROXY TCP4 203.0.113.9 192.0.2.1 ٤ 25\r\n".encode(),
    "v1-bare-lf": b"PROXY TCP4 203.0.113.9 192.0.2.1 40000 25\n",
    "v1-bare-lf-then-more": b"PROXY TCP4 203.0.113.9 192.0.2.1 40000 25\nEHLO x\r\n",
    "v1-nul": b"PROXY TCP4 203.0.113.9\0 192.0.2.1 40000 25\r\n",
    "v1-cr-inside": b"PROXY UNKNOWN \rx\r\n",
    "v1-unknown-8bit": b"PROXY UNKNOWN \xff\r\n",
    "v1-too-long": b"PROXY UNKNOWN " + b"x" * 92 + b"\r\n",
    "v1-endless": b"PROXY UNKNOWN " + b"x" * 100000,
    "v2-signature": b"\r\n\r\n\0\r\nQUIT\r" + v2(IPV4)[12:],
    "v2-version-1": v2(IPV4, command=0x11),
    "v2-version-3": v2(IPV4, command=0x31),
    "v2-command": v2(IPV4, command=0x22),
    "v2-family": v2(IPV4, family=0x41),
    "v2-transport": v2(IPV4, family=0x13),
    "v2-half-unspecified": v2(IPV4, family=0x10),
    "v2-datagram": v2(IPV4, family=0x12),
    "v2-short-block": v2(IPV4[:-1]),
    "v2-short-block-6": v2(IPV4, family=0x21),
    "v2-empty-block": v2(b""),
    "v2-too-long": v2(IPV4, length=521),
    "v2-longest-possible": v2(IPV4, length=65535),
    "v2-local-too-long": v2(b"", command=0x20, length=65535),
    "v2-tlv-overruns": v2(IPV4 + b"\x04\0\x09xyz"),
    "v2-tlv-cut": v2(IPV4 + b"\x04\0"),
    "v2-ssl-short": v2(IPV4 + tlv(0x20, b"\x07\0\0\0")),
    "v2-ssl-inner-overruns": v2(IPV4 + tlv(0x20, b"\x07\0\0\0\0\x22\0\x09ann")),
    "v2-checksum-wrong": with_checksum(IPV4, wrong=1),
    "v2-checksum-short": v2(IPV4 + tlv(3, b"\0\0\0")),
    "v2-unique-id-long": v2(IPV4 + tlv(5, bytes(129))),
}  # fmt: skip


@pytest.mark.parametrize("name", GOOD)
def test_good_headers_in_any_cut(name: str) -> None:
    data, source, port, is_local = GOOD[name]
    address = None if source is None else ClientAddress.parse(source)
    for rest in (b"", b"USER ann\r\n", b"PROXY UNKNOWN\r\n"):
        assert parse(data + rest) == ProxyHeader(address, port, is_local, rest)
    parser = ProxyParser()
    for index in range(len(data)):
        assert parser.result is None
        parser.feed(data[index : index + 1])
    assert parser.result == ProxyHeader(address, port, is_local, b"")
    with pytest.raises(MisuseError):
        parser.feed(b"x")


@pytest.mark.parametrize("name", BAD)
def test_bad_headers_in_any_cut(name: str) -> None:
    data = BAD[name]
    with pytest.raises(ProxyError):
        parse(data)
    for size in (1, 7):
        parser = ProxyParser()
        with pytest.raises(ProxyError):
            for start in range(0, len(data), size):
                parser.feed(data[start : start + size])
        assert parser.result is None
        with pytest.raises(ProxyError):
            parser.feed(b"PROXY UNKNOWN\r\n")


def test_a_wrong_peer_is_refused_at_its_first_octet() -> None:
    for first in (b"E", b"\x16", b"Q", b"\n"):
        with pytest.raises(ProxyError):
            parse(first)
    assert parse(b"P") is None
    assert parse(b"\r") is None


def test_the_limit_of_version_2_can_be_raised() -> None:
    parser = ProxyParser(max_v2_octets=4096)
    parser.feed(v2(IPV4 + tlv(4, bytes(3000))))
    assert parser.result is not None
    assert parser.result.source == CLIENT


def test_crc32c() -> None:
    assert _crc32c(b"123456789") == 0xE3069283  # the check value of CRC-32C


def outcome(data: bytes, cut: Callable[[], int]) -> object:
    parser = ProxyParser()
    try:
        while data and parser.result is None:
            size = cut()
            parser.feed(data[:size])
            data = data[size:]
    except ProxyError:
        return "refused"
    result = parser.result
    return None if result is None else (result.source, result.source_port, result.local, result.rest + data)


mutants = st.builds(
    lambda name, at, new, keep: GOOD[name][0][: at % 60] + new + GOOD[name][0][(at % 60) + keep :],
    st.sampled_from(sorted(GOOD)),
    st.integers(0, 59),
    st.binary(max_size=3),
    st.integers(0, 3),
)


@given(st.one_of(mutants, st.binary(max_size=64), mutants.map(lambda data: data + b"\r\nx")), st.randoms())
def test_every_cut_has_the_same_outcome(data: bytes, rng: random.Random) -> None:
    whole = outcome(data, lambda: len(data))
    assert outcome(data, lambda: 1) == whole
    assert outcome(data, lambda: rng.randint(1, 9)) == whole
