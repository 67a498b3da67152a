"""One SMTP connection outwards, by aiosmtplib: connect, TLS, login, transactions, QUIT.

Commands are written here and not by aiosmtplib's own mail() and rcpt(), which parse
addresses anew and may change them. Each refuses control characters.
"""

import asyncio
import socket
import ssl
from collections.abc import Sequence

import aiosmtplib

from popgate.queue.backlog import Consignee, QueuedMessage
from popgate.queue.delivery import wire
from popgate.queue.delivery.mx import Endpoint
from popgate.queue.delivery.outcome import Outcome, Unreachable, clean, deferred, failed, from_reply
from popgate.queue.routes import Route
from popgate.values.value import value

LEAST_OCTETS_A_SECOND = 5000
"""A peer that takes a body slower than this is given up."""
MAX_TRANSACTIONS = 100
_XTEXT = frozenset(range(33, 127)) - {ord("+"), ord("=")}


@value
class ClientSettings:
    """`verified` and `opportunistic`: TLS contexts for smart hosts and for MX hosts."""

    hostname: str
    connect_timeout_seconds: float
    command_timeout_seconds: float
    verified: ssl.SSLContext
    opportunistic: ssl.SSLContext


class ConnectionLost(Exception):
    """The peer closed before it was given the message: try again on a new connection."""


class Connection:
    """A connection that is ready for transactions. Made by `connect`."""

    def __init__(self, client: aiosmtplib.SMTP, endpoint: Endpoint, settings: ClientSettings) -> None:
        self._client = client
        self._settings = settings
        self.endpoint = endpoint
        self.transactions = 0
        self._is_dirty = False

    @property
    def is_usable(self) -> bool:
        return self._client.is_connected and self.transactions < MAX_TRANSACTIONS

    async def send(
        self, message: QueuedMessage, recipients: Sequence[Consignee], content: bytes
    ) -> dict[int, Outcome]:
        """One transaction; an outcome for each recipient's number.

        Raises ConnectionLost when nothing was sent on a connection that had been idle.
        """
        host = self.endpoint.host
        is_reused = self.transactions > 0
        self.transactions += 1
        try:
            if self._is_dirty:
                await self._command(b"RSET")
            self._is_dirty = True
            return await self._transaction(message, recipients, content)
        except (aiosmtplib.SMTPServerDisconnected, aiosmtplib.SMTPTimeoutError, OSError) as error:
            self._client.close()
            if is_reused and isinstance(error, _LostBeforeData):
                raise ConnectionLost from error
            lost = deferred("4.4.2", f"connection to {host} lost: {error}", host)
        except aiosmtplib.SMTPException as error:
            self._client.close()
            lost = deferred("4.5.0", f"{host} does not keep to the protocol: {error}", host)
        except ValueError as error:
            self._client.close()
            lost = failed("5.1.3", f"an address cannot be sent: {error}", host)
        return {consignee.number: lost for consignee in recipients}

    async def _command(self, *words: bytes) -> aiosmtplib.SMTPResponse:
        try:
            return await self._client.execute_command(*words)
        except aiosmtplib.SMTPServerDisconnected as error:
            raise _LostBeforeData(str(error)) from error

    async def _transaction(
        self, message: QueuedMessage, recipients: Sequence[Consignee], content: bytes
    ) -> dict[int, Outcome]:
        host = self.endpoint.host
        outcomes: dict[int, Outcome] = {}
        has = self._client.supports_extension
        prepared = await self._prepare(message, recipients, content, outcomes)
        if prepared is None:
            return outcomes
        content, parameters, recipients = prepared
        sender = message.envelope.sender
        reverse_path = "" if sender is None else str(sender)
        reply = await self._command(b"MAIL", f"FROM:<{reverse_path}>".encode(), *parameters)
        if reply.code == 421 and self.transactions > 1:
            raise _LostBeforeData(reply.message)  # it takes so many messages a connection
        if reply.code // 100 != 2:
            outcome = from_reply(reply.code, reply.message, host)
            return outcomes | {consignee.number: outcome for consignee in recipients}
        accepted: list[int] = []
        for consignee in recipients:
            if not self._client.is_connected:  # 421: aiosmtplib has closed
                outcomes[consignee.number] = from_reply(reply.code, reply.message, host)
                continue
            words = [f"TO:<{consignee.recipient.address}>".encode()]
            if has("dsn"):
                words += _recipient_parameters(consignee)
            reply = await self._command(b"RCPT", *words)
            if reply.code // 100 == 2:
                accepted.append(consignee.number)
            else:
                outcomes[consignee.number] = from_reply(reply.code, reply.message, host)
        if accepted:
            outcome = await self._data(content, reply, peer_reports=has("dsn"))
            outcomes |= dict.fromkeys(accepted, outcome)
        return outcomes

    async def _data(self, content: bytes, last: aiosmtplib.SMTPResponse, *, peer_reports: bool) -> Outcome:
        host = self.endpoint.host
        if not self._client.is_connected:
            return from_reply(last.code, last.message, host)
        timeout = 2 * self._settings.command_timeout_seconds + len(content) / LEAST_OCTETS_A_SECOND
        try:
            reply = await self._client.data(content, timeout=timeout)
        except aiosmtplib.SMTPDataError as error:
            if error.code // 100 == 2:  # a success where it has no meaning
                self._client.close()
            return from_reply(error.code, error.message, host)
        self._is_dirty = False
        return Outcome("delivered", "2.0.0", clean(f"{reply.code} {reply.message}"), host, True, peer_reports)

    async def _prepare(
        self,
        message: QueuedMessage,
        recipients: Sequence[Consignee],
        content: bytes,
        outcomes: dict[int, Outcome],
    ) -> tuple[bytes, list[bytes], Sequence[Consignee]] | None:
        """Content, MAIL parameters and recipients as this peer can take them; None: nothing to send."""
        host, envelope = self.endpoint.host, message.envelope
        has = self._client.supports_extension
        parameters: list[bytes] = []
        refusal: Outcome | None = None
        is_8bit = not content.isascii()
        sender_is_utf8 = envelope.sender is not None and not envelope.sender.is_ascii
        header_is_utf8 = envelope.needs_smtputf8 and is_8bit and not _header_is_ascii(content)
        if not has("smtputf8"):
            no_utf8 = failed("5.6.7", f"{host} does not take addresses or headers in UTF-8 (SMTPUTF8)", host)
            if sender_is_utf8 or header_is_utf8:
                refusal = no_utf8
            else:
                refused = [one for one in recipients if not one.recipient.address.is_ascii]
                outcomes |= {consignee.number: no_utf8 for consignee in refused}
                recipients = [one for one in recipients if one.recipient.address.is_ascii]
                if not recipients:
                    return None
        elif (
            sender_is_utf8 or header_is_utf8 or any(not one.recipient.address.is_ascii for one in recipients)
        ):
            parameters.append(b"SMTPUTF8")
        if refusal is None and is_8bit:
            if has("8bitmime"):
                parameters.append(b"BODY=8BITMIME")
            else:
                converted = await asyncio.to_thread(wire.to_seven_bits, content)
                if converted is None:
                    refusal = failed(
                        "5.6.3", f"{host} takes 7-bit mail only and this message cannot be converted", host
                    )
                else:
                    content = converted
        if refusal is None and has("size"):
            limit = self._client.esmtp_extensions.get("size", "")
            if limit.isascii() and limit.isdigit() and 0 < int(limit) < len(content):
                refusal = failed(
                    "5.3.4", f"the message has {len(content)} octets, {host} takes {int(limit)}", host
                )
            parameters.append(b"SIZE=%d" % len(content))
        if refusal is not None:
            outcomes |= {consignee.number: refusal for consignee in recipients}
            return None
        if has("dsn"):
            if envelope.ret:
                parameters.append(b"RET=" + envelope.ret.encode())
            if envelope.envid:
                parameters.append(b"ENVID=" + _xtext(envelope.envid))
        return content, parameters, recipients

    async def close(self) -> None:
        """QUIT, without waiting long for an answer."""
        try:
            if self._client.is_connected:
                await self._client.quit(timeout=2)
        except (aiosmtplib.SMTPException, OSError, TimeoutError):
            pass
        self._client.close()

    def abandon(self) -> None:
        self._client.close()


class _LostBeforeData(aiosmtplib.SMTPServerDisconnected):
    pass


def _header_is_ascii(content: bytes) -> bool:
    end = content.find(b"\r\n\r\n")
    return (content if end < 0 else content[:end]).isascii()


def _recipient_parameters(consignee: Consignee) -> list[bytes]:
    """RFC 3461 4.1 and 4.2."""
    recipient = consignee.recipient
    words = []
    if recipient.notify:
        words.append(b"NOTIFY=" + ",".join(recipient.notify).encode())
    kind, semicolon, address = recipient.orcpt.partition(";")
    if semicolon and recipient.orcpt.isascii():
        words.append(b"ORCPT=" + kind.encode() + b";" + _xtext(address))
    return words


def _xtext(text: str) -> bytes:
    """RFC 3461 4: xtext, for ASCII text."""
    return "".join(
        chr(octet) if octet in _XTEXT else f"+{octet:02X}" for octet in text.encode("ascii", "replace")
    ).encode()


async def connect(endpoints: Sequence[Endpoint], route: Route, settings: ClientSettings) -> Connection:
    """Connect to the first endpoint that can be used. Raises Unreachable with the last one's trouble."""
    trouble: Unreachable | None = None
    for endpoint in endpoints:
        try:
            return await _connect(endpoint, route, settings, route.tls)
        except _TlsFailed as error:
            # RFC 7435: opportunistic TLS that fails gives way to plain text, as there was none asked for
            try:
                return await _connect(endpoint, route, settings, "none")
            except Unreachable:
                trouble = error
        except Unreachable as error:
            trouble = error
    raise trouble or Unreachable("4.4.1", "there is no host to connect to")


class _TlsFailed(Unreachable):
    pass


async def _connect(endpoint: Endpoint, route: Route, settings: ClientSettings, tls: str) -> Connection:
    sock = await _open_socket(endpoint, settings.connect_timeout_seconds)
    context = settings.opportunistic if tls == "opportunistic" else settings.verified
    client = aiosmtplib.SMTP(
        hostname=endpoint.host,
        local_hostname=settings.hostname,
        timeout=settings.command_timeout_seconds,
        use_tls=tls == "implicit",
        start_tls=False,
        tls_context=context,
        sock=sock,
    )
    host, step = endpoint.host, "greeting"
    try:
        await client.connect()
        step = "EHLO"
        await _greet(client)
        if tls == "starttls" or (tls == "opportunistic" and client.supports_extension("starttls")):
            step = "STARTTLS"
            await client.starttls(server_hostname=None if tls == "opportunistic" else endpoint.host)
            await _greet(client)
        if route.username:
            step = "AUTH"
            await _log_in(client, route)
    except asyncio.CancelledError:
        client.close()
        raise
    except Exception as error:
        client.close()  # and with it the socket, which is the transport's by now
        if step == "STARTTLS" and tls == "opportunistic":
            raise _TlsFailed("4.7.5", f"{host}: STARTTLS: {_say(error)}", host) from error
        raise Unreachable(_CODES[step], f"{host}: {step}: {_say(error)}", host) from error
    return Connection(client, endpoint, settings)


_CODES = {"greeting": "4.4.2", "EHLO": "4.5.0", "STARTTLS": "4.7.5", "AUTH": "4.7.8"}


def _say(error: Exception) -> str:
    if isinstance(error, aiosmtplib.SMTPResponseException):
        return f"{error.code} {error.message}"
    return str(error) or type(error).__name__


async def _open_socket(endpoint: Endpoint, seconds: float) -> socket.socket:
    place = f"{endpoint.host} [{endpoint.address}]:{endpoint.port}"
    family = socket.AF_INET6 if ":" in endpoint.address else socket.AF_INET
    try:
        sock = socket.socket(family, socket.SOCK_STREAM)
    except OSError as error:  # a machine without IPv6
        raise Unreachable("4.4.1", f"{place}: {error.strerror or error}", endpoint.host) from None
    sock.setblocking(False)
    try:
        await asyncio.wait_for(
            asyncio.get_running_loop().sock_connect(sock, (endpoint.address, endpoint.port)), seconds
        )
    except (OSError, TimeoutError) as error:
        sock.close()
        why = "no answer" if isinstance(error, TimeoutError) else error.strerror or str(error)
        raise Unreachable("4.4.1", f"{place}: {why}", endpoint.host) from None
    except BaseException:
        sock.close()
        raise
    return sock


async def _greet(client: aiosmtplib.SMTP) -> None:
    """RFC 5321 3.2: EHLO, and HELO for a peer that does not know it."""
    try:
        await client.ehlo()
    except aiosmtplib.SMTPHeloError:
        if not client.is_connected:
            raise
        await client.helo()


async def _log_in(client: aiosmtplib.SMTP, route: Route) -> None:
    """PLAIN, else LOGIN, else CRAM-MD5; whatever fails is the administrator's to mend, not the sender's."""
    offered = client.server_auth_methods
    for mechanism, log_in in (
        ("plain", client.auth_plain),
        ("login", client.auth_login),
        ("cram-md5", client.auth_crammd5),
    ):
        if mechanism in offered:
            await log_in(route.username, str(route.password))
            return
    raise Unreachable("4.7.0", "the host offers no login that we know (PLAIN, LOGIN, CRAM-MD5)")
