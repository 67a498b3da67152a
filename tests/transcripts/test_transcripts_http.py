"""Every dialogue in http/*.txt, whole, byte by byte and in random cuts, on engine and session.

A dialogue is a text file:

    # a comment
    SECRET                 the client must know the secret; GRANT address user: who has a grant
    C: a line of the client, CRLF is added     R: raw octets of the client, with \\r \\n \\x00
    S: a line of the server, CRLF is added     J: the line of a body, LF is added
                                               `...` in either stands for anything in the line
    EOF                    the client has ended
    CLOSED                 the server closes here, and not earlier

All client lines up to the next EOF or CLOSED are sent in one piece, so most dialogues also test
pipelining.
"""

import re
from pathlib import Path

import pytest

from grants_kit import address
from http_site import SECRET, Site
from popgate.grants.grant import DEFAULT_TERMS
from popgate.values.identity import Identity
from support.cuts import CUTS, Cut

DIALOGUES = sorted((Path(__file__).parent / "http").glob("*.txt"))


@pytest.mark.parametrize("cut", CUTS)
@pytest.mark.parametrize("path", DIALOGUES, ids=lambda path: path.stem)
def test_dialogue(path: Path, cut: Cut) -> None:
    site = Site()
    secret = None
    steps: list[tuple[str, str]] = []
    for line in path.read_text(encoding="utf-8").splitlines():
        word, _, rest = line.partition(" ")
        if word == "SECRET":
            secret = SECRET
        elif word == "GRANT":
            where, user = rest.split()
            site.grants.allow(address(where), Identity.parse(user), "pop3", DEFAULT_TERMS, "")
        elif line and word != "#":
            steps.append((word, rest))
    talk = site.talk(secret=secret)
    output, expected, pending = b"", "", b""
    for word, rest in [*steps, ("END", "")]:
        if word == "C:":
            pending += rest.encode() + b"\r\n"
        elif word == "R:":
            pending += rest.encode().decode("unicode_escape").encode("latin-1")
        elif word in ("S:", "J:"):
            expected += re.escape(rest).replace(r"\.\.\.", r"[^\r\n]*") + ("\r\n" if word == "S:" else "\n")
        else:
            assert word in ("EOF", "CLOSED", "END"), word
            for piece in cut(pending):
                output += talk.send(piece)
            pending = b""
            if word == "EOF":
                output += talk.send(b"")
                continue
            assert re.fullmatch(expected, output.decode("latin-1")), output.decode("latin-1")
            assert talk.is_closing is (word == "CLOSED")
            output, expected = b"", ""
            if word == "CLOSED":
                break
    assert talk.send(b"GET / HTTP/1.1\r\n" if talk.is_closing else b"x") == b""
    talk.session.closed("quit")
