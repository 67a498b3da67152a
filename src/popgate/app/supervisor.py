"""The parent process: forks the others, watches them, passes signals on.

It runs no event loop and no threads, so that it can fork at any time. Each child is a
`Role`; a child that dies is replaced, with a pause that grows while it keeps dying.
On SIGHUP a new generation of children is made from the new configuration; only when all
of them are ready do the old ones drain. If one is not, the old generation stays.

Children notice the parent's death, however it came, by the end of file on the lifeline.
"""

import os
import select
import signal
import time
import traceback
from collections.abc import Callable, Sequence

from popgate.values.clock import Clock
from popgate.values.event import Event, EventSink
from popgate.values.value import value

READY_SECONDS = 30.0
_KILL_AFTER = 10.0  # beyond the drain


@value
class ChildPipes:
    """What a child is given. `ready`: write one octet when everything listens;
    `lifeline`: reads end of file when the parent has ended."""

    ready: int
    lifeline: int


@value
class Role:
    """One kind of child. `run` returns its exit status; `on_death(pid)` cleans up after it, in the parent."""

    name: str
    run: Callable[[ChildPipes], int]
    on_death: Callable[[], None]


class _Child:
    def __init__(self, role: Role, pid: int, generation: int) -> None:
        self.role = role
        self.pid = pid
        self.generation = generation
        self.started = time.monotonic()
        self.kill_at = 0.0


class ReloadRefused(Exception):
    """The new configuration is not usable; the text says why."""


class Supervisor:
    """Runs until SIGTERM or SIGINT; `run()` returns the exit status."""

    def __init__(
        self,
        roles: Sequence[Role],
        *,
        reload: Callable[[], Sequence[Role]],
        on_ready: Callable[[], None],
        drain_seconds: float,
        clock: Clock,
        emit: EventSink,
    ) -> None:
        """`reload()` gives the roles of a new generation or raises ReloadRefused.
        `on_ready()` is called once, when the first generation is ready."""
        self._roles = list(roles)
        self._reload = reload
        self._on_ready = on_ready
        self._drain_seconds = drain_seconds
        self._clock = clock
        self._emit = emit
        self._children: dict[int, _Child] = {}
        self._generation = 0
        self._deaths: dict[str, int] = {}
        self._start_later: list[tuple[float, Role]] = []
        self._is_stopping = False

    def run(self) -> int:
        self._wake_read, self._wake_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._lifeline_read, self._lifeline_write = os.pipe2(os.O_CLOEXEC)
        signal.set_wakeup_fd(self._wake_write, warn_on_full_buffer=False)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD):
            signal.signal(number, _noted)
        if not self._start_generation(self._roles):
            self._event("server.failed", reason="a process did not become ready")
            self._stop()
            self._wait_for_all()
            return 1
        self._on_ready()
        while not (self._is_stopping and not self._children):
            self._wait(self._pause())
        return 0

    # signals

    def _wait(self, seconds: float) -> None:
        select.select([self._wake_read], [], [], seconds)
        try:
            numbers = os.read(self._wake_read, 512)
        except BlockingIOError:
            numbers = b""
        self._reap()
        self._start_due()
        self._kill_overdue()
        if signal.SIGTERM in numbers or signal.SIGINT in numbers:
            self._stop()
        elif signal.SIGHUP in numbers and not self._is_stopping:
            self._do_reload()

    def _pause(self) -> float:
        due = [at for at, _ in self._start_later]
        due += [child.kill_at for child in self._children.values() if child.kill_at]
        return max(0.0, min(due) - time.monotonic()) if due else 60.0

    def _stop(self) -> None:
        if not self._is_stopping:
            self._is_stopping = True
            self._event("server.stop")
            notify("STOPPING=1")
        self._start_later.clear()
        self._dismiss([child for child in self._children.values() if not child.kill_at])

    def _dismiss(self, children: Sequence[_Child]) -> None:
        for child in children:
            child.kill_at = time.monotonic() + self._drain_seconds + _KILL_AFTER
            _send(child.pid, signal.SIGTERM)

    def _kill_overdue(self) -> None:
        now = time.monotonic()
        for child in self._children.values():
            if child.kill_at and now >= child.kill_at:
                self._event("process.killed", process=child.role.name, pid=child.pid)
                _send(child.pid, signal.SIGKILL)
                child.kill_at = now + 5.0

    def _wait_for_all(self) -> None:
        while self._children:
            self._wait(self._pause())

    # generations

    def _do_reload(self) -> None:
        try:
            roles = self._reload()
        except ReloadRefused as fault:
            self._event("server.reload.refused", reason=str(fault))
            return
        old = [child for child in self._children.values() if not child.kill_at]
        self._start_later.clear()
        if self._start_generation(roles):
            self._roles = list(roles)
            self._deaths.clear()
            self._dismiss([child for child in old if child.pid in self._children])
            self._event("server.reload", generation=self._generation)
        else:
            new = [child for child in self._children.values() if child.generation == self._generation]
            self._dismiss(new)
            self._event(
                "server.reload.refused", reason="a process of the new generation did not become ready"
            )
            for role in self._missing():
                self._fork(role, None)

    def _missing(self) -> list[Role]:
        running = {child.role.name for child in self._children.values() if not child.kill_at}
        return [role for role in self._roles if role.name not in running]

    def _start_generation(self, roles: Sequence[Role]) -> bool:
        """Fork all roles and wait until each says that it is ready."""
        self._generation += 1
        ready_read, ready_write = os.pipe2(os.O_CLOEXEC)
        pids = {self._fork(role, ready_write) for role in roles}
        os.close(ready_write)
        deadline = time.monotonic() + READY_SECONDS
        count = 0
        while count < len(roles):
            # end of file: every child that is not ready has ended
            readable, _, _ = select.select([ready_read], [], [], max(0.0, deadline - time.monotonic()))
            octets = os.read(ready_read, 64) if readable else b""
            if not octets:
                break
            count += len(octets)
        os.close(ready_read)
        self._reap()
        return count == len(roles) and all(pid in self._children for pid in pids)

    def _fork(self, role: Role, ready: int | None) -> int:
        ready = os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC) if ready is None else os.dup(ready)
        pid = os.fork()
        if pid == 0:
            self._be_child(role, ready)
        os.close(ready)
        self._children[pid] = _Child(role, pid, self._generation)
        self._event("process.start", process=role.name, pid=pid)
        return pid

    def _be_child(self, role: Role, ready: int) -> None:
        status = 70
        try:
            signal.set_wakeup_fd(-1)
            for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD):
                signal.signal(number, signal.SIG_DFL)
            signal.signal(
                signal.SIGHUP, signal.SIG_IGN
            )  # the parent's business, even when a terminal sends it
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            os.close(self._lifeline_write)
            os.close(self._wake_read)
            os.close(self._wake_write)
            status = role.run(ChildPipes(ready, self._lifeline_read))
        except BaseException as defect:
            frames = traceback.extract_tb(defect.__traceback__)[-3:]
            where = " < ".join(f"{frame.name}:{frame.lineno}" for frame in reversed(frames))
            self._event(
                "process.failed", process=role.name, detail=f"{type(defect).__name__}: {defect} in {where}"
            )
        finally:
            os._exit(status)

    def _reap(self) -> None:
        while self._children:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            child = self._children.pop(pid, None)
            if child is None:
                continue
            code = os.waitstatus_to_exitcode(status)
            name = child.role.name
            child.role.on_death()
            if child.kill_at or self._is_stopping:
                self._event("process.end", process=name, pid=pid, status=code)
                continue
            quick = time.monotonic() - child.started < 10
            deaths = self._deaths[name] = self._deaths.get(name, 0) + 1 if quick else 1
            pause = min(30.0, 0.1 * 2 ** (deaths - 1))
            self._event("process.died", process=name, pid=pid, status=code, restart_in_seconds=pause)
            if child.generation == self._generation and child.role in self._roles:
                self._start_later.append((time.monotonic() + pause, child.role))

    def _start_due(self) -> None:
        now = time.monotonic()
        due = [role for at, role in self._start_later if at <= now]
        self._start_later = [(at, role) for at, role in self._start_later if at > now]
        for role in due:
            self._fork(role, None)

    def _event(self, name: str, **fields: str | int | float | None) -> None:
        self._emit(Event(name, self._clock.now(), fields))


def _noted(number: int, frame: object) -> None:
    """Signals are read from the wake-up descriptor."""


def _send(pid: int, number: int) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        pass


def notify(state: str) -> None:
    """Tell systemd (sd_notify(3)); nothing happens when it does not listen."""
    import socket

    path = os.environ.get("NOTIFY_SOCKET", "")
    if not path:
        return
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
            sender.connect("\0" + path[1:] if path.startswith("@") else path)
            sender.send(state.encode())
    except OSError:
        pass
