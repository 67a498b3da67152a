"""A site in memory for tests of HTTP: real grants over a memory store, a shell without sockets."""

from collections.abc import Sequence

from grants_kit import HandClock, Sink
from popgate.grants.grant import DEFAULT_TERMS
from popgate.grants.service import Grants
from popgate.grants.settings import GrantSettings
from popgate.grants.store import GrantStore
from popgate.grants.stores.memory import MemoryStore
from popgate.integrations.dovecot.logins import DovecotLogins
from popgate.integrations.dovecot.reports import LoginReports
from popgate.integrations.heard_grants import HeardGrants
from popgate.integrations.open_sessions import OpenSessions
from popgate.protocols.engine import Wait
from popgate.sessions.http import HttpPolicy, HttpSession, Refusals, Route
from popgate.sessions.http.decisions import DecideRequests
from popgate.sessions.relay import RelayDesk
from popgate.sessions.session import Peer, Runtime
from popgate.values.address import ClientAddress

SECRET = "a secret of 24 octets..."
CLIENT = ClientAddress.parse("127.0.0.1")


class Site:
    """`dovecot` and `decide` are the routes of the two services."""

    def __init__(
        self,
        settings: GrantSettings | None = None,
        store: GrantStore | None = None,
        *,
        default_domain: str = "example.org",
        tells_ends: bool = False,
    ) -> None:
        self.clock = HandClock()
        self.sink = Sink()
        self.settings = settings or GrantSettings()
        self.grants = Grants(store or MemoryStore(), self.settings, self.clock, self.sink)
        heard = HeardGrants(self.grants, "dovecot")
        self.sessions = OpenSessions(heard, self.settings, self.clock, lambda identity: DEFAULT_TERMS)
        logins = DovecotLogins(heard, self.sessions, default_domain, tells_ends=tells_ends)
        self.dovecot: Sequence[Route] = LoginReports(logins).routes
        self.runtime = Runtime(self.clock, self.sink, None, None, lambda: "token")  # type: ignore[arg-type]
        self.refusals = Refusals("http", self.runtime)
        desk = RelayDesk("http", self.grants, self.runtime)
        self.decide: Sequence[Route] = DecideRequests(desk, self.settings).routes

    def talk(
        self, routes: Sequence[Route] | None = None, *, secret: str | None = None, errors: int = 20
    ) -> "Talk":
        policy = HttpPolicy("mail.example.org", None if secret is None else secret.encode(), errors=errors)
        return Talk(self, policy, [*self.dovecot, *self.decide] if routes is None else routes)

    def granted(self) -> list[str]:
        """Who has a grant where, by what protocol."""
        return [f"{grant.address} {grant.identity} {grant.protocol}" for grant in self.grants.list()]


class Talk:
    """One connection: engine and session, as the shell runs them."""

    def __init__(self, site: Site, policy: HttpPolicy, routes: Sequence[Route]) -> None:
        self.session = HttpSession(
            Peer("session-one", CLIENT, 4000, "here"), policy, site.runtime, routes, site.refusals
        )
        self.engine = self.session.engine

    def send(self, data: bytes) -> bytes:
        """What the client reads then; b"" sends the end of file."""
        self.engine.receive(data)
        while True:
            event = self.engine.next_event()
            if event is None:
                return self.engine.take_output()
            self.engine.answer(self.session.decide(event))

    @property
    def is_closing(self) -> bool:
        return self.engine.waiting_for is Wait.CLOSE


def request(
    target: str, body: str | bytes | None = None, headers: Sequence[str] = (), *, method: str | None = None
) -> bytes:
    """A request as Dovecot and curl write them."""
    lines = [f"{method or ('GET' if body is None else 'POST')} {target} HTTP/1.1", "Host: 127.0.0.1:22800"]
    octets = b""
    if body is not None:
        octets = body if isinstance(body, bytes) else body.encode()
        lines += ["Content-Type: application/json", f"Content-Length: {len(octets)}"]
    return "\r\n".join([*lines, *headers, "", ""]).encode() + octets


def status(response: bytes) -> int:
    return int(response.split(b" ", 2)[1])


def statuses(output: bytes) -> list[int]:
    """Of the responses in a row, which have no line that looks like a status line in their bodies."""
    return [int(part[:3]) for part in output.split(b"HTTP/1.1 ")[1:]]
