"""Every dialogue in pop3/*.txt, whole, byte by byte and in random cuts, on engine and session.

A dialogue is a text file:

    # a comment
    OFFER name=value ...   settings of Pop3Policy, before anything else; `tls` for a session under TLS
    C: a line of the client, CRLF is added         R: raw octets of the client, with \\r \\n \\x00
    S: a line of the server; `...` at its end stands for anything
    TLS                    TLS starts here
    CLOSED                 the server closes here, and not earlier

All client lines up to the next TLS are sent in one piece, so each dialogue also tests pipelining.
"""

import ast
from pathlib import Path

import pytest

from pop3_site import Site
from support.cuts import CUTS, Cut

DIALOGUES = sorted((Path(__file__).parent / "pop3").glob("*.txt"))


def read(path: Path) -> tuple[dict[str, object], list[tuple[str, bytes]]]:
    """The settings, and the steps: ("C", octets), ("S", pattern), ("TLS", b""), ("CLOSED", b"")."""
    settings: dict[str, object] = {}
    steps: list[tuple[str, bytes]] = []
    for line in path.read_text(encoding="utf-8").splitlines():
        word, _, rest = line.partition(" ")
        if not line or line.startswith("#"):
            continue
        if word == "OFFER":
            for setting in rest.split():
                name, _, value = setting.partition("=")
                settings[name] = ast.literal_eval(value) if value else True
        elif word == "C:":
            steps.append(("C", rest.encode() + b"\r\n"))
        elif word == "R:":
            steps.append(("C", rest.encode().decode("unicode_escape").encode("latin-1")))
        elif word == "S:":
            steps.append(("S", rest.encode()))
        elif word in {"TLS", "CLOSED"}:
            steps.append((word, b""))
        else:
            raise AssertionError(f"{path.name}: {line}")
    return settings, steps


def check_lines(output: bytes, expected: list[bytes]) -> None:
    assert not output or output.endswith(b"\r\n")
    lines = output.split(b"\r\n")[:-1]
    for index, pattern in enumerate(expected):
        line = lines[index] if index < len(lines) else b"(nothing)"
        if pattern.endswith(b"..."):
            assert line.startswith(pattern[:-3]), f"{line!r} instead of {pattern!r}"
        else:
            assert line == pattern
    assert lines[len(expected) :] == []


@pytest.mark.parametrize("cut", CUTS)
@pytest.mark.parametrize("is_slow", [False, True], ids=["at-once", "later"])
@pytest.mark.parametrize("path", DIALOGUES, ids=lambda path: path.stem)
def test_dialogue(path: Path, cut: Cut, is_slow: bool) -> None:
    settings, steps = read(path)
    is_tls = bool(settings.pop("tls", False))
    site = Site().with_policy(**settings)
    site.accounts.is_later = is_slow
    site.opens_quickly = not is_slow
    site.boxes.block = 7 if is_slow else 65536
    talk = site.talk(is_tls=is_tls)
    output, expected, pending = talk.greeting, [], b""
    for kind, what in [*steps, ("END", b"")]:
        if kind == "C":
            pending += what
        elif kind == "S":
            expected.append(what)
        else:
            for piece in cut(pending):
                output += talk.send(piece)
            pending = b""
            check_lines(output, expected)
            assert talk.is_closing is (kind == "CLOSED")
            output, expected = b"", []
            if kind == "TLS":
                talk.start_tls()
            elif kind == "CLOSED":
                break
    assert talk.send(b"NOOP\r\n" if talk.is_closing else b"") == b""
    talk.session.closed("quit")
    assert not site.boxes.open, "the maildrop is still locked"
