"""Whatever comes, in whatever pieces: each line has one word of answer, and yes only for an address that
logged in, with a sender of who did."""

from question_checks import answers

from popgate.values.spelling import Spellings
from support import fuzzing

_GRANTED = {"203.0.113.9": "alice@example.org", "2001:db8::9": "bob@example.org"}


def check(data: bytes) -> None:
    line_end = data[:1] < b"\x80"
    octets = data[1:]
    output, _ = answers("line", octets, line_end=line_end)
    if not line_end:
        assert output in (
            b"",
            b"yes",
            b"no",
            b"defer",
            b"error",
            b"yes alice@example.org",
            b"yes bob@example.org",
        )
    replies = output.split(b"\n")[:-1] if line_end else [output] * bool(output)
    for line, reply in zip(octets.split(b"\n")[:-1], replies, strict=False):
        word, _, identity = reply.decode("ascii").partition(" ")
        assert word in ("yes", "no", "defer", "error")
        if word != "yes":
            assert not identity
            continue
        verb, client, *fields = line.removesuffix(b"\r").decode("utf-8", "replace").split(" ")
        address = Spellings().find(client)
        assert address is not None
        owner = _GRANTED[address.text]
        assert not fields or fields[0].lower() in ("", "<>", owner)
        assert identity in ("", owner) and (verb == "identity") is bool(identity)


if __name__ == "__main__":
    fuzzing.main(check)
