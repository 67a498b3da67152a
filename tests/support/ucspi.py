"""What tests of listeners for programs share: a log that keeps what it is told, grants and names to set."""

import asyncio
import itertools
import os
import socket
from collections import Counter
from collections.abc import Callable, Sequence

from popgate.integrations.ucspi import Program, UcspiListener, UcspiPolicy
from popgate.integrations.ucspi.environment import Ends
from popgate.integrations.ucspi.listener import Right
from popgate.values.address import ClientAddress
from popgate.values.identity import Identity

PATH = {b"PATH": os.environb[b"PATH"]}


class KeptLog:
    """A listener's Log as a list of lines."""

    def __init__(self) -> None:
        self.lines: list[tuple[str, ...]] = []
        self.pids: list[int] = []

    def opened(self, session: str, pid: int, ends: Ends, identity: Identity | None, reason: str) -> None:
        self.pids.append(pid)
        self.lines.append(("open", ends.client.text, str(identity or ""), reason))

    def closed(self, session: str, pid: int, ends: Ends, identity: Identity | None, status: int) -> None:
        self.lines.append(("close", ends.client.text, str(identity or ""), str(status)))

    def refused(self, session: str, ends: Ends, reason: str, detail: str = "") -> None:
        self.lines.append(("refused", ends.client.text, reason))

    def fault(self, session: str, client: ClientAddress | None, detail: str) -> None:
        self.lines.append(("fault", client.text if client else "", detail))

    def count(self, running: int) -> None:
        pass

    def names(self) -> list[str]:
        return [line[0] for line in self.lines]


class SetGrants:
    """Grants that the test sets; calls are kept."""

    def __init__(self, right: Right | None = None) -> None:
        self.answer = right or Right("refuse", None, "no-grant")
        self.calls: list[tuple[str, str, str]] = []

    def right(self, client: ClientAddress, session: str) -> Right:
        self.calls.append(("right", client.text, ""))
        return self.answer

    def allow(self, client: ClientAddress, identity: Identity, session: str) -> bool:
        self.calls.append(("allow", client.text, str(identity)))
        return self.answer.verdict == "permit"

    def renew(self, client: ClientAddress, identity: Identity, session: str) -> None:
        self.calls.append(("renew", client.text, str(identity)))

    def logout(self, client: ClientAddress, identity: Identity, session: str) -> None:
        self.calls.append(("logout", client.text, str(identity)))


class SetNames:
    """A resolver with a table. `seconds`: how long each answer takes."""

    def __init__(
        self, names: dict[str, list[str]], addresses: dict[str, list[str]], seconds: float = 0.0
    ) -> None:
        self._names = names
        self._addresses = addresses
        self._seconds = seconds

    async def names(self, address: ClientAddress) -> Sequence[str]:
        await asyncio.sleep(self._seconds)
        if address.text not in self._names:
            raise OSError("no such name")
        return self._names[address.text]

    async def addresses(self, name: str) -> Sequence[ClientAddress]:
        await asyncio.sleep(self._seconds)
        if name not in self._addresses:
            raise OSError("no such host")
        return [ClientAddress.parse(text) for text in self._addresses[name]]


class CountedLimits:
    def __init__(self, most: int = 1000, most_per_address: int = 1000) -> None:
        self.most, self.most_per_address = most, most_per_address
        self.now: Counter[str] = Counter()

    def admit(self, client: ClientAddress) -> str | None:
        if sum(self.now.values()) >= self.most:
            return "listener"
        if self.now[client.text] >= self.most_per_address:
            return "address"
        self.now[client.text] += 1
        return None

    def release(self, client: ClientAddress) -> None:
        self.now[client.text] -= 1
        assert self.now[client.text] >= 0, "released twice"


class Site:
    """A listener on a loopback port with everything around it in the test's hands."""

    def __init__(
        self,
        command: Sequence[str],
        *,
        grants: SetGrants | None = None,
        names: SetNames | None = None,
        limits: CountedLimits | None = None,
        host: str = "127.0.0.1",
        program: Program | None = None,
        **policy: object,
    ) -> None:
        self.log = KeptLog()
        self.grants = grants or SetGrants()
        self.limits = limits or CountedLimits()
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        listening = socket.socket(family, socket.SOCK_STREAM)
        if family == socket.AF_INET6:
            listening.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        listening.bind((host, 0))
        listening.listen(128)
        listening.setblocking(False)
        self.address = listening.getsockname()[:2]
        numbers = itertools.count(10000)
        self.listener = UcspiListener(
            listening,
            UcspiPolicy(program or Program(command), {**PATH}, **policy),  # type: ignore[arg-type]
            limits=self.limits,
            grants=self.grants,
            log=self.log,
            resolver=names or SetNames({}, {}),
            token=lambda: f"s{next(numbers)}",
        )

    async def ask(self, sent: bytes = b"") -> bytes:
        """Connect, send, and read to the end."""
        reader, writer = await asyncio.open_connection(*self.address)
        try:
            writer.write(sent)
            return await asyncio.wait_for(reader.read(), 10)
        except ConnectionResetError:
            return b""
        finally:
            await hang_up(writer)

    async def settled(self) -> None:
        """Until no program runs."""
        await until(lambda: not self.listener.connections)

    async def __aenter__(self) -> "Site":
        return self

    async def __aexit__(self, *_: object) -> None:
        self.listener.close()
        self.listener.abort()
        await asyncio.sleep(0)


async def hang_up(writer: asyncio.StreamWriter) -> None:
    """Close, and wait until it is closed."""
    writer.close()
    try:
        await writer.wait_closed()
    except OSError:
        pass


async def until(condition: Callable[[], object], seconds: float = 10.0) -> None:
    """Wait for something that comes soon."""
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.01)


def variables(shown: bytes) -> dict[str, str]:
    """What `env -0` printed."""
    pairs = (entry.partition("=") for entry in shown.decode().split("\0") if entry)
    return {name: text for name, _, text in pairs}
