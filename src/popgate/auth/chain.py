"""Several back ends, asked in the order of the settings until one knows the name.

A back end that keeps a list of names says whether it knows one before any password is
checked, and then it alone decides: so a wrong password costs one check however many back
ends there are, and a name that nobody knows costs one check too. A program that checks
passwords cannot say whom it knows; when it denies, the next back end is asked. Where both kinds are
mixed, how long a refusal takes can show which kind was asked.
"""

from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol, runtime_checkable

from popgate.auth.authenticator import (
    Authenticator,
    AuthResult,
    Denied,
    Login,
    LookupUnavailable,
    MaybeLater,
    ScramAuthenticator,
    Unavailable,
)
from popgate.auth.proofs import DUMMY_SECRET, scram_keys
from popgate.protocols.sasl import ScramKeys

_NO_SALT = b"no salt at all.."
_Ask = Callable[[Authenticator], MaybeLater]


@runtime_checkable
class KnowsNames(Protocol):
    """A back end that can say whether it has a name at all."""

    def knows(self, name: str) -> bool:
        """Raises LookupUnavailable."""
        ...


class Chain:
    """The Authenticator over several. One that is Unavailable ends the search: the name might be
    there, and a later back end must not answer for it."""

    def __init__(self, backends: Sequence[Authenticator]) -> None:
        if not backends:
            raise ValueError("a chain needs at least one back end")
        self._backends = tuple(backends)
        self._only = backends[0] if len(backends) == 1 else None

    def check_password(self, name: str, password: bytes) -> MaybeLater:
        if self._only is not None:  # as nearly everywhere
            return self._only.check_password(name, password)
        return self._ask(name, lambda backend: backend.check_password(name, password))

    def check_apop(self, name: str, challenge: bytes, digest: bytes) -> MaybeLater:
        return self._ask(name, lambda backend: backend.check_apop(name, challenge, digest))

    def check_cram_md5(self, name: str, challenge: bytes, digest: bytes) -> MaybeLater:
        return self._ask(name, lambda backend: backend.check_cram_md5(name, challenge, digest))

    def scram_keys(self, name: str) -> ScramKeys:
        backend = self._scram_backend(name)
        return scram_keys(DUMMY_SECRET, _NO_SALT) if backend is None else backend.scram_keys(name)

    def check_scram(self, name: str, keys: ScramKeys, *, is_proven: bool) -> MaybeLater:
        # By the one that made the keys; should another know the name by now, they are not its keys
        try:
            backend = self._scram_backend(name, raises=True)
        except LookupUnavailable as error:
            return Unavailable(str(error))
        if backend is None:
            return Denied("mechanism")
        return backend.check_scram(name, keys, is_proven=is_proven)

    def _scram_backend(self, name: str, *, raises: bool = False) -> ScramAuthenticator | None:
        """Whose keys count for a name: those of the first back end that knows it, else the first one's that
        can make some up. A program that checks passwords is never asked: it has no keys."""
        able = [backend for backend in self._backends if isinstance(backend, ScramAuthenticator)]
        for backend in able:
            try:
                if not isinstance(backend, KnowsNames) or backend.knows(name):
                    return backend
            except LookupUnavailable:
                if raises:
                    raise
                return backend
        return able[0] if able else None

    def close(self) -> None:
        for backend in self._backends:
            backend.close()

    def _ask(self, name: str, ask: _Ask) -> MaybeLater:
        if len(self._backends) == 1:
            return ask(self._backends[0])
        candidates: list[Authenticator] = []  # programs, up to the first back end that knows the name
        fallback: Authenticator | None = None
        for backend in self._backends:
            if not isinstance(backend, KnowsNames):
                candidates.append(backend)
                continue
            try:
                is_known = backend.knows(name)
            except LookupUnavailable as error:
                # What stands before it in the order may still let the client in.
                return _in_turn(candidates, ask, Unavailable(str(error)))
            if is_known:
                return ask(backend) if not candidates else _in_turn([*candidates, backend], ask, None)
            fallback = backend
        if fallback is not None:
            candidates.append(fallback)  # to deny at the cost of a check
        return ask(candidates[0]) if len(candidates) == 1 else _in_turn(candidates, ask, None)


def _in_turn(backends: Sequence[Authenticator], ask: _Ask, last: Unavailable | None) -> MaybeLater:
    return _each(backends, ask, last) if backends else last or Denied("unknown")


async def _each(backends: Sequence[Authenticator], ask: _Ask, last: Unavailable | None) -> AuthResult:
    result: AuthResult = Denied("unknown")
    for backend in backends:
        answer = ask(backend)
        result = await answer if isinstance(answer, Awaitable) else answer
        if isinstance(result, Login | Unavailable):
            return result
    return last if last is not None else result
