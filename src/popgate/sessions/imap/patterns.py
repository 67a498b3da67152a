"""Names of mailboxes against LIST's patterns, in time that grows with the name alone.

A pattern is a row of characters and wildcards, and how far along it a name can have come is a set of
places: the bits of one number. Each character of the name moves all of them at once, so
no pattern is slower than another of its length, however its wildcards lie.
"""

DELIMITER = "/"


class Pattern:
    """RFC 9051 6.3.9: `*` is anything, `%` anything without the delimiter. INBOX is INBOX in any letters."""

    __slots__ = ("_any", "_end", "_least", "_level", "_places")

    def __init__(self, text: str) -> None:
        if text[:5].upper() == "INBOX" and text[5:6] in ("", DELIMITER):
            text = "INBOX" + text[5:]
        self._places: dict[str, int] = {}
        self._any = self._level = 0
        self._least = 0
        place = 0
        before = ""
        for char in text:
            if char in "*%":
                if before in ("*", "%"):
                    # A row of wildcards is one: `*` where there is one among them
                    if char == "*" and before == "%":
                        self._level &= ~(1 << (place - 1))
                        self._any |= 1 << (place - 1)
                        before = "*"
                    continue
                if char == "*":
                    self._any |= 1 << place
                else:
                    self._level |= 1 << place
            else:
                self._places[char] = self._places.get(char, 0) | 1 << place
                self._least += 1
            before = char
            place += 1
        self._end = 1 << place

    def matches(self, name: str) -> bool:
        if len(name) < self._least:
            return False
        if name == "INBOX" and self._matches("inbox"):
            return True
        return self._matches(name)

    def _matches(self, name: str) -> bool:
        wild = self._any | self._level
        reached = 1
        reached |= (reached & wild) << 1
        for char in name:
            stay = self._any if char == DELIMITER else wild
            reached = (reached & self._places.get(char, 0)) << 1 | reached & stay
            if not reached:
                return False
            reached |= (reached & wild) << 1
        return bool(reached & self._end)
