"""HttpServer: an HTTP/1.1 connection as a server sees it.

h11 knows the grammar and the framing; here is what a server must add: bounds, one reading of every
request however it was cut, and refusals. The head of a request is given to h11 when it is whole, so
its bound and its line ends are judged once. Each request has an h11 connection of its own: what came
behind it is begun afresh with the next.

A request is one event, with its body, because bodies here are small. The next is read when it is
answered. What cannot be read is answered by the engine, which then closes; `ended_by` says why.
"""

import http
from collections.abc import Iterator, Sequence

import h11

from popgate.protocols.engine import MisuseError, Wait
from popgate.protocols.http.messages import Request, Response, problem

MAX_HEAD_OCTETS = 8192
MAX_BODY_OCTETS = 8192
_MAX_WIRE_OCTETS = 2 * MAX_BODY_OCTETS
"""A body with the framing of its chunks: chunks of one octet shall not cost what they like."""
_NO_BOUND = 1 << 30  # ours are narrower


class HttpServer:
    """See popgate.protocols.engine.Engine; the events are Requests, the replies Responses."""

    def __init__(self) -> None:
        self.most_lines = 0
        self.has_more = False
        self.ended_by = ""
        self._input = bytearray()
        self._output = bytearray()
        self._scanned = 0  # no end of a head stands before this offset
        self._may_skip_line = True
        self._connection: h11.Connection | None = None  # of the request whose head is read
        self._head: h11.Request | None = None
        self._target = ("", "", "")
        self._body = bytearray()
        self._wire_octets = 0
        self._open: Request | None = None
        self._has_eof = False
        self._is_closing = False
        self._closes_next = False

    @property
    def source(self) -> Iterator[bytes] | None:
        return None

    def receive(self, data: bytes) -> None:
        if not data:
            self._has_eof = True
        elif not self._is_closing:
            self._input += data

    def next_event(self) -> Request | None:
        if self._is_closing or self._open is not None:
            return None
        if self._connection is None and not self._read_head():
            if self._has_eof and not self._is_closing:
                self._close("eof")
            return None
        if self._read_body():
            self._open = self._request()
            return self._open
        if self._has_eof and not self._is_closing:
            self._close("eof")
        return None

    def answer(self, reply: Response) -> None:
        if self._open is None:
            raise MisuseError("no request is open")
        closes = reply.closes or self._closes_next
        self._open = None
        connection = self._connection
        assert connection is not None
        self._send(connection, reply, closes=closes)
        if connection.our_state is not h11.DONE:
            self._close("quit")
            return
        self._input[:0] = connection.trailing_data[0]
        self._connection = self._head = None
        self._scanned, self._may_skip_line = 0, True

    def take_output(self) -> bytes:
        output = bytes(self._output)
        self._output.clear()
        return output

    def body(self, block: bytes) -> None:
        raise MisuseError("an answer has its body with it")

    def body_end(self, *, failed: bool = False) -> None:
        raise MisuseError("an answer has its body with it")

    def tls_started(self) -> None:
        raise MisuseError("HTTP begins under TLS or has none")

    def shut_down(self, reply: Response | None) -> None:
        """Close; `reply` goes to a client that has begun a request. One that is being decided is
        answered first, and one whose body is coming may come whole: called again, it may not."""
        if self._is_closing:
            return
        if self._open is not None or (self.waiting_for is Wait.BODY and not self._closes_next):
            self._closes_next = True
        else:
            if reply is not None and (self._input or self._connection is not None):
                self._send(self._connection or h11.Connection(h11.SERVER), reply, closes=True)
            self._close("shutdown")

    @property
    def waiting_for(self) -> Wait:
        if self._is_closing:
            return Wait.CLOSE
        if self._open is not None:
            return Wait.DECISION
        return Wait.COMMAND if self._connection is None else Wait.BODY

    # reading

    def _read_head(self) -> bool:
        """Take the head of the next request when it is there whole; False: it is not, or was refused."""
        data = self._input
        if self._may_skip_line and data.startswith(b"\r\n"):
            del data[:2]  # RFC 9112 2.2: one empty line before a request is forgiven
            self._may_skip_line = False
        if not data or data == b"\r":
            return False
        if data[0] < 0x21:
            self._refuse(400, "malformed", "this is no HTTP request")  # TLS, for one, begins so
            return False
        end = data.find(b"\r\n\r\n", max(0, self._scanned - 3), MAX_HEAD_OCTETS)
        if end < 0:
            self._scanned = len(data)
            if len(data) >= MAX_HEAD_OCTETS:
                self._refuse(431, "head-too-large", "the head of a request has at most 8192 octets")
            return False
        head = bytes(data[: end + 4])
        del data[: end + 4]
        if head.count(b"\n") != head.count(b"\r\n"):
            self._refuse(400, "malformed", "a line ends with LF alone")
            return False
        return self._take_head(head)

    def _take_head(self, head: bytes) -> bool:
        self._connection = connection = h11.Connection(h11.SERVER, max_incomplete_event_size=_NO_BOUND)
        self._body.clear()
        self._wire_octets = 0
        try:
            connection.receive_data(head)
            event = connection.next_event()
        except h11.RemoteProtocolError as error:
            self._refuse_grammar(error)
            return False
        assert isinstance(event, h11.Request)
        self._head = event
        return self._judge_head(connection, event)

    def _judge_head(self, connection: h11.Connection, head: h11.Request) -> bool:
        names = [name for name, _ in head.headers]
        is_chunked = b"transfer-encoding" in names
        if is_chunked and (b"content-length" in names or head.http_version < b"1.1"):
            # RFC 9112 6.1: two lengths, or a coding that the sender does not know, are how requests
            # are smuggled
            self._refuse(400, "malformed", "a request has one length")
            return False
        if head.http_version[:1] != b"1":
            self._refuse(505, "version", "HTTP/1.1 is spoken here")
            return False
        if not self._read_target(head):
            self._refuse(400, "malformed", "the target of a request begins with /")
            return False
        length = next((int(content) for name, content in head.headers if name == b"content-length"), 0)
        if length > MAX_BODY_OCTETS:
            self._refuse(413, "body-too-large", "the body of a request has at most 8192 octets")
            return False
        if connection.they_are_waiting_for_100_continue:
            if not self._input:
                self._output += connection.send(h11.InformationalResponse(status_code=100, headers=[]))
        elif b"expect" in names:
            self._refuse(417, "expectation", "only 100-continue can be expected")
            return False
        return True

    def _read_target(self, head: h11.Request) -> bool:
        """RFC 9112 3.2: the origin form, and the absolute form, which names the host itself."""
        target = head.target.decode("latin-1")
        host = next((content.decode("latin-1") for name, content in head.headers if name == b"host"), "")
        scheme, separator, rest = target.partition("://")
        if separator and scheme.lower() in ("http", "https"):
            host, slash, path = rest.partition("/")
            target = slash + path
        if not target.startswith("/") or "#" in target:
            return False
        path, _, query = target.partition("?")
        self._target = (path, query, host)
        return True

    def _read_body(self) -> bool:
        """Take what has come of the body; True when the request is whole."""
        connection = self._connection
        assert connection is not None
        if self._input:
            connection.receive_data(bytes(self._input))
            self._input.clear()
        while True:
            before = len(connection.trailing_data[0])
            try:
                event = connection.next_event()
            except h11.RemoteProtocolError as error:
                self._refuse_grammar(error)
                return False
            after = len(connection.trailing_data[0])
            self._wire_octets += before - after
            if type(event) is h11.EndOfMessage:
                return not self._is_too_large(self._wire_octets)
            if type(event) is h11.Data:
                self._body += event.data
                if self._is_too_large(self._wire_octets):
                    return False
            else:
                self._is_too_large(self._wire_octets + after)
                return False

    def _is_too_large(self, wire_octets: int) -> bool:
        if len(self._body) <= MAX_BODY_OCTETS and wire_octets <= _MAX_WIRE_OCTETS:
            return False
        self._refuse(413, "body-too-large", "the body of a request has at most 8192 octets")
        return True

    def _request(self) -> Request:
        head = self._head
        assert head is not None
        path, query, host = self._target
        headers = [(name.decode("latin-1"), content.decode("latin-1")) for name, content in head.headers]
        return Request(head.method.decode("latin-1"), path, query, host, headers, bytes(self._body))

    # answering

    def _refuse_grammar(self, error: h11.RemoteProtocolError) -> None:
        status = error.error_status_hint
        if status == 501:
            self._refuse(501, "coding", "the only transfer coding here is chunked")
        else:
            self._refuse(400, "malformed", "this is no HTTP request")

    def _refuse(self, status: int, reason: str, error: str) -> None:
        connection = self._connection
        if connection is None or connection.our_state not in (h11.IDLE, h11.SEND_RESPONSE):
            connection = h11.Connection(h11.SERVER)
        self._send(connection, problem(status, error), closes=True)
        self._close(reason)

    def _send(self, connection: h11.Connection, reply: Response, *, closes: bool) -> None:
        headers = [*reply.headers]
        if reply.status != 204:  # RFC 9110 8.6
            headers.append(("Content-Length", str(len(reply.body))))
        if closes:
            headers.append(("Connection", "close"))
        phrase = _PHRASES.get(reply.status, "")
        self._output += connection.send(
            h11.Response(status_code=reply.status, headers=_octets(headers), reason=phrase.encode())
        )
        is_head = self._head is not None and self._head.method == b"HEAD"
        if reply.body and not (is_head and connection is self._connection):
            self._output += connection.send(h11.Data(data=reply.body))
        self._output += connection.send(h11.EndOfMessage())

    def _close(self, reason: str) -> None:
        self.ended_by = self.ended_by or reason
        self._is_closing = True
        self._input.clear()
        self._connection = self._head = None


def _octets(headers: Sequence[tuple[str, str]]) -> list[tuple[bytes, bytes]]:
    return [(name.encode("ascii"), content.encode("latin-1")) for name, content in headers]


_PHRASES = {status.value: status.phrase for status in http.HTTPStatus}
