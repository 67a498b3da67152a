"""Whatever is sent to an HTTP listener, in whatever pieces, each answer is one whole response, the same
ones come for every cut, and who does not send the secret gets no grant, no verdict and no second try.

The first octet of an input chooses whether there is a secret, the second how the rest is cut.
"""

import json
import random

from grants_kit import ALICE, address
from http_site import SECRET, Site, Talk
from popgate.grants.grant import DEFAULT_TERMS
from popgate.protocols.engine import Wait
from support import fuzzing

_GO_ON = b"HTTP/1.1 100 \r\n\r\n"  # whether a client waits for it is a matter of the cut


def site_for() -> Site:
    site = Site(tells_ends=True)
    site.grants.allow(address(), ALICE, "pop3", DEFAULT_TERMS, "")
    return site


def converse(talk: Talk, data: bytes, cuts: random.Random | None) -> bytes:
    output = []
    while data and not talk.is_closing:
        size = len(data) if cuts is None else cuts.randint(1, 30)
        output.append(talk.send(data[:size]))
        data = data[size:]
        assert talk.engine.waiting_for in (Wait.COMMAND, Wait.BODY, Wait.CLOSE)
    output.append(talk.send(b""))
    assert talk.is_closing
    assert talk.send(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n") == b""
    talk.session.closed("eof")
    return b"".join(output).replace(_GO_ON, b"")


def responses(output: bytes) -> list[tuple[int, bytes]]:
    """The statuses and bodies of whole responses in a row."""
    found = []
    while output:
        head, end, output = output.partition(b"\r\n\r\n")
        assert end
        lines = head.split(b"\r\n")
        assert lines[0].startswith(b"HTTP/1.1 ")
        headers = dict(line.split(b": ", 1) for line in lines[1:])
        length = int(headers.get(b"Content-Length", b"0"))
        is_bare = length and not output.startswith(b"{")  # the answer to a HEAD
        body, output = (b"", output) if is_bare else (output[:length], output[length:])
        if body:
            assert isinstance(json.loads(body), dict)
        found.append((int(lines[0][9:12]), body))
    return found


def check(data: bytes) -> None:
    options, seed, octets = data[:1] or b"\0", data[1:2], data[2:]
    secret = SECRET if options[0] & 1 else None
    site = site_for()
    output = converse(site.talk(secret=secret), octets, None)
    answers = responses(output)
    if secret is not None and SECRET.encode() not in octets and b"asic" not in octets.lower():
        assert [status for status, _ in answers] in ([], [answers[0][0]] if answers else [])
        assert all(400 <= status < 600 for status, _ in answers)
        assert site.sink.names().count("grant.allow") == 1
        assert site.granted() == ["203.0.113.9 alice@example.org pop3"]
    other = site_for()
    assert converse(other.talk(secret=secret), octets, random.Random(seed)) == output
    assert other.granted() == site.granted()
    assert other.sink.names() == site.sink.names()


if __name__ == "__main__":
    fuzzing.main(check)
