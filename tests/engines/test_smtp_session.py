"""What an SMTP session decides, and what it does when those it asks cannot answer."""

import pytest

from popgate.grants.grant import Decision, Terms, Usage
from popgate.protocols.smtp import Aborted, BodyChunk, replies
from popgate.queue.queue import QueueError, Recipient
from popgate.sessions.smtp import SmtpPolicy
from popgate.sessions.smtp.trace import HeaderWatch, date_time
from popgate.values.mail import MailAddress
from smtp_support import ALICE, NOW, Dialogue, finish

MAIL = b"MAIL FROM:<alice@example.org>\r\n"
RCPT = b"RCPT TO:<friend@example.net>\r\n"
LOCAL = b"RCPT TO:<bob@example.org>\r\n"


def granted(**more: object) -> Dialogue:
    dialogue = Dialogue(SmtpPolicy("mx.example.org", **more))  # type: ignore[arg-type]
    dialogue.grants.allow()
    dialogue.say(b"EHLO x\r\n")
    return dialogue


def logged_in(terms: Terms | None = None, **more: object) -> Dialogue:
    dialogue = Dialogue(SmtpPolicy("mx.example.org", **more), is_tls=True)  # type: ignore[arg-type]
    if terms is not None:
        dialogue.authenticator.terms = terms
    dialogue.say(b"EHLO x\r\n")
    dialogue.log_in()
    return dialogue


def send(dialogue: Dialogue, body: bytes = b"Subject: x\r\n\r\nx\r\n.\r\n") -> bytes:
    """The last reply to a whole message."""
    answers = dialogue.say(MAIL + RCPT + b"DATA\r\n")
    if not answers.endswith(replies.START_BODY.wire):
        return answers.split(b"\r\n")[-2]
    return dialogue.say(body)


# Grants


def test_a_message_is_charged_once_with_all_that_it_is() -> None:
    dialogue = granted()
    dialogue.say(MAIL + RCPT + LOCAL + b"RCPT TO:<other@example.net>\r\nDATA\r\n")
    assert dialogue.say(b"x\r\n.\r\n").startswith(b"250 2.6.0 queued as Q1")
    [(envelope, message)] = dialogue.intake.accepted
    assert dialogue.grants.charges == [Usage(1, 2, len(message))]
    assert dialogue.grants.refunds == []
    assert envelope.identity == str(ALICE)
    assert [recipient.is_local for recipient in envelope.recipients] == [False, True, False]
    assert dialogue.names() == ["smtp.relay.permitted", "smtp.accept"]


def test_the_grant_is_asked_about_the_envelope_as_it_grows() -> None:
    dialogue = granted()
    dialogue.say(b"MAIL FROM:<alice@example.org> SIZE=77\r\n" + RCPT + LOCAL + b"RCPT TO:<b@example.net>\r\n")
    sender = MailAddress("alice", "example.org")
    assert dialogue.grants.asked == [(sender, 1, 77), (sender, 2, 77)]


def test_local_mail_asks_no_grant() -> None:
    dialogue = granted()
    dialogue.say(MAIL + LOCAL + b"DATA\r\n")
    dialogue.say(b"x\r\n.\r\n")
    assert dialogue.grants.asked == []
    assert dialogue.grants.charges == []
    assert dialogue.intake.accepted[0][0].identity == ""


@pytest.mark.parametrize(
    ("decision", "answer"),
    [
        (Decision("refuse", "no-grant", "check mail first", None), b"550 5.7.1 check mail first"),
        (Decision("refuse", "no-grant", "", None), b"550 5.7.1 relaying denied"),
        (Decision("defer", "store-unavailable", "later", None), b"451 4.7.1 later"),
        (Decision("quota", "quota-messages", "enough", None), b"452 4.7.1 enough"),
        (Decision("quota", "quota-recipients", "enough", None), b"452 4.5.3 enough"),
        (Decision("refuse", "x", "a\r\n250 ok", None), b"550 5.7.1 a??250 ok"),
    ],
)
def test_refusals_say_why(decision: Decision, answer: bytes) -> None:
    dialogue = granted()
    dialogue.grants.verdict = decision
    dialogue.say(MAIL)
    assert dialogue.say(RCPT) == answer + b"\r\n"
    assert dialogue.names() == ["smtp.relay.refused"]
    # and the same at the end of a message
    dialogue = granted()
    dialogue.grants.charge_verdict = decision
    assert send(dialogue) == answer + b"\r\n"
    assert not dialogue.intake.accepted
    assert dialogue.intake.incoming[0].is_aborted


def test_a_trusted_network_is_charged_to_nobody() -> None:
    dialogue = granted()
    dialogue.grants.verdict = Decision("permit", "trusted", "", None)
    assert send(dialogue).startswith(b"250")
    assert dialogue.grants.charges == []
    assert b"(trusted network)" in dialogue.intake.accepted[0][1]


def test_without_relay_by_grant_a_grant_is_not_even_asked() -> None:
    dialogue = granted(relay_by=frozenset(("auth",)))
    dialogue.say(MAIL)
    assert dialogue.say(RCPT).startswith(b"550 5.7.1 relaying denied for [203.0.113.9]")
    assert dialogue.grants.asked == []


# Logins


def test_submission_by_grant_needs_it_for_local_mail_too() -> None:
    dialogue = granted(service="submission", relay_by=frozenset(("grant",)))
    assert dialogue.say(MAIL + LOCAL).endswith(replies.RECIPIENT_OK.wire)
    dialogue.grants.grant = None
    dialogue.say(b"RSET\r\n" + MAIL)
    assert dialogue.say(LOCAL).startswith(b"550 5.7.1")


def test_auth_relays_only_where_it_may() -> None:
    dialogue = logged_in(relay_by=frozenset(("grant",)))
    dialogue.say(MAIL)
    assert dialogue.say(RCPT).startswith(b"550 5.7.1")
    dialogue = logged_in()
    assert send(dialogue).startswith(b"250")
    assert dialogue.grants.asked == []
    assert b"with ESMTPSA id" in dialogue.intake.accepted[0][1]
    assert b"(authenticated: alice@example.org)" in dialogue.intake.accepted[0][1]


@pytest.mark.parametrize(
    ("sender", "is_taken"),
    [
        (b"<alice@example.org>", True),
        (b"<Alice@EXAMPLE.org>", True),
        (b"<>", True),
        (b"<sales@example.org>", True),
        (b"<anyone@shop.example>", True),
        (b"<bob@example.org>", False),
        (b"<alice@example.net>", False),
        (b"<alice@shop.example.org>", False),
    ],
)
def test_who_logged_in_sends_as_himself(sender: bytes, is_taken: bool) -> None:
    dialogue = logged_in(Terms(senders=("sales@example.org", "@shop.example")))
    answer = dialogue.say(b"MAIL FROM:" + sender + b"\r\n")
    assert answer.startswith(b"250" if is_taken else b"553 5.7.1")
    dialogue = logged_in(sender_bound=False)
    assert dialogue.say(b"MAIL FROM:" + sender + b"\r\n").startswith(b"250")


def test_failed_logins_wait_longer_and_longer_and_close() -> None:
    dialogue = Dialogue(SmtpPolicy("mx.example.org", failures_before_close=2), is_tls=True)
    dialogue.authenticator.is_slow = True
    dialogue.say(b"EHLO x\r\n")
    wrong = b"AUTH PLAIN AGFsaWNlQGV4YW1wbGUub3JnAG5v\r\n"
    assert dialogue.say(wrong).startswith(b"535 5.7.8")
    assert dialogue.say(wrong).split(b"\r\n")[1].startswith(b"421 4.7.0")
    assert dialogue.sleeps == [1.0, 2.0]
    assert dialogue.is_closed
    assert dialogue.names() == ["smtp.login.failed"] * 2


def test_the_delay_of_a_failure_counts_from_the_arrival_of_the_proof() -> None:
    dialogue = Dialogue(SmtpPolicy("mx.example.org"), is_tls=True)
    dialogue.authenticator.while_asked = lambda: setattr(
        dialogue.clock, "seconds", dialogue.clock.seconds + 0.75
    )
    dialogue.say(b"EHLO x\r\n")
    assert dialogue.say(b"AUTH PLAIN AGFsaWNlQGV4YW1wbGUub3JnAG5v\r\n").startswith(b"535")
    assert dialogue.sleeps == [0.25], "how long the check took must not show"


def test_one_user_has_so_many_sessions_and_no_more() -> None:
    dialogue = Dialogue(SmtpPolicy("mx.example.org", offers_tls=True, plaintext_login=True))
    dialogue.users.most = 1
    assert dialogue.users.enter(ALICE)
    dialogue.say(b"EHLO x\r\n")
    login = b"AUTH PLAIN AGFsaWNlQGV4YW1wbGUub3JnAHNlY3JldA==\r\n"
    assert dialogue.say(login) == b"454 4.7.0 too many sessions of this account are open\r\n"
    assert dialogue.events[-1].fields["reason"] == "too-many-sessions"
    assert dialogue.throttle.failures == 0
    assert dialogue.say(MAIL + RCPT).splitlines()[-1].startswith(b"550"), "nobody is logged in"
    dialogue.users.leave(ALICE)
    dialogue.say(b"RSET\r\n")
    dialogue.log_in()
    assert dialogue.users.open[ALICE] == 1
    dialogue.say(b"STARTTLS\r\n")
    dialogue.start_tls()
    assert dialogue.users.open[ALICE] == 0, "TLS forgets who logged in"
    dialogue.say(b"EHLO x\r\n")
    dialogue.log_in()
    dialogue.session.closed("eof")
    dialogue.session.closed("eof")
    assert dialogue.users.open[ALICE] == 0


def test_a_login_that_comes_true_after_the_client_left_is_none() -> None:
    dialogue = Dialogue(SmtpPolicy("mx.example.org"), is_tls=True)
    dialogue.authenticator.while_asked = lambda: dialogue.session.closed("reset")
    dialogue.say(b"EHLO x\r\n")
    dialogue.say(b"AUTH PLAIN AGFsaWNlQGV4YW1wbGUub3JnAHNlY3JldA==\r\n")
    assert "smtp.login" not in dialogue.names()
    assert dialogue.users.open[ALICE] == 0


@pytest.mark.parametrize("is_slow", [False, True])
def test_after_many_failures_even_the_right_password_waits(is_slow: bool) -> None:
    dialogue = Dialogue(SmtpPolicy("mx.example.org"), is_tls=True)
    dialogue.authenticator.is_slow = is_slow
    dialogue.throttle.before = 7.0
    dialogue.say(b"EHLO x\r\n")
    dialogue.log_in()
    assert dialogue.sleeps == [7.0]


def test_a_back_end_that_is_down_is_nobodys_failure() -> None:
    dialogue = Dialogue(SmtpPolicy("mx.example.org"), is_tls=True)
    dialogue.authenticator.is_down = True
    dialogue.say(b"EHLO x\r\n")
    for _ in range(5):
        answer = dialogue.say(b"AUTH PLAIN AGFsaWNlQGV4YW1wbGUub3JnAHNlY3JldA==\r\n")
        assert answer.startswith(b"454 4.7.0")
        assert b"locked" not in answer
    assert dialogue.throttle.failures == 0
    assert dialogue.sleeps == []


def test_secrets_are_in_no_event() -> None:
    dialogue = logged_in()
    dialogue.session.closed("quit")
    assert "secret" not in repr(dialogue.events)


def test_tls_forgets_who_logged_in() -> None:
    dialogue = Dialogue(SmtpPolicy("mx.example.org", offers_tls=True, plaintext_login=True))
    dialogue.say(b"EHLO x\r\n")
    dialogue.log_in()
    dialogue.say(b"STARTTLS\r\n")
    dialogue.start_tls()
    dialogue.say(b"EHLO x\r\n" + MAIL)
    assert dialogue.say(RCPT).startswith(b"550")
    dialogue.say(b"RSET\r\n")
    dialogue.log_in()


# Recipients


def test_recipients_are_collapsed() -> None:
    dialogue = granted()
    dialogue.say(MAIL)
    for name in (b"bob", b"BOB", b'"bob"', b"Bob"):
        assert dialogue.say(b"RCPT TO:<" + name + b"@example.org>\r\n").startswith(b"250")
    for _ in range(3):
        assert dialogue.say(RCPT).startswith(b"250")
    assert dialogue.say(b"RCPT TO:<Friend@example.net>\r\n").startswith(b"250")  # not ours to judge
    dialogue.say(b"DATA\r\n")
    dialogue.say(b".\r\n")
    assert [str(recipient.address) for recipient in dialogue.intake.accepted[0][0].recipients] == [
        "bob@example.org",
        "friend@example.net",
        "Friend@example.net",
    ]


def test_postmaster_is_found_without_a_domain() -> None:
    dialogue = granted()
    dialogue.say(MAIL + b"RCPT TO:<Postmaster>\r\nDATA\r\n")
    dialogue.say(b".\r\n")
    assert dialogue.intake.accepted[0][0].recipients == (
        Recipient(MailAddress("postmaster", "example.org"), True),
    )
    dialogue.recipients.names.clear()
    dialogue.say(MAIL)
    assert dialogue.say(b"RCPT TO:<Postmaster>\r\n").startswith(b"550 5.1.1")


def test_a_table_that_cannot_be_read_defers() -> None:
    dialogue = granted()
    dialogue.recipients.is_down = True
    dialogue.say(MAIL)
    assert dialogue.say(LOCAL).startswith(b"451 4.3.0")


# The queue


@pytest.mark.parametrize("step", ["fail_receive", "fail_write", "fail_later", "fail_commit"])
@pytest.mark.parametrize("is_full", [False, True])
def test_a_message_that_cannot_be_kept_is_refused_and_costs_nothing(step: str, is_full: bool) -> None:
    dialogue = granted()
    dialogue.intake.is_slow = True
    setattr(dialogue.intake, step, QueueError("disk I/O error", is_full=is_full))
    answer = send(dialogue)
    assert answer.startswith(b"452 4.3.1" if is_full else b"451 4.3.0")
    assert b"I/O" not in answer
    assert not dialogue.intake.accepted
    assert dialogue.grants.refunds == dialogue.grants.charges
    setattr(dialogue.intake, step, None)
    assert send(dialogue).startswith(b"250 2.6.0")


def test_a_failure_in_the_middle_of_a_body_is_told_at_its_end() -> None:
    dialogue = granted()
    dialogue.say(MAIL + RCPT + b"DATA\r\n")
    dialogue.say(b"one\r\n")
    dialogue.intake.fail_write = QueueError("full", is_full=True)
    assert dialogue.say(b"two\r\n") == b""
    assert dialogue.intake.incoming[0].is_aborted
    dialogue.intake.fail_write = None
    assert dialogue.say(b"three\r\n.\r\n").startswith(b"452 4.3.1")
    assert dialogue.grants.charges == []


def test_a_client_that_goes_away_leaves_nothing() -> None:
    dialogue = granted()
    dialogue.say(MAIL + RCPT + b"DATA\r\n")
    dialogue.say(b"one\r\n", end=True)
    assert dialogue.is_closed
    assert dialogue.intake.incoming[0].is_aborted
    dialogue = granted()
    dialogue.say(MAIL + RCPT + b"DATA\r\n")
    dialogue.session.closed("reset")
    dialogue.session.closed("reset")
    assert dialogue.intake.incoming[0].is_aborted
    assert dialogue.names().count("smtp.close") == 1


def test_a_body_with_bare_line_ends_is_told_in_the_log() -> None:
    dialogue = granted()
    dialogue.say(MAIL + RCPT + b"DATA\r\n")
    assert dialogue.say(b"one\ntwo\r\n.\r\n").startswith(b"554 ")
    dialogue.session.closed("quit")
    refusal, close = dialogue.events[-2:]
    assert (refusal.name, refusal.fields["code"], refusal.fields["reason"]) == (
        "smtp.refuse",
        554,
        "line-end",
    )
    assert refusal.fields["sender"] == "alice@example.org"
    assert (close.name, close.fields["reason"]) == ("smtp.close", "line-end")
    assert dialogue.intake.accepted == []


@pytest.mark.parametrize("command", [b"DATA\r\n", b"BDAT 4000 LAST\r\n"])
def test_a_message_that_is_too_large_is_told_in_the_log(command: bytes) -> None:
    dialogue = granted(message_bytes=2048)
    dialogue.say(MAIL + RCPT)
    if command.startswith(b"BDAT"):
        dialogue.say(b"BDAT 2\r\n\r\n" + command)
        answer = dialogue.say(b"x" * 4000)
    else:
        dialogue.say(command)
        answer = dialogue.say(b"x" * 3000 + b"\r\n.\r\n")
    assert answer.startswith(b"552 ")
    refusals = [event for event in dialogue.events if event.name == "smtp.refuse"]
    assert [(event.fields["code"], event.fields["reason"]) for event in refusals] == [(552, "too-large")]


def test_a_message_being_committed_outlives_its_connection() -> None:
    dialogue = granted()
    dialogue.say(MAIL + RCPT + b"DATA\r\n")
    dialogue.engine.receive(b"x\r\n.\r\n")
    chunk = dialogue.engine.next_event()
    assert isinstance(chunk, BodyChunk)
    dialogue.session.decide(chunk)
    commit = dialogue.session.decide(dialogue.engine.next_event())
    dialogue.session.decide(Aborted("eof"))
    dialogue.session.closed("reset")
    finish(commit)  # type: ignore[arg-type]
    assert len(dialogue.intake.accepted) == 1
    assert not dialogue.intake.incoming[0].is_aborted


def test_loops_end() -> None:
    dialogue = granted(max_hops=3)
    hop = b"Received: from a by b;\r\n\tdate\r\n"
    assert send(dialogue, hop * 3 + b"\r\nReceived: in the body\r\n" * 9 + b".\r\n").startswith(b"250")
    assert send(dialogue, hop * 3 + b"RECEIVED: x\r\n\r\n.\r\n").startswith(b"554 5.4.6")
    assert len(dialogue.intake.accepted) == 1


def test_headers_are_bounded() -> None:
    dialogue = granted(header_bytes=100)
    assert send(dialogue, b"X: 1\r\n" * 20 + b".\r\n").startswith(b"552 5.3.4")
    assert send(dialogue, b"X: 1\r\n" * 10 + b"\r\n" + b"body\r\n" * 100 + b".\r\n").startswith(b"250")


@pytest.mark.parametrize("size", [1, 2, 3, 5, 7, 1000])
def test_the_header_is_counted_alike_in_every_cut(size: int) -> None:
    header = b"Received: 1\r\nX-Received: 2\r\nreceived: 3\r\n Received: 4\r\nReceived: 5\r\n"
    message = header + b"\r\nReceived: 6\r\n"
    watch = HeaderWatch()
    for start in range(0, len(message), size):
        if not watch.is_complete:
            watch.feed(message[start : start + size])
    assert watch.is_complete
    assert watch.hops == 3
    assert watch.octets == len(header)


def test_dates() -> None:
    assert date_time(NOW) == "Tue, 14 Nov 2023 22:13:20 +0000"
    assert date_time(0) == "Thu, 1 Jan 1970 00:00:00 +0000"


def test_several_recipients_do_not_read_of_each_other() -> None:
    dialogue = granted()
    dialogue.say(MAIL + RCPT + LOCAL + b"DATA\r\n")
    dialogue.say(b"x\r\n.\r\n")
    message = dialogue.intake.accepted[0][1]
    assert b"friend" not in message
    assert b"bob" not in message


def test_replies_of_the_shell() -> None:
    dialogue = Dialogue()
    assert dialogue.session.timeout_reply().code == 421
    assert dialogue.session.shutdown_reply().code == 421
    assert dialogue.session.decide(object()) is replies.NO_DECISION
    dialogue.session.tick()


def test_the_closing_event_sums_up() -> None:
    dialogue = granted()
    send(dialogue)
    dialogue.say(b"QUIT\r\n")
    dialogue.session.closed("quit")
    fields = dialogue.events[-1].fields
    assert dialogue.events[-1].name == "smtp.close"
    assert (fields["commands"], fields["messages"], fields["reason"]) == (5, 1, "quit")
    assert fields["octets"] == len(dialogue.intake.accepted[0][1])
