"""Every dialogue in imap/*.txt, whole, byte by byte and in random cuts, on engine and scripted session.

A dialogue is a text file:

    # a comment
    OFFER name=value ...   settings of Offer, before anything else; `tls` for a session under TLS;
                           `login`, `select`: it has happened already
    C: a line of the client, CRLF is added         R: raw octets of the client, with \\r \\n \\x00
    S: a line of the server; `...` in it stands for anything
    PUSH line              the session tells an idling client that
    TLS                    TLS starts here
    ASKED name ...         these events came, chunks left out, since the start or the last ASKED
    EOF                    the client has ended
    CLOSED why             the server closes here, and not earlier

All client lines up to the next PUSH, TLS, EOF or CLOSED are sent in one piece, so each dialogue also tests
pipelining, and literals that nobody has waited for.
"""

import ast
import re
from pathlib import Path

import pytest

from imap_engine_kit import Script, Talk
from support.cuts import CUTS, Cut

DIALOGUES = sorted((Path(__file__).parent / "imap").glob("*.txt"))


def read(path: Path) -> tuple[dict[str, object], list[tuple[str, str]]]:
    settings: dict[str, object] = {}
    steps = []
    for line in path.read_text(encoding="utf-8").splitlines():
        word, _, rest = line.partition(" ")
        if not line or line.startswith("#"):
            continue
        if word == "OFFER":
            for setting in rest.split():
                name, _, value = setting.partition("=")
                settings[name] = ast.literal_eval(value) if value else True
        else:
            assert word in ("C:", "R:", "S:", "PUSH", "TLS", "ASKED", "EOF", "CLOSED"), f"{path.name}: {line}"
            steps.append((word, rest))
    return settings, steps


def raw(text: str) -> bytes:
    return text.encode().decode("unicode_escape").encode("latin-1")


@pytest.mark.parametrize("cut", CUTS)
@pytest.mark.parametrize("block", [7, 65536], ids=["small-blocks", "large-blocks"])
@pytest.mark.parametrize("path", DIALOGUES, ids=lambda path: path.stem)
def test_dialogue(path: Path, cut: Cut, block: int) -> None:
    settings, steps = read(path)
    is_tls, login, select = (bool(settings.pop(name, False)) for name in ("tls", "login", "select"))
    talk = Talk(Script(block), is_tls=is_tls or login or select, **settings)
    output = talk.greeting
    if login or select:
        talk.send(b"l LOGIN ann secret\r\n")
        output = b""
    if select:
        talk.send(b"s SELECT INBOX\r\n")
    talk.script.events.clear()
    expected, pending, asked = "", b"", 0
    for word, rest in [*steps, ("END", "")]:
        if word == "C:":
            pending += rest.encode() + b"\r\n"
        elif word == "R:":
            pending += raw(rest)
        elif word == "S:":
            expected += re.escape(rest).replace(r"\.\.\.", r"[^\r\n]*") + r"\r\n"
        else:
            for piece in cut(pending):
                output += talk.send(piece)
            pending = b""
            if word == "EOF":
                output += talk.send(b"")
                continue
            if word == "ASKED":
                names = [type(event).__name__ for event in talk.script.events[asked:]]
                assert names == rest.split()
                asked = len(talk.script.events)
                continue
            assert re.fullmatch(expected, output.decode()), output.decode()
            output, expected = b"", ""
            assert talk.is_closing is (word == "CLOSED")
            if word == "PUSH":
                talk.engine.push(rest.encode() + b"\r\n")
                output = talk.engine.take_output()
            elif word == "TLS":
                talk.engine.tls_started()
            elif word == "CLOSED":
                assert talk.engine.ended_by == rest
                break
    assert talk.send(b"z NOOP\r\n" if talk.is_closing else b"") == b""
