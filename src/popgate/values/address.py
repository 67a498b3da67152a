"""Client addresses in their one canonical form.

Every grant, limit and log line speaks of an address; two spellings of one client must
never be two clients, and no spelling that libraries read differently may pass. So
this module is the only place that reads an address: dotted decimal IPv4 without
leading zeros, RFC 4291 IPv6 text, `::ffff:a.b.c.d` folded into a.b.c.d; a zone, octal,
hexadecimal, short or decimal form is refused. IPv6 is written as RFC 5952 says.

It imports nothing, because the relay-ctrl commands run once a connection.
"""

_DECIMAL = frozenset("0123456789")
_HEX = frozenset("0123456789abcdefABCDEF")
_MAPPED = b"\0" * 10 + b"\xff\xff"


class AddressError(ValueError):
    """Text that is not one address in a form that popgate accepts."""


class ClientAddress:
    """One IPv4 or IPv6 address: `packed` (4 or 16 bytes, the key) and `text` (canonical).

    Equal addresses are equal, hash alike and sort by `packed`.
    """

    __slots__ = ("_text", "packed")

    packed: bytes

    def __init__(self, packed: bytes) -> None:
        """Take 4 or 16 bytes in network order; a v4-mapped address becomes IPv4.

        Raises AddressError for any other length.
        """
        if len(packed) == 16:
            if packed.startswith(_MAPPED):
                packed = packed[12:]
        elif len(packed) != 4:
            raise AddressError(f"an address has 4 or 16 bytes, not {len(packed)}")
        self.packed = packed
        self._text: str | None = None

    @classmethod
    def parse(cls, text: str) -> "ClientAddress":
        """Read an address; raises AddressError that says what is wrong with `text`."""
        return cls(_parse_ipv6(text) if ":" in text else _parse_ipv4(text))

    @classmethod
    def canonical(cls, text: str) -> "ClientAddress | None":
        """The address that `text` spells canonically, as the names of grant files do; None for all else."""
        try:
            address = cls.parse(text)
        except AddressError:
            return None
        return address if address.text == text else None

    @property
    def text(self) -> str:
        """The canonical spelling: dotted decimal, or RFC 5952."""
        if self._text is None:
            self._text = _format(self.packed)
        return self._text

    @property
    def is_ipv6(self) -> bool:
        return len(self.packed) == 16

    def prefix(self, bits: int) -> "ClientAddress":
        """The address with everything behind the first `bits` bits set to zero."""
        total = len(self.packed) * 8
        if bits >= total:
            return self
        number = int.from_bytes(self.packed, "big") >> (total - bits) << (total - bits)
        masked = ClientAddress.__new__(ClientAddress)
        masked.packed = number.to_bytes(len(self.packed), "big")
        masked._text = None
        return masked

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ClientAddress) and self.packed == other.packed

    def __lt__(self, other: "ClientAddress") -> bool:
        return (len(self.packed), self.packed) < (len(other.packed), other.packed)

    def __hash__(self) -> int:
        return hash(self.packed)

    def __str__(self) -> str:
        return self.text

    def __repr__(self) -> str:
        return f"ClientAddress({self.text!r})"


class Network:
    """A block of addresses, `203.0.113.0/24` or a single address."""

    __slots__ = ("_base", "_bits", "_shift", "text")

    def __init__(self, base: ClientAddress, bits: int) -> None:
        total = len(base.packed) * 8
        if not 0 <= bits <= total:
            raise AddressError(f"{base}/{bits}: a prefix length here is 0 to {total}")
        self._shift = total - bits
        self._bits = total
        self._base = int.from_bytes(base.packed, "big") >> self._shift
        self.text = base.text if bits == total else f"{base.prefix(bits)}/{bits}"

    @classmethod
    def parse(cls, text: str) -> "Network":
        """Read `ADDRESS` or `ADDRESS/BITS`; raises AddressError."""
        address_text, slash, bits_text = text.partition("/")
        base = ClientAddress.parse(address_text)
        if not slash:
            return cls(base, len(base.packed) * 8)
        if not bits_text or len(bits_text) > 3 or not _DECIMAL.issuperset(bits_text):
            raise AddressError(f"{text!r}: the prefix length after / must be a number of bits")
        bits = int(bits_text)
        if "." in address_text and ":" in address_text and not base.is_ipv6:
            bits -= 96  # ::ffff:a.b.c.d/120 is a.b.c.0/24
        return cls(base, bits)

    def __contains__(self, address: ClientAddress) -> bool:
        packed = address.packed
        return len(packed) * 8 == self._bits and int.from_bytes(packed, "big") >> self._shift == self._base

    @property
    def prefix_bits(self) -> int:
        return self._bits - self._shift

    @property
    def base(self) -> ClientAddress:
        """The first address of the block."""
        return ClientAddress((self._base << self._shift).to_bytes(self._bits // 8, "big"))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Network) and self.text == other.text

    def __hash__(self) -> int:
        return hash(self.text)

    def __str__(self) -> str:
        return self.text

    def __repr__(self) -> str:
        return f"Network({self.text!r})"


def _parse_ipv4(text: str) -> bytes:
    parts = text.split(".")
    if len(parts) != 4:
        raise AddressError(f"{text!r} is not an IPv4 address: four decimal numbers are needed")
    octets = []
    for part in parts:
        if not part or len(part) > 3 or not _DECIMAL.issuperset(part):
            raise AddressError(f"{text!r} is not an IPv4 address: {part!r} is not a decimal number")
        if part[0] == "0" and part != "0":
            raise AddressError(f"{text!r}: a leading zero is read as octal by some programs")
        number = int(part)
        if number > 255:
            raise AddressError(f"{text!r} is not an IPv4 address: {part} is over 255")
        octets.append(number)
    return bytes(octets)


def _parse_ipv6(text: str) -> bytes:
    if "%" in text:
        raise AddressError(f"{text!r}: an address with a zone belongs to one link only")
    if len(text) > 45:
        raise AddressError("too long for an IPv6 address")
    head, gap, tail = text.partition("::")
    if not gap:
        groups = _groups(head, text, at_end=True)
        if len(groups) != 16:
            raise AddressError(f"{text!r} is not an IPv6 address: eight groups are needed")
        return groups
    if "::" in tail or tail.startswith(":"):
        raise AddressError(f"{text!r} is not an IPv6 address: '::' stands in it more than once")
    left, right = _groups(head, text, at_end=False), _groups(tail, text, at_end=True)
    if len(left) + len(right) > 14:
        raise AddressError(f"{text!r} is not an IPv6 address: too many groups")
    return left + b"\0" * (16 - len(left) - len(right)) + right


def _groups(part: str, text: str, *, at_end: bool) -> bytes:
    if not part:
        return b""
    out = b""
    names = part.split(":")
    for index, name in enumerate(names):
        if "." in name:
            if not at_end or index != len(names) - 1:
                raise AddressError(f"{text!r} is not an IPv6 address: dotted form only at the end")
            return out + _parse_ipv4(name)
        if not name or len(name) > 4 or not _HEX.issuperset(name):
            raise AddressError(f"{text!r} is not an IPv6 address: {name!r} is not a hexadecimal group")
        out += int(name, 16).to_bytes(2, "big")
    return out


def _format(packed: bytes) -> str:
    if len(packed) == 4:
        return "%d.%d.%d.%d" % tuple(packed)
    groups = [packed[i] << 8 | packed[i + 1] for i in range(0, 16, 2)]
    # RFC 5952 4.2.3: the longest run of zero groups, the first of equals, never a single one
    best_start, best_length, start = 0, 1, -1
    for index in range(9):
        if index < 8 and groups[index] == 0:
            start = index if start < 0 else start
        elif start >= 0:
            if index - start > best_length:
                best_start, best_length = start, index - start
            start = -1
    names = ["%x" % group for group in groups]
    if best_length == 1:
        return ":".join(names)
    return ":".join(names[:best_start]) + "::" + ":".join(names[best_start + best_length :])
