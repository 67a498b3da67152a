"""Pop3Session: the order of a login, what is granted, what is removed, and who lets go of the maildrop."""

import asyncio
import hashlib
import threading
from collections.abc import Awaitable

import pytest

from pop3_site import ANN, LONG, SMALL, Site
from popgate.grants.grant import Terms
from popgate.protocols.pop3.events import Authenticate, Quit, Retrieve
from popgate.protocols.pop3.replies import Reply
from popgate.protocols.sasl import PlainCredentials
from popgate.sessions.pop3 import Pop3Session
from popgate.values.address import ClientAddress

LOGIN = b"USER ann@example.org\r\nPASS sesame open\r\n"
GRANT = "203.0.113.9 ann@example.org pop3"


def test_the_grant_is_there_before_the_reply_is() -> None:
    site = Site()
    session = site.session()
    assert site.grants.granted == []
    reply = session.decide(Authenticate(PlainCredentials("PASS", "ann@example.org", b"sesame open")))
    assert isinstance(reply, Reply)
    assert reply.is_ok
    assert site.grants.granted == [GRANT]


@pytest.mark.parametrize("is_quick", [True, False])
def test_a_maildrop_in_use_grants_nothing(is_quick: bool) -> None:
    site = Site()
    site.opens_quickly = is_quick
    first, second = site.talk(), site.talk()
    first.login()
    assert second.login().endswith(b"-ERR [IN-USE] Another session has this maildrop open.\r\n")
    assert len(site.grants.granted) == 1
    assert not second.is_closing
    # It is no failed login: the password was right
    assert not site.throttle.failures
    first.send(b"QUIT\r\n")
    assert second.login().endswith(b"+OK Logged in.\r\n")


def test_a_broken_mailbox_grants_nothing_and_is_temporary() -> None:
    site = Site()
    site.boxes.is_down = True
    talk = site.talk()
    assert b"-ERR [SYS/TEMP] " in talk.login()
    assert site.grants.granted == []
    site.boxes.is_down = False
    assert talk.login().endswith(b"+OK Logged in.\r\n")


def test_no_answer_from_the_accounts_is_temporary_and_no_failure() -> None:
    site = Site()
    site.accounts.is_down = True
    assert site.talk().login().endswith(b"-ERR [SYS/TEMP] Logins cannot be checked now, try again later.\r\n")
    assert site.grants.granted == []
    assert not site.throttle.failures
    assert site.named("pop3.login.failed")[0].fields["reason"] == "unavailable"


def test_a_device_without_a_mailbox_is_granted_and_sees_an_empty_maildrop() -> None:
    site = Site()
    talk = site.talk()
    assert talk.send(b"USER printer@example.org\r\nPASS 0000\r\nSTAT\r\n").endswith(b"+OK 0 0\r\n")
    assert site.grants.granted == ["203.0.113.9 printer@example.org pop3"]
    assert not site.boxes.open
    assert talk.send(b"QUIT\r\n") == b"+OK Goodbye.\r\n"


def test_the_protocol_of_the_grant_is_apop_for_apop() -> None:
    site = Site().with_policy(apop=True)
    talk = site.talk()
    challenge = talk.greeting.split()[-1]
    digest = hashlib.md5(challenge + b"sesame open").hexdigest().encode()
    assert talk.send(b"APOP ann@example.org " + digest + b"\r\n") == b"+OK Logged in.\r\n"
    assert site.grants.granted == ["203.0.113.9 ann@example.org apop"]


def test_failed_logins_wait_longer_and_longer_then_close() -> None:
    site = Site()
    talk = site.talk()
    for _ in range(3):
        talk.send(b"USER ann@example.org\r\nPASS wrong\r\n")
    assert site.slept == [1.0, 2.0, 4.0]
    assert talk.is_closing
    assert site.grants.granted == []


def test_the_delay_of_a_failure_counts_from_the_arrival_of_the_proof() -> None:
    site = Site()
    site.accounts.while_asked = lambda: setattr(site.clock, "time", site.clock.time + 0.25)
    talk = site.talk()
    talk.send(b"USER ann@example.org\r\nPASS wrong\r\n")
    assert site.slept == [0.75], "how long the check took must not show"
    site.accounts.while_asked = lambda: setattr(site.clock, "time", site.clock.time + 60)
    assert talk.send(b"USER ann@example.org\r\nPASS wrong\r\n").endswith(
        b"-ERR [AUTH] Authentication failed.\r\n"
    )
    assert site.slept == [0.75]


def test_one_user_has_so_many_sessions_and_no_more() -> None:
    site = Site()
    site.users.most = 2
    device = b"USER printer@example.org\r\nPASS 0000\r\n"
    first, second, third = site.talk(), site.talk(), site.talk()
    assert first.send(device).endswith(b"+OK Logged in.\r\n")
    assert second.send(device).endswith(b"+OK Logged in.\r\n")
    assert third.send(device).endswith(b"-ERR [SYS/TEMP] Too many sessions of this account are open.\r\n")
    assert len(site.grants.granted) == 2, "a login that is refused grants nothing"
    assert not site.throttle.failures
    assert site.named("pop3.login.failed")[-1].fields["reason"] == "too-many-sessions"
    third.login()
    first.send(b"QUIT\r\n")
    first.session.closed("quit")
    first.session.closed("reset")
    fourth = site.talk()
    assert fourth.send(device).endswith(b"+OK Logged in.\r\n")
    for talk in (second, third, fourth):
        talk.session.closed("eof")
    assert not +site.users.open


def test_a_maildrop_that_does_not_open_is_no_session_of_its_user() -> None:
    site = Site()
    first, second = site.talk(), site.talk()
    first.login()
    assert b"[IN-USE]" in second.login()
    assert site.users.open[ANN] == 1
    second.session.closed("eof")
    first.session.closed("eof")
    assert site.users.open[ANN] == 0


def test_a_short_window_of_an_account_is_renewed_in_time() -> None:
    site = Site()
    usual, short = site.talk(), site.talk()
    usual.login()
    usual.session.closed("eof")
    assert usual.session.tick_seconds == 20.0
    site.accounts.terms = Terms(window_seconds=30)
    short.login()
    assert short.session.tick_seconds == 7.5


def test_an_address_with_many_failures_waits_before_the_check() -> None:
    site = Site()
    site.throttle.before = 8.0
    assert site.talk().login().endswith(b"+OK Logged in.\r\n")
    assert site.slept == [8.0]


def test_a_right_login_is_told_to_the_throttle() -> None:
    site = Site()
    talk = site.talk()
    talk.send(b"USER ann@example.org\r\nPASS wrong\r\n")
    assert site.throttle.failures == {"ann@example.org": 1}
    talk.login()
    assert not site.throttle.failures


def test_unknown_wrong_and_disabled_read_the_same() -> None:
    site = Site()
    answers = {
        site.talk().send(b"USER " + name + b"\r\nPASS wrong\r\n")
        for name in (
            b"ann@example.org",
            b"nobody@example.org",
            b"n\xf6body",
            b"../../etc",
            b"a b",
            b"x" * 200,
        )
    }
    assert len(answers) == 1
    assert set(site.slept) == {1.0}


def test_no_password_and_no_raw_name_in_any_event() -> None:
    site = Site()
    talk = site.talk()
    talk.send(b"USER evil\xe2\x80\xa8name" + b"x" * 100 + b"\r\nPASS hunter2\r\n")
    talk.send(b"USER eve Login: user=<x>, rip=1.2.3.4\r\nPASS hunter2\r\n")
    talk.session.closed("eof")
    assert "hunter2" not in repr(site.events)
    for event in site.named("pop3.login.failed"):
        name = event.fields["name"]
        assert isinstance(name, str)
        assert name.isascii()
        assert name.isprintable()
        assert " " not in name
        assert len(name) <= 64


def test_the_grant_is_renewed_while_the_session_is_open_and_ends_with_it() -> None:
    site = Site()
    talk = site.talk()
    talk.session.tick()
    assert site.grants.told == []
    talk.login()
    talk.session.tick()
    talk.session.closed("eof")
    talk.session.closed("eof")
    assert [(verb, session) for verb, _, session in site.grants.told] == [
        ("allow", "S1"),
        ("renew", "S1"),
        ("logout", "S1"),
    ]


def test_an_address_that_was_not_granted_is_not_renewed() -> None:
    site = Site()
    site.grants.allows = False
    talk = site.talk()
    assert talk.login().endswith(b"+OK Logged in.\r\n")
    talk.session.tick()
    talk.session.closed("eof")
    assert [verb for verb, _, _ in site.grants.told] == ["allow"]


def test_the_grant_goes_to_the_address_of_the_peer() -> None:
    site = Site()
    session = site.session(client=ClientAddress.parse("::ffff:198.51.100.7"))
    session.decide(Authenticate(PlainCredentials("PASS", "ann@example.org", b"sesame open")))
    assert site.grants.granted == ["198.51.100.7 ann@example.org pop3"]


@pytest.mark.parametrize("reason", ["eof", "reset", "timeout", "shutdown"])
def test_without_quit_nothing_is_removed(reason: str) -> None:
    site = Site()
    talk = site.talk()
    talk.login()
    talk.send(b"RETR 1\r\nDELE 1\r\n")
    talk.session.closed(reason)  # type: ignore[arg-type]
    assert list(site.boxes.mail[ANN]) == ["uid-1", "uid-2"]
    assert site.boxes.seen == []
    assert not site.boxes.open


def test_quit_removes_marks_what_was_read_and_lets_go_before_it_answers() -> None:
    site = Site(bodies=[SMALL, SMALL, SMALL])
    talk = site.talk()
    talk.login()
    talk.send(b"RETR 1\r\nRETR 2\r\nTOP 3 0\r\nDELE 1\r\n")
    talk.engine.receive(b"QUIT\r\n")
    event = talk.engine.next_event()
    assert event == Quit((0,))
    assert talk.pump() == b""
    reply = asyncio.run(_answer(talk.session, event))
    assert not site.boxes.open, "a client that comes back at once must find the maildrop free"
    assert reply.wire == b"+OK Goodbye.\r\n"
    assert list(site.boxes.mail[ANN]) == ["uid-2", "uid-3"]
    assert site.boxes.seen == ["uid-2"]


def test_what_cannot_be_removed_is_told_and_the_rest_is_removed() -> None:
    site = Site(bodies=[SMALL, SMALL, SMALL])
    talk = site.talk()
    talk.login()
    talk.send(b"DELE 1\r\nDELE 2\r\nDELE 3\r\n")
    site.boxes.vanished.add("uid-2")
    assert talk.send(b"QUIT\r\n") == b"-ERR [SYS/TEMP] Some deleted messages could not be removed.\r\n"
    assert talk.is_closing
    assert list(site.boxes.mail[ANN]) == ["uid-2"]
    talk.session.closed("quit")
    assert site.named("pop3.close")[0].fields["deleted"] == 2
    assert site.named("pop3.close")[0].fields["fault"]


def test_a_vanished_message_is_an_error_and_the_session_goes_on() -> None:
    site = Site()
    talk = site.talk()
    talk.login()
    site.boxes.vanished.add("uid-1")
    assert talk.send(b"RETR 1\r\nTOP 1 1\r\nNOOP\r\n") == (
        b"-ERR [SYS/TEMP] The message cannot be read now.\r\n" * 2 + b"+OK\r\n"
    )


def test_a_message_that_breaks_off_never_looks_whole() -> None:
    site = Site(bodies=[SMALL, LONG])
    site.boxes.breaks.add("uid-2")
    talk = site.talk()
    talk.login()
    output = talk.send(b"RETR 2\r\nNOOP\r\n")
    assert output.startswith(b"+OK ")
    assert not output.endswith(b"\r\n.\r\n")
    assert talk.is_closing
    talk.session.closed("error")
    assert site.named("pop3.close")[0].fields["fault"]


def test_one_closing_event_a_connection() -> None:
    site = Site()
    talk = site.talk()
    talk.login()
    talk.send(b"RETR 1\r\nRETR 2\r\nDELE 2\r\nQUIT\r\n")
    talk.session.closed("quit")
    fields = site.named("pop3.close")[0].fields
    assert {
        key: fields[key] for key in ("identity", "retrieved", "deleted", "octets", "reason", "protocol")
    } == {
        "identity": "ann@example.org",
        "retrieved": 2,
        "deleted": 1,
        "octets": 62,
        "reason": "quit",
        "protocol": "pop3",
    }
    assert site.named("pop3.login")[0].fields["mechanism"] == "PASS"


@pytest.mark.parametrize(
    ("sent", "reason"),
    [
        (b"QUIT\r\n", "quit"),
        (b"X\r\n" * 20, "errors"),
        (b"CAPA\r\n" * 101, "junk"),
        (b"USER ann@example.org\r\nPASS wrong\r\n" * 3, "login-failures"),
        (b"A" * 300, "line-too-long"),
        (b"NOOP\n", "bare-line-end"),
        (b"STLS\r\nQUIT\r\n", "early-tls"),
        (b"GET / HTTP/1.1\r\n", "not-pop3"),
        (b"\x16\x03", "not-pop3"),
        (b"USER ann@example.org\r\nPASS sesame open\r\nRETR 2\r\n", "broken-message"),
        (b"USER ann@example.org\r\nPASS sesame open\r\nQUIT\r\n", "quit"),
    ],
)
def test_the_closing_event_says_why(sent: bytes, reason: str) -> None:
    site = Site(bodies=[SMALL, LONG]).with_policy(offers_tls=True)
    site.boxes.breaks.add("uid-2")
    talk = site.talk()
    talk.send(sent)
    assert talk.is_closing
    talk.session.closed("quit")
    assert site.named("pop3.close")[0].fields["reason"] == reason


def test_a_mailbox_that_fails_at_quit_is_told() -> None:
    site = Site()
    talk = site.talk()
    talk.login()
    talk.send(b"DELE 1\r\n")
    site.boxes.is_down = True
    assert talk.send(b"QUIT\r\n") == b"-ERR [SYS/TEMP] Some deleted messages could not be removed.\r\n"
    assert not site.boxes.open
    talk.session.closed("quit")
    fields = site.named("pop3.close")[0].fields
    assert (fields["deleted"], fields["fault"]) == (0, "input/output error")


def test_the_proof_is_checked_late_and_later() -> None:
    site = Site()
    site.throttle.before = 8.0
    site.accounts.is_later = True
    assert site.talk().login().endswith(b"+OK Logged in.\r\n")


def test_events_of_others_are_a_defect() -> None:
    with pytest.raises(TypeError):
        Site().session().decide(object())


def test_a_timeout_says_nothing_and_a_stopping_server_does() -> None:
    talk = Site().talk()
    talk.engine.shut_down(talk.session.timeout_reply())
    assert talk.engine.take_output() == b""
    assert talk.is_closing
    talk = Site().talk()
    talk.engine.shut_down(talk.session.shutdown_reply())
    assert talk.engine.take_output().startswith(b"-ERR [SYS/TEMP] ")


# Connections that are lost while something runs


async def _answer(session: Pop3Session, event: object) -> Reply:
    decision = session.decide(event)
    return await decision if isinstance(decision, Awaitable) else decision


@pytest.mark.parametrize("is_cancelled", [False, True])
def test_lost_while_the_maildrop_opens(is_cancelled: bool) -> None:
    site = Site()
    site.opens_quickly = False

    async def scenario() -> None:
        session = site.session()
        event = Authenticate(PlainCredentials("PASS", "ann@example.org", b"sesame open"))
        task = asyncio.ensure_future(_answer(session, event))
        lost = asyncio.Event()

        def lose() -> None:
            assert site.boxes.open
            if is_cancelled:
                task.cancel()
            session.closed("reset")
            lost.set()

        site.boxes.while_opening = lose
        await asyncio.gather(task, return_exceptions=True)
        assert lost.is_set()

    asyncio.run(scenario())
    assert not site.boxes.open
    assert site.grants.granted == []


def test_lost_and_cancelled_while_a_real_thread_opens_the_maildrop() -> None:
    site = Site()
    site.opens_quickly = False
    opening, lost = threading.Event(), threading.Event()

    def wait() -> None:
        opening.set()
        assert lost.wait(10)

    async def scenario() -> None:
        site.run = asyncio.to_thread
        site.boxes.while_opening = wait
        session = site.session()
        event = Authenticate(PlainCredentials("PASS", "ann@example.org", b"sesame open"))
        task = asyncio.ensure_future(_answer(session, event))
        await asyncio.to_thread(opening.wait, 10)
        session.closed("reset")
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        lost.set()

    asyncio.run(scenario())  # waits for its threads
    assert not site.boxes.open
    assert site.grants.granted == []


def test_lost_while_a_large_message_is_read() -> None:
    site = Site(bodies=[LONG])

    async def scenario() -> None:
        session = site.session()
        session.decide(Authenticate(PlainCredentials("PASS", "ann@example.org", b"sesame open")))
        task = asyncio.ensure_future(_answer(session, Retrieve(0, None)))
        await asyncio.sleep(0)
        session.closed("reset")
        assert site.boxes.open, "it is being read"
        await task

    asyncio.run(scenario())
    assert not site.boxes.open


def test_lost_while_the_proof_is_checked() -> None:
    site = Site()
    site.accounts.is_later = True

    async def scenario() -> None:
        session = site.session()
        event = Authenticate(PlainCredentials("PASS", "ann@example.org", b"sesame open"))
        task = asyncio.ensure_future(_answer(session, event))
        await asyncio.sleep(0)
        session.closed("reset")
        await task

    asyncio.run(scenario())
    assert not site.boxes.open
    assert site.grants.granted == []


def test_lost_behind_quit_still_removes() -> None:
    site = Site()

    async def scenario() -> None:
        session = site.session()
        await _answer(session, Authenticate(PlainCredentials("PASS", "ann@example.org", b"sesame open")))
        task = asyncio.ensure_future(_answer(session, Quit((0,))))
        await asyncio.sleep(0)
        session.closed("reset")
        await task

    asyncio.run(scenario())
    assert list(site.boxes.mail[ANN]) == ["uid-2"]
    assert not site.boxes.open


def test_large_messages_are_read_in_a_thread_and_small_ones_are_not() -> None:
    site = Site(bodies=[SMALL, LONG])
    session = site.session()
    session.decide(Authenticate(PlainCredentials("PASS", "ann@example.org", b"sesame open")))
    assert isinstance(session.decide(Retrieve(0, None)), Reply)
    assert site.threads == 0
    assert asyncio.run(_answer(session, Retrieve(1, None))).is_ok
    assert site.threads == 1
