"""Several back ends in turn."""

import inspect

import pytest

from popgate.auth.authenticator import Denied, Login, LookupUnavailable, Unavailable
from popgate.auth.chain import Chain
from popgate.grants.grant import DEFAULT_TERMS
from popgate.values.identity import Identity


class Program:
    """A back end that cannot say whom it knows. `answer`: what it says; `later`: as an awaitable."""

    def __init__(self, answer, later=False):
        self.answer = answer
        self.later = later
        self.asked = 0
        self.is_closed = False

    def check_password(self, name, password):
        self.asked += 1
        return self._later() if self.later else self.answer

    def check_apop(self, name, challenge, digest):
        return self.check_password(name, digest)

    check_cram_md5 = check_apop

    async def _later(self):
        return self.answer

    def close(self):
        self.is_closed = True


class Table(Program):
    def __init__(self, answer, names=("ann",), later=False):
        super().__init__(answer, later)
        self.names = names

    def knows(self, name):
        if self.names is None:
            raise LookupUnavailable("no disk")
        return name in self.names


ANN = Login(Identity("ann"), DEFAULT_TERMS)
OTHER = Login(Identity("other"), DEFAULT_TERMS)
WRONG = Denied("password")
UNKNOWN = Denied("unknown")
DOWN = Unavailable("down")


@pytest.mark.parametrize("later", [False, True])
@pytest.mark.parametrize(
    ("answers", "result", "asked"),
    [
        ([Table(ANN)], ANN, [1]),
        ([Table(WRONG), Table(ANN)], WRONG, [1, 0]),
        ([Table(UNKNOWN, ()), Table(ANN)], ANN, [0, 1]),
        ([Table(UNKNOWN, ()), Table(UNKNOWN, ())], UNKNOWN, [0, 1]),
        ([Table(ANN, None), Table(OTHER)], Unavailable("no disk"), [0, 0]),
        ([Program(WRONG), Table(ANN)], ANN, [1, 1]),
        ([Program(OTHER), Table(ANN)], OTHER, [1, 0]),
        ([Program(DOWN), Table(ANN)], DOWN, [1, 0]),
        ([Table(WRONG), Program(OTHER)], WRONG, [1, 0]),
        ([Table(UNKNOWN, ()), Program(OTHER)], OTHER, [0, 1]),
        ([Table(UNKNOWN, ()), Program(WRONG)], UNKNOWN, [1, 1]),
        ([Program(WRONG), Table(ANN, None)], Unavailable("no disk"), [1, 0]),
        ([Program(OTHER), Table(ANN, None)], OTHER, [1, 0]),
        ([Program(WRONG), Program(ANN)], ANN, [1, 1]),
    ],
)
async def test_order(answers, result, asked, later):
    for backend in answers:
        backend.later = later
        backend.asked = 0
    chain = Chain(answers)
    for ask in (
        lambda: chain.check_password("ann", b"x"),
        lambda: chain.check_apop("ann", b"<c>", b"x"),
        lambda: chain.check_cram_md5("ann", b"<c>", b"x"),
    ):
        answer = ask()
        assert (await answer if inspect.isawaitable(answer) else answer) == result
    assert [backend.asked for backend in answers] == [3 * times for times in asked]


def test_one_known_table_answers_at_once():
    assert Chain([Table(UNKNOWN, ()), Table(ANN)]).check_password("ann", b"x") == ANN


def test_a_back_end_alone_is_asked_once():
    assert Chain([Table(ANN, names=None)]).check_password("ann", b"x") == ANN


def test_close_closes_all_and_none_is_misuse():
    backends = [Table(ANN), Program(ANN)]
    Chain(backends).close()
    assert all(backend.is_closed for backend in backends)
    with pytest.raises(ValueError, match="at least one"):
        Chain([])
