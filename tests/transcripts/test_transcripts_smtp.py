"""The dialogues in smtp/*.txt, each run whole, byte by byte and in random cuts.

`C: line` is what the client sends, with CRLF; `C! octets` the same in Python's escapes and
without CRLF; all C lines up to the next S line are one group. `S: line` is what must come
back; three dots at its end stand for anything. `S! close`: the connection is closed now, and
`S! open`: it is not. `T! tls`: the handshake. `M! N`: so many messages were accepted until now.
`M: line`: this line stands in the last message. `# key: value` at the head sets the scene.
"""

from pathlib import Path

import pytest

from popgate.sessions.smtp import SmtpPolicy
from smtp_support import Dialogue, byte_by_byte, random_cuts

FILES = sorted(Path(__file__).parent.glob("smtp/*.txt"))


def scene(text: str) -> tuple[Dialogue, dict[str, str]]:
    said = {}
    for line in text.splitlines():
        if line.startswith("# ") and ":" in line:
            key, _, value = line[2:].partition(":")
            said[key.strip()] = value.strip()
    flags = set(said.get("listener", "").split())
    relay_by = frozenset(said.get("relay_by", "grant auth").split())
    policy = SmtpPolicy(
        "mx.example.org",
        service="submission" if "submission" in flags else "smtp",
        relay_by=relay_by,
        offers_tls="starttls" in flags,
        needs_tls="needs-tls" in flags,
        plaintext_login="plaintext" in flags,
        cram_md5="cram" in flags,
        tolerant_helo="tolerant" in flags,
        message_bytes=int(said.get("message_bytes", "100000")),
        recipients=int(said.get("recipients", "1000")),
        errors=int(said.get("errors", "20")),
        junk=int(said.get("junk", "100")),
    )
    dialogue = Dialogue(policy, is_tls="tls" in flags)
    if said.get("granted") == "yes":
        dialogue.grants.allow()
    return dialogue, said


def steps(text: str) -> list[tuple[str, object]]:
    """("send", octets), ("expect", lines), and the directives, in order."""
    found: list[tuple[str, object]] = []
    for number, line in enumerate(text.splitlines(), 1):
        if not line or line.startswith("#"):
            continue
        mark, rest = line[:2], line[3:]
        if mark == "C:" or mark == "C!":
            octets = (
                rest.encode() + b"\r\n"
                if mark == "C:"
                else rest.encode("latin-1").decode("unicode_escape").encode("latin-1")
            )
            if found and found[-1][0] == "send":
                octets = found.pop()[1] + octets  # type: ignore[operator]
            found.append(("send", octets))
        elif mark == "S:":
            if found and found[-1][0] == "expect":
                found[-1][1].append((number, rest))  # type: ignore[attr-defined]
            else:
                found.append(("expect", [(number, rest)]))
        elif mark in ("S!", "T!", "M!", "M:"):
            found.append((mark, rest))
        else:
            raise AssertionError(f"line {number} is nothing: {line!r}")
    return found


def run(text: str, cut: str) -> None:
    dialogue, said = scene(text)
    if cut != "whole" and said.get("cuts") == "no":
        pytest.skip("what is tested is what comes in one piece")
    out = dialogue.say(b"")
    todo = steps(text)
    for index, (kind, what) in enumerate(todo):
        if kind == "send":
            assert isinstance(what, bytes)
            assert out == b"", f"not expected: {out!r} before {what!r}"
            cuts: object = ()
            if cut == "bytes":
                cuts = byte_by_byte(what)
            elif cut != "whole":
                cuts = random_cuts(what, int(cut) + index)
            out = dialogue.say_cut(what, cuts)  # type: ignore[arg-type]
        elif kind == "expect":
            got = out.decode("ascii").split("\r\n")
            assert got.pop() == ""
            assert isinstance(what, list)
            for number, line in what:
                assert got, f"line {number}: nothing came for {line!r}"
                one = got.pop(0)
                same = one.startswith(line[:-3]) if line.endswith("...") else one == line
                assert same, f"line {number}: {one!r} is not {line!r}"
            out = "".join(line + "\r\n" for line in got).encode()
        elif kind == "S!":
            assert dialogue.is_closed == (what == "close")
        elif kind == "T!":
            dialogue.start_tls()
        elif kind == "M!":
            assert len(dialogue.intake.accepted) == int(str(what))
        else:
            assert str(what).encode() in dialogue.intake.accepted[-1][1].split(b"\r\n")
    assert out == b"", f"not expected at the end: {out!r}"


@pytest.mark.parametrize("cut", ["whole", "bytes", "1", "2", "3"])
@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_transcript(path: Path, cut: str) -> None:
    run(path.read_text(), cut)


def test_there_are_transcripts() -> None:
    assert len(FILES) > 10


def test_a_wrong_transcript_fails() -> None:
    for wrong in ("S: 220 other\n", "S: 220...\nC: NOOP\nS: 250...\nS: 250 again\n", "S: 220...\nS! close\n"):
        with pytest.raises(AssertionError):
            run(wrong, "whole")
