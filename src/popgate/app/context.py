"""What the parent prepares and every process of the server works with."""

import os
import socket
from dataclasses import dataclass

from popgate.app.clock import SystemClock
from popgate.app.logs import LogWriter
from popgate.app.shared import SharedMemory
from popgate.config.settings import Config
from popgate.servers import limits, user_sessions
from popgate.servers.limits import ConnectionTable
from popgate.servers.settings import ListenerSettings
from popgate.servers.user_sessions import UserSessionTable

# auth.throttle asks for its size itself; see app.backends
THROTTLE_KEY_OCTETS = 16

# After a reload two generations of workers are there at once, and each counts in rows of its
# own: the end of an old worker must not wipe out what the new one of the same number counts.
_GENERATIONS = 2


@dataclass(slots=True)
class BoundListener:
    """A listener's settings with its listening socket and the name it is bound to. `key`: what is in
    its key_file or secret_file; a worker that is started again has that of its generation."""

    settings: ListenerSettings
    socket: socket.socket
    name: str
    key: bytes | None = None


@dataclass(slots=True)
class ServerContext:
    """One generation's configuration, and what all generations share.

    `wake_read`/`wake_write`: a datagram socket pair; an octet in it tells the delivery
    process that the queue has something due.
    """

    config: Config
    listeners: list[BoundListener]
    clock: SystemClock
    connection_counts: memoryview
    user_counts: memoryview
    throttle_counts: memoryview
    throttle_key: bytes
    log_fd: int
    wake_read: socket.socket
    wake_write: socket.socket
    workers: int
    generation: int = 0

    def connection_table(self, worker: int) -> ConnectionTable:
        """The counters of connections for a worker of this generation, its own ones at zero."""
        rows, row = self._rows(worker)
        return ConnectionTable(self.connection_counts, workers=rows, worker=row)

    def user_table(self, worker: int) -> UserSessionTable:
        """The same for the sessions of users."""
        rows, row = self._rows(worker)
        most = self.config.limits.sessions_per_user
        return UserSessionTable(self.user_counts, workers=rows, worker=row, most=most)

    def forget_counts(self, worker: int) -> None:
        """A worker of this generation has ended, perhaps by a kill."""
        self.connection_table(worker)
        self.user_table(worker)

    def _rows(self, worker: int) -> tuple[int, int]:
        return self.workers * _GENERATIONS, self.workers * (self.generation % _GENERATIONS) + worker

    def log(self) -> LogWriter:
        """A writer for processes that run no loop."""
        return LogWriter(self.log_fd, self.config.log.format)


def make_context(
    config: Config, listeners: list[BoundListener], throttle_octets: int, memory: SharedMemory
) -> ServerContext:
    """The context of the first generation."""
    wake_read, wake_write = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    wake_read.setblocking(False)
    wake_write.setblocking(False)
    workers = config.worker_count
    return ServerContext(
        config=config,
        listeners=listeners,
        clock=SystemClock(),
        connection_counts=memory.allocate(limits.buffer_size(workers * _GENERATIONS)),
        user_counts=memory.allocate(user_sessions.buffer_size(workers * _GENERATIONS)),
        throttle_counts=memory.allocate(throttle_octets),
        throttle_key=os.urandom(THROTTLE_KEY_OCTETS),
        log_fd=2,
        wake_read=wake_read,
        wake_write=wake_write,
        workers=workers,
    )
