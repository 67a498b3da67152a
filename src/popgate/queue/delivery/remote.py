"""Delivery to other hosts: the way to a destination, a connection, one transaction."""

import asyncio
import socket
import ssl
from collections.abc import Sequence

from popgate.queue import header
from popgate.queue.backlog import Consignee, QueuedMessage
from popgate.queue.bodies import BodyFiles
from popgate.queue.delivery import wire
from popgate.queue.delivery.bounded import MemoryBound
from popgate.queue.delivery.client import ClientSettings, Connection, ConnectionLost, connect
from popgate.queue.delivery.local import trace
from popgate.queue.delivery.mx import Endpoint, MxLookup
from popgate.queue.delivery.outcome import Outcome, Unreachable, Unroutable, failed
from popgate.queue.routes import Route, RouteError
from popgate.queue.settings import DeliverySettings

MEMORY_OCTETS = 134217728
RECIPIENTS_AT_ONCE = 100
"""RFC 5321 4.5.3.1.8: what every host takes in one transaction."""


def client_settings(settings: DeliverySettings, hostname: str) -> ClientSettings:
    """Reads the certificates. Raises RouteError when delivery.ca_file cannot be used."""
    try:
        verified = ssl.create_default_context(cafile=settings.ca_file or None)
    except (OSError, ssl.SSLError) as error:
        raise RouteError(f"delivery.ca_file {settings.ca_file}: {error}") from error
    if not settings.verify_certificate:
        verified.check_hostname = False
        verified.verify_mode = ssl.CERT_NONE
    # RFC 7435: against an eavesdropper alone; MX hosts have no names that anybody vouches for
    opportunistic = ssl.create_default_context()
    opportunistic.check_hostname = False
    opportunistic.verify_mode = ssl.CERT_NONE
    return ClientSettings(
        hostname,
        settings.connect_timeout_seconds,
        settings.command_timeout_seconds,
        verified,
        opportunistic,
    )


class RemoteDelivery:
    """Sends messages by SMTP. One for a site."""

    def __init__(
        self,
        settings: ClientSettings,
        lookup: MxLookup,
        bodies: BodyFiles,
        memory: MemoryBound,
        max_hops: int,
    ) -> None:
        self._settings = settings
        self._lookup = lookup
        self._bodies = bodies
        self._memory = memory
        self._max_hops = max_hops

    async def deliver(
        self,
        message: QueuedMessage,
        recipients: Sequence[Consignee],
        route: Route,
        domain: str,
        connection: Connection | None,
    ) -> tuple[dict[int, Outcome], Connection | None]:
        """Outcomes by recipient number, and a connection for the next message.

        Raises Unreachable, Unroutable (`connection` is closed then) or Damaged.
        """
        async with self._memory.hold(message.octets):
            content = await asyncio.to_thread(self._read, message)
            trouble = self._trouble(content)
            if trouble is not None:
                return {consignee.number: trouble for consignee in recipients}, connection
            outcomes: dict[int, Outcome] = {}
            for group in _groups(recipients):
                lines = trace(group[0]).encode()
                try:
                    found, connection = await self._send(
                        message, group, lines + content if lines else content, route, domain, connection
                    )
                except (Unreachable, Unroutable) as error:
                    if not outcomes:
                        raise
                    # what the groups before have got must not be sent again
                    connection = None
                    found = {consignee.number: error.outcome for consignee in group}
                outcomes |= found
            return outcomes, connection

    async def _send(
        self,
        message: QueuedMessage,
        recipients: Sequence[Consignee],
        content: bytes,
        route: Route,
        domain: str,
        connection: Connection | None,
    ) -> tuple[dict[int, Outcome], Connection | None]:
        if connection is not None and connection.is_usable:
            try:
                return await connection.send(message, recipients, content), connection
            except ConnectionLost:
                connection.abandon()
        elif connection is not None:
            await connection.close()
        connection = await connect(await self._endpoints(route, domain), route, self._settings)
        try:
            return await connection.send(message, recipients, content), connection
        except BaseException:
            connection.abandon()
            raise

    def _read(self, message: QueuedMessage) -> bytes:
        return b"".join(message.blocks(self._bodies))

    def _trouble(self, content: bytes) -> Outcome | None:
        fault = wire.fault(content)
        if fault:
            return failed("5.6.0", fault)
        head, _, _ = header.split((content[: header.HEADER_OCTETS],))
        if header.hops(head) > self._max_hops:
            return failed("5.4.6", f"more than {self._max_hops} hosts have passed this message on: a loop")
        return None

    async def _endpoints(self, route: Route, domain: str) -> list[Endpoint]:
        if route.is_mx:
            return await self._lookup.endpoints(domain)
        try:
            found = await asyncio.get_running_loop().getaddrinfo(
                route.host, route.port, type=socket.SOCK_STREAM, proto=socket.IPPROTO_TCP
            )
        except OSError as error:
            # a name that the administrator wrote: never a reason to bounce
            raise Unreachable(
                "4.4.3", f"address look-up of {route.host}: {error.strerror or error}", route.host
            ) from None
        return [Endpoint(route.host, str(address[0]), route.port) for *_, address in found]


def _groups(recipients: Sequence[Consignee]) -> list[list[Consignee]]:
    """Recipients that can share a transaction: the same way here, not too many."""
    by_way: dict[str, list[Consignee]] = {}
    for consignee in recipients:
        by_way.setdefault(consignee.via, []).append(consignee)
    return [
        way[start : start + RECIPIENTS_AT_ONCE]
        for way in by_way.values()
        for start in range(0, len(way), RECIPIENTS_AT_ONCE)
    ]
