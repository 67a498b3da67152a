"""Which tcprules rule a client falls under, and what the rule says. Pure.

The first address that has a rule decides, in the order of tcprules(1): `INFO@IP`,
`INFO@=HOST`, `IP`, `=HOST`, prefixes of the IP that end with a dot, suffixes of the host
name that begin with one (after `=`), `=` for anybody with a name, and the empty address.

tcprules knows no IPv6. Its colon ends the address, so no address with colons can stand in
a rule file; IPv6 clients fall under rules for names, for `=` and for the empty address.
"""

from collections.abc import Iterator, Mapping

from popgate.values.value import value


@value
class Verdict:
    """What a rule says: refuse, or go on with `settings` in the environment."""

    is_denied: bool
    settings: Mapping[bytes, bytes]


class RuleError(ValueError):
    """Instructions that tcprules does not write."""


def candidates(client: str, host: str | None, info: str | None) -> Iterator[bytes]:
    """The addresses under which rules are looked for, the most special first.

    `host` and `info` may have come from the client; neither can hold a colon or a NUL here.
    """
    if info is not None:
        yield f"{info}@{client}".encode()
        if host is not None:
            yield f"{info}@={host}".encode()
    yield client.encode()
    if host is not None:
        yield f"={host}".encode()
    prefix = client
    while "." in prefix:
        prefix = prefix.rpartition(".")[0]
        yield f"{prefix}.".encode()
    if host is not None:
        rest = host
        while "." in rest:
            rest = rest.partition(".")[2]
            yield f"=.{rest}".encode()
        yield b"="
    yield b""


def parse_instructions(record: bytes) -> Verdict:
    """A record of tcprules: `D` for deny, `+NAME=TEXT` a setting, each ended by NUL. Raises RuleError."""
    is_denied = False
    settings: dict[bytes, bytes] = {}
    if record and not record.endswith(b"\0"):
        raise RuleError("an instruction without an end")
    for instruction in record.split(b"\0")[:-1]:
        if instruction == b"D":
            is_denied = True
        elif instruction.startswith(b"+"):
            name, equals, text = instruction[1:].partition(b"=")
            if not name or not equals:
                raise RuleError("a setting without a name")
            settings[name] = text
        else:
            raise RuleError("an unknown instruction")
    return Verdict(is_denied, settings)
