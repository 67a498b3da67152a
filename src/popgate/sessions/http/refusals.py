"""What is told of refused requests, one teller a listener and process.

A wrong secret in Dovecot's configuration is one mistake and thousands of requests; a program that
guesses is as many. So the same refusal of the same client is told once in ten seconds, with the
number of times it came since.
"""

from typing import Final

from popgate.sessions.session import Peer, Runtime
from popgate.values.event import Event

TOLD_AGAIN_SECONDS: Final = 10.0
_TOLD_AT_MOST: Final = 1024
_MAX_DETAIL = 200


class Refusals:
    """Emits `http.refused`."""

    def __init__(self, service: str, runtime: Runtime) -> None:
        self._service = service
        self._runtime = runtime
        self._told: dict[tuple[str, str], tuple[float, int]] = {}

    def tell(self, peer: Peer, reason: str, status: int | None, detail: str = "") -> None:
        """`status` None: the request could not be read."""
        key, now = (peer.client.text, reason), self._runtime.clock.monotonic()
        told_at, times = self._told.get(key, (float("-inf"), 0))
        if now - told_at < TOLD_AGAIN_SECONDS:
            self._told[key] = told_at, times + 1
            return
        if len(self._told) >= _TOLD_AT_MOST:
            self._told.clear()
        self._told[key] = now, 0
        fields: dict[str, str | int | float | None] = {
            "service": self._service,
            "session": peer.session,
            "client": peer.client.text,
            "reason": reason,
            "status": status,
            "detail": detail[:_MAX_DETAIL] or None,
            "times": times + 1 if times else None,
        }
        self._runtime.emit(Event("http.refused", self._runtime.clock.now(), fields))
