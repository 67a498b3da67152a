"""ImapServer alone: framing, phases, limits, order of calls. What commands mean is tested elsewhere."""

import tracemalloc

import pytest

from popgate.protocols.engine import MisuseError, Wait
from popgate.protocols.imap.capabilities import Offer
from popgate.protocols.imap.replies import Reply
from popgate.protocols.imap.server import ImapServer

BYE = Reply("", b"[UNAVAILABLE] The server stops.")


def server(*, is_tls: bool = False, **offer: object) -> ImapServer:
    settings = {"plaintext_login": True, "offers_tls": True, **offer}
    engine = ImapServer(Offer("mail.example.org", **settings), lambda: "token", is_tls=is_tls)  # type: ignore[arg-type]
    engine.take_output()
    return engine


def say(engine: ImapServer, data: bytes) -> bytes:
    """The output of commands that make no event."""
    engine.receive(data)
    assert engine.next_event() is None
    return engine.take_output()


# The greeting and what is offered


def test_the_greeting_tells_what_is_offered() -> None:
    engine = ImapServer(Offer("mail.example.org", offers_tls=True), lambda: "token")
    greeting = engine.take_output()
    assert greeting.startswith(b"* OK [CAPABILITY IMAP4rev1 IMAP4rev2 LITERAL+ SASL-IR ")
    assert b" STARTTLS LOGINDISABLED] " in greeting
    assert b"AUTH=" not in greeting
    assert engine.waiting_for is Wait.LOGIN


def test_under_tls_passwords_are_taken() -> None:
    engine = ImapServer(
        Offer("mail.example.org", offers_tls=True, cram_md5=True), lambda: "token", is_tls=True
    )
    greeting = engine.take_output()
    assert b" AUTH=PLAIN AUTH=LOGIN AUTH=CRAM-MD5] " in greeting
    assert b"STARTTLS" not in greeting
    assert b"LOGINDISABLED" not in greeting


def test_capability_and_noop() -> None:
    engine = server()
    output = say(engine, b"a CAPABILITY\r\nb noop\r\n")
    assert output.startswith(b"* CAPABILITY IMAP4rev1 IMAP4rev2 ")
    assert output.endswith(b"\r\na OK Done.\r\nb OK Done.\r\n")


def test_logout() -> None:
    engine = server()
    assert say(engine, b"a LOGOUT\r\nb NOOP\r\n") == b"* BYE Logging out.\r\na OK Logged out.\r\n"
    assert engine.waiting_for is Wait.CLOSE
    assert engine.ended_by == "quit"


# Framing


@pytest.mark.parametrize(
    ("line", "answer"),
    [
        (b"\r\n", b"* BAD Every command begins with a tag.\r\n"),
        (b" NOOP\r\n", b"* BAD Every command begins with a tag.\r\n"),
        (b"+ NOOP\r\n", b"* BAD Every command begins with a tag.\r\n"),
        (b"* NOOP\r\n", b"* BAD Every command begins with a tag.\r\n"),
        (b'"a" NOOP\r\n', b"* BAD Every command begins with a tag.\r\n"),
        (b"a\xff NOOP\r\n", b"* BAD Every command begins with a tag.\r\n"),
        (b"a" * 256 + b" NOOP\r\n", b"* BAD Every command begins with a tag.\r\n"),
        (b"a\r\n", b"a BAD A command must follow the tag.\r\n"),
        (b"a FROBNICATE\r\n", b"a BAD Unknown command.\r\n"),
        (b"a UID\r\n", b"a BAD Unknown command.\r\n"),
        (b"a NOOP now\r\n", b"a BAD No argument may follow.\r\n"),
        (b"a LOGIN\r\n", b"a BAD Arguments are missing.\r\n"),
        (b"a NOOP\0\r\n", b"a BAD NUL in a command.\r\n"),
        (b"a SELECT INBOX\r\n", b"a BAD Log in first.\r\n"),
        (b"a FETCH 1 FLAGS\r\n", b"a BAD Log in first.\r\n"),
    ],
)
def test_what_is_no_command_is_bad(line: bytes, answer: bytes) -> None:
    assert say(server(), line + b"b NOOP\r\n") == answer + b"b OK Done.\r\n"


@pytest.mark.parametrize("line", [b"a NOOP\n", b"a NO\rOP\r\n", b"a NOOP\r\r\n", b"\n"])
def test_bare_line_ends_close(line: bytes) -> None:
    engine = server()
    assert say(engine, line + b"b NOOP\r\n") == b"* BYE Lines must end in CR LF.\r\n"
    assert engine.ended_by == "bare-line-end"


def test_a_line_may_have_8_kib_before_the_login() -> None:
    assert say(server(), b"a " + b"A" * 8188 + b"\r\n") == b"a BAD Unknown command.\r\n"
    engine = server()
    assert say(engine, b"a " + b"A" * 8189 + b"\r\n") == b"* BYE Line too long.\r\n"
    assert engine.ended_by == "line-too-long"


def test_fifty_megabytes_without_a_line_end_are_not_kept() -> None:
    engine = server()
    block = b"A" * 65536
    tracemalloc.start()
    for _ in range(800):
        engine.receive(block)
        engine.next_event()
    assert tracemalloc.get_traced_memory()[1] < 500_000
    tracemalloc.stop()
    assert engine.waiting_for is Wait.CLOSE


@pytest.mark.parametrize(
    "first", [b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", b"PRI * HTTP/2.0\r\n\r\n", b"\x16\x03\x01"]
)
def test_other_protocols_are_not_talked_to(first: bytes) -> None:
    engine = server()
    assert say(engine, first) == b""
    assert engine.ended_by == "not-imap"


# Literals of commands that are refused


def test_a_refused_command_asks_for_no_literal() -> None:
    assert say(server(), b"a SELECT {5}\r\nb NOOP\r\n") == b"a BAD Log in first.\r\nb OK Done.\r\n"


def test_a_literal_that_comes_unasked_is_no_command() -> None:
    engine = server()
    assert (
        say(engine, b"a SELECT {8+}\r\nx NOOP\r\n\r\nb NOOP\r\n") == b"a BAD Log in first.\r\nb OK Done.\r\n"
    )
    assert (
        say(engine, b"a X {3+}\r\nabc {4+}\r\n\r\n\r\n z\r\nb NOOP\r\n")
        == b"a BAD Unknown command.\r\nb OK Done.\r\n"
    )
    assert (
        say(engine, b"\xff {4+}\r\nabcd\r\nb NOOP\r\n")
        == b"* BAD Every command begins with a tag.\r\nb OK Done.\r\n"
    )


@pytest.mark.parametrize("size", [b"8193", b"65536", b"99999999999", b"9223372036854775807"])
def test_a_literal_before_the_login_is_bounded(size: bytes) -> None:
    engine = server()
    answer = say(engine, b"a LOGIN {" + size + b"}\r\nb NOOP\r\n")
    assert answer == b"a BAD [TOOBIG] The command is too long.\r\nb OK Done.\r\n"
    answer = say(engine, b"a LOGIN {" + size + b"+}\r\nb NOOP\r\n")
    assert answer == b"a BAD [TOOBIG] The command is too long.\r\n* BYE The literal is too large.\r\n"
    assert engine.ended_by == "literal-too-large"


def test_line_and_literals_share_the_bound() -> None:
    engine = server()
    assert say(engine, b"a LOGIN {4000}\r\n" + b"u" * 4000 + b" {4000}\r\n") == b"+ OK\r\n+ OK\r\n"
    engine = server()
    answer = say(engine, b"a LOGIN {4000}\r\n" + b"u" * 4000 + b" {4200}\r\nb NOOP\r\n")
    assert answer == b"+ OK\r\na BAD [TOOBIG] The command is too long.\r\nb OK Done.\r\n"


def test_sizes_beyond_all_numbers() -> None:
    engine = server()
    assert say(engine, b"a LOGIN {99999999999999999999}\r\n") == b"a BAD Size of literal is out of range.\r\n"
    answer = say(engine, b"a LOGIN {99999999999999999999+}\r\n")
    assert answer == b"a BAD Size of literal is out of range.\r\n* BYE The literal is too large.\r\n"


def test_no_password_is_asked_for_in_clear() -> None:
    engine = server(plaintext_login=False)
    answer = say(engine, b"a LOGIN {3}\r\nb LOGIN {3+}\r\nann {3+}\r\nxyz\r\nc NOOP\r\n")
    refusal = b" NO [PRIVACYREQUIRED] Passwords are taken only under TLS here.\r\n"
    assert answer == b"a" + refusal + b"b" + refusal + b"c OK Done.\r\n"


# Budgets and turns


def test_too_many_errors_end_the_session() -> None:
    engine = server(errors=3)
    answer = say(engine, b"a X\r\n" * 5)
    assert answer == b"a BAD Unknown command.\r\n" * 3 + b"* BYE Too many errors.\r\n"
    assert engine.ended_by == "errors"


def test_too_many_idle_commands_before_the_login_end_the_session() -> None:
    engine = server(junk=3)
    answer = say(engine, b"a NOOP\r\nb NOOP\r\nc NOOP\r\nd NOOP\r\ne NOOP\r\n")
    assert answer.endswith(b"c OK Done.\r\nd BAD Log in.\r\n* BYE Too many commands that do nothing.\r\n")
    assert engine.ended_by == "junk"


def test_a_million_commands_take_turns() -> None:
    engine = server(junk=10_000)
    engine.most_lines = 10
    engine.receive(b"a NOOP\r\n" * 25)
    for lines in (10, 10, 5):
        assert engine.next_event() is None
        assert engine.take_output() == b"a OK Done.\r\n" * lines
        assert engine.has_more is (lines == 10)


def test_the_end_of_the_input_ends_the_session() -> None:
    engine = server()
    engine.receive(b"a NOOP\r\nb NO")
    engine.receive(b"")
    assert engine.next_event() is None
    assert engine.take_output() == b"a OK Done.\r\n"
    assert engine.ended_by == "eof"
    assert engine.waiting_for is Wait.CLOSE


# Order of calls


def test_misuse_is_told() -> None:
    engine = server()
    for call in (
        lambda: engine.answer(Reply("OK")),
        lambda: engine.push(b"* 1 EXISTS\r\n"),
        lambda: engine.body(b"x"),
        engine.body_end,
        engine.tls_started,
        lambda: engine.shut_down("BYE"),
    ):
        with pytest.raises(MisuseError):
            call()


def test_shutting_down_at_once_when_nothing_is_open() -> None:
    engine = server()
    engine.shut_down(BYE)
    assert engine.take_output() == b"* BYE [UNAVAILABLE] The server stops.\r\n"
    assert engine.ended_by == "shut-down"
    engine.shut_down(BYE)
    engine.receive(b"a NOOP\r\n")
    assert engine.next_event() is None
    assert engine.take_output() == b""


def test_an_idle_engine_is_small() -> None:
    offer = Offer("mail.example.org")
    engines = []
    tracemalloc.start()
    for _ in range(200):
        engine = ImapServer(offer, str)
        engine.take_output()
        engine.receive(b"a NOOP\r\n")
        engine.next_event()
        engine.take_output()
        engines.append(engine)
    assert tracemalloc.get_traced_memory()[0] / len(engines) < 1000
    tracemalloc.stop()
