"""Events of one session: each carries whose they are."""

from popgate.sessions.session import Peer, Runtime
from popgate.values.event import Event


class Telling:
    """Call it with an event's name and its fields; session and client are added."""

    __slots__ = ("_peer", "_runtime")

    def __init__(self, peer: Peer, runtime: Runtime) -> None:
        self._peer = peer
        self._runtime = runtime

    def __call__(self, event_name: str, /, **fields: str | int | float | None) -> None:
        fields["session"] = self._peer.session
        fields["client"] = self._peer.client.text
        self._runtime.emit(Event(event_name, self._runtime.clock.now(), fields))
