"""Answers that wait: a failed login is told late, and never tells how long its check took.

The delay counts from the moment the client gave its proof. So the check of a wrong password, of
an unknown name and of a disabled account all end in an answer at the same moment, however long
each took, as long as the delay is the longer of the two.
"""

from collections.abc import Awaitable
from typing import TypeVar

from popgate.sessions.session import Runtime

_Answer = TypeVar("_Answer")


def answer_after(
    seconds: float, asked_at: float, answer: _Answer, runtime: Runtime
) -> "_Answer | Awaitable[_Answer]":
    """`answer`, at once or as an awaitable, `seconds` after `asked_at` on the monotonic clock."""
    left_seconds = asked_at + seconds - runtime.clock.monotonic()
    return _later(left_seconds, answer, runtime) if left_seconds > 0 else answer


async def _later(seconds: float, answer: _Answer, runtime: Runtime) -> _Answer:
    await runtime.sleep(seconds)
    return answer
