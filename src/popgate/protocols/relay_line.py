"""Our own protocol for any other program: a line asks, a word answers.

    question = verb 1*( SP field ) LF          a CR before the LF is passed over
    relay ADDRESS                              may the address relay at all?
    relay ADDRESS SENDER [RECIPIENT]           may it relay this? an empty SENDER is the null sender
    charge ADDRESS SENDER RECIPIENTS OCTETS    the same of a whole message, which is then counted
    identity ADDRESS [SENDER]                  as whom?
    answer   = "yes" / "yes" SP identity / "no" / "defer" / "error"

Only "yes" permits; "identity" alone is answered with an identity, and with "yes" alone for a trusted
network. "error" is for what is no question. With `line_end` each answer ends in LF and the
connection stays open; without, for programs that take the answer as it comes, the connection
is closed behind the first answer.
"""

from typing import Final

from popgate.protocols.questions import QuestionServer
from popgate.values.value import value

MAX_LINE_OCTETS: Final = 2048
MOST_ERRORS: Final = 20

_FIELDS = {"relay": (1, 3), "charge": (4, 4), "identity": (1, 2)}


@value
class LineQuestion:
    """A question with as many fields as its verb takes, not looked at. Octets that are not UTF-8 are
    replaced. Answer it with one of YES, NO and DEFER, or `yes_as`."""

    verb: str
    fields: tuple[str, ...]


YES: Final = b"yes"
NO: Final = b"no"
DEFER: Final = b"defer"


def yes_as(identity: str) -> bytes:
    return b"yes " + identity.encode("ascii", "replace")


class RelayLineServer(QuestionServer):
    """Events are LineQuestion."""

    def __init__(self, *, line_end: bool = True) -> None:
        super().__init__()
        self._line_end = b"\n" if line_end else b""
        self._errors = 0

    def _read(self) -> LineQuestion | None:
        while (line := self._take_line(MAX_LINE_OCTETS)) is not None:
            verb, *fields = line.removesuffix(b"\r").decode("utf-8", "replace").split(" ")
            least, most = _FIELDS.get(verb, (0, -1))
            if least <= len(fields) <= most:
                return LineQuestion(verb, tuple(fields))
            self._output.append(b"error" + self._line_end)
            self._errors += 1
            if self._errors >= MOST_ERRORS or not self._line_end:
                self._end("errors")
                return None
        return None

    def answer(self, wire: bytes) -> None:
        super().answer(wire + self._line_end)
        if not self._line_end:
            self._end("quit")
