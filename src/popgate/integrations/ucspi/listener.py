"""One listening socket whose connections are each given to a program.

check (limits, rules, the right to relay), then start the program, then forget the
connection: from there on only the end of the program is waited for. Where neither a name
nor an RFC 1413 answer is looked up, all of it happens in one turn of the event loop.

It knows neither the grants nor the limits: those who make it lend it both (UcspiServices).
"""

import asyncio
import errno
import os
import socket
from collections.abc import Callable, Mapping
from typing import Literal, Protocol

from popgate.integrations.ucspi.children import Children
from popgate.integrations.ucspi.environment import Ends, describe
from popgate.integrations.ucspi.ident import remote_info
from popgate.integrations.ucspi.logins import LoginChannel
from popgate.integrations.ucspi.program import LOGIN_DESCRIPTOR, Program, ProgramError
from popgate.integrations.ucspi.remote_name import HostLookup, NameResolver, remote_name
from popgate.integrations.ucspi.rule_file import RuleFile, RulesUnavailable
from popgate.values.address import ClientAddress
from popgate.values.identity import Identity
from popgate.values.value import value

_PAUSE_SECONDS = 0.05
_FAULT_PAUSE_SECONDS = 0.5
_OUT_OF_DESCRIPTORS = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)


@value
class Right:
    """May the client relay? `identity` is None for a trusted network and where nobody is known."""

    verdict: Literal["permit", "refuse", "defer"]
    identity: Identity | None = None
    reason: str = ""


class Grants(Protocol):
    """What the grants are asked; none of it raises."""

    def right(self, client: ClientAddress, session: str) -> Right: ...

    def allow(self, client: ClientAddress, identity: Identity, session: str) -> bool: ...

    def renew(self, client: ClientAddress, identity: Identity, session: str) -> None: ...

    def logout(self, client: ClientAddress, identity: Identity, session: str) -> None: ...


class Log(Protocol):
    """Who is told what happens. `session` is the connection's id."""

    def opened(self, session: str, pid: int, ends: Ends, identity: Identity | None, reason: str) -> None: ...

    def closed(self, session: str, pid: int, ends: Ends, identity: Identity | None, status: int) -> None:
        """`status` as wait(2) gives it."""
        ...

    def refused(self, session: str, ends: Ends, reason: str, detail: str = "") -> None: ...

    def fault(self, session: str, client: ClientAddress | None, detail: str) -> None: ...

    def count(self, running: int) -> None: ...


class Limits(Protocol):
    """Counts connections, over all processes."""

    def admit(self, client: ClientAddress) -> str | None:
        """Count one, or the limit that refuses it: `listener`, `address`, `subnet`."""
        ...

    def release(self, client: ClientAddress) -> None: ...


@value
class UcspiPolicy:
    """What one listener does with its connections.

    `environment`: what every program gets. `local_host`: TCPLOCALHOST, None for none.
    `relayclient`: what RELAYCLIENT is set to. `defer_reply`: what a client is told whose right
    to relay cannot be found out, before the close; empty: the program runs without the right.
    `address_reply`: what a client over the limit of its address is told.
    """

    program: Program
    environment: Mapping[bytes, bytes]
    grant: Literal["none", "check", "allow"] = "none"
    relayclient: bytes = b""
    defer_reply: bytes = b""
    address_reply: bytes = b""
    rules: RuleFile | None = None
    host_lookup: HostLookup = "off"
    info_seconds: float = 0.0
    info_port: int = 113
    local_host: str | None = None
    looks_up_local_host: bool = False
    banner: bytes = b""
    nodelay: bool = False
    kills_ip_options: bool = False


class _Running:
    """A connection whose program runs."""

    __slots__ = ("channel", "ends", "identity", "is_login", "pid", "session")

    def __init__(self, session: str, ends: Ends) -> None:
        self.session = session
        self.ends = ends
        self.pid = 0
        self.identity: Identity | None = None
        self.is_login = False
        self.channel: LoginChannel | None = None


class UcspiListener:
    """Accepts from `listening` (taken over; not blocking) on the running loop until closed."""

    def __init__(
        self,
        listening: socket.socket,
        policy: UcspiPolicy,
        *,
        limits: Limits,
        grants: Grants,
        log: Log,
        resolver: NameResolver,
        token: Callable[[], str],
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._listening = listening
        self._policy = policy
        self._limits = limits
        self._grants = grants
        self._log = log
        self._resolver = resolver
        self._token = token
        self._children = Children(self._loop)
        self._waiting: tuple[socket.socket, ClientAddress, int] | None = None
        self._resume: asyncio.TimerHandle | None = None
        self._is_accepting = False
        self._is_closed = False
        self._lookups: set[asyncio.Task[None]] = set()
        self.connections: dict[str, _Running] = {}
        self._accept_more()

    # what a server does with its listeners

    def close(self) -> None:
        """Accept no more."""
        if self._is_closed:
            return
        self._is_closed = True
        self._stop_accepting()
        if self._resume is not None:
            self._resume.cancel()
        if self._waiting is not None:
            self._waiting[0].close()
            self._waiting = None
        self._listening.close()

    def tick(self) -> None:
        """Once a second: grants of sessions that are open do not lapse."""
        self._children.poll()
        for running in tuple(self.connections.values()):
            if running.is_login and running.identity is not None:
                self._grants.renew(running.ends.client, running.identity, running.session)

    def drain(self, *, is_last: bool = False) -> None:
        """Programs know no way to be told; they are waited for, and `abort` ends them."""

    def abort(self, reason: str = "shutdown") -> None:
        """Ask the programs that still run to end, and stop watching them."""
        for task in tuple(self._lookups):
            task.cancel()
        for running in tuple(self.connections.values()):
            if running.pid:
                self._children.terminate(running.pid)
            self._finish(running, -1)
        self._children.forget()

    # accepting

    def _accept_more(self) -> None:
        self._resume = None
        if self._is_closed or self._is_accepting:
            return
        if self._waiting is not None:
            connection, client, port = self._waiting
            self._waiting = None
            if not self._admit(connection, client, port):
                return
        self._is_accepting = True
        self._loop.add_reader(self._listening.fileno(), self._accept)

    def _stop_accepting(self) -> None:
        if self._is_accepting:
            self._is_accepting = False
            self._loop.remove_reader(self._listening.fileno())

    def _pause(self, seconds: float) -> None:
        self._stop_accepting()
        if self._resume is None and not self._is_closed:
            self._resume = self._loop.call_later(seconds, self._accept_more)

    def _accept(self) -> None:
        """One connection a turn, so that the other listeners of the process have theirs."""
        try:
            connection, name = self._listening.accept()
        except OSError as fault:
            if fault.errno in _OUT_OF_DESCRIPTORS:
                self._log.fault("", None, f"cannot accept: {fault.strerror}")
                self._pause(_FAULT_PAUSE_SECONDS)
            return  # another process has taken it, or the client is gone
        try:
            client = ClientAddress(socket.inet_pton(self._listening.family, name[0].partition("%")[0]))
            self._admit(connection, client, name[1])
        except OSError:
            connection.close()

    def _admit(self, connection: socket.socket, client: ClientAddress, port: int) -> bool:
        """Count it and go on with it; False when it has to wait for others to end."""
        over = self._limits.admit(client)
        if over == "listener":
            # as tcpserver does: whoever comes too many waits, and those after him in the backlog
            self._waiting = (connection, client, port)
            self._pause(_PAUSE_SECONDS)
            return False
        try:
            local, local_port = connection.getsockname()[:2]
            here = ClientAddress(socket.inet_pton(connection.family, local.partition("%")[0]))
        except OSError:
            if over is None:
                self._limits.release(client)
            connection.close()
            return True
        ends = Ends(here, local_port, self._policy.local_host, client, port)
        session = self._token()[:11]
        if over is not None:
            self._log.refused(session, ends, f"limit-{over}")
            _say(connection, self._policy.address_reply)
            connection.close()
            return True
        running = self.connections[session] = _Running(session, ends)
        self._log.count(len(self.connections))
        try:
            self._prepare(connection)
        except OSError:
            self._drop(connection, running)
            return True
        if self._looks_up:
            task = self._loop.create_task(self._look_up(connection, running))
            self._lookups.add(task)
            task.add_done_callback(self._lookups.discard)
        else:
            self._start(connection, running)
        return True

    def _prepare(self, connection: socket.socket) -> None:
        policy = self._policy
        if policy.nodelay:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if policy.kills_ip_options and connection.family == socket.AF_INET:
            connection.setsockopt(socket.IPPROTO_IP, socket.IP_OPTIONS, b"")
        if policy.banner:
            _say(connection, policy.banner)

    # looking up

    @property
    def _looks_up(self) -> bool:
        policy = self._policy
        return policy.host_lookup != "off" or policy.info_seconds > 0 or policy.looks_up_local_host

    async def _look_up(self, connection: socket.socket, running: _Running) -> None:
        policy, ends = self._policy, running.ends
        try:
            local_lookup: HostLookup = "on" if policy.looks_up_local_host else "off"
            local_host, host, info = await asyncio.gather(
                remote_name(self._resolver, ends.local, local_lookup),
                remote_name(self._resolver, ends.client, policy.host_lookup),
                remote_info(ends, policy.info_seconds, policy.info_port),
            )
            if not policy.looks_up_local_host:
                local_host = policy.local_host
            running.ends = Ends(
                ends.local, ends.local_port, local_host, ends.client, ends.client_port, host, info
            )
        except BaseException:
            self._drop(connection, running)
            raise
        self._start(connection, running)

    # starting

    def _start(self, connection: socket.socket, running: _Running) -> None:
        """Apply rules and grants, start the program. Closes `connection` in any case."""
        policy, ends, log = self._policy, running.ends, self._log
        variables = {**policy.environment, **describe(ends)}
        try:
            if policy.rules is not None:
                host, info = ends.host, ends.info
                try:
                    verdict = policy.rules.decide(ends.client.text, host, info)
                except RulesUnavailable as fault:
                    log.refused(running.session, ends, "rules-unavailable", str(fault))
                    return
                if verdict.is_denied:
                    log.refused(running.session, ends, "rules")
                    return
                variables.update(verdict.settings)
            reason = ""
            if policy.grant == "check":
                right = self._check(variables, running)
                reason = right.reason
                if right.verdict == "defer" and policy.defer_reply:
                    log.refused(running.session, ends, reason)
                    _say(connection, policy.defer_reply)
                    return
            self._run(connection, running, variables)
            log.opened(running.session, running.pid, ends, running.identity, reason)
        except (ProgramError, OSError) as fault:
            log.fault(running.session, ends.client, str(fault))
        finally:
            if running.pid:
                connection.close()
            else:
                self._drop(connection, running)

    def _check(self, variables: dict[bytes, bytes], running: _Running) -> Right:
        if b"RELAYCLIENT" in variables:  # a rule has decided
            return Right("permit", None, "rules")
        right = self._grants.right(running.ends.client, running.session)
        if right.verdict == "permit":
            variables[b"RELAYCLIENT"] = self._policy.relayclient
            identity = running.identity = right.identity
            if identity is not None:
                variables[b"USER"] = identity.user.encode()
                if identity.domain:
                    variables[b"DOMAIN"] = identity.domain.encode()
        return right

    def _run(self, connection: socket.socket, running: _Running, variables: dict[bytes, bytes]) -> None:
        channel = None
        login = -1
        if self._policy.grant == "allow":
            channel = running.channel = self._channel(running)
            login = channel.other.fileno()
            variables[b"POPGATE_LOGIN_FD"] = b"%d" % LOGIN_DESCRIPTOR
        running.pid = self._policy.program.start(connection.fileno(), variables, login)
        if channel is not None:
            channel.other.close()
        self._children.watch(running.pid, lambda status: self._finish(running, status))

    def _channel(self, running: _Running) -> LoginChannel:
        def login(identity: Identity) -> bool:
            granted = self._grants.allow(running.ends.client, identity, running.session)
            running.identity = identity
            running.is_login = granted
            return granted

        def refused(detail: str) -> None:
            self._log.fault(running.session, running.ends.client, f"login not recorded: {detail}")

        return LoginChannel(self._loop, login, refused)

    # ending

    def _finish(self, running: _Running, status: int) -> None:
        """The program has ended, or is waited for no longer."""
        if running.pid:
            self._log.closed(running.session, running.pid, running.ends, running.identity, status)
        if running.is_login and running.identity is not None:
            self._grants.logout(running.ends.client, running.identity, running.session)
        self._release(running)

    def _drop(self, connection: socket.socket, running: _Running) -> None:
        connection.close()
        self._release(running)

    def _release(self, running: _Running) -> None:
        if self.connections.pop(running.session, None) is None:
            return
        if running.channel is not None:
            running.channel.close()
        self._limits.release(running.ends.client)
        self._log.count(len(self.connections))
        if self._waiting is not None and self._resume is not None:
            self._resume.cancel()
            self._accept_more()


def _say(connection: socket.socket, text: bytes) -> None:
    """What the client is told before or instead of a program; whoever does not read it misses it."""
    if text:
        try:
            connection.send(text, socket.MSG_DONTWAIT)
        except OSError:
            pass


def exit_text(status: int) -> str:
    """`0`, `111` or `signal 9` for a status of wait(2); empty where it is not known."""
    if status < 0:
        return ""
    code = os.waitstatus_to_exitcode(status)
    return str(code) if code >= 0 else f"signal {-code}"
