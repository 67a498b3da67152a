"""The whoson protocol: its commands in every cut, and what they do to grants."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from grants_kit import ALICE, BOB, HandClock, Sink, address
from popgate.grants.grant import DEFAULT_TERMS, Grant
from popgate.grants.rules import ANONYMOUS
from popgate.grants.service import Grants
from popgate.grants.settings import GrantSettings
from popgate.grants.store import GrantStore, StoreError
from popgate.grants.stores.memory import MemoryStore
from popgate.protocols.engine import Wait
from popgate.protocols.whoson import Command, failure, positive, read_command
from popgate.sessions.relay import RelayDesk
from popgate.sessions.session import Peer, Runtime
from popgate.sessions.whoson import WhosonDesk, WhosonSession
from popgate.values.address import ClientAddress


class Site:
    def __init__(self, settings: GrantSettings | None = None, store: GrantStore | None = None) -> None:
        self.clock, self.sink = HandClock(), Sink()
        self.grants = Grants(store or MemoryStore(), settings or GrantSettings(), self.clock, self.sink)
        runtime = Runtime(self.clock, self.sink, None, None, lambda: "token")  # type: ignore[arg-type]
        relay = RelayDesk("whoson", self.grants, runtime)
        self.desk = WhosonDesk(self.grants, relay, lambda identity: DEFAULT_TERMS, "example.org")

    def talk(self) -> "Talk":
        return Talk(self)

    def ask(self, line: str) -> str:
        """One command; the answer without its line ends."""
        answer = self.talk().send(line.encode() + b"\r\n\r\n")
        assert answer.endswith(b"\r\n\r\n")
        return answer[:-4].decode()

    def granted(self) -> list[str]:
        return [f"{grant.address} {grant.identity} {grant.protocol}" for grant in self.grants.list()]


class Talk:
    def __init__(self, site: Site) -> None:
        peer = Peer("session-one", ClientAddress.parse("127.0.0.1"), 4000, "here")
        self.session = WhosonSession(peer, site.desk)
        self.engine = self.session.engine

    def send(self, data: bytes) -> bytes:
        self.engine.receive(data)
        while (event := self.engine.next_event()) is not None:
            self.engine.answer(self.session.decide(event))
        return self.engine.take_output()


DIALOGUE = (
    b"QUERY 203.0.113.9\r\n\r\nlogin 203.0.113.9 alice\r\n\r\nQuery 203.0.113.9\n"
    b"QUERY  2001:DB8:0::9 \r\n\r\nLOGIN 2001:db8::9 bob@example.net some more words\r\n\r\n"
    b"QUERY 2001:db8::9\r\nNONSENSE\r\n\r\nLOGIN 203.0.113.9\r\n\r\nLOGOUT 203.0.113.9\r\n\r\n"
    b"LOGOUT 203.0.113.10\r\n\r\nQUIT\r\n\r\n"
)
ANSWERS = [
    b"-Not logged in",
    b"+LOGIN OK",
    b"+alice@example.org",
    b"-Not logged in",
    b"+LOGIN OK",
    b"+bob@example.net",
    b"*that is no command",
    b"*that is no command",
    b"+LOGOUT OK",
    b"+LOGOUT no such record, nothing done",
    b"+QUIT OK",
]


@pytest.mark.parametrize("cut", ["whole", "byte by byte", "random"])
def test_a_dialogue(cut: str) -> None:
    site = Site()
    talk, output, data = site.talk(), b"", DIALOGUE
    while data:
        size = {"whole": len(data), "byte by byte": 1}.get(cut) or random.randint(1, 30)
        output += talk.send(data[:size])
        data = data[size:]
    assert output == b"".join(answer + b"\r\n\r\n" for answer in ANSWERS)
    assert talk.engine.waiting_for is Wait.CLOSE
    assert talk.send(b"QUERY 203.0.113.9\r\n") == b""
    talk.session.closed("quit")
    assert "relay.unreadable" not in site.sink.names()


@pytest.mark.parametrize(
    ("line", "command"),
    [
        (b"LOGIN 192.0.2.1 ann", Command("LOGIN", "192.0.2.1", "ann")),
        (b" lOgIn\t192.0.2.1  ann ", Command("LOGIN", "192.0.2.1", "ann")),
        (b"LOGIN 192.0.2.1 ann service pop3", Command("LOGIN", "192.0.2.1", "ann")),
        (b"LOGOUT 192.0.2.1 ann", Command("LOGOUT", "192.0.2.1")),
        (b"QUERY ::1", Command("QUERY", "::1")),
        (b"QUIT", Command("QUIT")),
        (b"LOGIN 192.0.2.1", None),
        (b"LOGIN", None),
        (b"QUERY", None),
        (b"", None),
        (b"  ", None),
        (b"+LOGIN OK", None),
        (b"LIST", None),
        (b"LOGIN\r192.0.2.1 ann", None),
        (b"LOGIN 192.0.2.1\x0bann", None),
        (b"QUERY 192.0.2.1 \x00", None),
        (b"QUERY \xff", None),
        (b"QUERY " + b"x" * 600, None),
    ],
)
def test_commands(line: bytes, command: Command | None) -> None:
    assert read_command(line) == command


@given(st.binary(max_size=100))
def test_whatever_comes_every_cut_reads_the_same(data: bytes) -> None:
    def converse(pieces: list[bytes]) -> tuple[bytes, list[str]]:
        site = Site()
        talk = site.talk()
        return b"".join([*map(talk.send, pieces), talk.send(b"")]), site.granted()

    output, granted = converse([data])
    assert (output, granted) == converse([data[at : at + 1] for at in range(len(data))])
    assert granted == [] or b"LOGIN" in data.upper()
    for answer in output.split(b"\r\n\r\n")[:-1]:
        assert answer[:1] in (b"+", b"-", b"*") and answer.isascii() and b"\r" not in answer


def test_lines_and_mistakes_are_bounded() -> None:
    talk = Site().talk()
    assert talk.send(b"x" * 600) == b""
    assert talk.engine.ended_by == "too-long"
    talk = Site().talk()
    assert talk.send(b"HELP\r\n" * 30).count(b"*") == 20
    assert talk.engine.ended_by == "errors"


def test_answers_hold_nothing_that_could_be_taken_for_another() -> None:
    assert positive("a\r\n\r\n+b\u202e") == b"+a????+b?\r\n\r\n"
    assert len(failure("x" * 5000)) < 512


@pytest.mark.parametrize(
    ("line", "answer"),
    [
        ("LOGIN 203.0.113.009 alice", "*that is no address"),
        ("LOGIN localhost alice", "*that is no address"),
        ("QUERY fe80::1%eth0", "*that is no address"),
        ("LOGOUT 1.2.3", "*that is no address"),
        ("LOGIN 203.0.113.9 ../alice", "*that is no user's name"),
        ("LOGIN 203.0.113.9 алиса", "*that is no user's name"),
        ("LOGIN 0.0.0.0 alice", "*LOGIN gave no right"),
        ("LOGIN 127.0.0.1 alice", "*LOGIN gave no right"),
    ],
)
def test_logins_that_give_nothing(line: str, answer: str) -> None:
    site = Site(GrantSettings(never=["127.0.0.0/8"]))
    assert site.ask(line) == answer
    assert site.granted() == []


def test_a_logout_ends_the_grant_or_lets_its_window_run() -> None:
    for revoke, verdict in ((True, "-Not logged in"), (False, "+alice@example.org")):
        site = Site(GrantSettings(revoke_on_logout=revoke))
        site.ask("LOGIN 203.0.113.9 alice")
        site.clock.pass_seconds(800)
        assert site.ask("LOGOUT 203.0.113.9") == "+LOGOUT OK"
        assert site.ask("QUERY 203.0.113.9") == verdict
        site.clock.pass_seconds(800)
        assert site.ask("QUERY 203.0.113.9") == verdict
        site.clock.pass_seconds(200)
        assert site.ask("QUERY 203.0.113.9") == "-Not logged in"


def test_a_logout_ends_nobody_elses_session() -> None:
    site = Site(GrantSettings(revoke_on_logout=True))
    site.grants.allow(address(), ALICE, "pop3", DEFAULT_TERMS, "")
    assert site.ask("LOGOUT 203.0.113.9") == "+LOGOUT no such record, nothing done"
    assert site.ask("QUERY 203.0.113.9") == "+alice@example.org"


def test_queries_ask_all_grants() -> None:
    site = Site(GrantSettings(trusted=["198.51.100.0/24"], sender="any", quota_messages=1))
    site.grants.allow(address(), BOB, "imap", DEFAULT_TERMS, "")
    site.grants.allow(address("203.0.113.10"), ANONYMOUS, "relay-ctrl", DEFAULT_TERMS, "")
    assert site.ask("QUERY 203.0.113.9") == "+bob@example.org"
    assert site.ask("QUERY 203.0.113.10") == "+trusted"
    assert site.ask("QUERY 198.51.100.1") == "+trusted"
    grant: Grant = site.grants.list()[0]
    site.grants.charge(grant, grant.used.__class__(1, 1, 1), "")
    assert site.ask(f"QUERY {grant.address}").startswith("*")
    assert site.sink.told("relay.decide")


class BrokenStore(MemoryStore):
    def find(self, address: object) -> list[object]:  # type: ignore[override]
        raise StoreError("input/output error")

    def change(self, address: object, change: object) -> list[object]:  # type: ignore[override]
        raise StoreError("input/output error")


def test_a_store_at_fault_is_no_no() -> None:
    site = Site(store=BrokenStore())
    assert site.ask("LOGIN 203.0.113.9 alice") == "*LOGIN gave no right"
    assert site.ask("QUERY 203.0.113.9").startswith("*")
