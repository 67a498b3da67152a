"""Whatever whoson commands come, in whatever pieces, each has one answer that cannot be taken for two,
the same for every cut, and only a LOGIN that names an address and a user gives a grant, to that address.

The first octet of an input chooses how the rest is cut.
"""

import random

from engines.test_whoson import Site
from popgate.protocols.whoson import MAX_LINE_OCTETS, read_command
from support import fuzzing


def converse(data: bytes, cuts: random.Random | None) -> tuple[bytes, list[str]]:
    site = Site()
    talk = site.talk()
    output = []
    while data:
        size = len(data) if cuts is None else cuts.randint(1, 30)
        output.append(talk.send(data[:size]))
        data = data[size:]
    output.append(talk.send(b""))
    talk.session.closed("eof")
    return b"".join(output), site.granted()


def check(data: bytes) -> None:
    seed, octets = data[:1], data[1:]
    output, granted = converse(octets, None)
    assert (output, granted) == converse(octets, random.Random(seed))
    answers = output.split(b"\r\n\r\n")
    assert answers.pop() == b""
    for answer in answers:
        assert answer[:1] in (b"+", b"-", b"*")
        assert answer.isascii() and b"\r" not in answer and b"\n" not in answer
    logins = [
        read_command(line)
        for line in octets.replace(b"\r", b"\n").split(b"\n")
        if len(line) <= MAX_LINE_OCTETS
    ]
    assert len(granted) <= sum(command is not None and command.verb == "LOGIN" for command in logins)


if __name__ == "__main__":
    fuzzing.main(check)
