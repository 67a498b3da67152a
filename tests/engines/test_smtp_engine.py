"""The SMTP engine's contract with the shell: order of calls, timers, shutdown, limits."""

import pytest

from popgate.protocols.engine import MisuseError, Wait
from popgate.protocols.smtp import (
    Aborted,
    BodyChunk,
    BodyEnd,
    Data,
    MailFrom,
    RcptTo,
    SmtpOptions,
    SmtpServer,
    StartTls,
    replies,
)
from popgate.protocols.smtp.engine import COMMANDS, Phase

BYE = replies.reply(421, "4.3.2", "the service stops")


def server(**more: object) -> SmtpServer:
    is_tls = bool(more.pop("is_tls", False))
    waits = bool(more.pop("waits_to_greet", False))
    more.setdefault("offers_tls", True)
    return SmtpServer(
        SmtpOptions("mx.example.org", **more),  # type: ignore[arg-type]
        token=lambda: "token",
        is_tls=is_tls,
        waits_to_greet=waits,
    )


def at(phase: str, **more: object) -> SmtpServer:
    """An engine that has come so far; its output is taken."""
    engine = server(**more)
    for command, answer in (
        (b"HELO x", None),
        (b"MAIL FROM:<a@example.com>", replies.SENDER_OK),
        (b"RCPT TO:<b@example.org>", replies.RECIPIENT_OK),
        (b"DATA", replies.START_BODY),
    ):
        if phase == "new" or (phase == "ready" and answer):
            break
        engine.receive(command + b"\r\n")
        event = engine.next_event()
        if answer is not None:
            assert event is not None
            engine.answer(answer)
            assert engine.next_event() is None
        if phase == command[:4].decode().lower():
            break
    engine.take_output()
    return engine


def test_it_reads_no_further_than_an_open_question() -> None:
    engine = at("ready")
    engine.receive(b"MAIL FROM:<>\r\nRCPT TO:<b@example.org>\r\nNOOP\r\n")
    assert engine.next_event() == MailFrom(None)
    assert engine.next_event() is None
    assert engine.waiting_for is Wait.DECISION
    assert engine.take_output() == b""
    engine.answer(replies.SENDER_OK)
    event = engine.next_event()
    assert isinstance(event, RcptTo)
    assert engine.take_output() == replies.SENDER_OK.wire
    engine.answer(replies.reply(550, "5.1.1", "no"))
    assert engine.next_event() is None
    assert engine.take_output() == b"550 5.1.1 no\r\n250 2.0.0 ok\r\n"
    assert engine.phase is Phase.SENDER
    assert engine.waiting_for is Wait.COMMAND


def test_calls_out_of_turn_are_misuse() -> None:
    engine = server()
    with pytest.raises(MisuseError):
        engine.answer(replies.OK)
    with pytest.raises(MisuseError):
        engine.tls_started()
    with pytest.raises(MisuseError):
        engine.body(b"x")
    with pytest.raises(MisuseError):
        engine.body_end()
    assert engine.source is None


def test_a_refused_mail_leaves_the_phase() -> None:
    engine = at("ready")
    engine.receive(b"MAIL FROM:<>\r\n")
    engine.next_event()
    engine.answer(replies.reply(451, "4.3.0", "later"))
    assert engine.next_event() is None
    assert engine.phase is Phase.READY


def test_421_closes_whoever_says_it() -> None:
    engine = at("mail")
    engine.receive(b"RCPT TO:<b@example.org>\r\nNOOP\r\n")
    assert isinstance(engine.next_event(), RcptTo)
    engine.answer(BYE)
    assert engine.next_event() == Aborted("refused")
    assert engine.next_event() is None
    assert engine.take_output() == BYE.wire
    assert engine.waiting_for is Wait.CLOSE


@pytest.mark.parametrize(
    ("phase", "is_told"),
    [("new", False), ("ready", False), ("mail", True), ("rcpt", True), ("data", True)],
)
def test_end_of_file_aborts_what_was_begun(phase: str, is_told: bool) -> None:
    engine = at(phase)
    engine.receive(b"")
    assert engine.next_event() == (Aborted("eof") if is_told else None)
    assert engine.next_event() is None
    assert engine.waiting_for is Wait.CLOSE


def test_what_came_before_the_end_of_file_is_answered() -> None:
    engine = at("rcpt")
    engine.receive(b"NOOP\r\nRSET\r\nNOO")
    engine.receive(b"")
    assert engine.next_event() == Aborted("reset")
    assert engine.next_event() is None
    assert engine.take_output() == replies.OK.wire * 2


@pytest.mark.parametrize("command", [b"RSET", b"EHLO y", b"QUIT"])
def test_commands_that_end_a_transaction_tell_it(command: bytes) -> None:
    engine = at("rcpt")
    engine.receive(command + b"\r\n")
    assert isinstance(engine.next_event(), Aborted)
    assert engine.next_event() is None


def test_waits_tell_the_timer() -> None:
    engine = at("rcpt")
    assert engine.waiting_for is Wait.COMMAND
    engine.receive(b"DATA\r\n")
    assert engine.next_event() == Data(is_chunked=False)
    engine.answer(replies.START_BODY)
    assert engine.waiting_for is Wait.BODY
    engine.receive(b"x\r\n.\r\n")
    assert engine.next_event() == BodyChunk(b"x\r\n")
    assert engine.next_event() == BodyEnd()
    assert engine.waiting_for is Wait.DECISION
    engine.answer(replies.OK)
    assert engine.waiting_for is Wait.COMMAND
    engine.receive(b"STARTTLS\r\n")
    assert engine.next_event() == StartTls()
    engine.answer(replies.START_TLS)
    assert engine.waiting_for is Wait.TLS


# Shutting down


@pytest.mark.parametrize("phase", ["new", "ready", "mail", "rcpt"])
def test_an_idle_session_is_shut_down_at_once(phase: str) -> None:
    engine = at(phase)
    engine.shut_down(BYE)
    assert engine.take_output() == BYE.wire
    assert engine.waiting_for is Wait.CLOSE


def test_a_body_may_come_to_its_end_before_the_shutdown() -> None:
    engine = at("data")
    engine.shut_down(BYE)
    assert engine.take_output() == b""
    engine.receive(b"x\r\n.\r\nNOOP\r\n")
    assert isinstance(engine.next_event(), BodyChunk)
    assert isinstance(engine.next_event(), BodyEnd)
    engine.answer(replies.OK)
    assert engine.next_event() is None
    assert engine.take_output() == replies.OK.wire + BYE.wire
    assert engine.waiting_for is Wait.CLOSE


def test_a_second_shutdown_waits_for_nothing() -> None:
    engine = at("data")
    engine.shut_down(BYE)
    engine.shut_down(BYE)
    assert engine.next_event() == Aborted("shutdown")
    assert engine.take_output() == BYE.wire
    engine.shut_down(BYE)
    assert engine.take_output() == b""


# TLS


@pytest.mark.parametrize("late", [b"x", b"NOOP\r\n"])
def test_octets_that_come_while_starttls_is_decided_close(late: bytes) -> None:
    engine = at("ready")
    engine.receive(b"STARTTLS\r\n")
    assert engine.next_event() == StartTls()
    engine.receive(late)
    engine.answer(replies.START_TLS)
    assert engine.next_event() is None
    assert engine.take_output().startswith(b"554")
    assert engine.waiting_for is Wait.CLOSE


def test_octets_between_the_answer_and_the_handshake_close() -> None:
    engine = at("ready")
    engine.receive(b"STARTTLS\r\n")
    engine.next_event()
    engine.answer(replies.START_TLS)
    engine.take_output()
    engine.receive(b"NOOP\r\n")
    assert engine.next_event() is None
    assert engine.take_output() == b""
    assert engine.waiting_for is Wait.CLOSE


def test_refused_tls_goes_on_in_plain_text() -> None:
    engine = at("ready")
    engine.receive(b"STARTTLS\r\n")
    engine.next_event()
    engine.answer(replies.reply(454, "4.7.0", "not now"))
    engine.receive(b"NOOP\r\n")
    assert engine.next_event() is None
    assert engine.take_output() == b"454 4.7.0 not now\r\n250 2.0.0 ok\r\n"


def test_octets_that_come_while_data_is_decided_close() -> None:
    engine = at("rcpt")
    engine.receive(b"DATA\r\n")
    assert isinstance(engine.next_event(), Data)
    engine.receive(b"Subject: too early\r\n")
    engine.answer(replies.START_BODY)
    assert engine.next_event() == Aborted("pipelined")
    assert engine.take_output().startswith(b"554")
    assert engine.waiting_for is Wait.CLOSE


# The greeting


def test_the_banner_is_the_first_output() -> None:
    assert server().take_output() == b"220 mx.example.org ESMTP\r\n"


def test_early_talkers_are_turned_away() -> None:
    engine = server(waits_to_greet=True)
    assert engine.take_output() == b""
    engine.receive(b"EHLO x\r\n")
    assert engine.next_event() is None
    engine.greet()
    assert engine.take_output() == replies.EARLY_TALK.wire
    assert engine.waiting_for is Wait.CLOSE


def test_who_waits_is_greeted_late() -> None:
    engine = server(waits_to_greet=True)
    engine.greet()
    engine.greet()
    engine.receive(b"NOOP\r\n")
    assert engine.next_event() is None
    assert engine.take_output() == b"220 mx.example.org ESMTP\r\n250 2.0.0 ok\r\n"


# Limits


@pytest.mark.parametrize(
    ("verb", "limit"), [(b"NOOP ", 512), (b"MAIL FROM:<", 2048), (b"RCPT TO:<", 2048), (b"AUTH ", 12288)]
)
def test_a_line_has_its_verbs_length_and_no_more(verb: bytes, limit: int) -> None:
    engine = server()
    engine.take_output()
    engine.receive(verb + b"x" * (limit - len(verb) - 2) + b"\r\n")
    assert engine.next_event() is None
    assert not engine.take_output().startswith(b"500 5.5.6")
    engine = server()
    engine.take_output()
    engine.receive(verb + b"x" * (limit - len(verb) - 1) + b"\r\n")
    assert engine.next_event() is None
    assert engine.take_output() == replies.LINE_TOO_LONG.wire
    assert engine.waiting_for is Wait.CLOSE


def test_an_endless_line_is_not_kept() -> None:
    engine = server()
    for _ in range(100):
        engine.receive(b"x" * 65536)
        assert engine.next_event() is None
    assert engine.waiting_for is Wait.CLOSE
    assert len(engine._input) == 0


def test_an_endless_body_line_is_passed_on_and_ends_at_the_limit() -> None:
    engine = at("data", message_bytes=1_000_000)
    given = 0
    for _ in range(100):
        engine.receive(b"x" * 65536)
        while (event := engine.next_event()) is not None:
            if isinstance(event, BodyChunk):
                given += len(event.octets)
        assert len(engine._input) == 0
    assert given <= 1_000_000
    assert engine.take_output() == replies.TOO_LARGE.wire
    assert engine.waiting_for is Wait.CLOSE


def test_junk_is_forgiven_by_a_message() -> None:
    engine = at("rcpt", junk=2)
    for _ in range(3):
        engine.receive(b"NOOP\r\nNOOP\r\n")
        assert engine.next_event() is None
        if engine.phase is Phase.READY:
            engine.receive(b"MAIL FROM:<>\r\n")
            engine.next_event()
            engine.answer(replies.OK)
            engine.receive(b"RCPT TO:<b@example.org>\r\n")
            engine.next_event()
            engine.answer(replies.OK)
        engine.receive(b"BDAT 2 LAST\r\n\r\n")
        assert isinstance(engine.next_event(), Data)
        engine.answer(replies.START_BODY)
        assert isinstance(engine.next_event(), BodyChunk)
        assert isinstance(engine.next_event(), BodyEnd)
        engine.answer(replies.OK)
        assert engine.next_event() is None
    assert engine.waiting_for is Wait.COMMAND


def test_a_refused_chunk_is_dropped_whole() -> None:
    engine = at("rcpt")
    engine.receive(b"BDAT 11\r\nMAIL FROM:<BDAT 4 LAST\r\nQUITNOOP\r\n")
    assert engine.next_event() == Data(is_chunked=True)
    engine.answer(replies.reply(452, "4.3.1", "full"))
    assert engine.next_event() is None
    assert engine.take_output() == b"452 4.3.1 full\r\n" + replies.MAIL_FIRST.wire + b"250 2.0.0 ok\r\n"
    assert engine.phase is Phase.READY


def test_chunks_over_the_limit_are_dropped_and_the_transaction_with_them() -> None:
    engine = at("rcpt", message_bytes=10)
    engine.receive(b"BDAT 8\r\n12345678BDAT 3 LAST\r\n\n\r\nNOOP\r\n")
    assert isinstance(engine.next_event(), Data)
    engine.answer(replies.START_BODY)
    assert engine.next_event() == BodyChunk(b"12345678")
    assert engine.next_event() == Aborted("too-large")
    assert engine.next_event() is None
    assert engine.take_output() == replies.CHUNK_OK.wire + replies.TOO_LARGE.wire + replies.OK.wire


def test_every_reply_says_its_status_and_fits_its_line() -> None:
    for name, reply in vars(replies).items():
        if isinstance(reply, replies.Reply):
            for line in reply.wire.split(b"\r\n")[:-1]:
                assert len(line) <= 510, name
                assert line.startswith(b"%d" % reply.code), name
                if reply.code not in (220, 354):
                    assert line[4:6] == b"%d." % (reply.code // 100), name


def test_every_verb_is_in_the_help() -> None:
    engine = server()
    engine.take_output()
    engine.receive(b"HELP\r\n")
    assert engine.next_event() is None
    said = engine.take_output()
    for verb in COMMANDS:
        assert verb in said


def test_replies_are_one_line_of_printable_ascii_each() -> None:
    reply = replies.reply(550, "5.7.1", "a\r\n250 ok", "\u00fc\0\x1b[2J", "x" * 1000)
    lines = reply.wire.split(b"\r\n")
    assert lines[0] == b"550-5.7.1 a??250 ok"
    assert lines[1] == b"550-5.7.1 ???[2J"
    assert len(lines[2]) == 510
    assert lines[3:] == [b""]
