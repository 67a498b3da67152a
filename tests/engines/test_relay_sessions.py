"""What other servers are answered: what counts for a quota, what is told, and that doubt is never a yes."""

import pytest

from grants_kit import ALICE
from popgate.grants.grant import Terms
from popgate.protocols.engine import MisuseError, Wait
from popgate.protocols.postfix_policy import PostfixPolicyServer
from popgate.protocols.relay_line import RelayLineServer
from popgate.protocols.socketmap import SocketmapServer
from popgate.protocols.tcp_table import TcpTableServer
from relay_site import RelaySite, policy_request

HOME = "203.0.113.9"
PERMIT, DUNNO = b"action=permit\n\n", b"action=dunno\n\n"


def asked(site_talk, **attributes: str) -> bytes:  # type: ignore[no-untyped-def]
    return site_talk.send(policy_request(**attributes))


# What a message counts for


def test_a_message_counts_once_and_each_recipient_once() -> None:
    site = RelaySite()
    site.log_in(HOME)
    talk = site.talk("postfix_policy")
    for recipient in ("a@example.net", "b@example.net", "a@example.net", "a@example.net"):
        assert asked(talk, recipient=recipient, size="700") == PERMIT
    assert site.used(HOME) == [(1, 2, 700)]
    assert asked(talk, instance="7b.6553.1", recipient="a@example.net", size="5") == PERMIT
    assert site.used(HOME) == [(2, 3, 705)]
    assert [event["recipient"] for event in site.told()] == ["a@example.net", "a@example.net"]


def test_without_an_instance_each_question_is_a_message() -> None:
    site = RelaySite()
    site.log_in(HOME)
    talk = site.talk("postfix_policy")
    assert asked(talk, instance="") == PERMIT
    assert asked(talk, instance="") == PERMIT
    assert site.used(HOME) == [(2, 2, 0)]


@pytest.mark.parametrize(
    "change", [{"client": "203.0.113.10"}, {"sender": "bob@example.org"}, {"client": "unknown"}]
)
def test_one_instance_does_not_stand_for_another_client_or_sender(change: dict[str, str]) -> None:
    site = RelaySite()
    site.log_in(HOME)
    talk = site.talk("postfix_policy")
    assert asked(talk) == PERMIT
    assert asked(talk, **change) == DUNNO
    assert asked(talk, protocol_state="END-OF-MESSAGE", size="1000", **change) == DUNNO
    assert site.used(HOME) == [(1, 1, 0)]


def test_more_recipients_than_are_remembered_are_counted_each_time() -> None:
    site = RelaySite(quota_recipients=0)
    site.log_in(HOME)
    talk = site.talk("postfix_policy")
    for number in range(1100):
        assert asked(talk, recipient=f"r{number}@example.net") == PERMIT
    assert asked(talk, recipient="r0@example.net") == PERMIT
    assert asked(talk, recipient="r1099@example.net") == PERMIT
    assert site.used(HOME) == [(1, 1101, 0)]


def test_at_the_quotas_edge_the_last_message_may_have_many_recipients() -> None:
    site = RelaySite(quota_messages=1)
    site.log_in(HOME)
    talk = site.talk("postfix_policy")
    assert asked(talk, recipient="a@example.net") == PERMIT
    assert asked(talk, recipient="b@example.net") == PERMIT
    assert asked(talk, instance="next").startswith(b"action=452 4.7.1 the limit of 1 message for this")
    assert site.used(HOME) == [(1, 2, 0)]


@pytest.mark.parametrize("charge", ["data", "end-of-message"])
def test_counted_later_a_message_that_is_given_up_counts_nothing(charge: str) -> None:
    site = RelaySite()
    site.log_in(HOME)
    talk = site.talk("postfix_policy", charge=charge)
    state = charge.upper()
    for instance in ("given-up", "sent"):
        assert asked(talk, instance=instance, recipient="a@example.net") == PERMIT
        assert asked(talk, instance=instance, recipient="b@example.net") == PERMIT
    assert site.used(HOME) == [(0, 0, 0)]
    for _ in range(2):  # asked twice, counted once
        assert asked(talk, protocol_state=state, instance="sent", recipient="", size="900") == DUNNO
    assert site.used(HOME) == [(1, 2, 900)]
    assert asked(talk, protocol_state=state, instance="given-up", size="900") == DUNNO
    assert site.used(HOME) == [(1, 2, 900)]
    (permitted, counted) = site.told()  # the second permit at RCPT was the same answer to the same client
    assert (permitted.get("recipients"), counted["recipients"], counted["identity"]) == (None, 2, str(ALICE))


@pytest.mark.parametrize("refusal", ["dunno", "text"])
def test_counted_later_a_grant_that_has_gone_refuses_the_message_for_good(refusal: str) -> None:
    site = RelaySite()
    site.log_in(HOME)
    talk = site.talk("postfix_policy", charge="end-of-message", refusal=refusal)
    assert asked(talk) == PERMIT
    site.clock.pass_seconds(901)
    answer = asked(talk, protocol_state="END-OF-MESSAGE", size="10")
    assert answer.startswith(b"action=550 5.7.1 relaying denied for [203.0.113.9]: no mail login")


def test_asked_at_data_too_a_grant_that_has_gone_since_rcpt_refuses() -> None:
    site = RelaySite(quota_messages=1, quota_recipients=1)
    site.log_in(HOME)
    talk = site.talk("postfix_policy", identity_header="X-Id")
    assert asked(talk) == PERMIT
    assert asked(talk, protocol_state="DATA") == b"action=PREPEND X-Id: alice@example.org (pop3)\n\n"
    assert site.used(HOME) == [(1, 1, 0)]
    site.clock.pass_seconds(901)
    assert asked(talk, protocol_state="DATA").startswith(b"action=550 5.7.1 ")
    site.log_in(HOME)
    site.store.fails = True
    assert asked(talk, protocol_state="DATA").startswith(b"action=451 4.7.1 ")


def test_a_store_that_fails_at_the_count_defers() -> None:
    site = RelaySite()
    site.log_in(HOME)
    talk = site.talk("postfix_policy", charge="end-of-message", on_store_fault="defer_if_permit")
    assert asked(talk) == PERMIT
    site.store.fails = True
    assert asked(talk, protocol_state="END-OF-MESSAGE", size="10").startswith(b"action=451 4.7.1 ")
    site.store.fails = False
    assert asked(talk, protocol_state="END-OF-MESSAGE", size="10") == DUNNO
    assert site.used(HOME) == [(1, 1, 10)]


def test_trusted_networks_count_nothing_and_are_named_in_no_header() -> None:
    site = RelaySite(trusted=["198.51.100.0/24"])
    talk = site.talk("postfix_policy", identity_header="X-Popgate-Identity", charge="data")
    assert asked(talk, client="198.51.100.7", sender="anybody@example.com") == PERMIT
    assert asked(talk, client="198.51.100.7", sender="anybody@example.com", protocol_state="DATA") == DUNNO
    (event,) = site.told()
    assert (event["reason"], event["identity"]) == ("trusted", None)


def test_another_identity_with_quota_left_serves_any_sender() -> None:
    site = RelaySite(sender="any", quota_messages=1)
    site.log_in(HOME, "alice@example.org")
    site.log_in(HOME, "bob@example.org")
    talk = site.talk("postfix_policy", identity_header="X-Id")
    answers = [asked(talk, instance=str(number), sender="any@example.com") for number in range(3)]
    assert answers[:2] == [PERMIT, PERMIT]
    assert answers[2].startswith(b"action=452 ")
    assert sorted(site.used(HOME)) == [(1, 1, 0), (1, 1, 0)]


def test_two_people_at_one_address_are_told_apart_in_header_and_log() -> None:
    site = RelaySite()
    site.log_in(HOME, "alice@example.org")
    site.log_in(HOME, "bob@example.org")
    talk = site.talk("postfix_policy", identity_header="X-Id")
    for name in ("alice", "bob"):
        sender = f"{name}@example.org"
        assert asked(talk, sender=sender, instance=name) == PERMIT
        answer = asked(talk, sender=sender, instance=name, protocol_state="DATA")
        assert answer == f"action=PREPEND X-Id: {name}@example.org (pop3)\n\n".encode()
    assert [event["identity"] for event in site.told()] == ["alice@example.org", "bob@example.org"]
    assert asked(talk, sender="carol@example.org", instance="carol") == DUNNO


# Senders


@pytest.mark.parametrize(
    ("sender", "answer"),
    [
        ("alice@example.org", PERMIT),
        ("ALICE@Example.ORG", PERMIT),
        ("", PERMIT),
        ("<>", PERMIT),
        ("sales@example.com", PERMIT),
        ("anybody@sub.example.com", DUNNO),
        ("anybody@list.example.com", PERMIT),
        ("alice", DUNNO),
        ("alice@", DUNNO),
        ("@example.org", DUNNO),
        ("alice@example.org@evil.example", DUNNO),
        ("evil@evil.example@list.example.com.evil.example", DUNNO),
        ("@evil.example:alice@example.org", DUNNO),
        ("alice%example.org@evil.example", DUNNO),
        ("alice@example.org ", DUNNO),
        (" alice@example.org", DUNNO),
        ("alice@example.org\0", DUNNO),
        ("alice@example.org\r", DUNNO),
        ("ALICE@example.org=x", DUNNO),
        ("postmaster", DUNNO),
        ("\N{KELVIN SIGN}im@example.org", DUNNO),
        ("alice@\N{KELVIN SIGN}.example", DUNNO),
    ],
)
def test_only_a_sender_of_ones_own(sender: str, answer: bytes) -> None:
    site = RelaySite()
    terms = Terms(senders=("sales@example.com", "@list.example.com"))
    site.log_in(HOME, "alice@example.org", terms)
    site.log_in(HOME, "kim@example.org")
    site.log_in(HOME, "alice@k.example")
    assert site.talk("postfix_policy").send(policy_request(HOME, sender)) == answer
    if not {"\r", " "}.intersection(sender):  # the one is passed over, the other ends the field
        expected = b"yes\n" if answer == PERMIT else b"no\n"
        assert site.talk("line").send(f"relay {HOME} {sender}\n".encode()) == expected


def test_octets_that_are_not_utf_8_belong_to_nobody() -> None:
    site = RelaySite()
    site.log_in(HOME)
    request = policy_request(HOME, "SENDER").replace(b"SENDER", b"al\xffice@example.org")
    assert site.talk("postfix_policy").send(request) == DUNNO
    assert site.talk("socketmap").send(b"20:popgate 203.0.113.\xff9,") == b"9:NOTFOUND ,"


# What is told


def test_the_same_answer_is_told_once_in_ten_seconds_with_its_number() -> None:
    site = RelaySite()
    site.log_in(HOME)
    talk = site.talk("socketmap")
    for _ in range(50):
        talk.send(b"19:popgate 203.0.113.9,")
    site.clock.pass_seconds(10)
    talk.send(b"19:popgate 203.0.113.9,")
    site.clock.pass_seconds(10)
    talk.send(b"19:popgate 203.0.113.9,")
    assert [event.get("times") for event in site.told()] == [None, 50, None]


def test_a_flood_of_clients_is_told_and_remembered_within_bounds() -> None:
    site = RelaySite()
    talk = site.talk("line")
    for number in range(9000):
        talk.send(f"relay 10.1.{number >> 8}.{number & 255}\n".encode())
    assert len(talk.session._desk._told) <= 4096
    talk = site.talk("socketmap")
    before = len(site.told())
    talk.send(b"19:popgate 203.0.113.9,")  # nobody we know: strangers are looked up all the time
    assert len(site.told()) == before


def test_what_is_told_of_a_hostile_question_is_bounded() -> None:
    site = RelaySite()
    site.talk("line").send(b"relay " + b"x" * 2000 + b"\n")
    (event,) = site.told()
    assert len(str(event["client"])) <= 64


# The engines' common form


@pytest.mark.parametrize("engine", [PostfixPolicyServer, SocketmapServer, TcpTableServer, RelayLineServer])
def test_our_own_misuse_is_told(engine) -> None:  # type: ignore[no-untyped-def]
    server = engine()
    with pytest.raises(MisuseError):
        server.answer(b"x")
    with pytest.raises(MisuseError):
        server.tls_started()
    with pytest.raises(MisuseError):
        server.body(b"x")
    with pytest.raises(MisuseError):
        server.body_end()
    assert server.waiting_for is Wait.COMMAND
    assert server.next_event() is None


def test_a_question_that_is_open_is_answered_before_the_end() -> None:
    server = TcpTableServer()
    server.receive(b"get a\nget b\n")
    assert server.next_event() is not None
    assert server.next_event() is None
    server.shut_down(None)
    assert server.waiting_for is Wait.DECISION
    server.answer(b"500 x\n")
    assert server.take_output() == b"500 x\n"
    assert server.waiting_for is Wait.CLOSE
    assert server.next_event() is None
    server.receive(b"get c\n")
    assert server.next_event() is None


@pytest.mark.parametrize(
    ("service", "endless"),
    [
        ("postfix_policy", b"a=b\n"),
        ("postfix_policy", b"x"),
        ("socketmap", b"9"),
        ("tcp_table", b"x"),
        ("line", b"x"),
    ],
)
def test_what_never_ends_is_not_kept(service: str, endless: bytes) -> None:
    talk = RelaySite().talk(service)
    for _ in range(3000):
        assert talk.send(endless * 100) == b""
        if talk.is_closing:
            break
    assert talk.is_closing
    assert talk.engine.ended_by in ("too-long", "malformed")
    assert not talk.engine._data


@pytest.mark.parametrize(
    ("lines", "reason"),
    [
        (["x=" + "y" * 8200], "too-long"),
        ([f"x{number}=" for number in range(200)], "too-long"),
        (["sender=a", "sender=a"], "malformed"),
        (["x=1", "x=2"], ""),
        (["=x"], ""),
        (["x"], "malformed"),
    ],
)
def test_bounds_of_a_policy_request(lines: list[str], reason: str) -> None:
    site = RelaySite(trusted=["203.0.113.0/24"])
    talk = site.talk("postfix_policy")
    more = "".join(f"{line}\n" for line in lines)
    request = policy_request()[:-1] + more.encode() + b"\n"
    if "sender" in more:
        request = request.replace(b"sender=alice@example.org\n", b"")
    assert talk.send(request) == (b"" if reason else PERMIT)
    assert talk.engine.ended_by == reason
