"""Answers whoson commands that come in datagrams; each worker reads what it gets hold of.

A datagram that is no command gets no answer: an answer of ours that came back to us from another
such server would be answered without end. It knows no grants; whoever makes it lends it `answer`.
"""

import asyncio
import socket
from collections.abc import Callable

from popgate.protocols.whoson import MAX_LINE_OCTETS, Command, read_command
from popgate.servers import datagrams

DATAGRAMS_A_TURN = 64
_LINE_ENDS = 4


class WhosonDatagrams:
    """One socket, which it takes over. `answer` gives what is sent back, for a command of a session."""

    def __init__(
        self, bound: socket.socket, answer: Callable[[Command, str], bytes], token: Callable[[], str]
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._socket = bound
        self._answer = answer
        self._token = token
        self.connections: tuple[()] = ()  # an answer is given in the turn in which the command came
        self._loop.add_reader(bound.fileno(), self._read)

    def close(self) -> None:
        """Take what has come in, then no more."""
        if self._socket.fileno() >= 0:
            self._read()
            self._loop.remove_reader(self._socket.fileno())
            self._socket.close()

    def tick(self) -> None:
        """Nothing has a deadline here."""

    def drain(self, *, is_last: bool = False) -> None:
        """There is nothing to wait for."""

    def abort(self, reason: str = "shutdown") -> None:
        """There is nothing to end."""

    def _read(self) -> None:
        for _ in range(DATAGRAMS_A_TURN):
            try:
                datagram = datagrams.receive(self._socket, MAX_LINE_OCTETS + _LINE_ENDS + 1)
            except BlockingIOError:
                return
            except OSError:
                continue  # an answer that found nobody comes back as an error
            line = datagram.data.rstrip(b"\r\n")
            command = read_command(line) if b"\n" not in line else None
            if command is None or command.verb == "QUIT" or datagram.caller is None:
                continue
            try:
                datagrams.answer(self._socket, datagram, self._answer(command, self._token()[:11]))
            except OSError:
                pass  # a full buffer, or no way back; whoever asked asks again
