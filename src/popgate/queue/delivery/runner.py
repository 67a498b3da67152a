"""The delivery of one site: takes what is due out of the queue and sees to it.

Runs in one process (a lock says so). It scans the due recipients in the order of time,
page by page, and gives them to lanes, one a destination, that keep a bounded number
in memory; what finds its lane full stays in the database until a later scan. Each
scan also looks at what became due last, so that new mail to a live destination does
not stand in line behind a dead one's backlog.
"""

import asyncio
from collections.abc import Callable, Sequence

from popgate.queue import header
from popgate.queue.backlog import NOW, Backlog, Damaged, Due, QueuedMessage
from popgate.queue.delivery.bounded import MemoryBound
from popgate.queue.delivery.client import Connection
from popgate.queue.delivery.lane import READY_MOST, Consignment, Lane, Reached
from popgate.queue.delivery.local import Inboxes, LocalDelivery, LocalRecipients
from popgate.queue.delivery.mx import MxLookup, Resolver
from popgate.queue.delivery.outcome import Outcome, Unreachable, Unroutable, deferred
from popgate.queue.delivery.remote import MEMORY_OCTETS, RemoteDelivery, client_settings
from popgate.queue.delivery.settle import Results, Settler
from popgate.queue.queue import QueueError
from popgate.queue.queue_id import to_text
from popgate.queue.recovery import Sweeper
from popgate.queue.routes import Route, Routes
from popgate.queue.schedule import Schedule
from popgate.queue.settings import DeliverySettings
from popgate.queue.store import SqliteQueue
from popgate.values.address import ClientAddress
from popgate.values.event import Event
from popgate.values.value import value

PAGE = 500
LATEST = 100
BREATH_SECONDS = 0.01
"""Between two scans, so that many small reasons to scan share one."""
POLL_SECONDS = 0.1
RESCAN_SECONDS = 1.0
SWEEP_SECONDS = 900.0
LOCAL_WORKERS = 4
FAULT_SECONDS = 5.0
_LOCAL = "local"
_START = (-1.0, -1, -1)
_NOWHERE = Route("local", 0, "none")
PRUNE_SECONDS = 7200.0


@value
class Site:
    """What delivery must know of the site it works for."""

    hostname: str
    local_domains: frozenset[str]
    own_addresses: frozenset[ClientAddress] = frozenset()


class Runner:
    """`run()` until `stop()`. `wake()` tells it that something is due; without it, mail that other
    processes accept is seen within a tenth of a second.

    Raises RouteError from the constructor for settings that cannot be used. `password` is
    the content of delivery.password_file. `chance()` gives a number from 0 to below 1.
    `allow_loopback`, `mx_port`: for tests and demonstrations on one machine.
    """

    def __init__(
        self,
        queue: SqliteQueue,
        settings: DeliverySettings,
        site: Site,
        recipients: LocalRecipients,
        inboxes: Inboxes,
        resolver: Resolver,
        chance: Callable[[], float],
        *,
        password: str = "",
        allow_loopback: bool = False,
        mx_port: int = 25,
        idle_seconds: float = 3.0,
    ) -> None:
        self._queue = queue
        self._settings = settings
        self._routes = Routes(settings, password)
        self._schedule = Schedule(settings, chance)
        lookup = MxLookup(
            resolver, site.hostname, site.own_addresses, chance, allow_loopback=allow_loopback, port=mx_port
        )
        memory = MemoryBound(MEMORY_OCTETS)
        self._remote = RemoteDelivery(
            client_settings(settings, site.hostname), lookup, queue.bodies, memory, settings.max_hops
        )
        self._local = LocalDelivery(recipients, inboxes, queue.bodies, site.local_domains, settings.max_hops)
        self._backlog = Backlog(queue)
        self._settler = Settler(self._backlog, self._schedule, site.hostname, site.local_domains, chance)
        self._sweeper = Sweeper(queue)
        self._slots = asyncio.Semaphore(settings.concurrency)
        self._idle_seconds = idle_seconds
        self._lanes: dict[str, Lane] = {}
        self._taken: set[tuple[int, int]] = set()
        self._cursor = _START
        self._has_passed_over = False  # a scan met a full lane
        self._has_given_out = False  # the last page brought something new
        self._woken = asyncio.Event()
        self._is_stopping = False
        self._has_ended = asyncio.Event()
        self._has_ended.set()

    def wake(self) -> None:
        """Look for due messages now. Call it in the runner's event loop."""
        self._woken.set()

    async def run(self, began: Callable[[], None] = lambda: None) -> None:
        """Deliver until `stop`. Faults of the database are events, never the end.

        Waits while another process delivers this queue, then calls `began`: until then a `wake`
        would wake for nothing.
        """
        self._has_ended.clear()
        lock: int | None = None
        try:
            while lock is None and not self._is_stopping:
                self._woken.clear()
                lock = self._queue.lock_delivery()
                if lock is None:
                    await self._sleep(RESCAN_SECONDS)
            if lock is not None:
                began()
            swept_at: float | None = None
            while not self._is_stopping:
                self._woken.clear()
                try:
                    now = self._queue.clock.monotonic()
                    if swept_at is None or now - swept_at >= SWEEP_SECONDS:
                        swept_at = now
                        await self._sweep()
                        self._prune(now)
                    version = await self._backlog.version()
                    is_more = await self._scan()
                    await asyncio.sleep(BREATH_SECONDS)
                    await self._rest(is_more, version)
                except Exception as error:
                    self._emit("queue.fault", reason=f"{type(error).__name__}: {error}")
                    await asyncio.sleep(0 if self._is_stopping else FAULT_SECONDS)
        finally:
            if lock is not None:
                self._queue.unlock_delivery(lock)
            self._has_ended.set()

    async def stop(self, seconds: float = 30.0) -> None:
        """Take nothing new, let what is under way end within `seconds`, close connections."""
        self._is_stopping = True
        self._woken.set()
        await self._has_ended.wait()
        await asyncio.gather(*[lane.stop(seconds) for lane in list(self._lanes.values())])
        self._backlog.close()

    async def _sweep(self) -> None:
        try:
            await asyncio.to_thread(self._sweeper.sweep)
        finally:
            for event in self._sweeper.take_events():
                self._queue.emit(event)

    async def _rest(self, is_more: bool, version: int) -> None:
        """Wait for a reason to scan again; `version` is the queue's before the last scan."""
        if is_more:
            if not self._has_given_out:
                await self._sleep(POLL_SECONDS)  # a long backlog and all its lanes are full
            return
        until = self._queue.clock.monotonic() + RESCAN_SECONDS
        while not self._is_stopping and not self._woken.is_set():
            await self._sleep(POLL_SECONDS)
            if await self._backlog.version() != version or self._queue.clock.monotonic() >= until:
                return

    async def _sleep(self, seconds: float) -> None:
        try:
            await asyncio.wait_for(self._woken.wait(), seconds)
        except TimeoutError:
            pass

    async def _scan(self) -> bool:
        """Give out one page of what is due; whether there is more behind it."""
        now = self._queue.clock.now()
        page = await self._backlog.due(now, self._cursor, PAGE)
        is_more = len(page) == PAGE
        latest = await self._backlog.latest(now, LATEST) if is_more or self._cursor != _START else []
        if self._cursor == _START:
            self._has_passed_over = False
        self._cursor = page[-1].place if is_more else _START
        self._has_given_out = False
        await self._give_out(page + latest)
        return is_more

    async def _give_out(self, dues: Sequence[Due]) -> None:
        groups: dict[tuple[int, str], list[Due]] = {}
        for due in dues:
            if (due.message, due.number) not in self._taken:
                groups.setdefault((due.message, self._lane(due).key), []).append(due)
        now, monotonic = self._queue.clock.now(), self._queue.clock.monotonic()
        resting: dict[str, list[Due]] = {}
        for (message, key), group in groups.items():
            lane = self._lanes[key]
            if any(due.place[0] == NOW for due in group):
                lane.rests_until = 0.0
            if lane.rests(monotonic) and not self._schedule.is_over(group[0].created_at, now):
                resting.setdefault(key, []).extend(group)
            elif not lane.has_room:
                self._has_passed_over = True
            else:
                numbers = tuple(dict.fromkeys(due.number for due in group))
                self._taken.update((message, number) for number in numbers)
                self._has_given_out = True
                lane.offer(Consignment(message, numbers))
        for key, group in resting.items():
            # The destination rests: its messages wait with it, and no attempt is counted for them.
            lane = self._lanes[key]
            until = now + max(0.0, lane.rests_until - monotonic)
            await self._backlog.postpone(group, until, lane.rest_status)

    def _lane(self, due: Due) -> Lane:
        """Where the recipient's mail goes; made when it is not there."""
        if due.is_local:
            key, route, most, serve = _LOCAL, _NOWHERE, LOCAL_WORKERS, self._serve_local
        else:
            route = self._routes.choose(due.domain)
            key = f"mx:{due.domain}" if route.is_mx else str(route)
            most, serve = self._settings.destination_concurrency, self._serve_remote
        lane = self._lanes.get(key)
        if lane is None:
            lane = Lane(key, route, due.domain, most, serve, self._forget, self._idle_seconds)
            self._lanes[key] = lane
        return lane

    def _forget(self, lane: Lane) -> None:
        """The lane has no work. It is kept while it remembers a failure."""
        self.wake()
        if not lane.failures and self._lanes.get(lane.key) is lane:
            del self._lanes[lane.key]

    def _prune(self, monotonic: float) -> None:
        """Forget failures of destinations that nobody has written to for long."""
        for lane in list(self._lanes.values()):
            if lane.is_empty and monotonic > lane.rests_until + PRUNE_SECONDS:
                del self._lanes[lane.key]

    async def _serve_local(
        self, lane: Lane, consignment: Consignment, connection: Reached | None
    ) -> Reached | None:
        try:
            message = await self._backlog.load(consignment.message, consignment.numbers)
            if message is not None:
                await self._deliver_local(message)
        except Exception as error:
            await self._mishap(consignment, error)
        finally:
            self._release(lane, consignment)
        return None

    async def _deliver_local(self, message: QueuedMessage) -> None:
        results = Results()
        for consignee in message.recipients:
            resolved = self._local.resolve(consignee)
            if isinstance(resolved, Outcome):
                results.outcomes.append((consignee, resolved))
                continue
            try:
                outcome = await asyncio.to_thread(self._local.deliver, message, consignee, resolved)
            except Damaged as error:
                await self._set_aside(message, str(error))
                break
            if isinstance(outcome, list):
                results.expanded.append((consignee, outcome))
            else:
                results.outcomes.append((consignee, outcome))
        await self._settle(message, results)

    async def _serve_remote(
        self, lane: Lane, consignment: Consignment, connection: Reached | None
    ) -> Reached | None:
        assert connection is None or isinstance(connection, Connection)
        try:
            async with self._slots:
                message = await self._backlog.load(consignment.message, consignment.numbers)
                if message is None:
                    pass
                elif lane.rests(self._queue.clock.monotonic()):
                    await self._wait_no_longer(lane, message)
                else:
                    connection = await self._deliver_remote(lane, message, connection)
        except Exception as error:
            await self._mishap(consignment, error)
            if connection is not None:
                connection.abandon()
            return None
        finally:
            self._release(lane, consignment)
        return connection

    async def _deliver_remote(
        self, lane: Lane, message: QueuedMessage, connection: Connection | None
    ) -> Connection | None:
        results = Results()
        try:
            found, connection = await self._remote.deliver(
                message, message.recipients, lane.route, lane.domain, connection
            )
            lane.reached()
            results.outcomes = [(one, found[one.number]) for one in message.recipients]
        except Unreachable as error:
            self._failed(lane, error)
            connection = None
            results.outcomes = [(one, error.outcome) for one in message.recipients]
        except Unroutable as error:
            connection = None
            results.outcomes = [(one, error.outcome) for one in message.recipients]
        except Damaged as error:
            await self._set_aside(message, str(error))
            return connection
        await self._settle(message, results)
        return connection

    async def _wait_no_longer(self, lane: Lane, message: QueuedMessage) -> None:
        """The destination rests. A message whose time is over ends here; any other is put off
        by the next scan."""
        if self._schedule.is_over(message.created_at, self._queue.clock.now()):
            outcome = deferred("4.4.1", lane.rest_status)
            results = Results([(one, outcome) for one in message.recipients])
            await self._settle(message, results)

    def _failed(self, lane: Lane, error: Unreachable) -> None:
        now = self._queue.clock.monotonic()
        if lane.rests(now):
            return  # another worker has found out already
        lane.failures += 1
        seconds = self._schedule.rest_seconds(lane.failures)
        lane.rests_until = now + seconds
        lane.rest_status = error.outcome.text
        self._emit("delivery.rest", destination=lane.key, seconds=round(seconds), reason=error.outcome.text)

    async def _settle(self, message: QueuedMessage, results: Results) -> None:
        # the header is read only where there is a notification to write
        if await self._settler.settle(
            message, results, lambda: header.split(message.blocks(self._queue.bodies))[0]
        ):
            self.wake()

    async def _set_aside(self, message: QueuedMessage, reason: str) -> None:
        await self._backlog.set_aside(message.number, f"damaged: {reason}")
        self._emit("queue.damaged", queue_id=message.queue_id, reason=reason)

    async def _mishap(self, consignment: Consignment, error: Exception) -> None:
        """A fault of the database, or a defect of ours that this message brings to light: then it
        is set aside, so that it is neither lost nor sent again and again."""
        name = to_text(consignment.message)
        self._emit("queue.fault", queue_id=name, reason=f"{type(error).__name__}: {error}")
        if isinstance(error, QueueError):
            await asyncio.sleep(FAULT_SECONDS)
            return
        asyncio.get_running_loop().call_exception_handler(
            {"message": f"delivery of {name} failed, the message is held", "exception": error}
        )
        await self._backlog.set_aside(consignment.message, f"fault: {type(error).__name__}: {error}")

    def _release(self, lane: Lane, consignment: Consignment) -> None:
        self._taken.difference_update((consignment.message, number) for number in consignment.numbers)
        # A scan for each delivery would cost more than the delivery.
        if self._has_passed_over and len(lane.ready) < READY_MOST // 4 and not self._is_stopping:
            self.wake()

    def _emit(self, name: str, **fields: str | int | float | None) -> None:
        self._queue.emit(Event(name, self._queue.clock.now(), fields))
