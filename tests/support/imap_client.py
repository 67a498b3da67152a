"""An IMAP client for tests: sends, reads every response strictly, and keeps the model of the mailbox.

Whatever the server says is held against the model: EXISTS only grows, EXPUNGE and VANISHED alone
shrink, none of them comes while sequence numbers are in use, uids ascend and never come again, a
FETCH names a message that exists. What breaks it raises Broken.
"""

import re
import socket
import time
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field

from support.imap_site import ImapSite
from support.imap_wire import Malformed, Response, numbers, parse

TIMEOUT_SECONDS = 20.0
_LITERAL_AT_END = re.compile(rb"~?\{([0-9]+)\}\Z")

# RFC 9051 7.5.1: no EXPUNGE while one of these is in progress, alone or in a pipeline
_BY_NUMBER = re.compile(rb"(FETCH|STORE|SEARCH|SORT|THREAD)\b", re.IGNORECASE)


class Broken(AssertionError):
    """The server contradicts what it said before."""


class Closed(AssertionError):
    """The server has closed the connection."""


@dataclass
class Result:
    """The end of one command and all that came untagged until then."""

    tagged: Response
    untagged: list[Response]

    @property
    def ok(self) -> bool:
        return self.tagged.kind == "OK"

    def all(self, kind: str) -> list[Response]:
        return [response for response in self.untagged if response.kind == kind]

    def one(self, kind: str) -> Response:
        found = self.all(kind)
        if len(found) != 1:
            raise Broken(f"{len(found)} {kind} responses instead of one: {self}")
        return found[0]


@dataclass
class Message:
    uid: int = 0
    flags: frozenset[str] | None = None
    modseq: int = 0


@dataclass
class Model:
    """The selected mailbox as the server told it."""

    messages: list[Message] = field(default_factory=list)
    has_exists: bool = False
    uid_validity: int = 0
    gone: set[int] = field(default_factory=set)
    is_qresync: bool = False
    highest_modseq: int = 0

    def exists(self, count: int) -> None:
        if self.has_exists and count < len(self.messages):
            raise Broken(f"EXISTS {count} after {len(self.messages)} without EXPUNGE")
        self.has_exists = True
        self.messages += [Message() for _ in range(count - len(self.messages))]

    def expunge(self, number: int) -> None:
        if self.is_qresync:
            raise Broken("EXPUNGE after QRESYNC was enabled")
        if number > len(self.messages):
            raise Broken(f"EXPUNGE {number} of {len(self.messages)}")
        message = self.messages.pop(number - 1)
        if message.uid:
            self.gone.add(message.uid)

    def vanished(self, uids: list[int]) -> None:
        if not self.is_qresync:
            raise Broken("VANISHED without QRESYNC")
        for uid in uids:
            if uid in self.gone:
                raise Broken(f"VANISHED {uid} again")
            index = self._index(uid)
            if index is None:
                raise Broken(f"VANISHED {uid}, which is not there: {self.uids}")
            del self.messages[index]
            self.gone.add(uid)

    def _index(self, uid: int) -> int | None:
        """Where that uid is; or, where it was never told, the first place that it can have."""
        place = None
        for index, message in enumerate(self.messages):
            if message.uid == uid:
                return index
            if message.uid > uid:
                break
            if message.uid:
                place = None
            elif place is None:
                place = index
        return place

    def fetched(self, response: Response) -> None:
        if response.number > len(self.messages):
            raise Broken(f"FETCH of {response.number}, and there are {len(self.messages)}")
        message = self.messages[response.number - 1]
        uid = response.items.get("UID")
        if isinstance(uid, int):
            if message.uid not in (0, uid):
                raise Broken(f"message {response.number} had uid {message.uid} and has {uid}")
            if uid in self.gone:
                raise Broken(f"uid {uid} is back")
            before = [each.uid for each in self.messages[: response.number - 1] if each.uid]
            after = [each.uid for each in self.messages[response.number :] if each.uid]
            if (before and before[-1] >= uid) or (after and after[0] <= uid):
                raise Broken(f"uid {uid} of message {response.number} is out of order")
            message.uid = uid
        flags = response.items.get("FLAGS")
        if isinstance(flags, frozenset):
            message.flags = flags
        modseq = response.items.get("MODSEQ")
        if isinstance(modseq, int):
            if modseq < message.modseq:
                raise Broken(f"the modseq of message {response.number} went down: {response.raw!r}")
            message.modseq = modseq

    @property
    def uids(self) -> list[int]:
        return [message.uid for message in self.messages]


class ImapClient:
    """One connection. `log`: both directions, for a failed test."""

    def __init__(self, site: ImapSite, *, greets: bool = True) -> None:
        self.site = site
        self.socket = socket.create_connection((site.host, site.port), timeout=TIMEOUT_SECONDS)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.buffer = b""
        self.log: list[str] = []
        self.model: Model | None = None
        self.capabilities: frozenset[str] = frozenset()
        self.is_utf8 = False
        self.untagged: list[Response] = []
        self.on_response: Callable[[Response], None] = lambda response: None
        self._pending: dict[str, bytes] = {}
        self._serial = 0
        self._selecting: Model | None = None
        self._inflate: object = None
        self._deflate: object = None
        if greets:
            self.greeting = self.read()
            if self.greeting.kind not in ("OK", "PREAUTH"):
                raise Broken(f"greeted with {self.greeting.raw!r}")
            self._note_capabilities(self.greeting)

    def __enter__(self) -> "ImapClient":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self.socket.close()

    # Octets

    def write(self, data: bytes) -> None:
        self.log.append("C: " + repr(data)[2:-1][:2000])
        if self._deflate is not None:
            data = self._deflate.compress(data) + self._deflate.flush(zlib.Z_SYNC_FLUSH)  # type: ignore[attr-defined]
        self.socket.sendall(data)

    def _more(self) -> None:
        try:
            data = self.socket.recv(65536)
        except TimeoutError:
            raise Broken(f"no answer in {self.socket.gettimeout()} s:\n{self.tail}") from None
        except ConnectionResetError:
            data = b""
        if not data:
            raise Closed(f"the server closed:\n{self.tail}")
        if self._inflate is not None:
            data = self._inflate.decompress(data)  # type: ignore[attr-defined]
        self.buffer += data

    @property
    def tail(self) -> str:
        return "\n".join(self.log[-40:])

    def _raw(self) -> bytes:
        """One response with its literals, without its last CRLF."""
        start = 0
        while True:
            end = self.buffer.find(b"\n", start)
            if end < 0:
                self._more()
                continue
            if self.buffer[end - 1 : end] != b"\r":
                raise Malformed(f"a line that ends without CR: {self.buffer[: end + 1]!r}")
            literal = _LITERAL_AT_END.search(self.buffer, start, end - 1)
            if not literal:
                break
            start = end + 1 + int(literal[1])
            while len(self.buffer) < start:
                self._more()
        raw, self.buffer = self.buffer[: end - 1], self.buffer[end + 1 :]
        self.log.append("S: " + repr(raw)[2:-1][:2000])
        return raw

    def read(self) -> Response:
        """The next response, after the model has taken it in."""
        raw = self._raw()
        try:
            response = parse(raw, is_utf8=self.is_utf8)
            self._apply(response)
        except (Malformed, Broken) as fault:
            raise type(fault)(f"{fault}\n{self.tail}") from None
        self.on_response(response)
        return response

    def at_end(self) -> bool:
        """Whether the server closes, and says nothing more before."""
        try:
            response = self.read()
        except Closed:
            return True
        raise Broken(f"the server goes on: {response.raw!r}\n{self.tail}")

    # The model

    def _note_capabilities(self, response: Response) -> None:
        values = response.values if response.kind == "CAPABILITY" else response.code_values
        if response.kind == "CAPABILITY" or response.code == "CAPABILITY":
            self.capabilities = frozenset(str(value).upper() for value in values)
            if not self.capabilities & {"IMAP4REV1", "IMAP4REV2"}:
                raise Broken(f"no IMAP4rev1 among the capabilities: {response.raw!r}")

    def _apply(self, response: Response) -> None:
        self._note_capabilities(response)
        model = self._selecting or self.model
        kind = response.kind
        if response.tag == "*" and kind in ("EXISTS", "EXPUNGE", "FETCH", "VANISHED", "RECENT", "FLAGS"):
            if model is None:
                raise Broken(f"nothing is selected: {response.raw!r}")
            if kind in ("EXPUNGE",) or (kind == "VANISHED" and "EARLIER" not in response.items):
                self._may_expunge(response)
            if kind == "EXISTS":
                model.exists(response.number)
            elif kind == "EXPUNGE":
                model.expunge(response.number)
            elif kind == "FETCH":
                model.fetched(response)
            elif kind == "VANISHED" and "EARLIER" not in response.items:
                model.vanished(numbers(str(response.values[0])))
            elif kind == "RECENT" and response.number > len(model.messages):
                raise Broken(f"more recent than there are: {response.raw!r}")
        elif response.tag == "*" and kind == "ENABLED":
            words = {str(value).upper() for value in response.values}
            self.is_utf8 |= bool(words & {"UTF8=ACCEPT", "IMAP4REV2"})
            if "QRESYNC" in words:
                self._is_qresync = True
        elif model is not None and response.code == "UIDVALIDITY":
            model.uid_validity = int(str(response.code_values[0]))
        if response.tag not in ("*", "+"):
            self._end(response)

    _is_qresync = False

    def _may_expunge(self, response: Response) -> None:
        for line in self._pending.values():
            words = line.split(b" ", 3)
            if len(words) > 1 and _BY_NUMBER.match(words[1]):
                raise Broken(f"{response.raw!r} while {line[:80]!r} is in progress")

    def _end(self, response: Response) -> None:
        line = self._pending.pop(response.tag, None)
        if line is None:
            raise Broken(f"no command has the tag of {response.raw!r}")
        verb = line.split(b" ", 2)[1].strip().upper() if b" " in line else b""
        if verb in (b"SELECT", b"EXAMINE"):
            self.model = self._selecting if response.kind == "OK" else None
            self._selecting = None
            if self.model and not self.model.has_exists:
                raise Broken("SELECT without EXISTS")
        elif verb in (b"CLOSE", b"UNSELECT") and response.kind == "OK":
            self.model = None
        elif verb == b"COMPRESS" and response.kind == "OK":
            self._inflate, self._deflate = zlib.decompressobj(-15), zlib.compressobj(wbits=-15)

    # Commands

    def start(self, line: bytes, *, tag: str = "") -> str:
        """Begin a command: `line` without tag and CRLF; returns its tag. Nothing is sent yet."""
        self._serial += 1
        tag = tag or f"t{self._serial}"
        self._pending[tag] = tag.encode() + b" " + line
        if line.split(b" ")[0].upper() in (b"SELECT", b"EXAMINE"):
            self._selecting = Model(is_qresync=self._is_qresync)
        return tag

    def until_tagged(self, tag: str) -> Result:
        while True:
            response = self.read()
            if response.tag == tag:
                untagged, self.untagged = self.untagged, []
                return Result(response, untagged)
            if response.tag != "*":
                raise Broken(f"{response.raw!r} while {tag} is awaited\n{self.tail}")
            self.untagged.append(response)

    def until_continued(self) -> Response:
        while True:
            response = self.read()
            if response.tag == "+":
                return response
            if response.tag != "*":
                raise Broken(f"{response.raw!r} instead of a continuation\n{self.tail}")
            self.untagged.append(response)

    def command(self, line: str | bytes, *literals: bytes) -> Result:
        """One command: `line` may hold `%s` for each literal, which is sent as a synchronising one."""
        octets = line.encode() if isinstance(line, str) else line
        pieces = octets.split(b"%s") if literals else [octets]
        tag = self.start(octets)
        self.write(
            tag.encode() + b" " + pieces[0] + (b"{%d}\r\n" % len(literals[0]) if literals else b"\r\n")
        )
        for index, literal in enumerate(literals):
            response = self.read()
            while response.tag == "*":
                self.untagged.append(response)
                response = self.read()
            if response.tag == tag:
                untagged, self.untagged = self.untagged, []
                return Result(response, untagged)
            more = b"{%d}\r\n" % len(literals[index + 1]) if index + 1 < len(literals) else b"\r\n"
            self.write(literal + pieces[index + 1] + more)
        return self.until_tagged(tag)

    def ok(self, line: str | bytes, *literals: bytes) -> Result:
        result = self.command(line, *literals)
        if not result.ok:
            raise Broken(f"{result.tagged.raw!r}\n{self.tail}")
        return result

    def login(self) -> "ImapClient":
        self.ok(f'LOGIN "{self.site.user}" "{self.site.password}"')
        self.ok("CAPABILITY")
        return self

    def select(self, name: str = "INBOX") -> Model:
        self.ok(f'SELECT "{name}"')
        assert self.model is not None
        return self.model

    def idle(self, seconds: float) -> list[Response]:
        """IDLE for so long; what was told."""
        tag = self.start(b"IDLE")
        self.write(tag.encode() + b" IDLE\r\n")
        self.until_continued()
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            self.wait(left)
        self.write(b"DONE\r\n")
        return self.until_tagged(tag).untagged

    def wait(self, seconds: float) -> Response | None:
        """The next response, within that time; it also stays for the command's result."""
        if b"\n" not in self.buffer:
            self.socket.settimeout(max(seconds, 0.001))
            try:
                data = self.socket.recv(65536)
            except TimeoutError:
                return None
            finally:
                self.socket.settimeout(TIMEOUT_SECONDS)
            if not data:
                raise Closed(f"the server closed:\n{self.tail}")
            if self._inflate is not None:
                data = self._inflate.decompress(data)  # type: ignore[attr-defined]
            self.buffer += data
            if b"\n" not in self.buffer:
                return None
        response = self.read()
        self.untagged.append(response)
        return response

    def logout(self) -> None:
        result = self.ok("LOGOUT")
        result.one("BYE")
        self.at_end()
        self.close()


def connect(site: ImapSite) -> ImapClient:
    """A client that has logged in."""
    return ImapClient(site).login()
