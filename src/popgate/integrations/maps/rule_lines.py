"""Reads the lines that tcprules(1) reads, and makes the records that it writes. Pure.

ADDRESS:allow,NAME="text"    the address may end in a range, 10.1-3. or 192.0.2.7-9
ADDRESS:deny
"""

import re

from popgate.integrations.ucspi.rules import RuleError, candidates

_RANGE = re.compile(r"((?:[0-9]+\.)*)([0-9]{1,3})-([0-9]{1,3})(\.?)\Z")
_GREATEST = 255


def instructions(text: str) -> bytes:
    """The record of `allow`, `deny` and what stands behind them. Raises RuleError."""
    if text.startswith("deny"):
        record, rest = b"D\0", text[4:]
    elif text.startswith("allow"):
        record, rest = b"", text[5:]
    else:
        raise RuleError("a rule says allow or deny")
    while rest:
        name, equals, quoted = rest[1:].partition("=")
        if not rest.startswith(",") or not equals or not name or "," in name:
            raise RuleError('behind allow or deny stands ,NAME="TEXT"')
        end = quoted.find(quoted[:1], 1) if quoted else -1
        if end < 0:
            raise RuleError(f"the text of {name} has no end")
        setting = f"{name}={quoted[1:end]}"
        if "\0" in setting or "\n" in setting:
            raise RuleError("a NUL or a line end cannot stand in a setting")
        record += b"+" + setting.encode() + b"\0"
        rest = quoted[end + 1 :]
    return record


class Rules:
    """The rules of several lines. Raises RuleError that names the line."""

    def __init__(self, lines: list[str]) -> None:
        self.records: dict[bytes, bytes] = {}
        for line in lines:
            if not line or line.startswith("#"):
                continue
            address, colon, rest = line.partition(":")
            try:
                if not colon:
                    raise RuleError("no colon")
                record = instructions(rest)
                for each in _addresses(address):
                    self.records.setdefault(each.encode(), record)
            except RuleError as fault:
                raise RuleError(f"{line!r}: {fault}") from None

    def of_client(self, client: str) -> bytes:
        """The record for a client of whom no more than the address is known; empty where no rule fits."""
        for address in candidates(client, None, None):
            if address in self.records:
                return self.records[address]
        return b""


def denies(record: bytes) -> bool:
    return b"D" in record.split(b"\0")


def _addresses(text: str) -> list[str]:
    if "\0" in text or "\n" in text:
        raise RuleError("a NUL or a line end cannot stand in an address")
    found = _RANGE.match(text)
    if found is None:
        return [text]
    before, first, last, dot = found[1], int(found[2]), int(found[3]), found[4]
    if first > last or last > _GREATEST:
        raise RuleError("a range goes from the smaller number to the greater, at most 255")
    return [f"{before}{number}{dot}" for number in range(first, last + 1)]
