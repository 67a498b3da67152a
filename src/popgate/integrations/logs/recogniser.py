"""Finds logins and logouts in log lines.

Most lines of a mail log are no logins, so blocks of lines are searched for the fixed text that
each form of a pattern needs, and only lines that hold one are read. A line counts when its
syntax says that a program of the pattern wrote it, one form matches its whole beginning,
and user and address are what `values` accepts; whatever is in doubt is no login.

Needs no clock: `now` is given. Knows no file; lines come in the order of the file.
"""

import re
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from datetime import tzinfo

from popgate.grants.grant import LoginProtocol
from popgate.integrations.logs.pattern import Form, Pattern
from popgate.integrations.logs.records import LoginSeen, LogoutSeen, LogRecord, Seen
from popgate.integrations.logs.syntaxes import MAX_LINE, OWN_FILES, read_line
from popgate.integrations.logs.times import Reference
from popgate.values.address import AddressError, ClientAddress
from popgate.values.identity import Identity, IdentityError
from popgate.values.value import value

PENDING_AT_MOST = 10_000
PENDING_SECONDS = 300.0
OPEN_AT_MOST = 20_000
_CONTAINER_SEARCH = 65536


_USUAL = re.compile(
    rb"(?:[A-Z][a-z]{2} [ \d]\d [\d:]{8}|\d{4}-\d\d-\d\dT[^ ]{1,32}) [^\s:<>]{1,255} "
    rb"([^\s:\[\]<>]{1,64})(?:\[\d{1,10}\])?: "
)


class Recogniser:
    """The patterns of one log. One instance reads one log, in order.

    `zone` is where times without a zone were written. `default_domain` completes user names
    without one. `hosts`: only lines of these host names count; empty: of all. `replays`: the
    lines are old, and `now` is when the log ended rather than the time of the line.
    """

    def __init__(
        self,
        patterns: Sequence[Pattern],
        zone: tzinfo,
        *,
        default_domain: str = "",
        hosts: frozenset[str] = frozenset(),
        replays: bool = False,
    ) -> None:
        self._zone = zone
        self._domain = default_domain
        self._hosts = frozenset(host.lower() for host in hosts)
        self._replays = replays
        self._last_at: float | None = None
        self._by_program: dict[str, list[Pattern]] = {}
        for pattern in patterns:
            for program in pattern.programs:
                self._by_program.setdefault(program, []).append(pattern)
        self._programs = frozenset(program.encode() for program in self._by_program)
        self._needles = _needles(patterns)
        self._own = tuple(
            syntax
            for name, syntax in OWN_FILES.items()
            if any(name == pattern.syntax for pattern in patterns)
        )
        self._pending = _Pending()
        self._open = _Open()
        self._cut = _CutLines()

    def feed(self, line: bytes, now: float) -> Sequence[Seen]:
        """What one line, with or without its line end, tells. Never raises."""
        return self.feed_block(line if line.endswith(b"\n") else line + b"\n", now)

    def feed_block(self, block: bytes, now: float) -> Sequence[Seen]:
        """What a block of whole lines tells, in their order. Never raises."""
        seen: list[Seen] = []
        for start, end in self._candidates(block):
            if end - start > MAX_LINE or self._is_another_program(block, start, end):
                continue
            line = block[start:end].removesuffix(b"\r")
            if not self._cut.goes_on(block, start, end):
                record = read_line(line.decode("utf-8", "replace"), self._reference(now), self._own)
                if record is not None:
                    seen += self.feed_record(record, now)
        self._cut.note_end(block)
        return seen

    def feed_record(self, record: LogRecord, now: float) -> Sequence[Seen]:
        """What a record tells that was read elsewhere, from the journal say. Never raises."""
        if self._hosts and record.host and record.host.lower() not in self._hosts:
            return ()
        if record.at is not None:
            self._last_at = record.at
        at = now if record.at is None else record.at
        seen: list[Seen] = []
        for pattern in self._by_program.get(record.program, ()):
            if pattern.may_come_from(record.origin):
                one = self._match(pattern, record, at)
                if one is not None:
                    seen.append(one)
        return seen[:1]

    def _candidates(self, block: bytes) -> Iterator[tuple[int, int]]:
        """Start and end of the lines that hold one of the literals."""
        starts: dict[int, int] = {}
        for needle in self._needles:
            at = block.find(needle.text)
            while at >= 0:
                if needle.leads and at and block[at - 1] not in _BEFORE_TEXT:
                    at = block.find(needle.text, at + 1)
                    continue
                end = block.find(b"\n", at)
                end = len(block) if end < 0 else end
                starts[block.rfind(b"\n", 0, at) + 1] = end
                at = block.find(needle.text, end)
        for start in sorted(starts):
            yield start, starts[start]

    def _is_another_program(self, block: bytes, start: int, end: int) -> bool:
        """Is it a line of the usual form, of a program that no pattern is for? Reading it would cost more."""
        match = _USUAL.match(block, start, end)
        return match is not None and match[1] not in self._programs

    def _reference(self, now: float) -> Reference:
        near = self._last_at if self._replays and self._last_at is not None else now
        return Reference(self._zone, now, near)

    def _match(self, pattern: Pattern, record: LogRecord, at: float) -> Seen | None:
        for form in pattern.forms:
            match = form.expression.pattern.match(record.text)
            if match is None:
                continue
            try:
                return self._seen(pattern, form, match, record, at)
            except (AddressError, IdentityError):
                return None
        return None

    def _seen(
        self, pattern: Pattern, form: Form, match: re.Match[str], record: LogRecord, at: float
    ) -> Seen | None:
        groups = match.groupdict()
        key = (pattern.name, record.host, record.program, record.pid, groups.get("key") or "")
        if form.kind == "forget":
            self._pending.take(key, at)
            return None
        user, address = self._user(groups), _address(groups)
        if form.kind == "first":
            self._pending.note(key, user, address, at)
            return None
        if form.kind == "login":
            before = self._pending.take(key, at)
            if before is not None:
                user, address = user or before.user, address or before.address
        protocol = _protocol(pattern, record, groups)
        if protocol is None:
            return None
        session = _session(pattern, record, groups, address)
        whose = (record.host, record.program, protocol, user)
        if form.kind == "logout":
            session, user, address = self._open.end(whose, session, address)
            return LogoutSeen(at, user, address, record.program, record.pid, protocol, session, pattern.name)
        if user is None or address is None:
            return None
        self._open.begin(whose, session, address)
        return LoginSeen(at, user, address, record.program, record.pid, protocol, session, pattern.name)

    def _user(self, groups: dict[str, str | None]) -> Identity | None:
        user = groups.get("user")
        if not user:
            return None
        domain = groups.get("domain")
        if domain:
            return Identity(user, domain)
        identity = Identity.parse(user)
        return identity if identity.domain or not self._domain else Identity(identity.user, self._domain)


def _address(groups: dict[str, str | None]) -> ClientAddress | None:
    text = groups.get("address")
    return ClientAddress.parse(text) if text else None


_POP3_WORDS = frozenset(("110", "995", "pass"))
_IMAP_WORDS = frozenset(("143", "993", "login"))


def _protocol(pattern: Pattern, record: LogRecord, groups: dict[str, str | None]) -> LoginProtocol | None:
    """POP3 and IMAP logins count; whatever else a program lets in (ManageSieve, submission) does not."""
    said = (groups.get("protocol") or "").lower()
    if said.startswith("pop") or said in _POP3_WORDS:
        return "pop3"
    if said.startswith("imap") or said in _IMAP_WORDS:
        return "imap"
    if said:
        return None
    return pattern.programs[record.program] or None


def _session(
    pattern: Pattern, record: LogRecord, groups: dict[str, str | None], address: ClientAddress | None
) -> str:
    """A name for the session that its login and its logout have in common, "" where there is none."""
    if not pattern.tells_logouts:
        return ""
    if groups.get("session"):
        name = groups["session"]
    elif groups.get("port") and address is not None:
        name = f"{address}/{groups['port']}"
    elif pattern.session_is_pid and record.pid:
        name = record.pid
    else:
        return ""
    return f"{record.host or '-'} {record.program}/{name}"


@value
class _Needle:
    """Text to search for. `leads`: it begins what a program wrote, so it counts only behind what can
    stand before that."""

    text: bytes
    leads: bool


_BEFORE_TEXT = frozenset(b' :"\t,\xbf')
"""A blank or colon, the quote of JSON, a field's end, the last octet of a byte order mark."""


def _needles(patterns: Sequence[Pattern]) -> list[_Needle]:
    """As few as find all lines: none whose text holds that of another one."""
    expressions = [form.expression for pattern in patterns for form in pattern.forms]
    leads: dict[bytes, bool] = {}
    for expression in expressions:
        for literal in expression.literals:
            leads[literal] = leads.get(literal, True) and expression.leads
    anywhere = [literal for literal in leads if not leads[literal]]
    return [
        _Needle(literal, leads[literal])
        for literal in sorted(leads)
        if not any(other != literal and other in literal for other in anywhere)
    ]


@value
class _First:
    """What the first line of a form of two lines named."""

    user: Identity | None
    address: ClientAddress | None
    at: float


_Key = tuple[str, str, str, str, str]


class _Pending:
    """First lines that wait for their second: the newest PENDING_AT_MOST, each for PENDING_SECONDS."""

    def __init__(self) -> None:
        self._firsts: OrderedDict[_Key, _First] = OrderedDict()

    def note(self, key: _Key, user: Identity | None, address: ClientAddress | None, at: float) -> None:
        before = self.take(key, at)
        if before is not None:  # a third line may complete two
            user, address = user or before.user, address or before.address
        self._firsts[key] = _First(user, address, at)
        if len(self._firsts) > PENDING_AT_MOST:
            self._firsts.popitem(last=False)

    def take(self, key: _Key, at: float) -> _First | None:
        first = self._firsts.pop(key, None)
        return first if first is not None and 0 <= at - first.at <= PENDING_SECONDS else None


_Whose = tuple[str, str, LoginProtocol, Identity | None]


class _Open:
    """Sessions whose end has not been seen, the newest OPEN_AT_MOST: where a logout names only its user,
    it is taken to be that of the oldest session of that user."""

    def __init__(self) -> None:
        self._sessions: OrderedDict[str, tuple[_Whose, ClientAddress]] = OrderedDict()
        self._of_user: dict[_Whose, dict[str, None]] = {}

    def begin(self, whose: _Whose, session: str, address: ClientAddress) -> None:
        if not session:
            return
        self._drop(session)
        self._sessions[session] = (whose, address)
        self._of_user.setdefault(whose, {})[session] = None
        if len(self._sessions) > OPEN_AT_MOST:
            self._drop(next(iter(self._sessions)))

    def end(
        self, whose: _Whose, session: str, address: ClientAddress | None
    ) -> tuple[str, Identity | None, ClientAddress | None]:
        """The session that a logout ends, and its user and address where logout or login names them."""
        user = whose[3]
        if not session and address is None:
            session = next(iter(self._of_user.get(whose, ())), "")
        known = self._drop(session)
        if known is not None:
            user = known[0][3] if user is None else user
            address = known[1] if address is None else address
        return session, user, address

    def _drop(self, session: str) -> tuple[_Whose, ClientAddress] | None:
        known = self._sessions.pop(session, None)
        if known is not None:
            sessions = self._of_user[known[0]]
            del sessions[session]
            if not sessions:
                del self._of_user[known[0]]
        return known


class _CutLines:
    """Lines that containers' logs cut into pieces.

    A piece that is not the first begins anywhere in what the program wrote, also where a client
    wants it to; it must never be read as a line. Kubernetes marks pieces with P, docker leaves
    out the line end of all but the last.
    """

    def __init__(self) -> None:
        self._open: set[bytes] = set()

    def goes_on(self, block: bytes, start: int, end: int) -> bool:
        """Is the line at `start` the continuation of another of its stream?"""
        stream, _ = _container(block, start, end)
        if not stream:
            return False
        at = start
        while at > 0:
            if start - at > _CONTAINER_SEARCH:
                return True  # far too long a line
            before = block.rfind(b"\n", 0, at - 1) + 1
            other, is_open = _container(block, before, at - 1)
            if other == stream:
                return is_open
            at = before
        return stream in self._open

    def note_end(self, block: bytes) -> None:
        """Remember which streams are in the middle of a line where the block ends."""
        found: set[bytes] = set()
        at = len(block)
        while at > 0 and len(block) - at < _CONTAINER_SEARCH and len(found) < 2:
            before = block.rfind(b"\n", 0, at - 1) + 1
            stream, is_open = _container(block, before, at - 1)
            if not stream:
                return
            if stream not in found:
                found.add(stream)
                (self._open.add if is_open else self._open.discard)(stream)
            at = before


_CRI_HEAD = re.compile(rb"\d{4}-[^ ]{1,40} (stdout|stderr) ([PF])")
_DOCKER_TAIL = re.compile(rb'(\\n)?","stream":"(stdout|stderr)"')


def _container(block: bytes, start: int, end: int) -> tuple[bytes, bool]:
    """The stream of a line in a container's log, b"" for other lines, and whether the line after it goes on
    where this one ends."""
    match = _CRI_HEAD.match(block, start, end)
    if match is not None:
        return match[1], match[2] == b"P"
    if block.startswith(b'{"log":"', start):
        match = _DOCKER_TAIL.search(block, max(start, end - 1024), end)
        if match is not None:
            return match[2], match[1] is None
    return b"", False
