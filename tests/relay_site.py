"""A site that other mail servers ask, in memory: grants, a clock to turn by hand, and its sessions."""

from collections.abc import Awaitable, Callable, Iterable

from grants_kit import NOW, HandClock, Sink
from popgate.grants.grant import DEFAULT_TERMS, Terms
from popgate.grants.service import Grants
from popgate.grants.settings import GrantSettings
from popgate.grants.store import StoreError
from popgate.grants.stores.memory import MemoryStore
from popgate.protocols.engine import Wait
from popgate.sessions.relay import (
    DelegationPolicy,
    LinePolicy,
    MapPolicy,
    PostfixPolicySession,
    RelayDesk,
    RelayLineSession,
    SocketmapSession,
    TcpTableSession,
)
from popgate.sessions.session import Peer, Runtime
from popgate.values.address import ClientAddress
from popgate.values.identity import Identity

MTA = ClientAddress.parse("127.0.0.1")
SERVICES = ("postfix_policy", "socketmap", "tcp_table", "line")


class FailingStore(MemoryStore):
    """A memory store that can be made to fail."""

    def __init__(self) -> None:
        super().__init__()
        self.fails = False

    def find(self, address: ClientAddress):  # type: ignore[no-untyped-def]
        if self.fails:
            raise StoreError("the disk is on fire")
        return super().find(address)

    def change(self, address, change):  # type: ignore[no-untyped-def]
        if self.fails:
            raise StoreError("the disk is on fire")
        return super().change(address, change)


class Owners:
    """Senders and their owners, by hand."""

    def __init__(self) -> None:
        self.by_sender: dict[str, list[str]] = {}
        self.fails = False

    def owners(self, sender: str) -> list[str] | None:
        return None if self.fails else self.by_sender.get(sender, [])


class RelaySite:
    """`settings`: GrantSettings fields; loopback gets grants here."""

    def __init__(self, **settings: object) -> None:
        self.clock = HandClock()
        self.sink = Sink()
        self.store = FailingStore()
        self.settings = GrantSettings(never=["192.0.2.66"], **settings)  # type: ignore[arg-type]
        self.grants = Grants(self.store, self.settings, self.clock, self.sink)
        self.runtime = Runtime(self.clock, self.sink, _no_sleep, _no_thread, lambda: "token")
        self.owners = Owners()

    def log_in(self, address: str, identity: str = "alice@example.org", terms: Terms = DEFAULT_TERMS) -> None:
        client = ClientAddress.parse(address)
        assert self.grants.allow(client, Identity.parse(identity), "pop3", terms, "login")

    def talk(self, service: str, **policy: object) -> "Talk":
        desk = RelayDesk(service, self.grants, self.runtime)
        peer = Peer("session", MTA, 40000, "127.0.0.1:1")
        session: object
        if service == "postfix_policy":
            session = PostfixPolicySession(peer, DelegationPolicy(**policy), desk)  # type: ignore[arg-type]
        elif service == "socketmap":
            session = SocketmapSession(peer, MapPolicy(**policy), desk, self.owners)  # type: ignore[arg-type]
        elif service == "tcp_table":
            session = TcpTableSession(peer, MapPolicy(**policy), desk)  # type: ignore[arg-type]
        else:
            session = RelayLineSession(peer, LinePolicy(**policy), desk)  # type: ignore[arg-type]
        return Talk(session)

    def told(self, name: str = "relay.decide") -> list[dict[str, object]]:
        return [dict(event.fields) for event in self.sink.told(name)]

    def used(self, address: str) -> list[tuple[int, int, int]]:
        """Messages, recipients and octets counted on each grant of the address."""
        grants = self.store.find(ClientAddress.parse(address))
        return [(grant.used.messages, grant.used.recipients, grant.used.bytes) for grant in grants]


class Talk:
    """One connection, without a transport."""

    def __init__(self, session) -> None:  # type: ignore[no-untyped-def]
        self.session = session
        self.engine = session.engine
        self.decided = 0

    def send(self, data: bytes) -> bytes:
        """What comes back for `data`; b"" is the end of file."""
        self.engine.receive(data)
        while (event := self.engine.next_event()) is not None:
            assert self.engine.waiting_for is Wait.DECISION
            self.decided += 1
            self.engine.answer(self.session.decide(event))
        return self.engine.take_output()

    def send_in(self, pieces: Iterable[bytes]) -> bytes:
        return b"".join([self.send(piece) for piece in pieces])

    @property
    def is_closing(self) -> bool:
        return self.engine.waiting_for is Wait.CLOSE

    def close(self) -> None:
        self.session.closed("quit")


def policy_request(
    client: str = "203.0.113.9", sender: str = "alice@example.org", **attributes: str
) -> bytes:
    """A request of Postfix at RCPT; a None leaves an attribute out."""
    fields: dict[str, str | None] = {
        "request": "smtpd_access_policy",
        "protocol_state": "RCPT",
        "protocol_name": "ESMTP",
        "client_address": client,
        "client_name": "unknown",
        "helo_name": "printer",
        "sender": sender,
        "recipient": "friend@example.net",
        "recipient_count": "0",
        "queue_id": "",
        "instance": "7b.6553.0",
        "size": "0",
        "sasl_username": "",
        **attributes,
    }
    lines = [f"{name}={content}\n" for name, content in fields.items() if content is not None]
    return ("".join(lines) + "\n").encode()


async def _no_sleep(seconds: float) -> None:
    raise AssertionError("nothing is waited for here")


async def _no_thread(function: Callable[[], object]) -> Awaitable[object]:
    raise AssertionError("nothing runs in a thread here")


__all__ = ["NOW", "RelaySite", "SERVICES", "Talk", "policy_request"]
