"""Whatever an IMAP client sends, in whatever pieces, the engine raises nothing, gives the same events and
output for every cut, asks about nothing before its phase, and holds nothing beyond its bounds.

The first octet of an input chooses the offer and the phase, the second how the rest is cut.
"""

import random
import zlib

from imap_engine_kit import Script, Talk
from popgate.protocols.engine import Wait
from popgate.protocols.imap import commands
from popgate.protocols.imap.server import MOST_OF_A_COMMAND
from support import fuzzing

BEFORE_LOGIN = (commands.ClientId, commands.StartTls, commands.Authenticate)
APPEND_LIMIT = 300


def talk_for(options: int) -> Talk:
    script = Script(7 if options & 1 else 65536)
    talk = Talk(
        script,
        is_tls=bool(options & 24),
        offers_tls=bool(options & 2),
        plaintext_login=not options & 4,
        cram_md5=bool(options & 2),
        errors=5 if options & 32 else 1000,
        junk=5 if options & 32 else 1000,
        append_limit=APPEND_LIMIT,
    )
    talk.engine.most_lines = 3 if options & 64 else 0
    if options & 24:
        talk.send(b"l LOGIN ann secret\r\n")
    if options & 16:
        talk.send(b"s SELECT INBOX\r\n")
    script.events.clear()
    return talk


def converse(talk: Talk, data: bytes, cuts: random.Random | None) -> bytes:
    output = [talk.greeting]
    unpack = None
    while data and not talk.is_closing:
        size = len(data) if cuts is None else cuts.randint(1, 20)
        piece, data = data[:size], data[size:]
        sent = talk.send(piece)
        if unpack is not None:
            sent = unpack.decompress(sent)
        elif talk.engine.is_compressed:
            unpack = zlib.decompressobj(-15)
            head, _, tail = sent.partition(b"Compress done.\r\n")
            sent = head + b"Compress done.\r\n" + unpack.decompress(tail)
        output.append(sent)
        engine = talk.engine
        assert len(engine._input) <= 2 * MOST_OF_A_COMMAND + len(piece)
        assert engine._gathering is None or engine._gathering.used <= MOST_OF_A_COMMAND
        if engine.waiting_for is Wait.TLS:
            engine.tls_started()
        assert engine.next_event() is None
        assert engine.waiting_for in (Wait.LOGIN, Wait.COMMAND, Wait.BODY, Wait.CLOSE)
        if engine.is_idling:
            engine.push(b"* 6 EXISTS\r\n")
            engine.take_output()
    if not talk.is_closing:
        talk.send(b"")
        assert talk.is_closing
    assert talk.engine.ended_by
    assert talk.send(b"z NOOP\r\n") == b""
    return b"".join(output)


def check(data: bytes) -> None:
    options, seed, octets = data[0] if data else 0, data[1:2], data[2:]
    talk = talk_for(options)
    output = converse(talk, octets, None)
    script = talk.script
    assert output.endswith(b"\r\n")
    is_logged_in = bool(options & 24)
    for event in script.events:
        assert is_logged_in or isinstance(event, BEFORE_LOGIN), event
        is_logged_in = is_logged_in or (
            isinstance(event, commands.Authenticate) and b"] Welcome.\r\n" in output
        )
    assert all(len(message) <= APPEND_LIMIT for message in script.stored)
    # What follows STARTTLS or COMPRESS in one packet is refused by design
    if (
        not talk.named(commands.StartTls)
        and b"Nothing may follow" not in output
        and not talk.engine.is_compressed
    ):
        other = talk_for(options)
        assert converse(other, octets, random.Random(seed)) == output
        assert other.script.stored == script.stored
        if other.engine.ended_by == talk.engine.ended_by:
            assert other.script.events == script.events


if __name__ == "__main__":
    fuzzing.main(check)
