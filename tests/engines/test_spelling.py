"""Addresses as other servers spell them: one client is one client, and what is refused stays refused."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from popgate.values.address import AddressError, ClientAddress
from popgate.values.spelling import Spellings, read_spelling

CASES = [
    json.loads(line)
    for line in (Path(__file__).parent.parent / "attacks/cases.jsonl").read_text("ascii").splitlines()
]
packed_addresses = st.binary(min_size=4, max_size=4) | st.binary(min_size=16, max_size=16)


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("203.0.113.9", "203.0.113.9"),
        ("[203.0.113.9]", "203.0.113.9"),
        ("::ffff:203.0.113.9", "203.0.113.9"),
        ("[::ffff:203.0.113.9]", "203.0.113.9"),
        ("IPv6:::ffff:203.0.113.9", "203.0.113.9"),
        ("2001:db8::1", "2001:db8::1"),
        ("[2001:DB8:0::1]", "2001:db8::1"),
        ("IPv6:2001:db8::1", "2001:db8::1"),
        ("ipv6:2001:db8:0:0:0:0:0:1", "2001:db8::1"),
        ("IPV6:2001:db8::1", "2001:db8::1"),
        ("[IPv6:2001:db8::1]", "2001:db8::1"),
        ("2001.0db8.0000.0000.0000.0000.0000.0001", "2001:db8::1"),
        ("0000.0000.0000.0000.0000.ffff.cb00.7109", "203.0.113.9"),
        ("[::1]", "::1"),
        ("ipv6:0:0:0:0:0:0:0:1", "::1"),
    ],
)
def test_every_server_spells_it_differently(text: str, address: str) -> None:
    assert read_spelling(text).text == address


@pytest.mark.parametrize(
    "text",
    [
        "", "[]", "[", "]", "[203.0.113.9", "203.0.113.9]", "[[203.0.113.9]]", "[IPv6:[2001:db8::1]]",
        "IPv6:", "IPv6:203.0.113.9", "[IPv6:203.0.113.9]", "IPv6:IPv6:2001:db8::1", "IPv4:203.0.113.9",
        "IPv6: 2001:db8::1", " 203.0.113.9", "203.0.113.9 ", "203.0.113.9\n", "203.0.113.9\0",
        "203.0.113.011", "0xcb.0.113.9", "3405803785", "203.0.113", "203.0.113.256", "203.0.113.9/32",
        "2001:db8::1%eth0", "[2001:db8::1%25eth0]", "2001:db8::1::", "2001:db8::1/128",
        "2001.db8.0.0.0.0.0.1", "2001.0db8.0000.0000.0000.0000.0000", "::ffff:203.0.113.011",
        "2001.0db8.0000.0000.0000.0000.0000.000g",
        "2001.0db8.0000.0000.0000.0000.0000.00001", "20010.db8.0000.0000.0000.0000.0000.0001",
        "unknown", "localhost", "mail.example.org", "[unknown]", "203.0.113.9:25", "[2001:db8::1]:25",
        "٢٠٣.0.113.9", "２03.0.113.9",
    ],
)  # fmt: skip
def test_what_is_no_address_is_none_in_any_wrapping(text: str) -> None:
    with pytest.raises(AddressError):
        read_spelling(text)
    assert Spellings().find(text) is None


@pytest.mark.parametrize(
    "case", [case for case in CASES if case.get("class") == "ip"], ids=lambda case: case["id"]
)
def test_attack_addresses_are_refused_wrapped_as_they_are_bare(case: dict[str, object]) -> None:
    for text in map(str, case["send"]):  # type: ignore[call-overload]
        try:
            bare = ClientAddress.parse(text)
        except AddressError:
            for wrapped in (f"[{text}]", f"IPv6:{text}", f"[IPv6:{text}]"):
                assert Spellings().find(wrapped) in (None, _inner(wrapped))
        else:
            assert Spellings().find(f"[{text}]") == bare


def _inner(wrapped: str) -> ClientAddress | None:
    """For a case that is itself wrapped, so that one more wrapping makes the whole of another form."""
    try:
        return ClientAddress.parse(wrapped.strip("[]").removeprefix("IPv6:"))
    except AddressError:
        return None


@given(packed_addresses)
def test_all_spellings_of_an_address_are_that_address(packed: bytes) -> None:
    address = ClientAddress(packed)
    spellings = [address.text, f"[{address}]"]
    if address.is_ipv6:
        full = ":".join(f"{packed[i] << 8 | packed[i + 1]:x}" for i in range(0, 16, 2))
        dotted = ".".join(f"{packed[i] << 8 | packed[i + 1]:04x}" for i in range(0, 16, 2))
        spellings += [f"IPv6:{address}", f"ipv6:{full}", f"[IPv6:{full.upper()}]", dotted, dotted.upper()]
    else:
        spellings += [f"::ffff:{address}", f"[::ffff:{address}]", f"IPv6:::ffff:{address}"]
    known = Spellings()
    for text in spellings * 2:
        assert read_spelling(text) == known.find(text) == address


@given(st.text("0123456789abcdefABCDEF.:%[]IPv6/ \n", max_size=50))
def test_nothing_is_read_that_the_strict_reader_refuses(text: str) -> None:
    try:
        address = read_spelling(text)
    except AddressError:
        return
    inner = text.removeprefix("[").removesuffix("]")
    inner = inner[5:] if inner[:5].lower() == "ipv6:" else inner
    if inner.count(".") == 7:
        inner = inner.replace(".", ":")
    assert ClientAddress.parse(inner) == address


def test_memory_is_bounded() -> None:
    spellings = Spellings()
    for number in range(10_000):
        spellings.find(f"10.0.{number >> 8}.{number & 255}")
        spellings.find("x" * number)
    assert len(spellings._known) <= 4096
    assert all(len(text) <= 64 for text in spellings._known)
