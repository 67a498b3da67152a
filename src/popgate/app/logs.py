"""Writes events as log lines, logfmt or JSON, one line an event.

Lines gather for a moment and leave in one write of at most PIPE_BUF octets, because several
processes share the descriptor and only such writes are never mixed on a pipe. What tells of
a fault leaves at once, with all that came before it.
"""

import json
import os
import re
import time
from collections.abc import Callable
from functools import lru_cache
from typing import Final

from popgate.values.event import Event
from popgate.values.event_json import json_members

GATHER_SECONDS: Final = 0.02
"""How old a line becomes before it is written. A process that is killed loses so much of its log."""
AT_ONCE: Final = frozenset(
    {
        "clock.step.failed",
        "follow.error",
        "grant.alarm",
        "peer.fault",
        "process.failed",
        "queue.damaged",
        "queue.fault",
        "session.defect",
        "tls.certificate.refused",
    }
)
"""Events that wait for nothing: an administrator has to act, or this process may not live much longer."""

_PIPE_BUF = 4096
_PLAIN = re.compile(r"[!#-<>-\[\]-~]*").fullmatch  # printable ASCII without space, quote, = and backslash
_MOST = 500  # characters of one value


class LogWriter:
    """An EventSink. `later(seconds, call)` is called when lines wait: loop.call_later, or None to
    write each at once."""

    def __init__(
        self,
        fd: int,
        form: str,
        later: Callable[[float, Callable[[], None]], object] | None = None,
    ) -> None:
        """`form`: "logfmt" or "json". `fd` is an open descriptor for writing."""
        self._fd = fd
        self._render = render_json if form == "json" else render_logfmt
        self._later = later
        self._lines: list[str] = []
        self._octets = 0
        self._is_awaited = False  # one timer at the most

    def __call__(self, event: Event) -> None:
        line = self._render(event)  # ASCII: as many octets as characters
        if self._octets + len(line) > _PIPE_BUF:
            self.flush()
        self._lines.append(line)
        self._octets += len(line)
        if self._later is None or self._octets >= _PIPE_BUF or event.name in AT_ONCE:
            self.flush()
        elif not self._is_awaited:
            self._is_awaited = True
            self._later(GATHER_SECONDS, self._gathered)

    def _gathered(self) -> None:
        self._is_awaited = False
        self.flush()

    def flush(self) -> None:
        """Write what waits. A log that cannot be written is not worth a lost message: errors are dropped."""
        if not self._lines:
            return
        lines, self._lines = self._lines, []
        self._octets = 0
        try:
            os.write(self._fd, "".join(lines).encode("ascii", "backslashreplace"))
        except OSError:
            pass

    def close(self) -> None:
        """Write what waits; what comes after that is written at once. The descriptor stays open."""
        self._later = None
        self.flush()


def render_logfmt(event: Event) -> str:
    """`TIME NAME key=value ...` with a line end; values are quoted where that is needed."""
    line = f"{_stamp(event.at)} {event.name}"
    texts = ""  # of all fields, so that one look tells of all
    for key, field in event.fields.items():
        if field is not None:
            line += f" {key}={field}"
            if type(field) is str:
                if not field:
                    break
                texts += field
    else:
        if len(texts) <= _MOST and _PLAIN(texts):
            return line + "\n"
    return _render_quoted(event)


def _render_quoted(event: Event) -> str:
    parts = [_stamp(event.at), event.name]
    for key, field in event.fields.items():
        if field is not None:
            text = str(field)[:_MOST]
            parts.append(f"{key}={text if text and _PLAIN(text) else json.dumps(text)}")
    return " ".join(parts) + "\n"


def render_json(event: Event) -> str:
    """One JSON object with `at` (RFC 3339), `event` and the fields."""
    return f'{{"at":"{_stamp(event.at)}",{json_members(event, _MOST)}}}\n'


_millisecond = -1
_stamp_text = ""


def _stamp(at: float) -> str:
    """RFC 3339. The events of one session follow each other within a millisecond."""
    global _millisecond, _stamp_text
    millisecond = int(at * 1000)
    if millisecond != _millisecond:
        _millisecond = millisecond
        seconds, rest = divmod(millisecond, 1000)
        _stamp_text = f"{_second_text(seconds)}.{rest:03d}Z"
    return _stamp_text


@lru_cache(maxsize=1)
def _second_text(seconds: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))
