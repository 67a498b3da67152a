"""AUTH: from credentials to a login, with the patience that failures cost."""

from collections.abc import Awaitable

from popgate.auth.authenticator import AuthResult, Denied, Login, MaybeLater, Unavailable
from popgate.protocols.sasl import CramCredentials, PlainCredentials
from popgate.protocols.smtp import Reply, replies
from popgate.sessions.session import Runtime
from popgate.sessions.smtp import answers
from popgate.sessions.smtp.services import SmtpServices
from popgate.sessions.smtp.telling import Telling
from popgate.values.address import ClientAddress

Credentials = PlainCredentials | CramCredentials


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
        self._emit = emit

    def forget(self) -> None:
        """TLS is up: whoever logged in before did so in another session (RFC 3207 4.2)."""
        self.login = None

    def authenticate(self, credentials: Credentials) -> Reply | Awaitable[Reply]:
        """235; 535 after a delay, with 421 behind it after too many failures; or 454."""
        wait_seconds = self._throttle.wait_before_seconds(self._client, credentials.name)
        if wait_seconds > 0:
            return self._check_after(wait_seconds, credentials)
        result = self._check(credentials)
        if isinstance(result, Login | Denied | Unavailable):
            return self._conclude(result, credentials)
        return self._conclude_later(result, credentials)

    def _check(self, credentials: Credentials) -> MaybeLater:
        if isinstance(credentials, PlainCredentials):
            return self._authenticator.check_password(credentials.name, credentials.password)
        return self._authenticator.check_cram_md5(credentials.name, credentials.challenge, credentials.digest)

    async def _check_after(self, seconds: float, credentials: Credentials) -> Reply:
        await self._runtime.sleep(seconds)
        result = self._check(credentials)
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
        mechanism = credentials.mechanism if isinstance(credentials, PlainCredentials) else "CRAM-MD5"
        if isinstance(result, Login):
            self.login = result
            self._throttle.succeeded(self._client, name)
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
        return self._answer_after(delay, answer) if delay > 0 else answer

    async def _answer_after(self, seconds: float, answer: Reply) -> Reply:
        await self._runtime.sleep(seconds)
        return answer

    def _tell_failure(self, name: str, mechanism: str, reason: str) -> None:
        self._emit("smtp.login.failed", name=replies.printable(name), mechanism=mechanism, reason=reason)
