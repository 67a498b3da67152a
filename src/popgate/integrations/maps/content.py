"""What stands in a map file: from addresses to keys, values and octets. Pure."""

from collections.abc import Iterable
from typing import Final

from popgate.integrations.maps.constant import Record, constant_database, record_of
from popgate.integrations.maps.rule_lines import Rules, denies, instructions
from popgate.integrations.maps.settings import MapSettings
from popgate.values.address import ClientAddress
from popgate.values.spelling import write_spelling

USUAL_VALUES: Final = {"cdb": "RELAY", "lmdb": "RELAY", "tcprules": 'allow,RELAYCLIENT=""', "text": ""}
"""What an address is found with where the settings do not say."""


class Content:
    """The keys and values of one map. Raises RuleError for a rule that is none."""

    def __init__(self, settings: MapSettings) -> None:
        self._kind = settings.kind
        self._form = settings.spelling
        self._text = settings.value or USUAL_VALUES[settings.kind]
        self._rules = Rules(settings.rules) if settings.kind == "tcprules" else Rules([])
        self._instructions = instructions(self._text) if settings.kind == "tcprules" else b""
        self._first = "".join([f"{line}\n" for line in settings.lines]).encode()
        self._made: dict[bytes, Record | None] = {}

    def key(self, address: ClientAddress) -> bytes:
        return write_spelling(address, self._form).encode()

    def record(self, address: ClientAddress) -> bytes | None:
        """What `address` is found with, None where the map cannot hold it."""
        if self._kind != "tcprules":
            return self._text.encode()
        if address.is_ipv6:
            return None  # a colon ends the address of a rule
        there = self._rules.of_client(address.text)
        return None if denies(there) else there + self._instructions

    def octets(self, addresses: Iterable[ClientAddress]) -> bytes:
        """The whole file. Not for lmdb, which is changed and not written. Raises ValueError."""
        made, before = {}, self._made
        for address in addresses:
            packed = address.packed
            made[packed] = before[packed] if packed in before else self._make(address)
        self._made = made
        records = [record for record in made.values() if record is not None]
        if self._kind == "text":
            return self._first + b"".join([octets for _, octets in sorted(records)])
        rules = [record_of(key, text) for key, text in self._rules.records.items()]
        return constant_database([*records, *rules])  # of two, that of the address counts

    def _make(self, address: ClientAddress) -> Record | None:
        key, text = self.key(address), self.record(address)
        if text is None:
            return None
        if self._kind == "text":
            # in the order of the addresses: a list is for people, too
            order = int.from_bytes(address.packed, "big") + (address.is_ipv6 << 128)
            return order, key + b"\t" + text + b"\n" if text else key + b"\n"
        return record_of(key, text)
