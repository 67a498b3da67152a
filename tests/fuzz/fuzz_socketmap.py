"""Whatever comes, in whatever pieces: each answer is a netstring, OK only for a look-up of an address that
logged in, and nothing is answered behind what is no netstring."""

import re

from question_checks import answers

from popgate.values.spelling import Spellings
from support import fuzzing

_NETSTRING = re.compile(rb"(\d+):")
_GRANTED = ("203.0.113.9", "2001:db8::9")


def netstrings(octets: bytes) -> list[bytes]:
    """Those at the beginning of `octets`."""
    found = []
    while match := _NETSTRING.match(octets):
        end = match.end() + int(match[1])
        if octets[end : end + 1] != b",":
            break
        found.append(octets[match.end() : end])
        octets = octets[end + 1 :]
    return found


def check(data: bytes) -> None:
    output, talk = answers("socketmap", data)
    replies = netstrings(output)
    assert b"".join(b"%d:%s," % (len(reply), reply) for reply in replies) == output
    assert len(replies) == talk.decided
    for question, reply in zip(netstrings(data), replies, strict=False):
        assert reply.split(b" ")[0] in (b"OK", b"NOTFOUND", b"TEMP")
        if reply.startswith(b"OK"):
            name, _, key = question.decode("utf-8", "replace").partition(" ")
            address = Spellings().find(key)
            assert name == "popgate"
            assert address is not None
            assert address.text in _GRANTED


if __name__ == "__main__":
    fuzzing.main(check)
