"""Address lists of header fields (RFC 5322 3.4, with its obsolete forms) as ENVELOPE has them.

Never fails: whatever stands in the field becomes addresses. Where one has no mailbox or no domain, the
words of Dovecot stand in its place, for the grammar of IMAP has no other way to say it.
"""

import re

from popgate.message.part import Address

MISSING_MAILBOX = "MISSING_MAILBOX"
MISSING_DOMAIN = "MISSING_DOMAIN"

_TOKEN = re.compile(
    r"""(?P<space>\s++)
    |"(?P<quoted>(?:[^"\\]|\\.)*+)"?
    |(?P<literal>\[[^\]\r\n]*+\]?)
    |(?P<special>[<>,;:@()])
    |(?P<atom>(?:[^\s"()<>,;:@\[\\]|\\.?)++)""",
    re.VERBOSE | re.DOTALL,
)
_IN_COMMENT = re.compile(r"[^()\\]++|\\.?|[()]", re.DOTALL)
_ESCAPE = re.compile(r"\\(.)", re.DOTALL)
_SPACES = re.compile(r"\s++")

_Token = tuple[str, str]
_END: _Token = ("special", "")


def _tokens(text: str) -> list[_Token]:
    """Words, specials and comments; white space only tells that words stand apart."""
    found: list[_Token] = []
    at = 0
    while at < len(text):
        if text[at] == "(":
            comment, at = _comment(text, at)
            found.append(("comment", comment))
            continue
        match = _TOKEN.match(text, at)
        if match is None or match.end() == at:
            at += 1
            continue
        at = match.end()
        kind = match.lastgroup or "space"
        if kind == "quoted":
            found.append(("quoted", _ESCAPE.sub(r"\1", match["quoted"])))
        elif kind != "special" or match[0] != ")":
            found.append((kind, match[0]))
    found.append(_END)
    return found


def _comment(text: str, at: int) -> tuple[str, int]:
    pieces: list[str] = []
    depth = 0
    for match in _IN_COMMENT.finditer(text, at):
        piece = match[0]
        at = match.end()
        if piece == "(":
            depth += 1
            if depth == 1:
                continue
        elif piece == ")":
            depth -= 1
            if depth == 0:
                break
        pieces.append(piece[1:] if piece[0] == "\\" else piece)
    return "".join(pieces).strip(), at


def addresses(text: str) -> tuple[Address, ...]:
    """The addresses in the unfolded value of a field, groups opened and closed as `Address` says."""
    return tuple(_Reader(text).addresses()) if text.strip() else ()


class _Reader:
    def __init__(self, text: str) -> None:
        self.tokens = _tokens(text)
        self.at = 0
        self.in_group = False
        self.found: list[Address] = []

    def addresses(self) -> list[Address]:
        while self.tokens[self.at] is not _END:
            self._one()
        if self.in_group:
            self.found.append(Address(None, None, None, None))
        return self.found

    def _take(self, stops: str) -> tuple[list[_Token], str]:
        """Tokens up to one of the specials in `stops`, or the end, and which it was."""
        begin = self.at
        while True:
            kind, text = self.tokens[self.at]
            if kind == "special" and (not text or text in stops):
                taken = self.tokens[begin : self.at]
                self.at += bool(text)
                return taken, text
            self.at += 1

    def _one(self) -> None:
        words, stop = self._take("<@,;:")
        if stop == "<":
            self._angle(words)
        elif stop == "@":
            self._plain(words)
        elif stop == ":" and not self.in_group:
            self.found.append(Address(None, None, _phrase(words) or "", None))
            self.in_group = True
        else:
            if _has_words(words):
                self._bare(words)
            if stop == ";" and self.in_group:
                self.found.append(Address(None, None, None, None))
                self.in_group = False

    def _bare(self, words: list[_Token]) -> None:
        local = _joined(words)
        self.found.append(Address(_comment_of(words), None, local or MISSING_MAILBOX, MISSING_DOMAIN))

    def _plain(self, local: list[_Token]) -> None:
        domain, stop = self._take(",;<")
        if stop == "<":
            # someone's address as the display name, without the quotes it needs
            self._angle([*local, ("atom", "@"), *domain])
            return
        name = _comment_of(domain) or _comment_of(local)
        self.found.append(_address(name, None, _joined(local), _joined(domain)))
        self._behind(stop)

    def _angle(self, words: list[_Token]) -> None:
        inside, stop = self._take(">,:")
        route = None
        if stop in (",", ":") and inside and _first_word(inside) == ("special", "@"):
            # RFC 5322 4.4: obs-route = obs-domain-list ":"
            hops = [_joined(inside)]
            while stop == ",":
                inside, stop = self._take(">,:")
                hops.append(_joined(inside))
            if stop == ":":
                route = ",".join(hops)
                inside, stop = self._take(">,")
        local, domain = _split_at(inside)
        self.found.append(_address(_phrase(words), route, _joined(local), _joined(domain)))
        if stop == ">":
            _, stop = self._take(",;")
        self._behind(stop)

    def _behind(self, stop: str) -> None:
        if stop == ";" and self.in_group:
            self.found.append(Address(None, None, None, None))
            self.in_group = False


def _address(name: str | None, route: str | None, local: str, domain: str) -> Address:
    return Address(name, route, local or MISSING_MAILBOX, domain or MISSING_DOMAIN)


def _split_at(tokens: list[_Token]) -> tuple[list[_Token], list[_Token]]:
    for index in range(len(tokens) - 1, -1, -1):
        if tokens[index] == ("special", "@"):
            return tokens[:index], tokens[index + 1 :]
    return tokens, []


def _first_word(tokens: list[_Token]) -> _Token | None:
    return next((token for token in tokens if token[0] not in ("space", "comment")), None)


def _has_words(tokens: list[_Token]) -> bool:
    return any(kind not in ("space", "comment") for kind, _ in tokens)


def _joined(tokens: list[_Token]) -> str:
    return "".join([text for kind, text in tokens if kind not in ("space", "comment")])


def _comment_of(tokens: list[_Token]) -> str | None:
    for kind, text in tokens:
        if kind == "comment":
            return text or None
    return None


def _phrase(tokens: list[_Token]) -> str | None:
    # a comment within a phrase stands for the white space around it
    pieces = [" " if kind in ("space", "comment") else text for kind, text in tokens]
    return _SPACES.sub(" ", "".join(pieces)).strip() or None
