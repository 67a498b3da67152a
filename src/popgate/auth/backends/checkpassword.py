"""Logins by a program of the checkpassword interface (https://cr.yp.to/checkpwd/interface.html).

The program gets `name NUL password NUL timestamp NUL` on descriptor 3 and, as its arguments, a
program to run when the password is right. It exits 1 for a wrong one, 111 for a temporary
fault, 2 when it was misused. We have it run `env -0`, so that we see the environment that it
prepared: exit 0 together with a USER proves that it went all the way.

The program runs without a shell, with an environment of our choosing, in a process group that
is killed as a whole when it takes too long. It is as slow as it likes; at most some run at a
time, in threads.
"""

import contextlib
import fcntl
import os
import select
import shlex
import shutil
import signal
import time
from collections.abc import Callable, Coroutine, Iterable, Mapping
from typing import Any

from popgate.auth.authenticator import AuthResult, Denied, Login, MaybeLater, Unavailable
from popgate.auth.logins import OVERLOADED
from popgate.auth.names import login_identity
from popgate.auth.verified import VerifiedPasswords
from popgate.auth.workers import Overloaded, Workers
from popgate.grants.grant import DEFAULT_TERMS
from popgate.values.identity import Identity
from popgate.values.value import value

MOST_INPUT_BYTES = 512  # what the interface promises the program
_MOST_OUTPUT_BYTES = 256 * 1024
_PASSED_ON = ("PATH", "LANG", "TZ")
_LOWER_HEX = frozenset(b"0123456789abcdef")
_DEFAULT_SIGNALS = (signal.SIGPIPE, signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD)


class CommandError(ValueError):
    """The COMMAND of the settings cannot be run; the text says why."""


@value
class Ended:
    """How a run ended: `status` as os.waitstatus_to_exitcode gives it, None when it was killed for
    taking too long; `environment` as the program left it, empty unless it got as far as running ours."""

    status: int | None
    environment: Mapping[bytes, bytes]


class CheckpasswordLogins:
    """The Authenticator over `command`, a shell-like line that is split but given to no shell.

    The identity is the name that the client gave or, where the program sets a USER with an @ in
    it, that USER: so it may map one mailbox's many names to one.

    The program alone knows when an account changes, so a remembered password may outlive its
    account: `verified` with 0 seconds, which remembers nothing, is the right one; with more, a
    disabled account or an old password is served until its entry's time is over.
    """

    def __init__(
        self,
        command: str,
        verified: VerifiedPasswords,
        workers: Workers,
        *,
        default_domain: str = "",
        apop: bool = False,
        timeout_seconds: float = 30.0,
        now: Callable[[], float] = time.time,
    ) -> None:
        """`workers` bounds how many programs run at once; they are not the hashing threads, which
        a slow program must not hold up. Raises CommandError."""
        self._arguments = _split(command)
        # Whatever Python opens is closed in the program anyhow; a listener handed down to this process
        # may not be, and no program of somebody else's shall hold one.
        self._handed_down = tuple(fd for fd in map(int, os.listdir("/proc/self/fd")) if _is_handed_down(fd))
        self._verified = verified
        self._workers = workers
        self._default_domain = default_domain
        self._apop = apop
        self._timeout_seconds = timeout_seconds
        self._now = now

    def check_password(self, name: str, password: bytes) -> MaybeLater:
        identity = login_identity(name, self._default_domain)
        if identity is None:
            return Denied("name")  # at once: that the name is malformed is no news to whoever sent it
        digest = self._verified.digest(str(identity), password, "")
        if self._verified.has(digest):
            return Login(self._verified.identity(digest) or identity, DEFAULT_TERMS)
        return self._ask(identity, password, b"%d" % int(self._now()), digest, is_kept=True)

    def check_apop(self, name: str, challenge: bytes, digest: bytes) -> MaybeLater:
        """As qmail-popup does: the digest in place of the password, the challenge as the timestamp."""
        identity = login_identity(name, self._default_domain)
        if not self._apop:
            return Denied("mechanism")
        if identity is None:
            return Denied("name")
        if len(digest) != 32 or not _LOWER_HEX.issuperset(digest):
            return Denied("password")  # RFC 1939 7: lower-case hexadecimal digits
        key = self._verified.digest(str(identity), digest, challenge.decode("latin-1"))
        return self._ask(identity, digest, challenge, key, is_kept=False)

    def check_cram_md5(self, name: str, challenge: bytes, digest: bytes) -> MaybeLater:
        return Denied("mechanism")  # programs disagree on the order of the fields

    def close(self) -> None:
        pass

    def _ask(
        self, identity: Identity, proof: bytes, timestamp: bytes, digest: bytes, *, is_kept: bool
    ) -> MaybeLater:
        text = b"%s\0%s\0%s\0" % (str(identity).encode(), proof, timestamp)
        # Some programs take an empty password for an anonymous login, and succeed.
        if not proof or text.count(b"\0") != 3 or len(text) > MOST_INPUT_BYTES:
            return Denied("password")
        try:
            run = self._workers.run(
                digest, lambda: run_program(self._arguments, text, self._timeout_seconds, self._handed_down)
            )
        except Overloaded:
            return OVERLOADED
        return self._finish(run, identity, digest if is_kept else None)

    async def _finish(
        self, run: Coroutine[Any, Any, Ended], identity: Identity, digest: bytes | None
    ) -> AuthResult:
        try:
            ended = await run
        except OSError as error:
            return Unavailable(f"{self._arguments[0]}: {error.strerror}")
        if ended.status is None:
            return Unavailable(f"{self._arguments[0]} took more than {self._timeout_seconds:g} s")
        if ended.status == 1:
            return Denied("password")  # or unknown, or disabled: the program does not say
        if ended.status != 0:
            return Unavailable(f"{self._arguments[0]} ended with status {ended.status}")
        user = ended.environment.get(b"USER", b"")
        if not user:
            return Unavailable(f"{self._arguments[0]} ended with status 0 and ran no program with a USER")
        if b"@" in user:
            canonical = login_identity(user.decode("utf-8", "replace"))
            if canonical is None:
                return Unavailable(f"{self._arguments[0]} set a USER that is no user@domain")
            identity = canonical
        if digest is not None:
            self._verified.add(digest, identity)
        return Login(identity, DEFAULT_TERMS)


def _split(command: str) -> tuple[str, ...]:
    try:
        arguments = shlex.split(command)
    except ValueError as error:
        raise CommandError(f"checkpassword:{command}: {error}") from error
    if not arguments:
        raise CommandError("checkpassword: needs a command, such as checkpassword:/usr/bin/checkpassword")
    program, env = shutil.which(arguments[0]), shutil.which("env")
    if program is None:
        raise CommandError(f"checkpassword:{command}: there is no program {arguments[0]} that may be run")
    if env is None:
        raise CommandError("checkpassword: the program env is needed")
    return (os.path.abspath(program), *arguments[1:], os.path.abspath(env), "-0")


def run_program(
    arguments: tuple[str, ...], text: bytes, timeout_seconds: float, unwanted: Iterable[int] = ()
) -> Ended:
    """Run the program with `text` on descriptor 3 and wait for it; blocks. It gets no other
    descriptors above 2, not even the inheritable ones in `unwanted`. Raises OSError."""
    # The text is shorter than a pipe's buffer, so writing it never waits for the program.
    input_end, input_source = os.pipe()
    output, output_end = os.pipe()
    try:
        try:
            os.write(input_source, text)
        finally:
            os.close(input_source)
        # dup2 to itself would leave close-on-exec set, and to a number that the other one has would
        # lose it; so neither source may be 0 to 3.
        input_end, output_end = _above_three(input_end), _above_three(output_end)
        pid = os.posix_spawn(
            arguments[0],
            arguments,
            {name: os.environ[name] for name in _PASSED_ON if name in os.environ},
            file_actions=[
                (os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0),
                (os.POSIX_SPAWN_DUP2, output_end, 1),
                (os.POSIX_SPAWN_DUP2, input_end, 3),
                *((os.POSIX_SPAWN_CLOSE, fd) for fd in unwanted),
            ],
            setpgroup=0,
            setsigmask=(),
            setsigdef=_DEFAULT_SIGNALS,
        )
    except BaseException:
        os.close(output)
        raise
    finally:
        os.close(input_end)
        os.close(output_end)
    try:
        return _wait(pid, output, timeout_seconds)
    finally:
        os.close(output)


def _is_handed_down(fd: int) -> bool:
    try:
        return fd > 3 and os.get_inheritable(fd)
    except OSError:  # the one that listed the directory
        return False


def _above_three(fd: int) -> int:
    if fd > 3:
        return fd
    moved = fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 4)
    os.close(fd)
    return moved


def _wait(pid: int, output: int, timeout_seconds: float) -> Ended:
    ends_at = time.monotonic() + timeout_seconds
    collected = bytearray()
    watch = os.pidfd_open(pid)
    status: int | None = None
    try:
        os.set_blocking(output, False)
        poll = select.poll()
        poll.register(watch, select.POLLIN)
        poll.register(output, select.POLLIN)
        has_ended = False
        while not has_ended:
            left = ends_at - time.monotonic()
            if left <= 0 or len(collected) > _MOST_OUTPUT_BYTES:
                break
            ready = dict(poll.poll(left * 1000))
            has_ended = watch in ready
            if output in ready and not _read_some(output, collected):
                poll.unregister(output)
        if has_ended:
            _read_some(output, collected)
    finally:
        # The whole group, the leader still unreaped so that the number is ours: what the program
        # left running must not outlive the login.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(pid, signal.SIGKILL)
        os.close(watch)
        _, raw = os.waitpid(pid, 0)
    if has_ended:
        status = os.waitstatus_to_exitcode(raw)
    pairs = (entry.partition(b"=") for entry in bytes(collected).split(b"\0"))
    return Ended(status, {name: setting for name, equals, setting in pairs if equals})


def _read_some(output: int, collected: bytearray) -> bool:
    """Read what is there; False at the end of the file."""
    try:
        while len(collected) <= _MOST_OUTPUT_BYTES:
            data = os.read(output, 65536)
            if not data:
                return False
            collected += data
    except BlockingIOError:
        pass
    return True
