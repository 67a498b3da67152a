"""Bounds on what deliveries hold at the same time."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class MemoryBound:
    """At most `octets` of message content in memory; a larger message passes alone. First come,
    first served, so that a large message is not overtaken for ever."""

    def __init__(self, octets: int) -> None:
        self._most = octets
        self.held = 0
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()

    @asynccontextmanager
    async def hold(self, octets: int) -> AsyncIterator[None]:
        if self._waiting or not self._fits(octets):
            turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiting.append((octets, turn))
            try:
                await turn
            except BaseException:
                if turn.done() and not turn.cancelled():
                    self._give_back(octets)
                else:
                    self._waiting = deque(entry for entry in self._waiting if entry[1] is not turn)
                    self._admit()
                raise
        else:
            self.held += octets
        try:
            yield
        finally:
            self._give_back(octets)

    def _fits(self, octets: int) -> bool:
        return self.held == 0 or self.held + octets <= self._most

    def _give_back(self, octets: int) -> None:
        self.held -= octets
        self._admit()

    def _admit(self) -> None:
        while self._waiting and self._fits(self._waiting[0][0]):
            octets, turn = self._waiting.popleft()
            if not turn.cancelled():
                self.held += octets
                turn.set_result(None)
