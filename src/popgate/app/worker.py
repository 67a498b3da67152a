"""A worker process: all listeners on one event loop."""

import asyncio
import os
import signal
import socket
from collections.abc import Callable, Sequence

from popgate.app import backends
from popgate.app.context import BoundListener, ServerContext
from popgate.app.follow import open_followers
from popgate.app.http_services import BUSY_REPLY, HttpServices
from popgate.app.logs import LogWriter
from popgate.app.loop import run_loop
from popgate.app.peers import open_peers
from popgate.app.runtime import fan_out, make_runtime
from popgate.app.services import SessionMaker, open_services
from popgate.app.supervisor import ChildPipes
from popgate.app.ucspi import open_ucspi
from popgate.integrations.logs.follow_service import LogFollowers
from popgate.integrations.ucspi import UcspiListener
from popgate.servers.connection import Connection
from popgate.servers.limits import ConnectionLimits, ConnectionTable, ListenerTable
from popgate.servers.listener import Deadlines, Listener
from popgate.servers.peer_logins import PeerListener
from popgate.servers.settings import HTTP_SERVICES, QUESTION_SERVICES, LimitSettings
from popgate.servers.sockets import notice_vanished
from popgate.servers.tls import CertificateWatch
from popgate.servers.whoson_datagrams import WhosonDatagrams
from popgate.sessions.session import Peer, Session
from popgate.values.address import Network
from popgate.values.event import Event, EventSink

_AnyListener = Listener | UcspiListener | PeerListener | WhosonDatagrams | LogFollowers
_AnyServer = asyncio.Server | UcspiListener | PeerListener | WhosonDatagrams | LogFollowers

# programs of the site, few addresses with many connections each
_NEAR_SERVICES = (*QUESTION_SERVICES, *HTTP_SERVICES, "whoson")
_CERTIFICATE_SECONDS = 10.0
_LAST_WORDS_SECONDS = 0.2
_ASKER_IDLE_SECONDS = 3600
"""A mail server keeps its connection for its next question. It shall be the one to close it (Postfix
after 300 seconds): a question sent while we close is answered by nobody, and a client gets 451 for it."""


def run_worker(context: ServerContext, number: int, pipes: ChildPipes) -> int:
    """Serve until SIGTERM or the parent's end, then drain. `number` from 0. The exit status."""
    return run_loop(lambda: _serve(context, number, pipes))


async def _serve(context: ServerContext, number: int, pipes: ChildPipes) -> int:
    config = context.config
    log = LogWriter(context.log_fd, config.log.format, asyncio.get_running_loop().call_later)
    history = backends.history(config)
    try:
        await _work(context, number, pipes, fan_out([log, history]), history.flush)
    finally:  # a process that fails says first how it came to that
        history.flush()
        log.close()
    return 0


async def _work(
    context: ServerContext,
    number: int,
    pipes: ChildPipes,
    emit: EventSink,
    flush_history: Callable[[], None],
) -> None:
    loop = asyncio.get_running_loop()
    config = context.config
    stop = stop_event(pipes.lifeline)
    runtime = make_runtime(context.clock, emit)
    services = open_services(context, runtime, lambda: _wake(context.wake_write))
    table = context.connection_table(number)
    sessions = SessionMaker(config, runtime, services, context.user_table(number))
    http = HttpServices(config, runtime, services.grants, services.accounts.get, hears_dovecot=number == 0)
    listeners: list[_AnyListener] = []
    servers: list[_AnyServer] = []
    for index, bound in enumerate(context.listeners):
        if bound.settings.service == "relay_ctrl_udp":
            continue  # all of them are one, below
        if bound.settings.service == "dovecot_auth_policy" and number != 0:
            continue  # who hears that sessions begin must hear that they end
        if bound.settings.service == "whoson_udp":
            answer = sessions.whoson_desk(bound.settings).answer
            whoson = WhosonDatagrams(bound.socket.dup(), answer, runtime.token)
            listeners.append(whoson)
            servers.append(whoson)
            continue
        if bound.settings.service == "ucspi":
            # here, as create_server does: a reload that is refused changes nothing
            bound.socket.listen(bound.settings.backlog)
            ucspi = open_ucspi(
                bound,
                index,
                config,
                table=table,
                grants=services.grants,
                account=services.accounts.get,
                clock=context.clock,
                emit=emit,
                token=runtime.token,
            )
            listeners.append(ucspi)
            servers.append(ucspi)
            continue
        make_session, busy_reply = sessions.for_listener(bound.settings), sessions.busy_reply(bound.settings)
        if bound.settings.service in HTTP_SERVICES:
            make_session, busy_reply = http.for_listener(bound), BUSY_REPLY
        if bound.settings.service == "imap":
            notice_vanished(bound.socket)
        listener = _listener(bound, index, context, make_session, busy_reply, table, emit, runtime.token)
        listeners.append(listener)
        servers.append(
            await loop.create_server(
                _connection_factory(listener), sock=bound.socket.dup(), backlog=bound.settings.backlog
            )
        )
    peers = open_peers(
        context.listeners,
        config,
        grants=services.grants,
        account=services.accounts.get,
        clock=context.clock,
        emit=emit,
        token=runtime.token,
    )
    if peers is not None:
        listeners.append(peers)
        servers.append(peers)
    followers = open_followers(
        config, grants=services.grants, account=services.accounts.get, clock=context.clock, emit=emit
    )
    if followers is not None:
        listeners.append(followers)
        servers.append(followers)
    os.write(pipes.ready, b"r")
    os.close(pipes.ready)
    ticker = asyncio.ensure_future(_tick(listeners, (http.tick, flush_history)))
    await stop.wait()
    http.leave()
    await _drain(servers, listeners, config.limits.drain_seconds)
    ticker.cancel()
    services.close()


def _connection_factory(listener: Listener) -> Callable[[], Connection]:
    return lambda: Connection(listener)


def _listener(
    bound: BoundListener,
    index: int,
    context: ServerContext,
    make_session: Callable[[Peer], Session],
    busy_reply: bytes,
    table: ConnectionTable,
    emit: EventSink,
    token: Callable[[], str],
) -> Listener:
    settings, config, clock = bound.settings, context.config, context.clock
    is_asked = settings.service in QUESTION_SERVICES
    tls = None
    if settings.tls != "none":
        tls = CertificateWatch(
            config.tls,
            settings.tls_profile,
            _tls_protocol(settings.service),
            lambda detail: emit(Event("tls.certificate.refused", clock.now(), {"detail": detail})),
        )
    return Listener(
        service=settings.service,
        name=bound.name,
        number=index,
        make_session=make_session,
        busy_reply=busy_reply,
        limits=ConnectionLimits(
            settings.max_connections,
            settings.max_connections_per_address,
            config.limits.connections_per_subnet,
        ),
        table=ListenerTable(table) if settings.service in _NEAR_SERVICES else table,
        deadlines=_deadlines(config.limits, settings.service),
        clock=clock,
        emit=emit,
        token=token,
        tls=tls,
        implicit_tls=settings.tls == "implicit",
        proxy_from=[Network.parse(text) for text in settings.proxy_from],
        callers=[Network.parse(text) for text in settings.callers] if is_asked or settings.callers else None,
    )


def _tls_protocol(service: str) -> str:
    """RFC 7301's name, for ALPN."""
    if service in HTTP_SERVICES:
        return "http/1.1"
    return service if service in ("pop3", "imap") else "smtp"


def _deadlines(limits: LimitSettings, service: str) -> Deadlines:
    if service in (*QUESTION_SERVICES, "whoson"):
        idle = max(limits.command_seconds, _ASKER_IDLE_SECONDS)
        return Deadlines(login=limits.command_seconds, command=idle, minimum_rate=0)
    autologout = {"pop3": limits.pop3_idle_seconds, "imap": limits.imap_idle_seconds}
    command = autologout.get(service, limits.command_seconds)
    return Deadlines(
        login=limits.login_seconds, command=command, minimum_rate=limits.minimum_bytes_per_second
    )


async def _tick(listeners: list[_AnyListener], others: Sequence[Callable[[], None]]) -> None:
    until_certificates = _CERTIFICATE_SECONDS
    while True:
        await asyncio.sleep(1.0)
        for listener in listeners:
            listener.tick()
        for other in others:
            other()
        until_certificates -= 1.0
        if until_certificates <= 0:
            until_certificates = _CERTIFICATE_SECONDS
            for listener in listeners:
                if isinstance(listener, Listener) and listener.tls is not None and listener.tls.refresh():
                    listener.event("tls.certificate.renewed")


async def _drain(servers: list[_AnyServer], listeners: list[_AnyListener], seconds: float) -> None:
    """Stop accepting, tell every session, wait for them, then close what is left."""
    for server in servers:
        server.close()
    await asyncio.sleep(0.2)  # what was accepted in this turn gets its session and its answer
    for listener in listeners:
        listener.drain()
    loop = asyncio.get_running_loop()
    deadline = loop.time() + seconds
    while any(listener.connections for listener in listeners):
        if loop.time() >= deadline:
            break
        await asyncio.sleep(0.05)
        for listener in listeners:
            listener.drain()
    if any(listener.connections for listener in listeners):
        for listener in listeners:
            listener.drain(is_last=True)
        await asyncio.sleep(_LAST_WORDS_SECONDS)
    for listener in listeners:
        listener.abort()
    await asyncio.sleep(0)


def stop_event(lifeline: int) -> asyncio.Event:
    """Set by SIGTERM, or when the parent has ended and nobody would tell us to stop."""
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, stop.set)

    def orphaned() -> None:
        loop.remove_reader(lifeline)
        stop.set()

    loop.add_reader(lifeline, orphaned)
    return stop


def _wake(sender: socket.socket) -> None:
    try:
        sender.send(b"w")
    except OSError:
        pass  # the pair is full: the delivery process has been told
