"""Pop3Server alone: long listings, framing, order of calls, limits on what it holds."""

import tracemalloc
from dataclasses import dataclass
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from popgate.protocols.engine import MisuseError, Wait
from popgate.protocols.pop3.events import Authenticate, Quit, Retrieve, StartTls
from popgate.protocols.pop3.replies import BYE, SHUTTING_DOWN, START_TLS, Reply
from popgate.protocols.pop3.server import Offer, Pop3Server
from popgate.protocols.pop3.stuffing import DotStuffer


@dataclass(slots=True)
class Entry:
    uid: str
    octets: int


def server(**offer: object) -> Pop3Server:
    engine = Pop3Server(Offer("mail.example.org", **{"plaintext_login": True, **offer}), lambda: "token")  # type: ignore[arg-type]
    engine.take_output()
    return engine


def logged_in(count: int = 2, **offer: object) -> Pop3Server:
    engine = server(**offer)
    engine.receive(b"USER ann\r\nPASS secret\r\n")
    assert isinstance(engine.next_event(), Authenticate)
    engine.answer(
        Reply(b"+OK\r\n", messages=[Entry(f"uid-{number}", number) for number in range(1, count + 1)])
    )
    engine.take_output()
    return engine


def drain(engine: Pop3Server) -> bytes:
    """Everything up to the end of a long reply."""
    output = [engine.take_output()]
    for block in engine.source or ():
        engine.body(block)
        output.append(engine.take_output())
    engine.body_end()
    output.append(engine.take_output())
    return b"".join(output)


# Long listings


def test_a_million_messages_are_listed_in_pieces() -> None:
    entry = Entry("u" * 70, 1234)
    engine = server()
    engine.receive(b"USER ann\r\nPASS secret\r\n")
    engine.next_event()
    engine.answer(Reply(b"+OK\r\n", messages=[entry] * 1_000_000))
    for command, first in ((b"LIST\r\n", b"1 1234\r\n"), (b"UIDL\r\n", b"1 " + b"u" * 70 + b"\r\n")):
        engine.take_output()
        engine.receive(command)
        assert engine.next_event() is None
        assert engine.source is not None
        assert engine.waiting_for is Wait.DECISION
        assert len(engine.take_output()) < 100
        lines = largest = 0
        for block in engine.source:
            if not lines:
                assert block.startswith(first)
            engine.body(block)
            output = engine.take_output()
            lines += output.count(b"\r\n")
            largest = max(largest, len(output))
        engine.body_end()
        assert engine.take_output() == b".\r\n"
        assert lines == 1_000_000
        assert largest < 100_000


def test_long_listings_leave_out_what_is_deleted() -> None:
    engine = logged_in(2500)
    engine.receive(b"DELE 1\r\nDELE 1000\r\nDELE 1001\r\nDELE 2500\r\nLIST\r\n")
    assert engine.next_event() is None
    lines = drain(engine).split(b"\r\n")[4:-2]
    assert lines[0].startswith(b"+OK 2496 messages")
    numbers = [int(line.split()[0]) for line in lines[1:]]
    assert numbers == [number for number in range(1, 2501) if number not in (1, 1000, 1001, 2500)]


def test_commands_behind_a_long_listing_wait_for_its_end() -> None:
    engine = logged_in(1500)
    engine.receive(b"UIDL\r\nSTAT\r\n")
    assert engine.next_event() is None
    assert drain(engine).endswith(b"1500 uid-1500\r\n.\r\n")
    assert engine.next_event() is None
    assert engine.take_output().startswith(b"+OK 1500 ")


def test_many_listings_in_one_packet_do_not_pile_up() -> None:
    engine = logged_in(900)
    engine.receive(b"UIDL\r\n" * 10_000)
    assert engine.next_event() is None
    assert engine.source is not None
    assert len(engine.take_output()) < 200_000


def test_short_listings_need_no_source_however_long_the_session() -> None:
    engine = logged_in(100, junk=10_000)
    for _ in range(1000):
        engine.receive(b"LIST\r\n")
        assert engine.next_event() is None
        assert engine.source is None
        assert engine.take_output().endswith(b"\r\n.\r\n")


# Framing


@given(st.text(alphabet="a.\r\n", max_size=40), st.randoms())
def test_dot_stuffing_of_any_text_in_any_cut(text: str, rng: Random) -> None:
    message = text.encode()
    stuffer, blocks, rest = DotStuffer(), [], message
    while rest:
        size = rng.randint(0, 3)
        blocks.append(stuffer.block(rest[:size]))
        rest = rest[size:]
    wire = b"".join(blocks) + stuffer.end()
    whole = DotStuffer()
    assert whole.block(message) + whole.end() == wire
    # What a client makes of it: whole lines up to the only line of one dot, stuffing undone
    assert wire.endswith(b"\r\n.\r\n") or wire == b".\r\n"
    lines = wire[:-3].split(b"\n")
    assert all(line not in (b".", b".\r") for line in lines)
    plain = b"\n".join([line[1:] if line.startswith(b".") else line for line in lines])
    assert plain == message + plain[len(message) :]
    assert plain[len(message) :] in (b"", b"\n", b"\r\n")
    assert plain == b"" or plain.endswith(b"\r\n")


def test_a_message_that_breaks_off_closes_without_its_end() -> None:
    engine = logged_in()
    engine.receive(b"RETR 1\r\nSTAT\r\n")
    assert engine.next_event() == Retrieve(0, None)
    engine.answer(Reply(b"+OK\r\n", source=iter(())))
    engine.body(b"half a line")
    engine.body_end(failed=True)
    assert engine.take_output() == b"+OK\r\nhalf a line"
    assert engine.waiting_for is Wait.CLOSE
    assert engine.next_event() is None


# Order of calls


def test_nothing_is_read_while_an_event_is_open() -> None:
    engine = server()
    engine.receive(b"USER ann\r\nPASS secret\r\nSTAT\r\nQUIT\r\n")
    assert isinstance(engine.next_event(), Authenticate)
    assert engine.waiting_for is Wait.DECISION
    engine.take_output()
    assert engine.next_event() is None
    assert engine.take_output() == b""
    engine.answer(Reply(b"-ERR no\r\n"))
    # The login failed, so what the client sent ahead is not run in its name
    assert engine.next_event() is None
    assert engine.take_output() == b"-ERR no\r\n-ERR Log in first.\r\n+OK Goodbye.\r\n"


def test_misuse_is_told() -> None:
    engine = server(offers_tls=True)
    for call in (
        lambda: engine.answer(BYE),
        lambda: engine.body(b"x"),
        lambda: engine.body_end(),
        lambda: engine.tls_started(),
        lambda: engine.shut_down(b"-ERR\r\n"),
    ):
        with pytest.raises(MisuseError):
            call()
    engine.receive(b"STLS\r\n")
    assert engine.next_event() == StartTls()
    with pytest.raises(MisuseError):
        engine.answer(None)
    engine.answer(START_TLS)
    assert engine.waiting_for is Wait.TLS


def test_quit_closes_whatever_is_answered() -> None:
    engine = logged_in()
    engine.receive(b"QUIT\r\nSTAT\r\n")
    assert engine.next_event() == Quit(())
    engine.answer(Reply(b"-ERR [SYS/TEMP] nothing was removed\r\n"))
    assert engine.waiting_for is Wait.CLOSE
    assert engine.next_event() is None


def test_reading_mail_earns_more_idle_commands() -> None:
    engine = logged_in(junk=2)
    for _ in range(3):
        engine.receive(b"NOOP\r\nNOOP\r\nRETR 1\r\n")
        assert engine.next_event() == Retrieve(0, None)
        engine.answer(Reply(b"+OK\r\n", source=iter(())))
        drain(engine)
    assert engine.waiting_for is Wait.COMMAND


def test_waiting_for_names_the_deadline() -> None:
    engine = server()
    assert engine.waiting_for is Wait.LOGIN
    assert logged_in().waiting_for is Wait.COMMAND


def test_a_client_that_has_finished_sending_is_answered_before_the_close() -> None:
    engine = server()
    engine.receive(b"USER ann\r\nPASS secret\r\nDELE 2\r\nQUIT\r\n")
    engine.receive(b"")
    engine.next_event()
    engine.answer(Reply(b"+OK\r\n", messages=[Entry("a", 1), Entry("b", 2)]))
    assert engine.next_event() == Quit((1,))
    engine.answer(BYE)
    assert engine.waiting_for is Wait.CLOSE
    engine = server()
    engine.receive(b"USER an")
    engine.receive(b"")
    assert engine.next_event() is None
    assert engine.waiting_for is Wait.CLOSE


# STLS


def test_bytes_behind_stls_are_refused_in_the_same_packet_and_later() -> None:
    for rest in (b"\r\n", b"C", b"CAPA\r\n", b"\x16\x03\x01"):
        engine = server(offers_tls=True)
        engine.receive(b"STLS\r\n" + rest)
        assert engine.next_event() is None
        assert engine.take_output().startswith(b"-ERR ")
        assert engine.waiting_for is Wait.CLOSE
    engine = server(offers_tls=True)
    engine.receive(b"STLS\r\n")
    assert engine.next_event() == StartTls()
    engine.receive(b"CAPA\r\n")
    engine.answer(START_TLS)
    assert engine.take_output().startswith(b"-ERR ")
    assert engine.waiting_for is Wait.CLOSE
    engine = server(offers_tls=True)
    engine.receive(b"STLS\r\n")
    engine.next_event()
    engine.answer(START_TLS)
    engine.receive(b"CAPA\r\n")
    assert engine.waiting_for is Wait.CLOSE
    assert engine.take_output() == START_TLS.wire


def test_tls_may_be_refused() -> None:
    engine = server(offers_tls=True)
    engine.receive(b"STLS\r\n")
    engine.next_event()
    engine.answer(Reply(b"-ERR [SYS/TEMP] no certificate\r\n"))
    assert engine.waiting_for is Wait.LOGIN


def test_utf8_is_forgotten_with_tls() -> None:
    engine = server(offers_tls=True)
    engine.receive(b"USER ann\r\nSTLS\r\n")
    engine.next_event()
    engine.answer(START_TLS)
    engine.tls_started()
    engine.receive(b"UTF8\r\nPASS secret\r\n")
    assert engine.next_event() is None
    assert engine.take_output().endswith(b"+OK UTF8 enabled.\r\n-ERR USER comes first.\r\n")


# Shutting down


def test_last_words_come_behind_what_is_in_progress() -> None:
    engine = logged_in()
    engine.receive(b"RETR 1\r\n")
    engine.next_event()
    engine.shut_down(SHUTTING_DOWN)
    assert engine.take_output() == b""
    engine.answer(Reply(b"+OK\r\n", source=iter((b"text\r\n",))))
    assert engine.waiting_for is Wait.DECISION
    assert drain(engine) == b"+OK\r\ntext\r\n.\r\n" + SHUTTING_DOWN.wire
    assert engine.waiting_for is Wait.CLOSE


def test_last_words_are_not_said_behind_goodbye_or_before_tls() -> None:
    engine = logged_in()
    engine.receive(b"QUIT\r\n")
    engine.next_event()
    engine.shut_down(SHUTTING_DOWN)
    engine.answer(BYE)
    assert engine.take_output() == BYE.wire
    engine = server(offers_tls=True)
    engine.receive(b"STLS\r\n")
    engine.next_event()
    engine.shut_down(SHUTTING_DOWN)
    engine.answer(START_TLS)
    assert engine.take_output() == START_TLS.wire
    assert engine.waiting_for is Wait.CLOSE


def test_last_words_follow_a_login_in_progress() -> None:
    engine = server()
    engine.receive(b"USER ann\r\nPASS secret\r\nSTAT\r\n")
    engine.next_event()
    engine.take_output()
    engine.shut_down(SHUTTING_DOWN)
    engine.answer(Reply(b"+OK\r\n"))
    assert engine.take_output() == b"+OK\r\n" + SHUTTING_DOWN.wire
    assert engine.next_event() is None


# Limits


@pytest.mark.parametrize("length", [254, 255, 256, 65536])
def test_command_lines_have_255_octets(length: int) -> None:
    engine = server()
    engine.receive(b"USER " + b"x" * (length - 7) + b"\r\n")
    engine.next_event()
    if length <= 255:
        assert engine.take_output() == b"+OK Now the password.\r\n"
    else:
        assert engine.take_output() == b"-ERR Line too long.\r\n"
        assert engine.waiting_for is Wait.CLOSE


def test_an_exchange_takes_longer_lines_and_then_no_more() -> None:
    engine = server()
    engine.receive(b"AUTH PLAIN\r\n" + b"A" * 2000 + b"\r\n")
    assert engine.next_event() is None
    assert engine.take_output().startswith(b"+ \r\n-ERR Malformed")
    engine.receive(b"AUTH PLAIN\r\n" + b"A" * 3000)
    assert engine.next_event() is None
    assert engine.waiting_for is Wait.CLOSE


def test_fifty_megabytes_without_a_line_end_are_not_kept() -> None:
    engine = server()
    block = b"A" * 65536
    tracemalloc.start()
    for _ in range(800):
        engine.receive(block)
        engine.next_event()
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert engine.waiting_for is Wait.CLOSE
    assert peak < 500_000


def test_many_recovered_logins_do_not_reset_the_error_budget() -> None:
    engine = server(errors=4)
    for _ in range(3):
        engine.receive(b"XYZZY\r\nUSER ann\r\nPASS secret\r\n")
        engine.next_event()
        engine.answer(Reply(b"-ERR [AUTH] no\r\n"))
    assert engine.waiting_for is Wait.LOGIN
    engine.receive(b"XYZZY\r\n")
    engine.next_event()
    assert engine.waiting_for is Wait.CLOSE
