"""Client addresses as other mail servers spell them, brought to the one canonical form, and written so.

Every server has its own way to name the client it asks about:

    2001:db8::1, ::ffff:192.0.2.1                 Postfix, Exim, Courier
    [2001:db8::1], [192.0.2.1]                    OpenSMTPD, address literals
    IPv6:2001:db8::1, ipv6:2001:db8:0:0:0:0:0:1   Sendmail, XCLIENT
    [IPv6:2001:db8::1]                            RFC 5321 4.1.3
    2001.0db8.0000.0000.0000.0000.0000.0001       Exim's net- look-ups: eight groups of four digits

Only the wrapping is taken off here. What is inside is read by popgate.values.address, so a zone, an
octal or short form and whatever else it refuses stays refused in every wrapping.
"""

from typing import Literal

from popgate.values.address import AddressError, ClientAddress

Form = Literal["plain", "bracketed", "sendmail", "dotted"]
"""The ways to write an address for them."""

_TAG = "ipv6:"
_DOTTED_LENGTH = 39
_LONGEST = 64
_REMEMBERED_AT_MOST = 4096


def read_spelling(text: str) -> ClientAddress:
    """The address that `text` spells in one of the forms above; raises AddressError."""
    inner = text
    if inner.startswith("["):
        if not inner.endswith("]"):
            raise AddressError(f"{text[:_LONGEST]!r}: a bracket is not closed")
        inner = inner[1:-1]
    if inner[:5].lower() == _TAG:
        inner = inner[5:]
        if ":" not in inner:
            raise AddressError(f"{text[:_LONGEST]!r}: no IPv6 address stands behind the tag")
    elif len(inner) == _DOTTED_LENGTH and inner.count(".") == 7 and ":" not in inner:
        groups = inner.split(".")
        if any(len(group) != 4 for group in groups):
            raise AddressError(f"{text[:_LONGEST]!r}: eight groups of four digits are needed")
        inner = ":".join(groups)
    return ClientAddress.parse(inner)


def write_spelling(address: ClientAddress, form: Form) -> str:
    """The address in one of the forms above. IPv4 has one form everywhere."""
    if form == "plain" or not address.is_ipv6:
        return address.text
    if form == "bracketed":
        return f"[{address.text}]"
    digits = address.packed.hex()
    groups = [digits[at : at + 4] for at in range(0, 32, 4)]
    if form == "dotted":
        return ".".join(groups)
    return "IPv6:" + ":".join([group.lstrip("0") or "0" for group in groups])


class Spellings:
    """Reads addresses, and remembers the last few thousand spellings: a client is asked about again
    and again, and reading costs more than the rest of a look-up."""

    __slots__ = ("_known",)

    def __init__(self) -> None:
        self._known: dict[str, ClientAddress | None] = {}

    def find(self, text: str) -> ClientAddress | None:
        """The address that `text` spells, None where it spells none."""
        try:
            return self._known[text]
        except KeyError:
            pass
        if len(text) > _LONGEST:
            return None
        try:
            address = read_spelling(text)
        except AddressError:
            address = None
        if len(self._known) >= _REMEMBERED_AT_MOST:
            self._known.clear()
        self._known[text] = address
        return address
