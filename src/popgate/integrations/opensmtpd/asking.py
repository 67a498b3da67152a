"""Asks a popgate that is running whether an address may relay, and never waits longer than it may.

One connection is kept. A question that is not answered as it should be closes it, so that no late answer
is ever taken for that of the next question. popgate may have been started anew since the last
question, so a connection that turns out to be closed is made anew, once, within the same deadline.

Who hangs is left alone for as long as he was waited for: smtpd asks one question at a time and waits
for each, so a queue of questions must not wait for the deadline each.
"""

import socket
import time
from collections.abc import Callable
from typing import Final

from popgate.integrations.opensmtpd.settings import TableSettings
from popgate.protocols.relay_line import DEFER, NO, YES
from popgate.values.address import ClientAddress

_MOST_OCTETS: Final = 512  # of an answer; the ones that count have four


class Unanswered(Exception):
    """popgate did not say yes or no; says why."""


class _Gone(Exception):
    """The connection was closed before anything was answered."""


class Asker:
    """Asks over `settings.socket`."""

    def __init__(self, settings: TableSettings, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._settings = settings
        self._monotonic = monotonic
        self._connection: socket.socket | None = None
        self._rests_until: float | None = None
        self._hung = f"popgate does not answer within {settings.deadline_seconds:g} seconds"

    def may_relay(self, address: ClientAddress) -> bool:
        """Has the address a grant now? Raises Unanswered."""
        now = self._monotonic()
        if self._rests_until is not None:
            if now < self._rests_until:
                raise Unanswered(self._hung)
            self._rests_until = None
        deadline = now + self._settings.deadline_seconds
        question = b"relay %s\n" % address.text.encode("ascii")
        try:
            return self._ask(question, deadline)
        except TimeoutError:
            self._rests_until = self._monotonic() + self._settings.deadline_seconds
            raise Unanswered(self._hung) from None

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _ask(self, question: bytes, deadline: float) -> bool:
        is_answered = False
        try:
            if self._connection is not None and self._is_quiet(self._connection):
                try:
                    answer = self._exchange(self._connection, question, deadline)
                except _Gone:
                    answer = self._exchange(self._connect(deadline), question, deadline)
            else:
                answer = self._exchange(self._connect(deadline), question, deadline)
            if answer == DEFER:
                raise Unanswered("popgate cannot read its grants now")
            if answer not in (YES, NO):
                raise Unanswered(f"popgate answered {answer[:40]!r}")
            is_answered = True
            return answer == YES
        except _Gone:
            raise Unanswered("popgate closes the connection without an answer") from None
        finally:
            if not is_answered:
                self.close()

    def _connect(self, deadline: float) -> socket.socket:
        self.close()
        connection = self._connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            connection.settimeout(self._left(deadline))
            connection.connect(self._settings.socket)
        except TimeoutError:
            raise
        except OSError as error:
            why = error.strerror or str(error)
            raise Unanswered(f"cannot connect to {self._settings.socket}: {why}") from None
        return connection

    @staticmethod
    def _is_quiet(connection: socket.socket) -> bool:
        """Is it open still, with nothing that came unasked?"""
        try:
            connection.setblocking(False)
            connection.recv(1)
        except BlockingIOError:
            return True
        except OSError:
            pass
        return False

    def _exchange(self, connection: socket.socket, question: bytes, deadline: float) -> bytes:
        """The line that answers. Raises _Gone where none came, TimeoutError."""
        data = b""
        try:
            connection.settimeout(self._left(deadline))
            connection.sendall(question)
            while b"\n" not in data and len(data) <= _MOST_OCTETS:
                connection.settimeout(self._left(deadline))
                piece = connection.recv(_MOST_OCTETS)
                if not piece:
                    break
                data += piece
        except TimeoutError:
            raise
        except OSError:
            pass
        if not data:
            raise _Gone
        line, end, rest = data.partition(b"\n")
        if not end or rest:
            raise Unanswered(f"popgate answered {data[:40]!r}")
        return line

    def _left(self, deadline: float) -> float:
        left = deadline - self._monotonic()
        if left <= 0:
            raise TimeoutError
        return left
