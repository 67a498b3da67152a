"""ImapServer's long ways: compression, IDLE, APPEND in chunks, STARTTLS, shutting down on the way."""

import tracemalloc
import zlib

import pytest

from imap_engine_kit import Script, Talk, logged_in, selected
from popgate.protocols.engine import MisuseError, Wait
from popgate.protocols.imap import commands
from popgate.protocols.imap.compression import PIECE, BrokenStream, Compression
from popgate.protocols.imap.replies import GO_ON, Reply

BYE = Reply("", b"[UNAVAILABLE] The server stops.")


class Packed:
    """The client's side of a compressed connection."""

    def __init__(self, talk: Talk) -> None:
        self.talk = talk
        self._pack, self._unpack = zlib.compressobj(9, zlib.DEFLATED, -15), zlib.decompressobj(-15)
        assert talk.send(b"z COMPRESS DEFLATE\r\n") == b"z OK Compress done.\r\n"

    def packed(self, data: bytes) -> bytes:
        return self._pack.compress(data) + self._pack.flush(zlib.Z_SYNC_FLUSH)

    def say(self, data: bytes, piece: int = 1 << 20) -> bytes:
        wire, output = self.packed(data), b""
        for at in range(0, len(wire), piece):
            output += self._unpack.decompress(self.talk.send(wire[at : at + piece]))
        return output

    def read(self) -> bytes:
        return self._unpack.decompress(self.talk.engine.take_output())


# COMPRESS


@pytest.mark.parametrize("piece", [1, 1 << 20])
def test_both_ways_are_compressed(piece: int) -> None:
    client = Packed(selected(Script(7)))
    output = client.say(b"a NOOP\r\nb FETCH 1 BODY[]\r\nc CAPABILITY\r\nd COMPRESS DEFLATE\r\n", piece)
    assert output.startswith(b"a OK Noop done.\r\n* 1 FETCH (BODY[] {127}\r\n")
    assert b"\r\nb OK Fetched.\r\n* CAPABILITY IMAP4rev1 " in output
    assert b"COMPRESS=DEFLATE" not in output
    assert output.endswith(b"d NO [COMPRESSIONACTIVE] DEFLATE is active already.\r\n")


def test_idling_gives_back_memory_and_the_stream_goes_on() -> None:
    client = Packed(selected())
    for _ in range(3):
        assert client.say(b"a IDLE\r\n") == b"+ idling\r\n* 5 EXISTS\r\n"
        assert client.talk.engine._compression is not None
        assert client.talk.engine._compression._deflater is None
        client.talk.engine.push(b"* 6 EXISTS\r\n")
        assert client.read() == b"* 6 EXISTS\r\n"
        assert client.say(b"DONE\r\nb NOOP\r\n") == b"a OK IdleDone done.\r\nb OK Noop done.\r\n"


def test_a_message_may_come_compressed() -> None:
    client = Packed(logged_in())
    message = b"text\r\n" * 100_000
    answer = client.say(b"a APPEND INBOX {%d+}\r\n%b\r\n" % (len(message), message))
    assert answer.endswith(b"a OK [APPENDUID 1 9] Stored 600000.\r\n")
    assert client.talk.script.stored == [message]


def test_a_bomb_costs_turns_not_memory() -> None:
    talk = logged_in()
    client = Packed(talk)
    bomb = client.packed(b"a APPEND INBOX {60000000+}\r\n" + b"\0" * 60_000_000)
    assert len(bomb) < 100_000
    engine = talk.engine
    engine.most_lines = 4
    tracemalloc.start()
    engine.receive(bomb)
    got = turns = 0
    while got < 60_000_000:
        event = engine.next_event()
        if type(event) is commands.AppendMessage:
            engine.answer(GO_ON)
        elif type(event) is commands.AppendChunk:
            got += len(event.data)
        else:
            assert engine.has_more
            turns += 1
    assert tracemalloc.get_traced_memory()[1] < 2_000_000
    tracemalloc.stop()


def test_a_bomb_of_a_line_is_too_long() -> None:
    talk = logged_in()
    client = Packed(talk)
    assert client.say(b"a" * 50_000_000) == b"* BYE Line too long.\r\n"
    assert talk.engine.ended_by == "line-too-long"


@pytest.mark.parametrize("junk", [b"\xff\xff\xff\xff", b"b NOOP\r\n", zlib.compress(b"x")])
def test_what_is_no_stream_ends_the_session(junk: bytes) -> None:
    talk = logged_in()
    client = Packed(talk)
    output = client._unpack.decompress(talk.send(junk))
    assert output == b"* BYE The compressed stream is broken.\r\n"
    assert talk.engine.ended_by == "compression"


def test_the_end_of_the_stream_ends_the_session() -> None:
    talk = logged_in()
    client = Packed(talk)
    wire = client._pack.compress(b"a NOOP\r\n") + client._pack.flush(zlib.Z_FINISH)
    talk.send(wire)
    assert talk.engine.ended_by == "compression"


def test_nothing_may_follow_compress_before_its_answer() -> None:
    talk = logged_in()
    output = talk.send(b"a COMPRESS DEFLATE\r\nb NOOP\r\n")
    assert output == b"a OK Compress done.\r\n* BYE Nothing may follow COMPRESS before its answer.\r\n"
    assert talk.engine.ended_by == "early-compression"


def test_unpacking_goes_on_where_a_piece_was_full() -> None:
    compression = Compression()
    compression.receive(zlib.compress(b"x" * (3 * PIECE))[2:-4])
    sizes = []
    with pytest.raises(BrokenStream):
        while compression.has_more:
            sizes.append(len(compression.unpack()))
    assert sizes[:2] == [PIECE, PIECE]


# STARTTLS


@pytest.mark.parametrize("behind", [b"B LOGIN ann secret\r\n", b"B LOGIN {3}\r\n", b"B", b"\r\n"])
def test_what_comes_in_clear_behind_starttls_is_never_answered(behind: bytes) -> None:
    """attacks starttls-014 and -015"""
    talk = Talk(offers_tls=True)
    output = talk.send(b"A STARTTLS\r\n" + behind)
    assert output == b"A BAD Nothing may follow STARTTLS before TLS.\r\n* BYE Closing the connection.\r\n"
    assert talk.script.events == []
    talk = Talk(offers_tls=True)
    assert talk.send(b"A STARTTLS\r\n") == b"A OK StartTls done.\r\n"
    assert talk.engine.waiting_for is Wait.TLS
    assert talk.send(behind) == b""
    assert talk.engine.ended_by == "early-tls"
    talk.engine.tls_started()  # the shell may be on its way to it
    assert talk.engine.waiting_for is Wait.CLOSE


def test_injection_while_starttls_is_decided() -> None:
    engine = Talk(offers_tls=True).engine
    engine.receive(b"A STARTTLS\r\n")
    assert type(engine.next_event()) is commands.StartTls
    engine.receive(b"B NOOP\r\n")
    engine.answer(Reply("OK"))
    assert engine.next_event() is None
    assert engine.ended_by == "early-tls"


# IDLE


def test_push_only_while_idling() -> None:
    talk = selected()
    engine = talk.engine
    engine.receive(b"a IDLE\r\n")
    assert type(engine.next_event()) is commands.Idle
    with pytest.raises(MisuseError):
        engine.push(b"* 1 EXISTS\r\n")
    engine.answer(Reply("NO", b"Not now."))
    assert engine.take_output() == b"a NO Not now.\r\n"
    with pytest.raises(MisuseError):
        engine.push(b"* 1 EXISTS\r\n")
    talk.send(b"b IDLE\r\n")
    assert engine.waiting_for is Wait.COMMAND
    engine.receive(b"DONE\r\n")
    assert type(engine.next_event()) is commands.IdleDone
    assert not engine.is_idling


def test_shutting_down_an_idling_client() -> None:
    talk = selected()
    talk.send(b"a IDLE\r\n")
    talk.engine.shut_down(BYE)
    assert talk.engine.take_output() == b"* BYE [UNAVAILABLE] The server stops.\r\n"
    assert not talk.engine.is_idling


# APPEND and long answers


def test_a_message_is_waited_for_as_a_body() -> None:
    talk = logged_in()
    assert talk.send(b"a APPEND INBOX {10}\r\n") == b"+ OK\r\n"
    assert talk.engine.waiting_for is Wait.BODY
    assert talk.send(b"01234") == b""
    talk.engine.shut_down(BYE)  # at its end
    assert talk.engine.take_output() == b""
    output = talk.send(b"56789\r\nb NOOP\r\n")
    assert output.endswith(b"a OK [APPENDUID 1 9] Stored 10.\r\n* BYE [UNAVAILABLE] The server stops.\r\n")
    assert talk.engine.ended_by == "shut-down"


def test_called_again_shut_down_waits_for_no_message() -> None:
    talk = logged_in()
    talk.send(b"a APPEND INBOX {10}\r\n01234")
    talk.engine.shut_down(BYE)
    talk.engine.shut_down(BYE)
    assert talk.engine.take_output() == b"* BYE [UNAVAILABLE] The server stops.\r\n"


def test_shutting_down_waits_for_a_long_answer() -> None:
    engine = selected().engine
    engine.receive(b"a FETCH 1 FLAGS\r\nb NOOP\r\n")
    assert type(engine.next_event()) is commands.Fetch
    engine.answer(Reply("OK", b"Fetched.", source=iter([b"* 1 FETCH ()\r\n"])))
    engine.shut_down(BYE)
    engine.body(b"* 1 FETCH ()\r\n")
    engine.body_end()
    assert engine.next_event() is None
    assert (
        engine.take_output() == b"* 1 FETCH ()\r\na OK Fetched.\r\n* BYE [UNAVAILABLE] The server stops.\r\n"
    )


def test_a_long_answer_that_broke_off_closes_without_a_tagged_line() -> None:
    engine = selected().engine
    engine.receive(b"a FETCH 1 FLAGS\r\n")
    engine.next_event()
    engine.answer(Reply("OK", source=iter([b"* 1 FETCH (BODY[] {9}\r\nx"])))
    engine.body(b"* 1 FETCH (BODY[] {9}\r\nx")
    engine.body_end(failed=True)
    assert engine.take_output() == b"* 1 FETCH (BODY[] {9}\r\nx"
    assert engine.ended_by == "broken-message"


def test_the_ending_of_a_long_answer_may_be_no() -> None:
    engine = selected().engine
    engine.receive(b"a FETCH 1 FLAGS\r\n")
    engine.next_event()
    engine.answer(Reply("OK", source=iter(()), ending=lambda: ("NO", b"[EXPUNGEISSUED] Gone.")))
    engine.body_end()
    assert engine.take_output() == b"a NO [EXPUNGEISSUED] Gone.\r\n"


def test_a_login_that_closes() -> None:
    engine = Talk(plaintext_login=True).engine
    engine.receive(b"a LOGIN ann wrong\r\nb NOOP\r\n")
    assert type(engine.next_event()) is commands.Authenticate
    assert engine.tag == b"a"
    engine.answer(Reply("NO", b"[AUTHENTICATIONFAILED] No.", closes=True))
    assert engine.next_event() is None
    assert engine.take_output() == b"* BYE Closing the connection.\r\na NO [AUTHENTICATIONFAILED] No.\r\n"
    assert engine.ended_by == "login-failures"
