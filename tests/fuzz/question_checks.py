"""What the fuzz targets of the protocols that other servers ask have in common."""

import random
from collections.abc import Iterator

from popgate.protocols.engine import Wait
from relay_site import RelaySite, Talk

LOGGED_IN = "203.0.113.9"


def site() -> RelaySite:
    """alice logged in from one address, bob from an IPv6 one."""
    site = RelaySite()
    site.log_in(LOGGED_IN, "alice@example.org")
    site.log_in("2001:db8::9", "bob@example.org")
    return site


def cuts(data: bytes, seed: int) -> Iterator[bytes]:
    chance = random.Random(seed)
    while data:
        size = chance.randint(1, 30)
        yield data[:size]
        data = data[size:]


def converse(talk: Talk, data: bytes, seed: int | None) -> bytes:
    """All that is answered, the end of file included."""
    output = b""
    for piece in [data] if seed is None else cuts(data, seed):
        output += talk.send(piece)
        assert talk.engine.next_event() is None
        assert talk.engine.waiting_for in (Wait.COMMAND, Wait.CLOSE)
        assert len(talk.engine._data) - talk.engine._offset <= 65536 + 30
        if talk.is_closing:
            assert talk.send(b"get 203.0.113.9\n") == b""
            break
    if not talk.is_closing:
        output += talk.send(b"")
    assert talk.is_closing
    talk.close()
    return output


def answers(service: str, data: bytes, **policy: object) -> tuple[bytes, Talk]:
    """The answers, which are the same for every cut, with a grant or without they are as many."""
    talk = site().talk(service, **policy)
    output = converse(talk, data, None)
    other = site().talk(service, **policy)
    assert converse(other, data, len(data)) == output
    assert other.engine.ended_by == talk.engine.ended_by
    stranger = RelaySite().talk(service, **policy)
    refused = converse(stranger, data, None)
    assert b"permit" not in refused
    assert b"OK RELAY" not in refused
    assert b"200 RELAY" not in refused
    assert b"yes" not in refused
    assert stranger.decided == talk.decided
    return output, talk
