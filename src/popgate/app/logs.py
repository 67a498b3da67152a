"""Writes events as log lines, logfmt or JSON, one line an event.

The lines of one turn of the loop leave in one write of at most PIPE_BUF octets, because
several processes share the descriptor and only such writes are never mixed on a pipe.
"""

import json
import os
import re
import time
from collections.abc import Callable

from popgate.values.event import Event

_PIPE_BUF = 4096
_PLAIN = re.compile(r"[!#-<>-\[\]-~]+").fullmatch  # printable ASCII without space, quote, = and backslash
_MOST = 500  # characters of one value
# The same for short values joined by NUL, so that one call looks at a whole event
_ALL_PLAIN = re.compile(r"[!#-<>-\[\]-~]{1,500}(?:\0[!#-<>-\[\]-~]{1,500})*").fullmatch


class LogWriter:
    """An EventSink. `schedule(flush)` is called when lines wait: loop.call_soon, or None to write at once."""

    def __init__(
        self, fd: int, form: str, schedule: Callable[[Callable[[], None]], object] | None = None
    ) -> None:
        """`form`: "logfmt" or "json". `fd` is an open descriptor for writing."""
        self._fd = fd
        self._render = render_json if form == "json" else render_logfmt
        self._schedule = schedule
        self._lines: list[str] = []

    def __call__(self, event: Event) -> None:
        lines = self._lines
        lines.append(self._render(event))
        if self._schedule is None:
            self.flush()
        elif len(lines) == 1:
            self._schedule(self.flush)

    def flush(self) -> None:
        """Write what waits. A log that cannot be written is not worth a lost message: errors are dropped."""
        lines, self._lines = self._lines, []
        block = b""
        for line in lines:
            octets = line.encode("utf-8", "backslashreplace")
            if len(block) + len(octets) > _PIPE_BUF and block:
                self._write(block)
                block = b""
            block += octets
        if block:
            self._write(block)

    def _write(self, block: bytes) -> None:
        try:
            os.write(self._fd, block)
        except OSError:
            pass


def render_logfmt(event: Event) -> str:
    """`TIME NAME key=value ...` with a line end; values are quoted where that is needed."""
    keys = [key for key, item in event.fields.items() if item is not None]
    texts = [item if type(item) is str else str(item) for item in event.fields.values() if item is not None]
    if _ALL_PLAIN("\0".join(texts)):
        pairs = " ".join(["%s=%s" % pair for pair in zip(keys, texts, strict=True)])
        return f"{_stamp(event.at)} {event.name} {pairs}\n"
    parts = [_stamp(event.at), event.name]
    for key, item in event.fields.items():
        if item is None:
            continue
        text = item if isinstance(item, str) else str(item)
        if not _PLAIN(text):
            text = json.dumps(text[:_MOST])
        elif len(text) > _MOST:
            text = text[:_MOST]
        parts.append(f"{key}={text}")
    parts.append("\n")
    return " ".join(parts[:-1]) + "\n"


def render_json(event: Event) -> str:
    """One JSON object with `at` (RFC 3339), `event` and the fields."""
    document: dict[str, object] = {"at": _stamp(event.at), "event": event.name}
    for key, item in event.fields.items():
        if item is not None:
            document[key] = item[:_MOST] if isinstance(item, str) else item
    return json.dumps(document) + "\n"


_second = -1
_second_text = ""


def _stamp(at: float) -> str:
    global _second, _second_text
    second = int(at)
    if second != _second:
        _second, _second_text = second, time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))
    return f"{_second_text}.{int((at - second) * 1000):03d}Z"
