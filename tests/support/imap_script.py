"""Scripted dialogues with an IMAP server: text files in groups, run by the strict client.

    # a comment
    GROUP name                 a new mailbox `$box`, selected by connection 1
    STATE none|auth            instead: connected only, or logged in with $box made
    NEED CAPABILITY ...        skipped where one of them is not offered; `A|B`: one of these
    SKIP server reason         skipped for that server
    FILL name ...              messages put into $box before it is selected; a number: so many small ones
    C: line                    a command; the tag is added. `2C:` by a second connection (logged in,
                               nothing selected), and so for all that follow. Several C: lines in a row
                               are sent in one piece.
    R: octets                  as they stand, with \\r \\n \\x00 and no tag
    S: * pattern               untagged data that must have come before the next status line
    N: * pattern               data that must not have come before it
    S: OK [code]               the end of the oldest command; OK, NO, BAD, or several: `NO|BAD`
    S: +                       a continuation request
    W: * pattern               data that must come, now or within some seconds
    CLOSED                     the server closes here

In commands and patterns `$name` is a variable: what a pattern met there first. `$(name+1)` adds.
`<<name>>` is a literal with a message of messages.txt (`<<name+>>` does not wait, `~<<name>>` is a
literal8, `<<'text'>>` has its text, `<<#1000>>` so many octets); in patterns it is the message,
`<<name/header>>` and `<<name/text>>` its halves. In patterns `?` is any one thing and `...` any more;
flags and attributes have no order, FETCH, STATUS and ESEARCH go by their items' names.
"""

import base64
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from support.imap_client import Broken, Closed, ImapClient, connect
from support.imap_site import ImapSite
from support.imap_wire import Node, Response, numbers, tree

WAIT_SECONDS = 5.0


@dataclass
class Group:
    name: str
    state: str = "selected"
    needs: list[str] = field(default_factory=list)
    skips: dict[str, str] = field(default_factory=dict)
    fill: list[str] = field(default_factory=list)
    steps: list[tuple[int, str, str]] = field(default_factory=list)


def read_groups(directory: Path) -> list[Group]:
    """All groups of all files; raises AssertionError for a line that is none of the above."""
    groups: list[Group] = []
    for path in sorted(directory.glob("*.txt")):
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            word, _, rest = line.partition(" ")
            if not line or line.startswith("#"):
                continue
            if word == "GROUP":
                groups.append(Group(f"{path.stem}-{rest}"))
                continue
            group = groups[-1]
            if word == "STATE":
                group.state = rest
            elif word == "NEED":
                group.needs += rest.split()
            elif word == "SKIP":
                server, _, reason = rest.partition(" ")
                group.skips[server] = reason
            elif word == "FILL":
                group.fill += rest.split()
            elif step := re.fullmatch(r"([2-9]?)([CRSNW]):|([2-9]?)(CLOSED)", word):
                connection = int(step[1] or step[3] or 1)
                group.steps.append((connection, step[2] or step[4], rest))
            else:
                raise AssertionError(f"{path.name}:{number}: {line}")
    return groups


def read_messages(path: Path) -> dict[str, bytes]:
    """`== name` begins a message, `\\xNN` is an octet."""
    found: dict[str, list[str]] = {}
    lines: list[str] = []
    for line in path.read_text(encoding="ascii").splitlines():
        if line.startswith("== "):
            lines = found.setdefault(line[3:], [])
        elif line != "==":
            lines.append(line)
    return {name: _octets("\r\n".join(lines)) + b"\r\n" for name, lines in found.items()}


def _octets(text: str) -> bytes:
    return re.sub(rb"\\x([0-9a-f]{2})", lambda match: bytes([int(match[1], 16)]), text.encode())


def _escaped(text: str) -> bytes:
    return text.encode().decode("unicode_escape").encode("latin-1")


# Patterns

_TOKEN = re.compile(
    r"\s*(?:(?P<open>\()|(?P<close>\))|\"(?P<quoted>(?:\\.|[^\"\\])*)\"|<<(?P<message>[^>]*)>>"
    r"|(?P<atom>(?:[^\s()\"\[<]|<(?!<))*(?:\[[^\]]*\](?:<\d+>)?)?[^\s()\"]*))"
)


def pattern_nodes(text: str, messages: dict[str, bytes]) -> list[Node]:
    levels: list[list[Node]] = [[]]
    at = 0
    text = text.rstrip()
    while at < len(text):
        token = _TOKEN.match(text, at)
        assert token and token.end() > at, f"{text!r} at {text[at:]!r}"
        at = token.end()
        if token["open"]:
            levels.append([])
        elif token["close"]:
            closed = levels.pop()
            levels[-1].append(closed)
        elif token["quoted"] is not None:
            levels[-1].append(_escaped(token["quoted"]))
        elif token["message"]:
            levels[-1].append(message_part(token["message"], messages))
        else:
            levels[-1].append(None if token["atom"] == "NIL" else token["atom"])
    assert len(levels) == 1, text
    return levels[0]


def message_part(name: str, messages: dict[str, bytes]) -> bytes:
    if name.startswith("'"):
        return _escaped(name[1:-1])
    if name.startswith("#"):
        return (b"Subject: long\r\n\r\n" + b"0123456789abcdef" * 62 + b"\r\n" * (int(name[1:]) // 1000 + 1))[
            : int(name[1:]) - 2
        ].ljust(int(name[1:]) - 2, b"x") + b"\r\n"
    name, _, part = name.partition("/")
    header, _, text = messages[name].partition(b"\r\n\r\n")
    return {"": messages[name], "header": header + b"\r\n\r\n", "text": text}[part]


def _text(node: Node) -> str | None:
    return node.decode("latin-1") if isinstance(node, bytes) else node if isinstance(node, str) else None


class Matcher:
    """Compares; `variables` gains what unbound names met, if all of it fits."""

    def __init__(self, variables: dict[str, str]) -> None:
        self.variables = variables

    def node(self, wanted: Node, got: Node) -> bool:
        if isinstance(wanted, list):
            return isinstance(got, list) and self.nodes(wanted, got)
        if wanted == "?":
            return True
        if isinstance(wanted, str) and (name := re.fullmatch(r"\$(\w+)", wanted)):
            text = _text(got)
            if text is None:
                return False
            return self.variables.setdefault(name[1], text) == text
        if wanted is None or got is None:
            return wanted is got
        if isinstance(got, list):
            return False
        left, right = _text(wanted) or "", _text(got) or ""
        if left.endswith("..."):
            return right.lower().startswith(left[:-3].lower())
        return left == right if isinstance(wanted, bytes) else left.lower() == right.lower()

    def nodes(self, wanted: list[Node], got: list[Node]) -> bool:
        if wanted and wanted[-1] == "...":
            wanted = wanted[:-1]
            got = got[: len(wanted)]
        return len(wanted) == len(got) and all(map(self.node, wanted, got))

    def any_order(self, wanted: Node, got: Node) -> bool:
        """Lists of flags or attributes."""
        if wanted == "?":
            return True
        if not isinstance(wanted, list) or not isinstance(got, list):
            return False
        left = [node for node in wanted if node != "..."]
        rest = list(got)
        for node in left:
            found = next((each for each in rest if self.node(node, each)), ...)
            if found is ...:
                return False
            rest.remove(found)
        return not rest or len(left) < len(wanted)

    def pairs(self, wanted: list[Node], got: list[Node], *, exact: bool) -> bool:
        theirs = {str(_text(got[i])).upper(): got[i + 1] for i in range(0, len(got) - 1, 2)}
        ours = {str(_text(wanted[i])).upper(): wanted[i + 1] for i in range(0, len(wanted) - 1, 2)}
        for name, value in ours.items():
            if name not in theirs:
                return False
            compare = self.any_order if name == "FLAGS" else self.sets if name == "ALL" else self.node
            if not compare(value, theirs[name]):
                return False
        return not exact or ours.keys() == theirs.keys()

    def sets(self, wanted: Node, got: Node) -> bool:
        left, right = _text(wanted) or "", _text(got) or ""
        if left == "?" or left.startswith("$"):
            return self.node(wanted, got)
        return sorted(numbers(left)) == sorted(numbers(right))

    def untagged(self, wanted: list[Node], response: Response) -> bool:
        if response.kind in ("OK", "NO", "BAD", "BYE", "PREAUTH"):
            return self.status(wanted, response)
        got = tree(response.raw[2:])
        first = (_text(wanted[0]) or "").upper()
        second = (_text(wanted[1]) or "").upper() if len(wanted) > 1 else ""
        if response.kind == "FETCH":
            is_fetch = second == "FETCH" and self.node(wanted[0], got[0])
            return is_fetch and self.pairs(_list(wanted[2]), _list(got[2]), exact=wanted[-1] == "exactly")
        if first != response.kind and second != response.kind:
            return False
        if response.kind == "STATUS":
            return self.node(wanted[1], got[1]) and self.pairs(_list(wanted[2]), _list(got[2]), exact=True)
        if response.kind == "ESEARCH":
            return self._esearch(wanted, got)
        if response.kind in ("LIST", "LSUB"):
            return self.any_order(wanted[1], got[1]) and self.nodes(wanted[2:], got[2:])
        if response.kind == "FLAGS":
            return self.any_order(wanted[1], got[1])
        if response.kind in ("SEARCH", "CAPABILITY", "ENABLED"):
            return self.any_order(wanted[1:], got[1:])
        if response.kind == "VANISHED":
            return wanted[1:-1] == got[1:-1] and self.sets(wanted[-1], got[-1])
        return self.nodes(wanted, got)

    def _esearch(self, wanted: list[Node], got: list[Node]) -> bool:
        def rest(nodes: list[Node]) -> tuple[bool, list[Node]]:
            left = [node for node in nodes[1:] if not isinstance(node, list)]
            is_uid = "UID" in left
            return is_uid, [node for node in left if node != "UID"]

        (ours_uid, ours), (theirs_uid, theirs) = rest(wanted), rest(got)
        return ours_uid == theirs_uid and self.pairs(ours, theirs, exact=True)

    def status(self, wanted: list[Node], response: Response) -> bool:
        """`OK`, or `OK [CODE values]`."""
        if response.kind not in (_text(wanted[0]) or "").upper().split("|"):
            return False
        if len(wanted) == 1:
            return True
        inside = re.fullmatch(r"\[(.*)\]", _text(wanted[1]) or "")
        assert inside, wanted
        nodes = pattern_nodes(inside[1], {})
        if _text(nodes[0]) != response.code:
            return False
        if response.code == "PERMANENTFLAGS":
            return self.any_order(nodes[1], response.code_values[0])
        if response.code in ("COPYUID", "APPENDUID", "MODIFIED"):
            return len(nodes) == len(response.code_values) + 1 and all(
                self.node(a, b) or (not str(a).startswith("$") and numbers(str(a)) == numbers(str(b)))
                for a, b in zip(nodes[1:], response.code_values, strict=True)
            )
        return self.nodes(nodes[1:], response.code_values)


def _list(node: Node) -> list[Node]:
    assert isinstance(node, list)
    return node


class Talk:
    """One connection of a group."""

    def __init__(self, client: ImapClient) -> None:
        self.client = client
        self.tags: list[str] = []
        self.early: dict[str, Response] = {}
        self.wanted: list[str] = []
        self.unwanted: list[str] = []


class Script:
    """Runs one group against a server."""

    def __init__(self, site: ImapSite, group: Group, messages: dict[str, bytes]) -> None:
        self.site, self.group, self.messages = site, group, messages
        name, word = site.user.encode(), site.password.encode()
        self.variables = {
            "box": re.sub(r"[^a-z0-9-]", "", group.name.lower()),
            "user": site.user,
            "password": site.password,
            "user64": base64.b64encode(name).decode(),
            "password64": base64.b64encode(word).decode(),
            "plain64": base64.b64encode(b"\0" + name + b"\0" + word).decode(),
            "wrong64": base64.b64encode(b"\0" + name + b"\0wrong").decode(),
        }
        self.talks: dict[int, Talk] = {}
        self.queued: list[tuple[int, str]] = []

    def skip_reason(self, capabilities: frozenset[str]) -> str:
        if reason := self.group.skips.get(self.site.server):
            return f"{self.site.server}: {reason}"
        offered = capabilities | {name.partition("=")[0] for name in capabilities}  # APPENDLIMIT=35651584
        for need in self.group.needs:
            if not set(need.upper().split("|")) & offered:
                return f"{self.site.server} does not offer {need}"
        return ""

    def run(self) -> str:
        """Raises AssertionError for the first difference; returns why it was skipped, or "" ."""
        with connect(self.site) as owner:
            if reason := self.skip_reason(owner.capabilities):
                return reason
            if self.group.state != "none":
                owner.command(f"DELETE {self.variables['box']}")
                owner.ok(f"CREATE {self.variables['box']}")
                for content in self._filling():
                    owner.ok(f"APPEND {self.variables['box']} %s", content)
        word, rest = "", "before the first step"
        try:
            self._talk(1)
            for connection, word, rest in self.group.steps:
                self._step(connection, word, rest)
            self._flush()
        except (AssertionError, OSError) as fault:
            logs = "\n".join(f"-- connection {n}\n{talk.client.tail}" for n, talk in self.talks.items())
            raise AssertionError(f"{self.group.name}: {word}: {rest}\n{fault}\n{logs}") from fault
        finally:
            for talk in self.talks.values():
                talk.client.close()
        return ""

    def _filling(self) -> Iterator[bytes]:
        for name in self.group.fill:
            if name.isdigit():
                for number in range(1, int(name) + 1):
                    yield b"Subject: number %d\r\n\r\nbody %d\r\n" % (number, number)
            else:
                yield message_part(name, self.messages)

    def _talk(self, number: int) -> Talk:
        if number not in self.talks:
            is_bare = self.group.state == "none"
            talk = Talk(ImapClient(self.site) if is_bare else connect(self.site))
            self.talks[number] = talk
            if number == 1 and self.group.state == "selected":
                talk.client.ok(f"SELECT {self.variables['box']}")
        return self.talks[number]

    def _substituted(self, text: str, *, is_pattern: bool = False) -> str:
        def value(match: re.Match[str]) -> str:
            name = match[1] or match[2]
            if name not in self.variables:
                return match[0]
            known = self.variables[name]
            if match[3]:
                return str(int(known) + int(match[3]))
            return f'"{known}"' if is_pattern and re.search(r"[ ()]", known) else known

        return re.sub(r"\$(?:(\w+)|\((\w+)\+(\d+)\))", value, text)

    def _step(self, connection: int, word: str, rest: str) -> None:
        if word == "C" and (not self.queued or self.queued[0][0] == connection):
            self.queued.append((connection, rest))
            return
        self._flush()
        talk = self._talk(connection)
        if word == "C":
            self.queued.append((connection, rest))
        elif word == "R":
            talk.client.write(_escaped(self._substituted(rest)))
        elif word == "N":
            talk.unwanted.append(rest[2:])
        elif word == "S" and rest.startswith("* "):
            talk.wanted.append(rest[2:])
        elif word == "S" and rest.startswith("+"):
            talk.client.until_continued()
        elif word == "S":
            self._status(talk, rest)
        elif word == "W":
            self._wait(talk, rest[2:])
        else:
            assert talk.client.at_end()

    # Sending

    def _pieces(self, line: str) -> list[tuple[bytes, bool]]:
        """What is sent in one go, and whether a continuation is awaited after it."""
        pieces: list[tuple[bytes, bool]] = []
        now = b""
        for part in re.split(r"(~?<<[^>]*>>)", line):
            literal = re.fullmatch(r"(~?)<<(.*?)(\+?)>>", part)
            if not literal:
                now += self._substituted(part).encode()
                continue
            content = message_part(literal[2], self.messages)
            now += b"%s{%d%s}\r\n" % (literal[1].encode(), len(content), literal[3].encode())
            if not literal[3]:
                pieces.append((now, True))
                now = b""
            now += content
        return [*pieces, (now + b"\r\n", False)]

    def _flush(self) -> None:
        lines, self.queued = self.queued, []
        if not lines:
            return
        talk = self._talk(lines[0][0])
        gathered = b""
        for _, line in lines:
            pieces = self._pieces(line)
            tag = talk.client.start(pieces[0][0].rstrip())
            talk.tags.append(tag)
            gathered += tag.encode() + b" "
            for octets, awaits in pieces:
                gathered += octets
                if awaits:
                    talk.client.write(gathered)
                    gathered = b""
                    if not self._continues(talk, tag):
                        break
            else:
                continue
            break
        if gathered:
            talk.client.write(gathered)

    def _continues(self, talk: Talk, tag: str) -> bool:
        while True:
            response = talk.client.read()
            if response.tag == "+":
                return True
            if response.tag == tag:
                talk.early[tag] = response
                return False
            talk.client.untagged.append(response)

    # Checking

    def _status(self, talk: Talk, pattern: str) -> None:
        tag = talk.tags.pop(0)
        while tag not in talk.early:  # RFC 9051 5.5: what was sent in one piece may end in any order
            response = talk.client.read()
            if response.tag == "*":
                talk.client.untagged.append(response)
            else:
                talk.early[response.tag] = response
        tagged = talk.early.pop(tag)
        untagged, talk.client.untagged = talk.client.untagged, []
        wanted, talk.wanted, unwanted, talk.unwanted = talk.wanted, [], talk.unwanted, []
        if not self._matches(pattern, tagged):
            raise Broken(f"{tagged.raw!r} instead of {pattern}")
        left = list(untagged)
        for each in wanted:
            found = next((response for response in left if self._matches(each, response)), None)
            if found is None:
                raise Broken(f"no {self._substituted(each)} among {[response.raw for response in left]}")
            left.remove(found)
        for each in unwanted:
            for response in untagged:
                if self._matches(each, response):
                    raise Broken(f"{response.raw!r}, which must not come: {each}")
        if talk.tags:
            talk.client.untagged = left

    def _matches(self, pattern: str, response: Response) -> bool:
        trial = dict(self.variables)
        text = self._substituted(pattern, is_pattern=True)
        nodes = _status_nodes(text) or pattern_nodes(text, self.messages)
        matcher = Matcher(trial)
        fits = matcher.untagged(nodes, response)
        if fits:
            self.variables = trial
        return fits

    def _wait(self, talk: Talk, pattern: str) -> None:
        """A response that fits is taken away, the others stay for the command's end."""
        while True:
            for response in talk.client.untagged:
                if self._matches(pattern, response):
                    talk.client.untagged.remove(response)
                    return
            try:
                if talk.client.wait(WAIT_SECONDS) is None:
                    raise Broken(f"{pattern} has not come in {WAIT_SECONDS} s")
            except Closed:
                raise Broken(f"{pattern} has not come") from None


def _status_nodes(pattern: str) -> list[Node] | None:
    status = re.fullmatch(r"((?:OK|NO|BAD|BYE|PREAUTH|\|)+)(?: (\[.*\]))?", pattern)
    return [status[1], *([status[2]] if status[2] else [])] if status else None
