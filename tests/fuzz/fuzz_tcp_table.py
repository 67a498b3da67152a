"""Whatever comes, in whatever pieces: each line has one line of answer, and 200 only where the key, decoded,
is an address that logged in."""

from urllib.parse import unquote

from question_checks import answers

from popgate.values.spelling import Spellings
from support import fuzzing


def check(data: bytes) -> None:
    output, _ = answers("tcp_table", data)
    assert not output or output.endswith(b"\n")
    replies = output.split(b"\n")[:-1]
    lines = data.split(b"\n")[:-1]
    assert len(replies) <= len(lines)
    for line, reply in zip(lines, replies, strict=False):
        code, _, text = reply.partition(b" ")
        assert code in (b"200", b"400", b"500")
        assert text.isascii()
        assert text.decode().isprintable()
        assert b" " not in text
        if code == b"200":
            assert line.startswith(b"get ")
            address = Spellings().find(unquote(line[4:].decode("latin-1"), errors="replace"))
            assert address is not None
            assert address.text in ("203.0.113.9", "2001:db8::9")


if __name__ == "__main__":
    fuzzing.main(check)
