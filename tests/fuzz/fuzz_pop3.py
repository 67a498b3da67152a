"""Whatever a POP3 client sends, in whatever pieces, it reads whole lines, the same ones for every cut,
nothing is granted, read or removed without a right password, and nothing is held beyond the limits.

The first octet of an input chooses the listener's policy, the second how the rest is cut.
"""

import random

from pop3_site import ANN, DOTTED, SMALL, Site, Talk
from popgate.protocols.engine import Wait
from support import fuzzing

MAX_STATUS_LINE = 512
PIECE_OF_A_LISTING = 100_000


def site_for(options: int) -> Site:
    site = Site(bodies=[SMALL, DOTTED, b"", b"x", b".", b"\r", b"no end\r\n.\r\n.."]).with_policy(
        offers_tls=bool(options & 1),
        plaintext_login=not options & 2,
        apop=bool(options & 4),
        errors=5 if options & 8 else 1000,
        junk=5 if options & 16 else 1000,
    )
    site.boxes.block = 3 if options & 32 else 65536
    site.accounts.is_later = bool(options & 64)
    site.opens_quickly = bool(options & 128)
    return site


def converse(site: Site, data: bytes, cuts: random.Random | None) -> bytes:
    talk = site.talk()
    output = [talk.greeting]
    while data:
        size = len(data) if cuts is None else cuts.randint(1, 20)
        output.append(talk.send(data[:size]))
        data = data[size:]
        waiting = talk.engine.waiting_for
        if waiting is Wait.CLOSE:
            assert talk.send(b"NOOP\r\nQUIT\r\n") == b""
            break
        if waiting is Wait.TLS:
            talk.start_tls()
        assert talk.engine.next_event() is None
    end_of_file(talk, output)
    talk.session.closed("eof")
    return b"".join(output)


def end_of_file(talk: Talk, output: list[bytes]) -> None:
    if not talk.is_closing:
        output.append(talk.send(b""))
        assert talk.is_closing


def check(data: bytes) -> None:
    options, seed, octets = data[:1] or b"\0", data[1:2], data[2:]
    site = site_for(options[0])
    output = converse(site, octets, None)
    assert output.endswith(b"\r\n")
    for line in output.split(b"\r\n"):
        assert len(line) <= MAX_STATUS_LINE
        assert b"\n" not in line
    if b"+OK Logged in." not in output:
        assert site.grants.told == []
        assert len(site.boxes.mail[ANN]) == 7
        assert b"Subject" not in output
    assert not site.boxes.open
    for event in site.named("pop3.login.failed"):
        name = event.fields["name"]
        assert isinstance(name, str)
        assert name.isascii()
        assert name.isprintable()
        assert " " not in name
    other_site = site_for(options[0])
    if not other_site.policy.offers_tls:  # what follows STLS in one packet is refused by design
        assert converse(other_site, octets, random.Random(seed)) == output
        assert other_site.boxes.mail == site.boxes.mail
        assert other_site.grants.told == site.grants.told


if __name__ == "__main__":
    fuzzing.main(check)
