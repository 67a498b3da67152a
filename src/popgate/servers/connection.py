"""One connection: the transport, the deadlines and the back-pressure around an engine.

The shell moves bytes and time, and decides nothing: `receive` what came, ask the engine
for events, have the session decide them, send the output. A decision that is not at hand
is awaited while the engine stands still; nothing of a connection ever runs concurrently
with itself. There is no timer per connection: the listener calls `tick` each second.

Kept whole: every part of it touches the same few attributes, and splitting them would hide
the order of things at a close.
"""

import asyncio
import fcntl
import socket
import ssl
import termios
import traceback
from collections.abc import Iterator
from typing import cast

from popgate.protocols.engine import Engine, Wait
from popgate.protocols.proxy import ProxyError, ProxyParser
from popgate.servers.listener import Listener, OpenConnection
from popgate.servers.tls_layer import TlsLayer
from popgate.sessions.session import CloseReason, Peer, PushingSession, Session
from popgate.values.address import AddressError, ClientAddress

_READ_AHEAD = 65536  # octets taken from a client while a decision is pending
_LINGER_OCTETS = 1048576
_LONE_QUIT = len(b"QUIT\r\n")  # a read of no more took all that had come, and nothing stood behind the line
_EVENTS_A_TURN = 32
_LINES_A_TURN = 64  # lines that the engine answers by itself
_LOOPBACK = ClientAddress(b"\x7f\0\0\x01")  # the address of a peer on a unix socket
# By names of our own: until Python 3.12 each look for a member through its class costs 0.13 us
_WAIT_LOGIN, _WAIT_COMMAND, _WAIT_BODY, _WAIT_DECISION, _WAIT_TLS, _WAIT_CLOSE = Wait


class Connection(asyncio.Protocol, OpenConnection):
    """Runs one session of `listener` on an accepted connection."""

    __slots__ = (
        "_admitted",
        "_awaits_turn",
        "_body_octets",
        "_body_since",
        "_closed",
        "_deadline",
        "_engine",
        "_has_eof",
        "_is_draining",
        "_is_holding_push",
        "_is_lingering",
        "_is_paused_reading",
        "_is_paused_writing",
        "_last_octets",
        "_listener",
        "_login_until",
        "_name",
        "_pending",
        "_proxy",
        "_pumping_source",
        "_session",
        "_ticked_at",
        "_tls",
        "_tls_peer",
        "_transport",
        "_unread",
        "_wait",
        "_write_deadline",
    )

    def __init__(self, listener: Listener) -> None:
        self._listener = listener
        self._transport: asyncio.Transport | None = None
        self._session: Session | None = None
        self._engine: Engine | None = None
        self._proxy: ProxyParser | None = None
        self._tls: TlsLayer | None = None
        self._tls_peer: Peer | None = None  # implicit TLS: whose session begins when TLS is up
        self._pending: asyncio.Future[object] | None = None
        self._admitted: ClientAddress | None = None
        self._name: str | None = None  # the session's, for events
        self._deadline = 0.0  # loop time; 0 is none
        self._login_until = 0.0
        self._write_deadline = 0.0
        self._ticked_at = 0.0
        self._body_since = 0.0
        self._body_octets = 0
        self._unread = 0
        self._last_octets = 0  # of the last read
        self._wait: Wait | None = None
        self._is_paused_reading = False
        self._is_paused_writing = False
        self._awaits_turn = False
        self._is_holding_push = False  # the session was told that its client does not read
        self._is_draining = False
        self._is_lingering = False
        self._has_eof = False
        self._pumping_source = False
        self._closed = False

    # the transport's side

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport = cast(asyncio.Transport, transport)
        listener = self._listener
        listener.connections.add(self)
        client, port = _peer(transport)
        if client is None:  # gone already
            self._close("reset")
            return
        if listener.proxy_from:
            if any(client in network for network in listener.proxy_from):
                self._proxy = ProxyParser()
                self._deadline = listener.loop.time() + listener.deadlines.proxy
            else:
                listener.event("connection.refused", client=client.text, reason="proxy-not-listed")
                self._close("error")
            return
        self._open(client, port)

    def _open(self, client: ClientAddress, port: int) -> None:
        listener, transport = self._listener, self._transport
        assert transport is not None
        if listener.callers is not None and not any(client in network for network in listener.callers):
            listener.event("connection.refused", client=client.text, reason="not-a-caller")
            self._close("error")
            return
        over = listener.table.admit(client, listener.number, listener.limits)
        if over is not None or listener.is_draining:
            listener.event("connection.refused", client=client.text, reason=f"limit-{over or 'shutdown'}")
            if not listener.implicit_tls:
                transport.write(listener.busy_reply)
            self._close("limit")
            return
        self._admitted = client
        peer = Peer(listener.token()[:11], client, port, listener.name, is_tls=listener.implicit_tls)
        self._name = peer.session
        if listener.implicit_tls:
            self._start_tls(peer)
        else:
            self._begin(peer)
            self._flush()  # the greeting

    def _begin(self, peer: Peer) -> None:
        session = self._session = self._listener.make_session(peer)
        engine = self._engine = session.engine
        engine.most_lines = _LINES_A_TURN
        if hasattr(session, "wake"):
            cast(PushingSession, session).wake = self._wake
        now = self._listener.loop.time()
        self._ticked_at = now
        self._deadline = self._login_until = now + self._listener.deadlines.login

    def data_received(self, data: bytes) -> None:
        if self._is_lingering:
            self._unread += len(data)
            if self._unread > _LINGER_OCTETS:
                self.abort("error")
        elif self._tls is not None:
            self._receive_tls(self._tls, data)
        elif self._engine is None:
            self._receive_proxy(data)
        else:
            self._receive(self._engine, data)

    def _receive(self, engine: Engine, data: bytes) -> None:
        self._last_octets = len(data)
        if self._wait is _WAIT_BODY:
            # RFC 5321 4.5.3.2.5: the deadline is for each block, the minimum rate for the whole
            self._body_octets += len(data)
            self._deadline = self._listener.loop.time() + self._listener.deadlines.command
        engine.receive(data)
        if self._is_free:
            self._pump()
        else:
            self._unread += len(data)
            if self._unread > _READ_AHEAD:
                self._pause_reading()

    def _receive_proxy(self, data: bytes) -> None:
        proxy, listener = self._proxy, self._listener
        if proxy is None:
            return
        try:
            proxy.feed(data)
        except ProxyError as fault:
            assert self._transport is not None
            client, _ = _peer(self._transport)
            listener.event(
                "connection.refused",
                client=client.text if client else None,
                reason="proxy-header",
                detail=str(fault),
            )
            self._close("error")
            return
        header = proxy.result
        if header is None:
            return
        self._proxy = None
        if header.source is not None:
            client, port = header.source, header.source_port
        else:
            assert self._transport is not None
            real, port = _peer(self._transport)
            client = real or _LOOPBACK
        self._open(client, port)
        if header.rest and not self._closed:
            self.data_received(header.rest)

    def eof_received(self) -> bool:
        self._has_eof = True
        if self._engine is None or self._is_lingering or self._is_handshaking:
            self._close("eof")
            return False
        self._engine.receive(b"")
        if self._is_free:
            self._pump()
        return not self._closed

    def pause_writing(self) -> None:
        self._is_paused_writing = True
        self._write_deadline = self._listener.loop.time() + self._listener.deadlines.write
        self._pause_reading()

    def resume_writing(self) -> None:
        self._is_paused_writing = False
        self._write_deadline = 0.0
        if self._engine is not None and not self._closed:
            if self._is_free:
                self._send_pushed()
                self._pump()
            elif self._pumping_source and self._pending is None:
                self._pump_source()
            if self._is_holding_push:
                self._is_holding_push = False
                self._listener.loop.call_soon(self._tell_can_push)

    def connection_lost(self, exc: Exception | None) -> None:
        self._finish("reset" if exc is not None else "eof")
        self._listener.connections.discard(self)
        self._transport = None
        if self._admitted is not None:
            # Not before: what lingers still holds a descriptor
            self._listener.table.release(self._admitted, self._listener.number)
            self._admitted = None

    # events, decisions, output

    def _pump(self) -> None:
        """Have every event decided that the engine can give now, then send what there is.

        After some of them the others have their turn: one read may bring a megabyte of commands.
        """
        engine, session = self._engine, self._session
        assert engine is not None and session is not None
        left = _EVENTS_A_TURN
        try:
            while not self._is_paused_writing:
                if left == 0:
                    if engine.waiting_for is not _WAIT_TLS:
                        self._yield_turn()
                    break
                left -= 1
                event = engine.next_event()
                if event is None:
                    if engine.has_more:
                        self._yield_turn()
                    break
                reply = session.decide(event)
                if reply is None:
                    continue
                if hasattr(reply, "__await__"):  # as inspect.isawaitable, at a tenth of its cost
                    self._await(asyncio.ensure_future(reply))
                    break
                engine.answer(reply)
                if engine.source is not None:
                    break
        except Exception as defect:
            self._defect(defect)
            return
        self._flush()

    @property
    def _is_free(self) -> bool:
        """Neither a decision nor a long reply nor our turn is waited for."""
        return self._pending is None and not self._pumping_source and not self._awaits_turn

    def _yield_turn(self) -> None:
        self._awaits_turn = True
        self._unread = 0
        self._pause_reading()
        self._listener.loop.call_soon(self._take_turn)

    def _take_turn(self) -> None:
        self._awaits_turn = False
        if not self._closed and self._engine is not None:
            self._pump()

    def _await(self, future: "asyncio.Future[object]") -> None:
        if future.done():  # a coroutine never is, a future may be
            self._listener.loop.call_soon(self._decided, future)
        else:
            future.add_done_callback(self._decided)
        self._pending = future
        self._unread = 0

    def _decided(self, future: "asyncio.Future[object]") -> None:
        self._pending = None
        if self._closed:
            if not future.cancelled():
                future.exception()  # look at it, so that the loop does not complain
            return
        assert self._engine is not None
        if self._wait is _WAIT_BODY:
            self._begin_rate()  # it was the disk that was slow
        try:
            reply = future.result()
            if reply is not None:
                self._engine.answer(reply)
        except Exception as defect:
            self._defect(defect)
            return
        if self._engine.source is None:
            self._pump()
        else:
            self._flush()

    def _flush(self) -> None:
        """Send the output and see what the engine waits for now."""
        engine, transport = self._engine, self._transport
        assert engine is not None
        output = engine.take_output()
        if transport is None or self._closed:
            return
        if output:
            if self._tls is None:
                transport.write(output)
            else:
                self._send(transport, output)
        if engine.source is not None:
            if not self._pumping_source:
                self._pumping_source = True
                self._unread = 0
                self._deadline = 0.0  # however long it takes; the client must go on reading
                self._pump_source()
            return
        wait = engine.waiting_for
        if wait is not self._wait or output:
            self._arm(wait)
        if wait is _WAIT_CLOSE:
            self._linger()
            return
        if wait is _WAIT_TLS and self._tls is None:
            self._start_tls()
        if self._is_paused_reading and self._is_free and not self._is_paused_writing:
            self._is_paused_reading = False
            transport.resume_reading()

    def _wake(self) -> bool:
        """The session's `wake`, see popgate.sessions.session.PushingSession."""
        if self._closed or self._engine is None:
            return False
        if self._is_paused_writing:
            self._is_holding_push = True
            return False
        if self._is_free:
            self._send_pushed()
        return True  # else whatever we wait for ends in a flush

    def _send_pushed(self) -> None:
        """Send what the engine says unasked. The client's deadline stays as it is: it counts from what
        the client did, or our own words would keep a session for ever whose client is gone."""
        engine, transport = self._engine, self._transport
        if engine is None or transport is None or self._closed or self._is_handshaking:
            return
        output = engine.take_output()
        if output:
            self._send(transport, output)
        if not self._closed and engine.waiting_for is not self._wait:
            self._flush()

    def _tell_can_push(self) -> None:
        session = self._session
        if session is None or self._closed:
            return
        if self._is_paused_writing:
            self._is_holding_push = True
            return
        try:
            cast(PushingSession, session).can_push()
        except Exception as defect:
            self._defect(defect)

    def _send(self, transport: asyncio.Transport, output: bytes) -> None:
        if self._tls is not None:
            try:
                output = self._tls.wrap(output)
            except ssl.SSLError:  # the client closed TLS while we were at it
                self.abort("eof")
                return
        transport.write(output)

    def _pump_source(self) -> None:
        """Send blocks of a long reply while the client takes them; one block a turn of the loop."""
        engine, transport = self._engine, self._transport
        if engine is None or transport is None or self._closed:
            return
        source = engine.source
        assert source is not None
        try:
            block = next(source, None)
            failed = False
        except Exception as fault:  # the file broke off; what is sent cannot be taken back
            self._listener.event("session.source-failed", session=self._name, detail=str(fault))
            block, failed = None, True
        if block is not None:
            engine.body(block)
            self._send(transport, engine.take_output())
            if not self._is_paused_writing:
                self._listener.loop.call_soon(self._pump_source)
            return
        _close_source(source)
        engine.body_end(failed=failed)
        self._pumping_source = False
        self._pump()

    def _arm(self, wait: Wait) -> None:
        """Set the deadline for what the engine waits for."""
        was, self._wait = self._wait, wait
        if wait is _WAIT_LOGIN:
            self._deadline = self._login_until  # set at the connection; no command or failure moves it
        elif wait is _WAIT_COMMAND or wait is _WAIT_BODY:
            if wait is _WAIT_BODY and was is not _WAIT_BODY:
                self._begin_rate()
            self._deadline = self._listener.loop.time() + self._listener.deadlines.command
        elif wait is _WAIT_DECISION:
            self._deadline = 0.0

    def _begin_rate(self) -> None:
        self._body_since, self._body_octets = self._listener.loop.time(), 0

    # TLS

    def _start_tls(self, peer: Peer | None = None) -> None:
        """`peer`: implicit TLS, the session begins when TLS is up. None: STARTTLS."""
        context = self._listener.ssl_context
        assert context is not None
        self._tls = TlsLayer(context)
        self._tls_peer = peer
        self._deadline = self._listener.loop.time() + self._listener.deadlines.handshake

    def _receive_tls(self, tls: TlsLayer, data: bytes) -> None:
        was_up = tls.is_up
        try:
            text = tls.receive(data)
        except (ssl.SSLError, OSError) as fault:
            self._tls_failed(tls, fault)
            return
        wire = tls.take_output()
        if wire and self._transport is not None:
            self._transport.write(wire)
        if not was_up:
            if not tls.is_up:
                return
            self._tls_is_up(tls)
        engine = self._engine
        if text and engine is not None and not self._closed:
            self._receive(engine, text)
        if tls.has_ended and not self._is_lingering:
            self.eof_received()
            if self._closed and self._transport is not None:
                self._transport.close()

    def _tls_is_up(self, tls: TlsLayer) -> None:
        peer, self._tls_peer = self._tls_peer, None
        if peer is not None:
            self._begin(peer)
        assert self._engine is not None and self._session is not None
        if peer is None:
            self._engine.tls_started()
        self._session.tls_started(tls.version, tls.cipher)
        self._wait = None
        self._pump()

    def _tls_failed(self, tls: TlsLayer, fault: Exception) -> None:
        self._listener.event(
            "tls.failed",
            session=self._name,
            client=self._admitted.text if self._admitted else None,
            detail=_tls_fault(fault),
        )
        transport, alert = self._transport, tls.take_output()
        if transport is not None and alert:
            transport.write(alert)  # tells an honest client what was wrong
        self._close("tls")

    @property
    def _is_handshaking(self) -> bool:
        return self._tls is not None and not self._tls.is_up

    # the listener's side

    def tick(self, now: float) -> None:
        if self._closed:
            if self._deadline and now >= self._deadline and self._transport:
                self._transport.abort()  # it neither closes nor takes what is unsent
            return
        if self._write_deadline and now >= self._write_deadline:
            self.abort("too-slow")
            return
        session = self._session
        if self._wait is _WAIT_BODY and self._pending is None and self._is_too_slow(now):
            self._time_out("too-slow")
        elif self._deadline and now >= self._deadline and self._pending is None:
            if session is None or self._is_paused_writing or self._is_handshaking:
                self.abort("timeout")
            else:
                self._time_out("timeout")
        elif session is not None and 0 < session.tick_seconds <= now - self._ticked_at:
            self._ticked_at = now
            session.tick()

    def _is_too_slow(self, now: float) -> bool:
        deadlines = self._listener.deadlines
        allowed = now - self._body_since - deadlines.body_grace
        return allowed > 0 and self._body_octets < allowed * deadlines.minimum_rate

    def _time_out(self, reason: CloseReason) -> None:
        engine, session = self._engine, self._session
        assert engine is not None and session is not None
        self._deadline = 0.0
        engine.shut_down(session.timeout_reply())
        if engine.waiting_for is _WAIT_BODY:
            # An engine lets a body come to its end before it closes; this one does not come.
            engine.shut_down(session.timeout_reply())
        self._finish_after(engine, reason)

    def drain(self, *, is_last: bool = False) -> None:
        """Tell the client that the server stops, as soon as the protocol permits. `is_last`: now,
        even in the middle of a body; but never instead of an answer that is being worked out."""
        engine, session = self._engine, self._session
        if engine is None or session is None:
            if self._admitted is None:
                self.abort("shutdown")
            return
        if self._closed:
            return
        if self._is_handshaking:
            self.abort("shutdown")
            return
        is_busy = self._pending is not None or self._pumping_source
        if self._is_draining and (is_busy or not is_last):
            return  # an engine that is told twice waits for nothing
        if not self._is_draining:
            self._is_draining = True
            engine.shut_down(session.shutdown_reply())
        if is_last and not is_busy and engine.waiting_for is _WAIT_BODY:
            engine.shut_down(session.shutdown_reply())
        if not is_busy:
            self._finish_after(engine, "shutdown")

    def _finish_after(self, engine: Engine, reason: CloseReason) -> None:
        if engine.waiting_for is _WAIT_CLOSE:
            self._finish_session(reason)
        self._flush()

    def abort(self, reason: str) -> None:
        """Close at once, whatever is unsent."""
        transport = self._transport
        self._finish(cast(CloseReason, reason))
        if transport is not None:
            transport.abort()

    # the end

    def _pause_reading(self) -> None:
        if not self._is_paused_reading and self._transport is not None and not self._transport.is_closing():
            self._is_paused_reading = True
            self._transport.pause_reading()

    def _linger(self) -> None:
        """Close so that the last reply arrives: a close with unread input would reset it away."""
        transport = self._transport
        if transport is None or self._closed:
            return
        if self._tls is not None and self._tls.is_up:
            transport.write(self._tls.close())
        if self._has_eof or self._has_read_all(transport) or not transport.can_write_eof():
            self._close(self._usual_end)
            return
        self._finish(self._usual_end)
        self._is_lingering = True
        self._unread = 0
        deadlines = self._listener.deadlines
        patience = deadlines.write if transport.get_write_buffer_size() else deadlines.linger
        self._deadline = self._listener.loop.time() + patience
        try:
            transport.write_eof()
            if self._is_paused_reading:
                self._is_paused_reading = False
                transport.resume_reading()
        except (OSError, RuntimeError):
            transport.close()

    @property
    def _usual_end(self) -> CloseReason:
        return "shutdown" if self._is_draining else "quit"

    def _has_read_all(self, transport: asyncio.Transport) -> bool:
        """Is everything sent, and nothing more come from a client that ended the session itself?
        Then there is nothing that a close could reset away, and waiting for its end costs
        another turn of the loop for each session."""
        engine = self._engine
        if engine is None or engine.ended_by != "quit" or self._tls is not None:
            return False
        if transport.get_write_buffer_size() or self._is_paused_reading:
            return False
        if self._last_octets <= _LONE_QUIT:
            return True
        sock = transport.get_extra_info("socket")
        if sock is None:
            return False
        waiting = bytearray(4)
        try:
            fcntl.ioctl(sock.fileno(), termios.FIONREAD, waiting)
        except OSError:
            return False
        return not any(waiting)

    def _close(self, reason: CloseReason) -> None:
        transport = self._transport
        self._finish(reason)
        if transport is not None:
            # For as long as the client does not take what is unsent, the transport stays open
            self._deadline = self._listener.loop.time() + self._listener.deadlines.write
            transport.close()

    def _finish(self, reason: CloseReason) -> None:
        """Once per connection: give back what it held."""
        if self._closed:
            return
        self._closed = True
        engine = self._engine
        if engine is not None and engine.source is not None:
            _close_source(engine.source)
        self._finish_session(reason)
        self._engine = None

    def _finish_session(self, reason: CloseReason) -> None:
        session, self._session = self._session, None
        if session is not None:
            try:
                session.closed(reason)
            except Exception as defect:
                self._report(defect)

    def _defect(self, defect: Exception) -> None:
        """Our own fault: say so in the log, and end the session without an answer (never a yes)."""
        self._report(defect)
        self.abort("error")

    def _report(self, defect: Exception) -> None:
        # places only: the message of an exception may hold what a client sent
        frames = traceback.extract_tb(defect.__traceback__)[-4:]
        where = " < ".join(f"{frame.name}:{frame.lineno}" for frame in reversed(frames))
        self._listener.event(
            "session.defect", session=self._name, detail=f"{type(defect).__name__} in {where}"
        )


def _peer(transport: asyncio.Transport) -> tuple[ClientAddress | None, int]:
    name = transport.get_extra_info("peername")
    if isinstance(name, tuple) and len(name) >= 2:
        text: str = name[0]
        try:
            # the kernel's own spelling, so its own parser, which costs a tenth of ours
            if ":" not in text:
                return ClientAddress(socket.inet_pton(socket.AF_INET, text)), name[1]
            return ClientAddress(socket.inet_pton(socket.AF_INET6, text.partition("%")[0])), name[1]
        except (AddressError, OSError):
            return None, 0
    local = transport.get_extra_info("sockname")
    return (_LOOPBACK if isinstance(local, str) else None), 0


def _close_source(source: Iterator[bytes]) -> None:
    close = getattr(source, "close", None)
    if close is not None:
        try:
            close()
        except Exception:  # noqa: S110 - a generator that is running cannot be closed; it ends by itself
            pass


def _tls_fault(fault: BaseException | None) -> str:
    if isinstance(fault, ssl.SSLError):
        return str(fault.reason or fault.strerror or "handshake failed").lower().replace("_", " ")
    return f"handshake failed: {type(fault).__name__}" if fault else "handshake failed"
