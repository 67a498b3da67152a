"""What tests of followed logs share: log lines of Dovecot and Courier, and a site that follows a file."""

import asyncio
import os
import time
from collections.abc import Callable
from pathlib import Path

from grants_kit import Sink, address
from popgate.grants.grant import DEFAULT_TERMS
from popgate.grants.service import Grants
from popgate.grants.settings import GrantSettings
from popgate.grants.stores.memory import MemoryStore
from popgate.integrations.logs.follow_open import follow_spec
from popgate.integrations.logs.follow_service import LogFollowers
from popgate.integrations.logs.settings import FollowSettings


class RealClock:
    """Obeys popgate.values.clock.Clock; `shift` is for what would take too long."""

    def __init__(self) -> None:
        self.shift = 0.0

    def now(self) -> float:
        return time.time() + self.shift

    def monotonic(self) -> float:
        return time.monotonic() + self.shift


def stamp(at: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(at)) + f".{int(at % 1 * 1e6):06d}+00:00"


def dovecot_login(user: str, client: str, session: str, at: float, protocol: str = "imap") -> bytes:
    return (
        f"{stamp(at)} mail dovecot: {protocol}-login: Login: user=<{user}>, method=PLAIN, rip={client},"
        f" lip=192.0.2.1, mpid=23751, TLS, session=<{session}>\n"
    ).encode()


def dovecot_logout(user: str, session: str, at: float, protocol: str = "imap") -> bytes:
    return (
        f"{stamp(at)} mail dovecot: {protocol}({user})<23751><{session}>:"
        " Disconnected: Logged out in=33 out=7\n"
    ).encode()


class FollowSite:
    """Grants in memory, and whoever follows `log` for them. `state` is where places are remembered."""

    def __init__(self, directory: Path, **settings: object) -> None:
        self.log = directory / "log/mail.log"
        self.log.parent.mkdir(mode=0o755, exist_ok=True)
        self.state: Path | None = directory / "state"
        self.clock = RealClock()
        self.sink = Sink()
        self.grants_settings = GrantSettings(never=[], **settings)
        self.grants = Grants(MemoryStore(), self.grants_settings, self.clock, self.sink)
        self.follow = FollowSettings(file=str(self.log))
        self.also: list[FollowSettings] = []
        self.followers: LogFollowers | None = None

    def start(self) -> LogFollowers:
        self.followers = self.another()
        return self.followers

    def another(self) -> LogFollowers:
        return LogFollowers(
            [follow_spec(one, "example.org", self.clock) for one in (self.follow, *self.also)],
            None if self.state is None else str(self.state),
            grants=self.grants,
            settings=self.grants_settings,
            terms=lambda identity: DEFAULT_TERMS,
            clock=self.clock,
            emit=self.sink,
        )

    async def caught_up(self) -> None:
        """Until the log has been looked at to its end."""
        followers = self.followers
        assert followers is not None

        def is_so() -> bool:
            threads = [follower.thread for follower in followers._followers]
            return all(thread is not None and thread.caught_up_at > 0 for thread in threads)

        await until(is_so)

    async def stop(self) -> None:
        assert self.followers is not None
        self.followers.close()
        await until(lambda: not self.followers.connections)

    def write(self, *lines: bytes) -> None:
        with self.log.open("ab") as file:
            file.write(b"".join(lines))

    def login(self, user: str, client: str, session: str = "s1", *, age: float = 0.0) -> None:
        self.write(dovecot_login(user, client, session, self.clock.now() - age))

    def logout(self, user: str, session: str = "s1", *, age: float = 0.0) -> None:
        self.write(dovecot_logout(user, session, self.clock.now() - age))

    def may_relay(self, client: str) -> bool:
        return self.grants.right(address(client), "").verdict == "permit"

    def told(self, name: str, **fields: object) -> int:
        return sum(
            event.name == name and all(event.fields.get(key) == item for key, item in fields.items())
            for event in self.sink.events
        )

    async def told_soon(self, name: str, count: int = 1, **fields: object) -> None:
        await until(lambda: self.told(name, **fields) >= count, lambda: str(self.sink.events))

    def rename(self) -> Path:
        there = self.log.with_name("mail.log.1")
        os.rename(self.log, there)
        return there


async def until(
    is_so: Callable[[], bool], tell: Callable[[], str] = lambda: "", seconds: float = 10.0
) -> None:
    deadline = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < deadline, f"it does not come to that {tell()}"
        await asyncio.sleep(0.01)
