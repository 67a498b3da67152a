"""Membership of an address in many networks at once, for the trusted and never lists.

One look-up a distinct prefix length, however many networks are listed.
"""

from collections.abc import Iterable

from popgate.values.address import ClientAddress, Network

# Addresses that no client on the Internet or on a LAN can have: whoever seems to come
# from there is misrouted, a broken proxy or forged.
_BUILT_IN_NEVER = (
    "0.0.0.0/8",  # "this network", and the unspecified address
    "169.254.0.0/16",  # link-local
    "224.0.0.0/4",  # multicast
    "240.0.0.0/4",  # reserved, and the broadcast address
    "::",  # unspecified
    "fe80::/10",  # link-local: one address on every link
    "ff00::/8",  # multicast
)

_KNOWN_AT_MOST = 4096
"""How many addresses a set remembers its answer for: a client asks several times a session."""


class NetworkSet:
    """A set of networks: `address in networks`."""

    __slots__ = ("_by_shift_4", "_by_shift_6", "_known")

    def __init__(self, networks: Iterable[Network]) -> None:
        self._by_shift_4: dict[int, set[int]] = {}
        self._by_shift_6: dict[int, set[int]] = {}
        self._known: dict[bytes, bool] = {}
        for network in networks:
            by_shift = self._by_shift_6 if network.base.is_ipv6 else self._by_shift_4
            shift = len(network.base.packed) * 8 - network.prefix_bits
            by_shift.setdefault(shift, set()).add(int.from_bytes(network.base.packed, "big") >> shift)

    @classmethod
    def parse(cls, texts: Iterable[str]) -> "NetworkSet":
        """From `ADDRESS` or `ADDRESS/BITS` texts; raises AddressError."""
        return cls(Network.parse(text) for text in texts)

    def __contains__(self, address: ClientAddress) -> bool:
        packed = address.packed
        known = self._known.get(packed)
        if known is None:
            if len(self._known) >= _KNOWN_AT_MOST:
                self._known.clear()
            known = self._known[packed] = self._holds(packed)
        return known

    def _holds(self, packed: bytes) -> bool:
        by_shift = self._by_shift_4 if len(packed) == 4 else self._by_shift_6
        if not by_shift:
            return False
        number = int.from_bytes(packed, "big")
        for shift, bases in by_shift.items():  # noqa: SIM110 - any() costs a generator more
            if number >> shift in bases:
                return True
        return False


BUILT_IN_NEVER = NetworkSet.parse(_BUILT_IN_NEVER)
