"""Any octets raise nothing, tell the same as a block and line by line, and name only addresses in them."""

import re
from zoneinfo import ZoneInfo

from popgate.integrations.logs import LoginSeen, Recogniser, shipped
from popgate.values.address import ClientAddress
from support import fuzzing

UTC = ZoneInfo("UTC")
NOW = 1795521600.0
PATTERNS = list(shipped().values())
ADDRESS = re.compile(rb"[0-9A-Fa-f:.]{2,64}")


def check(data: bytes) -> None:
    block = data if data.endswith(b"\n") else data + b"\n"
    whole = list(Recogniser(PATTERNS, UTC).feed_block(block, NOW))
    single = Recogniser(PATTERNS, UTC)
    assert [one for line in block.split(b"\n")[:-1] for one in single.feed(line, NOW)] == whole
    for one in whole:
        if isinstance(one, LoginSeen):
            assert one.address in set(addresses(block)), one


def addresses(data: bytes) -> list[ClientAddress]:
    found = []
    for match in ADDRESS.findall(data.replace(b"\\u003a", b":")):
        text = match.decode()
        for part in {
            text,
            text.strip(":."),
            text.lstrip(":."),
            text.rpartition(":")[0],
            text.partition(":")[2],
        }:
            try:
                found.append(ClientAddress.parse(part))
            except ValueError:
                pass
    return found


if __name__ == "__main__":
    fuzzing.main(check)
