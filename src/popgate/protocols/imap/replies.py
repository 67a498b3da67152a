"""What a session answers to an event of the engine."""

from collections.abc import Callable, Iterator
from typing import Literal

from popgate.values.value import value

Status = Literal["OK", "NO", "BAD", ""]


@value
class Reply:
    """The answer to a command.

    `status` and `text` make the tagged line (`text` with its response code in front, no CRLF);
    the status "" is for events that want leave to go on: AppendMessage and Idle.
    `untagged`: whole lines with CRLF, sent before it. `source`: a long answer in blocks of the wire
    form, sent between the two while the client reads; `ending`, asked when the source is at its
    end, gives `status` and `text` anew, for what came to light on the way. `closes`: the
    connection ends after it.
    """

    status: Status
    text: bytes = b""
    untagged: bytes = b""
    source: Iterator[bytes] | None = None
    ending: Callable[[], tuple[Status, bytes]] | None = None
    closes: bool = False

    @property
    def is_ok(self) -> bool:
        return self.status in ("OK", "")


GO_ON = Reply("")
