"""TLS over memory, between a transport and an engine.

asyncio's own `start_tls` loses what a client sends before the upgrade has begun, cannot be
given octets that were read behind a PROXY header, and keeps a quarter of a megabyte of
buffer for each connection. Here the octets take the one way they always take.
"""

import ssl

_BLOCK = 65536


class TlsLayer:
    """The server's end of one TLS connection. `is_up`: the handshake is done. `has_ended`: the
    client has closed TLS, and says nothing more."""

    __slots__ = ("_incoming", "_object", "_outgoing", "has_ended", "is_up")

    def __init__(self, context: ssl.SSLContext) -> None:
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._object = context.wrap_bio(self._incoming, self._outgoing, server_side=True)
        self.is_up = False
        self.has_ended = False

    def receive(self, data: bytes) -> bytes:
        """Take what came over the wire; returns what the client said in it, b"" for nothing yet.

        Afterwards `take_output` may have something for the wire, and `has_ended` may be true.
        Raises ssl.SSLError when it is not TLS or not acceptable.
        """
        self._incoming.write(data)
        parts = []
        try:
            if not self.is_up:
                self._object.do_handshake()
                self.is_up = True
            while True:
                block = self._object.read(_BLOCK)
                if not block:  # so read() tells of the client's closing alert
                    self.has_ended = True
                    break
                parts.append(block)
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLZeroReturnError:
            self.has_ended = True
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def wrap(self, data: bytes) -> bytes:
        """`data` as it goes over the wire."""
        self._object.write(data)
        return self._outgoing.read()

    def take_output(self) -> bytes:
        """What the handshake or an alert has for the wire."""
        return self._outgoing.read() if self._outgoing.pending else b""

    def close(self) -> bytes:
        """The closing alert for the wire."""
        try:
            self._object.unwrap()
        except (ssl.SSLError, ValueError):
            pass  # the client's own alert is not waited for
        return self._outgoing.read()

    @property
    def version(self) -> str:
        return self._object.version() or ""

    @property
    def cipher(self) -> str:
        cipher = self._object.cipher()
        return cipher[0] if cipher else ""
