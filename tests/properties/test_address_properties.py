"""Addresses against the two readers of the standard library, and the attack cases of class ip."""

import ipaddress
import json
import socket

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from popgate.grants.networks import BUILT_IN_NEVER, NetworkSet
from popgate.grants.settings import GrantSettings
from popgate.values.address import AddressError, ClientAddress, Network

packed_addresses = st.binary(min_size=4, max_size=4) | st.binary(min_size=16, max_size=16)
# Groups with many zeros, so that :: has places to choose from.
zero_runs = st.lists(st.sampled_from([0, 0, 0, 1, 0xDB8, 0xFFFF]), min_size=8, max_size=8).map(
    lambda groups: b"".join(group.to_bytes(2, "big") for group in groups)
)
near_misses = st.text("0123456789abcfABCF.:%x/ [] \n\0-٣१", max_size=46)


def by_library(text: str) -> bytes | None:
    """What inet_pton makes of it, mapped addresses folded; None where it refuses."""
    try:
        packed = socket.inet_pton(socket.AF_INET6 if ":" in text else socket.AF_INET, text)
    except (OSError, ValueError):  # ValueError: an embedded NUL, or not encodable
        return None
    return packed[12:] if len(packed) == 16 and packed[:12] == b"\0" * 10 + b"\xff\xff" else packed


def by_us(text: str) -> bytes | None:
    try:
        return ClientAddress.parse(text).packed
    except AddressError:
        return None


@given(near_misses)
@example("1.2.3.4")
@example("::")
@example(":::")
@example("1::2::3")
@example("::1:")
@example(":1::")
@example("1:2:3:4:5:6:7:8")
@example("1:2:3:4:5:6:7::")
@example("::2:3:4:5:6:7:8")
@example("1:2:3:4:5:6:7::8")
@example("1:2:3:4:5:6:7:8:9")
@example("1:2:3:4:5:6:1.2.3.4")
@example("1:2:3:4:5:6:7:1.2.3.4")
@example("::1.2.3.4:5")
@example("1.2.3.4::")
@example("00001::")
@example("::01.2.3.4")
def test_whatever_we_read_inet_pton_reads_alike(text: str) -> None:
    assert by_us(text) == by_library(text)


@given(packed_addresses | zero_runs)
def test_every_address_has_one_spelling_and_comes_back_from_it(packed: bytes) -> None:
    address = ClientAddress(packed)
    again = ClientAddress.parse(address.text)
    assert again == address and hash(again) == hash(address) and again.packed == address.packed
    library = ipaddress.ip_address(address.packed)
    assert address.text == str(library)
    for spelling in (library.exploded, library.exploded.upper()):
        assert ClientAddress.parse(spelling) == address
    assert address.is_ipv6 is (library.version == 6)


@given(st.binary(min_size=4, max_size=4))
def test_a_mapped_address_is_the_ipv4_one(packed: bytes) -> None:
    address = ClientAddress(packed)
    high, low = packed[:2].hex(), packed[2:].hex()
    for spelling in (f"::ffff:{address}", f"0:0:0:0:0:FFFF:{address}", f"::ffff:{high}:{low}"):
        assert ClientAddress.parse(spelling) == address
    assert ClientAddress.parse(f"::{address}") != address
    assert ClientAddress.parse(f"64:ff9b::{address}") != address


@given(packed_addresses | zero_runs, packed_addresses | zero_runs, st.integers(0, 128))
def test_networks_agree_with_the_library(base: bytes, other: bytes, bits: int) -> None:
    network_address, address = ClientAddress(base), ClientAddress(other)
    bits = min(bits, len(network_address.packed) * 8)
    library = ipaddress.ip_network((network_address.packed, bits), strict=False)
    network = Network.parse(f"{network_address}/{bits}")
    assert network == Network.parse(str(library))
    assert network.base.packed == library.network_address.packed
    for each in (address, network_address, network_address.prefix(bits)):
        inside = ipaddress.ip_address(each.packed) in library
        assert (each in network) is inside
        assert (each in NetworkSet([network])) is inside


@given(packed_addresses, st.integers(0, 128))
def test_a_prefix_is_the_network_address(packed: bytes, bits: int) -> None:
    address = ClientAddress(packed)
    bits = min(bits, len(address.packed) * 8)
    library = ipaddress.ip_network((address.packed, bits), strict=False)
    assert address.prefix(bits).packed == library.network_address.packed


@given(st.lists(packed_addresses, max_size=8))
def test_order_is_total(many: list[bytes]) -> None:
    addresses = [ClientAddress(each) for each in many]
    assert [each.packed for each in sorted(addresses)] == sorted(
        (a.packed for a in addresses), key=lambda p: (len(p), p)
    )


@given(st.binary(max_size=20).filter(lambda raw: len(raw) not in (4, 16)))
def test_other_lengths_are_no_address(raw: bytes) -> None:
    with pytest.raises(AddressError):
        ClientAddress(raw)


@pytest.mark.parametrize(
    "text",
    [
        "192.0.2.0/33",
        "192.0.2.0/-1",
        "192.0.2.0/",
        "192.0.2.0/1/2",
        "::/129",
        "x/8",
        "/8",
        "192.0.2.0/255.255.255.0",
        "::ffff:192.0.2.0/95",
        "192.0.2.0/٣",
    ],
)
def test_what_is_no_network(text: str) -> None:
    with pytest.raises(AddressError):
        Network.parse(text)


def test_a_mapped_network_is_the_ipv4_one() -> None:
    assert Network.parse("::ffff:192.0.2.0/120") == Network.parse("192.0.2.0/24")


# The attack corpus, class ip: spelling, and what becomes of it ("refuse": no address; "never": no grant).
CASES = json.loads(r"""[
["ip-001", "1.2.3.4", "1.2.3.4"], ["ip-002", "::ffff:1.2.3.4", "1.2.3.4"],
["ip-004", "0:0:0:0:0:ffff:1.2.3.4", "1.2.3.4"], ["ip-006", "2001:DB8::1", "2001:db8::1"],
["ip-007", "2001:db8:0:0:0:0:0:1", "2001:db8::1"], ["ip-008", "fe80::1%eth0", "refuse"],
["ip-009", "fe80::1", "never"], ["ip-010", "::1.2.3.4", "::102:304"], ["ip-015", "01.2.3.4", "refuse"],
["ip-017", "0x1.2.3.4", "refuse"], ["ip-018", "0x01020304", "refuse"], ["ip-019", "16909060", "refuse"],
["ip-020", "1.2.772", "refuse"], ["ip-021", "1.131844", "refuse"], ["ip-023", "256.1.1.1", "refuse"],
["ip-029", "1.2.3.4/32", "refuse"], ["ip-030", "1.2.3.4:25", "refuse"], ["ip-031", "[1.2.3.4]", "refuse"],
["ip-032", "IPv6:::1", "refuse"], ["ip-033", "\u0967.2.3.4", "refuse"],
["ip-035", "::ffff:1.2.3.256", "refuse"],
["ip-036", ":::", "refuse"], ["ip-037", "1::2::3", "refuse"], ["ip-038", "12345::", "refuse"],
["ip-040", ".", "refuse"], ["ip-043", "1.2.3.4;rm", "refuse"], ["ip-044", "localhost", "refuse"],
["ip-046", "::%1", "refuse"], ["ip-049", "255.255.255.255", "never"], ["ip-050", "224.0.0.1", "never"],
["ip-052", "::1", "never"], ["ip-053", "127.0.0.1", "never"], ["ip-054", "ff02::1", "never"],
["ip-055", "240.0.0.1", "never"]
]""")


@pytest.mark.parametrize(("text", "becomes"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_attack_class_ip(text: str, becomes: str) -> None:
    if becomes == "refuse":
        with pytest.raises(AddressError):
            ClientAddress.parse(text)
        return
    address = ClientAddress.parse(text)
    never = address in BUILT_IN_NEVER or address in NetworkSet.parse(GrantSettings().never)
    assert never is (becomes == "never")
    if becomes != "never":
        assert address.text == becomes


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "1.2.3.4 ",
        " 1.2.3.4",
        "1.2.3.4\n",
        "1.2.3.4\0",
        "1.2.3",
        "1.2.3.4.5",
        "1..3.4",
        "+1.2.3.4",
        "1_0.2.3.4",
        "1.2.3.4,",
        "::\n",
        "fe80::1%",
        "::g",
        "[::1]",
    ],
)
def test_other_forms_that_some_libraries_accept(text: str) -> None:
    with pytest.raises(AddressError):
        ClientAddress.parse(text)
