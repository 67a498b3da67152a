"""The attack cases that a POP3 engine and session decide, played on both with all else in memory.

Cases about files are played in test_maildir_attacks.py and integration/test_pop3_backends.py; those
about the time that a check takes in contract/test_authenticator.py. docs/attacks.md lists the rest.
"""

import hashlib
import tracemalloc

import pytest

from attacks.attack_cases import CASES, octets
from pop3_site import ANN, TOKEN, Site, Talk
from popgate.protocols.engine import Wait
from popgate.values.address import ClientAddress

PLACES = {"U": "ann@example.org", "P": "sesame open"}
CHALLENGE = f"<{TOKEN}@mail.example.org>".encode()
DIGEST = hashlib.md5(CHALLENGE + b"sesame open").hexdigest().encode()


def sent(name: str) -> list[bytes]:
    return [octets(part, PLACES) for part in CASES[name]["send"]]


def statuses(output: bytes) -> list[bytes]:
    """The first word of each line."""
    return [line.split(b" ")[0] for line in output.split(b"\r\n")[:-1]]


def play(site: Site, name: str) -> tuple[Talk, bytes]:
    """Bring a session to the case's state and send everything, in packets of 64 KiB."""
    talk = site.talk()
    if CASES[name]["state"] == "pop3-auth":
        talk.login()
    output = b""
    everything = b"".join(sent(name))
    for at in range(0, len(everything), 65536):
        output += talk.send(everything[at : at + 65536])
    return talk, output


# Class pop3: -ERR or the right answer, and the session goes on

STRICT = {
    "pop3-002": [b"-ERR"],
    "pop3-003": [b"-ERR"],
    "pop3-004": [b"-ERR"],
    "pop3-008": [b"-ERR"],
    "pop3-009": [b"-ERR"],
    "pop3-010": [b"-ERR"],
    "pop3-011": [b"+OK", b"-ERR"],
    "pop3-012": [b"+OK", b"-ERR"],
    "pop3-016": [b"-ERR"],
    "pop3-018": [b"-ERR"],
    "pop3-020": [b"-ERR"],
    "pop3-022": [b"-ERR", b"-ERR"],
    "pop3-023": [b"-ERR"],
}


@pytest.mark.parametrize("name", STRICT)
def test_strict_commands(name: str) -> None:
    talk, output = play(Site(), name)
    assert statuses(output) == STRICT[name]
    assert talk.send(b"STAT\r\n").startswith(b"+OK ")


def test_pop3_022_023_before_login() -> None:
    talk = Site().talk()
    assert statuses(talk.send(b"USER x\r\nUSER y\r\n")) == [b"+OK", b"+OK"]
    assert Site().talk().send(b"PASS x\r\n").startswith(b"-ERR")


def test_pop3_025_lines_of_dots_arrive_as_they_were() -> None:
    message = b"Subject: dots\r\n\r\n.\r\n..\r\n.text\r\n"
    talk = Site(bodies=[message]).talk()
    talk.login()
    status, _, wire = talk.send(b"RETR 1\r\n").partition(b"\r\n")
    assert status == b"+OK %d octets" % len(message)
    assert wire.count(b"\r\n.\r\n") == 1
    lines = wire[: -len(b".\r\n")].split(b"\r\n")
    assert b"\r\n".join([line[1:] if line[:1] == b"." else line for line in lines]) == message


def test_pop3_030_second_session_on_one_maildrop() -> None:
    site = Site()
    first, second = site.talk(), site.talk()
    first.login()
    assert b"-ERR [IN-USE]" in second.login()
    assert len(site.grants.granted) == 1
    assert first.send(b"STAT\r\n").startswith(b"+OK")


def test_pop3_032_a_long_listing_streams() -> None:
    site = Site(bodies=[b"x\r\n"] * 5000)
    talk = site.talk()
    talk.login()
    talk.engine.receive(b"LIST\r\n")
    assert talk.engine.next_event() is None
    assert talk.engine.source is not None
    assert len(talk.engine.take_output()) < 100


# Class limit


@pytest.mark.parametrize("name", ["limit-016", "limit-022", "limit-023", "limit-024"])
def test_refused_input(name: str) -> None:
    talk, output = play(Site(), name)
    assert set(statuses(output)) <= {b"-ERR"}
    if name != "limit-023":
        assert talk.is_closing


def test_limit_017_fifty_megabytes_without_a_line_end() -> None:
    site = Site()
    everything = sent("limit-017")[0]
    talk = site.talk()
    tracemalloc.start()
    for at in range(0, len(everything), 65536):
        talk.send(everything[at : at + 65536])
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert talk.is_closing
    assert peak < 2 * 1024 * 1024


@pytest.mark.parametrize(("name", "budget"), [("limit-019", 20), ("limit-020", 100)])
@pytest.mark.parametrize("is_in", [False, True], ids=["before-login", "after-login"])
def test_budgets(name: str, budget: int, is_in: bool) -> None:
    talk = Site().talk()
    if is_in:
        talk.login()
    output = talk.send(b"".join(sent(name)))
    assert talk.is_closing
    assert len(statuses(output)) <= budget + 1


# Class starttls


@pytest.mark.parametrize("name", ["starttls-009", "starttls-010", "starttls-011"])
def test_nothing_before_tls_is_answered_in_it(name: str) -> None:
    # In one packet: refused before TLS
    site = Site().with_policy(offers_tls=True)
    talk = site.talk()
    assert statuses(talk.send(sent(name)[0])) == [b"-ERR"]
    assert talk.is_closing
    # The rest comes later, before the handshake does
    talk = site.talk()
    command, _, rest = sent(name)[0].partition(b"\r\n")
    talk.send(command + b"\r\n")
    assert talk.engine.waiting_for is Wait.TLS
    assert talk.send(rest) == b""
    assert talk.is_closing
    assert site.grants.granted == []
    assert site.accounts.asked == []


def test_starttls_026_a_name_before_tls_is_forgotten() -> None:
    site = Site().with_policy(offers_tls=True)
    talk = site.talk()
    before, _, after = sent("starttls-026")
    talk.send(before)
    talk.start_tls()
    assert statuses(talk.send(after)) == [b"-ERR"]
    assert site.accounts.asked == []


def test_starttls_027_no_stls_after_login() -> None:
    talk = Site().with_policy(offers_tls=True, apop=True).talk()
    assert talk.send(b"APOP ann@example.org " + DIGEST + b"\r\n").startswith(b"+OK")
    assert talk.send(sent("starttls-027")[1]).startswith(b"-ERR")
    assert talk.engine.waiting_for is Wait.COMMAND


# Class pipe


def test_pipe_009_commands_behind_pass_wait_for_its_answer() -> None:
    site = Site()
    talk, output = play(site, "pipe-009")
    assert statuses(output) == [b"+OK"] * 4
    assert talk.is_closing
    # With a wrong password they are refused, in the state that they came to
    wrong = sent("pipe-009")[0].replace(b"sesame open", b"wrong")
    assert statuses(site.talk().send(wrong)) == [b"+OK", b"-ERR", b"-ERR", b"+OK"]


def test_pipe_010_nothing_behind_quit_runs() -> None:
    site = Site()
    talk, output = play(site, "pipe-010")
    assert output == b"+OK Goodbye.\r\n"
    assert talk.is_closing
    assert list(site.boxes.mail[ANN]) == ["uid-1", "uid-2"]


# Classes apop, grant, enum


def apop_site() -> Site:
    return Site().with_policy(apop=True)


@pytest.mark.parametrize(
    ("name", "digest"),
    [
        ("apop-002", DIGEST.upper()),
        ("apop-003", DIGEST[:31]),
        ("apop-003", DIGEST + b"0"),
        ("apop-003", b"g" + DIGEST[1:]),
        ("grant-004", b"0" * 32),
    ],
)
def test_wrong_digests(name: str, digest: bytes) -> None:
    site = apop_site()
    assert statuses(site.talk().send(b"APOP ann@example.org " + digest + b"\r\n")) == [b"-ERR"]
    assert site.grants.granted == []


def test_apop_005_unknown_and_known_names_read_and_wait_the_same() -> None:
    site = apop_site()
    replies = [
        site.talk().send(b"APOP " + name + b" " + b"0" * 32 + b"\r\n")
        for name in (b"ann@example.org", b"nobody@example.org")
    ]
    assert replies[0] == replies[1]
    assert site.slept == [1.0, 1.0]


def test_apop_006_the_third_wrong_digest_closes() -> None:
    site = apop_site()
    talk = site.talk()
    for count in range(1, 4):
        talk.send(b"APOP ann@example.org " + b"0" * 32 + b"\r\n")
        assert talk.is_closing is (count == 3)
    assert site.slept == [1.0, 2.0, 4.0]


def test_apop_007_an_old_digest_is_worth_nothing_on_a_new_connection() -> None:
    site = apop_site()
    tokens = iter(["first-token", "second-token"])
    site.token = lambda: next(tokens)
    first, second = site.talk(), site.talk()
    assert first.greeting != second.greeting
    digest = hashlib.md5(b"<first-token@mail.example.org>sesame open").hexdigest().encode()
    assert statuses(second.send(b"APOP ann@example.org " + digest + b"\r\n")) == [b"-ERR"]
    assert site.grants.granted == []


def test_grant_009_a_login_whose_client_is_gone_grants_only_what_was_completed() -> None:
    site = Site()
    talk = site.talk()
    talk.engine.receive(b"USER ann@example.org\r\nPASS sesame open\r\n")
    event = talk.engine.next_event()
    talk.session.closed("reset")  # before the proof is looked at
    assert event is not None
    talk.session.decide(event)
    assert site.grants.granted == []
    assert not site.boxes.open


def test_enum_001_every_name_is_taken() -> None:
    site = Site()
    names = [b"ann@example.org", b"nobody@example.org", b"root", b"", b"x" * 240]
    replies = {site.talk().send(b"USER " + name + b"\r\n") for name in names if name}
    assert replies == {b"+OK Now the password.\r\n"}
    assert site.accounts.asked == []


@pytest.mark.parametrize("name", ["enum-002", "enum-004"])
def test_unknown_and_known_names_read_and_wait_the_same(name: str) -> None:
    site = Site()
    if name == "enum-002":
        tries = [b"USER ann@example.org\r\nPASS wrong\r\n", b"USER nobody@example.org\r\nPASS wrong\r\n"]
    else:
        tries = [
            b"AUTH PLAIN AGFubkBleGFtcGxlLm9yZwB3cm9uZw==\r\n",
            b"AUTH PLAIN AG5vYm9keUBleGFtcGxlLm9yZwB3cm9uZw==\r\n",
        ]
    assert len({site.talk().send(data) for data in tries}) == 1
    assert site.slept == [1.0, 1.0]
    assert len(site.accounts.asked) == 2


def test_other_addresses_get_nothing() -> None:
    site = Site()
    site.session(client=ClientAddress.parse("198.51.100.1"))
    site.talk().login()
    assert site.grants.granted == ["203.0.113.9 ann@example.org pop3"]


# Every case in scope is played somewhere

PLAYED_HERE = {
    *STRICT,
    *("pop3-025", "pop3-030", "pop3-032"),
    *("limit-016", "limit-017", "limit-019", "limit-020", "limit-022", "limit-023", "limit-024"),
    *("starttls-009", "starttls-010", "starttls-011", "starttls-026", "starttls-027"),
    *("pipe-009", "pipe-010", "apop-002", "apop-003", "apop-005", "apop-006", "apop-007"),
    *("grant-004", "grant-009", "enum-001", "enum-002", "enum-004"),
}
PLAYED_ON_FILES = {"pop3-027", "pop3-029", "pop3-031", "pop3-033"}
ELSEWHERE = {"apop-013", "enum-005", "enum-007", "enum-008", "enum-009", "enum-010"}  # docs/attacks.md


def test_every_case_is_accounted_for() -> None:
    in_scope = {
        name
        for name, case in CASES.items()
        if case["class"] in ("pop3", "apop", "enum")
        or (case["class"] in ("limit", "starttls", "pipe") and case["state"] in ("pop3", "pop3-auth"))
    }
    assert in_scope <= PLAYED_HERE | PLAYED_ON_FILES | ELSEWHERE
    assert set(CASES) >= PLAYED_HERE
