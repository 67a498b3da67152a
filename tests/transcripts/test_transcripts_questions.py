"""Every dialogue in questions/*.txt, whole, byte by byte and in random cuts, on engine and session.

A dialogue is a text file:

    # a comment
    SERVICE name [field=value ...]    which service is asked, and settings of its policy
    GRANTS field=value ...            fields of GrantSettings
    LOGIN ADDRESS IDENTITY            a mail login came before
    LATER SECONDS                     time passes; FAULT, MENDED: the store fails, and works again
    OWNERS SENDER IDENTITY ...        to whom a sender belongs
    C: a line of the asker, LF is added       R: raw octets of the asker, with \\n \\x00
    S: a line of the answer, LF is added      T: raw octets of the answer
    N: a netstring of the asker               A: a netstring of the answer
                                      `...` in either stands for anything but LF
    EOF                               the asker sends no more
    CLOSED                            the connection is closed here, and not earlier
    TOLD [field=value ...]            the next relay.decide has these fields; at the end there are no more
    UNREADABLE reason                 the connection ended with relay.unreadable

All lines of the asker up to the next of LATER, FAULT, EOF and CLOSED are sent in one piece, so each
dialogue also tests many questions at once.
"""

import ast
import re
from pathlib import Path

import pytest

from relay_site import RelaySite
from support.cuts import CUTS, Cut

DIALOGUES = sorted((Path(__file__).parent / "questions").glob("*.txt"))


def raw(text: str) -> bytes:
    return text.encode().decode("unicode_escape").encode("latin-1")


def line(text: str) -> bytes:
    return text.encode() + b"\n"


def netstring(text: str) -> bytes:
    return b"%d:%s," % (len(text.encode()), text.encode())


_ASKED = {"C:": line, "R:": raw, "N:": netstring}
_ANSWERED = {"S:": line, "T:": raw, "A:": netstring}


def settings_in(text: str) -> dict[str, object]:
    found: dict[str, object] = {}
    for setting in text.split():
        name, _, value = setting.partition("=")
        try:
            found[name] = ast.literal_eval(value)
        except (ValueError, SyntaxError):
            found[name] = value
    return found


def read(path: Path) -> list[tuple[str, str]]:
    steps = []
    for text in path.read_text(encoding="utf-8").splitlines():
        if text and not text.startswith("#"):
            word, _, rest = text.partition(" ")
            steps.append((word, rest))
    return steps


def pattern_of(expected: list[bytes]) -> bytes:
    return b"".join(re.escape(part).replace(rb"\.\.\.", rb"[^\n]*") for part in expected)


@pytest.mark.parametrize("cut", CUTS)
@pytest.mark.parametrize("path", DIALOGUES, ids=lambda path: path.stem)
def test_dialogue(path: Path, cut: Cut) -> None:
    steps = read(path)
    site = RelaySite(**next((settings_in(rest) for word, rest in steps if word == "GRANTS"), {}))
    service, _, policy = next(rest for word, rest in steps if word == "SERVICE").partition(" ")
    talk = site.talk(service, **settings_in(policy))
    pending, output, expected, told, unreadable = b"", b"", [], [], []
    is_closed = False

    def exchange() -> None:
        nonlocal pending, output
        output += talk.send_in(cut(pending) if pending else ())
        pending = b""
        assert re.fullmatch(pattern_of(expected), output), output
        output = b""
        expected.clear()

    for word, rest in [*steps, ("END", "")]:
        if word in _ASKED:
            assert not talk.is_closing
            pending += _ASKED[word](rest)
        elif word in _ANSWERED:
            expected.append(_ANSWERED[word](rest))
        elif word == "LOGIN":
            exchange()
            site.log_in(*rest.split())
        elif word == "OWNERS":
            sender, *owners = rest.split()
            site.owners.by_sender[sender] = owners
        elif word == "TOLD":
            told.append(settings_in(rest))
        elif word == "UNREADABLE":
            unreadable.append(rest)
        elif word == "EOF":
            output += talk.send_in(cut(pending) if pending else ())
            pending = b""
            output += talk.send(b"")
            exchange()
        elif word in ("LATER", "FAULT", "MENDED", "CLOSED", "END"):
            exchange()
            is_closed = is_closed or word == "CLOSED"
            assert talk.is_closing is is_closed
            if word == "LATER":
                site.clock.pass_seconds(float(rest))
            elif word in ("FAULT", "MENDED"):
                site.store.fails = site.owners.fails = word == "FAULT"
        else:
            assert word in ("SERVICE", "GRANTS"), f"{path.name}: {word} {rest}"
    assert talk.send(b"") == b""
    assert talk.is_closing
    talk.close()
    events = site.told()
    assert len(events) == len(told), events
    for event, fields in zip(events, told, strict=True):
        shown = {name: event.get(name) for name in fields}
        assert {name: str(value) for name, value in shown.items()} == {
            name: str(value) for name, value in fields.items()
        }
    assert [event["reason"] for event in site.told("relay.unreadable")] == unreadable


def test_there_are_dialogues_of_each_service() -> None:
    asked = {rest.split()[0] for path in DIALOGUES for word, rest in read(path) if word == "SERVICE"}
    assert asked == {"postfix_policy", "socketmap", "tcp_table", "line"}
