"""AUTH: from credentials to a login, with the patience that failures cost."""

from collections.abc import Awaitable

from popgate.auth.authenticator import (
    AuthResult,
    Denied,
    Login,
    Unavailable,
)
from popgate.protocols.sasl import Credentials, PlainCredentials, ScramCredentials
from popgate.protocols.smtp import Reply, replies
from popgate.sessions.credentials import check, mechanism_of
from popgate.sessions.patience import answer_after
from popgate.sessions.session import Runtime
from popgate.sessions.smtp import answers
from popgate.sessions.smtp.services import SmtpServices
from popgate.sessions.smtp.telling import Telling
from popgate.values.address import ClientAddress


class LoginDesk:
    """One session's logins. `login` is who is logged in now."""

    def __init__(
        self,
        client: ClientAddress,
        failures_before_close: int,
        runtime: Runtime,
        services: SmtpServices,
        emit: Telling,
    ) -> None:
        self.login: Login | None = None
        self._client = client
        self._failures_left = failures_before_close
        self._runtime = runtime
        self._authenticator = services.authenticator
        self._throttle = services.throttle
        self._users = services.users
        self._asked_at = 0.0  # when the client gave its proof
        self._is_closed = False
        self._emit = emit

    def forget(self) -> None:
        """TLS is up: whoever logged in before did so in another session (RFC 3207 4.2)."""
        login, self.login = self.login, None
        if login is not None:
            self._users.leave(login.identity)

    def close(self) -> None:
        """The session has ended; a check that is still under way comes to nothing."""
        self._is_closed = True
        self.forget()

    def authenticate(self, credentials: Credentials) -> Reply | Awaitable[Reply]:
        """235; 535 after a delay, with 421 behind it after too many failures; or 454."""
        self._asked_at = self._runtime.clock.monotonic()
        wait_seconds = self._throttle.wait_before_seconds(self._client, credentials.name)
        if wait_seconds > 0:
            return self._check_after(wait_seconds, credentials)
        result = check(self._authenticator, credentials)
        if isinstance(result, Login | Denied | Unavailable):
            return self._conclude(result, credentials)
        return self._conclude_later(result, credentials)

    async def _check_after(self, seconds: float, credentials: Credentials) -> Reply:
        await self._runtime.sleep(seconds)
        result = check(self._authenticator, credentials)
        if not isinstance(result, Login | Denied | Unavailable):
            result = await result
        return await self._concluded(result, credentials)

    async def _conclude_later(self, pending: Awaitable[AuthResult], credentials: Credentials) -> Reply:
        return await self._concluded(await pending, credentials)

    async def _concluded(self, result: AuthResult, credentials: Credentials) -> Reply:
        answer = self._conclude(result, credentials)
        return answer if isinstance(answer, Reply) else await answer

    def _conclude(self, result: AuthResult, credentials: Credentials) -> Reply | Awaitable[Reply]:
        name = credentials.name
        mechanism = mechanism_of(credentials)
        if isinstance(result, Login):
            if self._is_closed:
                return answers.AUTH_UNAVAILABLE  # nobody reads it, and nobody would end the session
            self._throttle.succeeded(self._client, name)
            if not self._users.enter(result.identity):
                self._tell_failure(name, mechanism, "too-many-sessions")
                return answers.TOO_MANY_SESSIONS
            self.login = result
            self._emit("smtp.login", identity=str(result.identity), mechanism=mechanism)
            return replies.AUTHENTICATED
        if isinstance(result, Unavailable):
            self._tell_failure(name, mechanism, f"unavailable: {result.detail}")
            return answers.AUTH_UNAVAILABLE
        self._throttle.failed(self._client, name)
        self._tell_failure(name, mechanism, result.reason)
        self._failures_left -= 1
        answer = answers.AUTH_FAILED if self._failures_left > 0 else answers.TOO_MANY_FAILURES
        delay = self._throttle.delay_seconds(self._client, name)
        return answer_after(delay, self._asked_at, answer, self._runtime)

    def _tell_failure(self, name: str, mechanism: str, reason: str) -> None:
        self._emit("smtp.login.failed", name=replies.printable(name), mechanism=mechanism, reason=reason)


def _mechanism(credentials: Credentials) -> str:
    if isinstance(credentials, PlainCredentials):
        return credentials.mechanism
    return "SCRAM-SHA-256" if isinstance(credentials, ScramCredentials) else "CRAM-MD5"
