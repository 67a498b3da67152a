"""A PROXY header has one meaning, whatever its cut, and is refused before more than its limit is held.

The first octet of an input chooses the cut.
"""

from popgate.protocols.proxy import MAX_V2_OCTETS, ProxyError, ProxyParser
from support import fuzzing


def outcome(data: bytes, size: int) -> tuple[object, ...] | None:
    """What came out, with the octets behind the header; None when refused."""
    parser = ProxyParser()
    start = 0
    try:
        while start < len(data) and parser.result is None:
            assert start <= MAX_V2_OCTETS, "more is held than a header may have"
            parser.feed(data[start : start + size])
            start += size
    except ProxyError:
        return None
    result = parser.result
    if result is None:
        return ("incomplete",)
    return (result.source, result.source_port, result.local, result.rest + data[start:])


def check(data: bytes) -> None:
    octets = data[1:]
    whole = outcome(octets, max(len(octets), 1))
    assert outcome(octets, data[0] % 16 + 1 if data else 1) == whole
    if whole is not None and len(whole) == 4:
        assert octets.endswith(whole[3])  # type: ignore[arg-type]
        assert whole[0] is None or (octets.startswith((b"PROXY TCP", b"\r\n\r\n\0\r\nQUIT\n")))


if __name__ == "__main__":
    fuzzing.main(check)
