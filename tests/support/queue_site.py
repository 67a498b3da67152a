"""A queue with its delivery, for tests: real files, given peers, a clock that runs ahead when asked."""

import asyncio
import random
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from popgate.auth.authenticator import LocalRecipient
from popgate.files.real import RealDisk
from popgate.mailbox.backends.memory import MemoryMailboxes
from popgate.queue.delivery.mx import DnsUnavailable, NoSuchDomain
from popgate.queue.delivery.runner import Runner, Site
from popgate.queue.queue import Envelope, Recipient, raised
from popgate.queue.settings import DeliverySettings
from popgate.queue.store import SqliteQueue
from popgate.values.address import ClientAddress
from popgate.values.event import Event
from popgate.values.identity import Identity
from popgate.values.mail import MailAddress


class RunningClock:
    """Real time, and as much more of it as a test wants."""

    def __init__(self) -> None:
        self.ahead = 0.0

    def now(self) -> float:
        return time.time() + self.ahead

    def monotonic(self) -> float:
        return time.monotonic() + self.ahead

    def advance(self, seconds: float) -> None:
        self.ahead += seconds


class TableResolver:
    """Obeys delivery.mx.Resolver out of two tables; an exception in a table is raised."""

    def __init__(self) -> None:
        self.mx_records: dict[str, Any] = {}
        self.address_records: dict[str, Any] = {}
        self.asked: list[str] = []

    async def mx(self, domain: str) -> Sequence[tuple[int, str]]:
        self.asked.append(domain)
        return self._find(self.mx_records, domain)

    async def addresses(self, host: str) -> Sequence[ClientAddress]:
        return [ClientAddress.parse(text) for text in self._find(self.address_records, host)]

    def _find(self, table: dict[str, Any], name: str) -> Any:
        found = table.get(name, NoSuchDomain(name))
        if isinstance(found, NoSuchDomain | DnsUnavailable):
            raise found
        return found


class TableRecipients:
    """Obeys auth.authenticator.RecipientTable."""

    def __init__(self) -> None:
        self.table: dict[str, LocalRecipient | Exception] = {}

    def mailbox(self, *addresses: str) -> None:
        for address in addresses:
            self.table[address] = LocalRecipient((Identity.parse(address),))

    def alias(self, address: str, mailboxes: Sequence[str] = (), forwards: Sequence[str] = ()) -> None:
        self.table[address] = LocalRecipient(
            tuple(Identity.parse(text) for text in mailboxes), tuple(mail(text) for text in forwards)
        )

    def resolve(self, address: MailAddress) -> LocalRecipient | None:
        found = self.table.get(str(address))
        if isinstance(found, Exception):
            raise found
        return found


def mail(text: str) -> MailAddress:
    local, _, domain = text.rpartition("@")
    return MailAddress(local, domain)


class QueueSite:
    """`async with QueueSite(tmp_path, smarthost="smtp://...") as site:`"""

    def __init__(self, path: Path, *, disk: Any = None, **settings: Any) -> None:
        self.path = path
        self.clock = RunningClock()
        self.events: list[Event] = []
        self.settings = DeliverySettings(**settings)
        self.resolver = TableResolver()
        self.recipients = TableRecipients()
        self.inboxes: Any = MemoryMailboxes()
        self.has_begun = False  # to deliver
        self.options: dict[str, Any] = {"allow_loopback": True, "idle_seconds": 0.3}
        self._disk = disk or RealDisk()

    async def __aenter__(self) -> "QueueSite":
        self.queue = SqliteQueue(str(self.path), self._disk, self.clock, self.events.append)
        self.runner = Runner(
            self.queue,
            self.settings,
            Site("mail.example.org", frozenset({"example.org"})),
            self.recipients,
            self.inboxes,
            self.resolver,
            random.Random(1).random,
            **self.options,
        )
        self.queue.accepted = self.runner.wake
        self._task = asyncio.get_running_loop().create_task(self.runner.run(self._begun))
        return self

    def _begun(self) -> None:
        self.has_begun = True

    async def __aexit__(self, *_: object) -> None:
        await self.runner.stop(2)
        await self._task
        self.queue.close()

    async def send(
        self,
        *recipients: str | Recipient,
        sender: str = "me@example.org",
        body: bytes = b"Subject: x\r\n\r\nhello\r\n",
        **envelope: Any,
    ) -> str:
        message = self.queue.receive()
        for start in range(0, len(body), 65536):
            waiting = message.write(body[start : start + 65536])
            if waiting is not None:
                await waiting
        to = tuple(
            Recipient(mail(one), is_local=one.endswith("@example.org")) if isinstance(one, str) else one
            for one in recipients
        )
        await message.commit(Envelope(mail(sender) if sender else None, to, None, **envelope), raised)
        return message.queue_id

    def named(self, name: str) -> list[Event]:
        return [event for event in self.events if event.name == name]

    async def wait_for(self, name: str, count: int = 1, seconds: float = 5) -> list[Event]:
        await self.until(lambda: len(self.named(name)) >= count, seconds, f"{count} of {name}")
        return self.named(name)

    async def until(self, is_true: Callable[[], bool], seconds: float = 5, what: str = "it") -> None:
        deadline = time.monotonic() + seconds
        while not is_true():
            if time.monotonic() > deadline:
                told = "\n".join(f"{event.name} {dict(event.fields)}" for event in self.events)
                raise AssertionError(f"{what} did not happen; the events:\n{told}")
            await asyncio.sleep(0.01)

    async def until_empty(self, seconds: float = 5) -> None:
        deadline = time.monotonic() + seconds
        while await self.runner._backlog._read(
            lambda c: c.execute("SELECT count(*) FROM message").fetchone()[0]
        ):
            if time.monotonic() > deadline:
                raise AssertionError(f"the queue is not empty: {[event.name for event in self.events][-20:]}")
            await asyncio.sleep(0.02)

    def inbox(self, address: str) -> list[bytes]:
        drop = self.inboxes.open_maildrop(Identity.parse(address))
        try:
            return [b"".join(drop.read(index)) for index in range(len(drop.messages))]
        finally:
            drop.close()
