"""Programs of the checkpassword interface that behave, and that do not."""

import asyncio
import inspect
import os
import sys
import time
from pathlib import Path

import pytest

from popgate.auth.authenticator import Denied, Login, Unavailable
from popgate.auth.backends.checkpassword import CheckpasswordLogins, CommandError
from popgate.auth.verified import VerifiedPasswords
from popgate.auth.workers import Workers
from popgate.values.identity import Identity
from support.process import children

PROGRAM = Path(__file__).parent.parent / "contract" / "checkpassword_program.py"


class StandingClock:
    time = 0.0

    def now(self):
        return self.time

    def monotonic(self):
        return self.time


@pytest.fixture
def clock():
    return StandingClock()


@pytest.fixture
def make(tmp_path, clock):
    workers = Workers(4)

    def make(command=None, seconds=0.0, **options):
        command = command or f"{sys.executable} -I -S {PROGRAM} '{tmp_path}/the users'"
        return CheckpasswordLogins(
            command, VerifiedPasswords(clock, seconds), workers, default_domain="example.org", **options
        )

    yield make
    workers.close()


@pytest.fixture
def users(tmp_path):
    def write(*lines):
        (tmp_path / "the users").write_text("".join(line + "\n" for line in lines))

    write(
        "ann@example.org:secret",
        "other-name@example.org:x",
        "bad-user@example.org:x",
        "short-user@example.org:x",
    )
    return write


async def login(logins, name="ann", password=b"secret"):
    answer = logins.check_password(name, password)
    return await answer if inspect.isawaitable(answer) else answer


async def is_running(pid):
    """Is it still there and no zombie, after the moment that a kill may take?"""
    for _ in range(20):
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except (FileNotFoundError, ProcessLookupError):
            return False
        if state == "Z":
            return False
        await asyncio.sleep(0.05)
    return True


async def test_the_program_may_name_another_identity(make, users):
    logins = make()
    assert (await login(logins, "other-name", b"x")).identity == Identity("ann", "example.org")
    assert (await login(logins, "short-user", b"x")).identity == Identity("short-user", "example.org")
    assert isinstance(await login(logins, "bad-user", b"x"), Unavailable)


@pytest.mark.parametrize("name", ["act-fault", "act-misuse", "act-crash", "act-zero"])
async def test_a_program_that_fails_is_temporary_and_never_a_login(make, users, name):
    assert isinstance(await login(make(), name), Unavailable)


async def test_what_a_program_prints_is_no_proof(make, users):
    assert isinstance(await login(make(), "act-noise"), Denied | Unavailable)
    assert isinstance(await login(make("/bin/true")), Unavailable)
    assert isinstance(await login(make("/bin/echo USER=ann@example.org")), Unavailable)
    assert await login(make("/bin/false")) == Denied("password")


async def test_a_slow_program_is_killed_with_its_children(make, users, tmp_path):
    began, before = time.monotonic(), children()
    result = await login(make(timeout_seconds=0.5), "act-sleep")
    assert isinstance(result, Unavailable) and "0.5 s" in result.detail
    assert time.monotonic() - began < 4
    assert children() <= before
    assert not await is_running(int((tmp_path / "the users.child").read_text()))


async def test_a_child_that_keeps_the_output_open_holds_nothing_up(make, users):
    began = time.monotonic()
    result = await login(make('/bin/sh -c \'(sleep 30; :) & exec "$0" "$@"\' /usr/bin/env USER=ann'))
    assert isinstance(result, Login)
    assert time.monotonic() - began < 5


async def test_no_shell_sees_the_command(make, users, tmp_path):
    assert await login(make(f"/bin/false ; touch {tmp_path}/made")) == Denied("password")
    assert not (tmp_path / "made").exists()


async def test_the_program_gets_no_environment_and_no_descriptors_of_ours(make, users, tmp_path, monkeypatch):
    monkeypatch.setenv("SECRET_OF_THE_SERVER", "x")
    (tmp_path / "script").write_text(
        f"import os; fds = os.listdir('/proc/self/fd'); open('{tmp_path}/fds', 'w').write(' '.join(fds))\n"
        f"open('{tmp_path}/env', 'w').write(' '.join(os.environ)); os._exit(1)\n"
    )
    held = os.open("/dev/null", os.O_RDONLY)
    os.set_inheritable(held, True)
    await login(make(f"{sys.executable} -I -S {tmp_path}/script"))
    os.close(held)
    assert "SECRET" not in (tmp_path / "env").read_text()
    # 4 is the directory that is listed
    assert sorted((tmp_path / "fds").read_text().split()) == ["0", "1", "2", "3", "4"]


@pytest.mark.parametrize("password", [b"", b"a\0b", b"x" * 513, b"x" * 490])
async def test_what_the_interface_cannot_carry_is_denied_unasked(make, users, tmp_path, password):
    assert await login(make(), password=password) == Denied("password")
    assert not (tmp_path / "the users.asked").exists()


async def test_longest_input_is_carried_whole(make, users):
    users("ann@example.org:" + "p" * 484)
    assert isinstance(await login(make(now=lambda: 1700000000), password=b"p" * 484), Login)


async def test_nothing_is_remembered_unless_asked_for(make, users, clock):
    logins = make()
    assert isinstance(await login(logins), Login)
    answer = logins.check_password("ann", b"secret")
    assert inspect.isawaitable(answer)
    await answer
    logins = make(seconds=60)
    assert isinstance(await login(logins), Login)
    assert isinstance(await login(logins, "other-name", b"x"), Login)
    users()
    assert isinstance(logins.check_password("ANN@example.org", b"secret"), Login)
    remembered = logins.check_password("other-name", b"x")
    assert isinstance(remembered, Login) and remembered.identity == Identity("ann", "example.org")
    clock.time += 60
    assert await login(logins) == Denied("password")


async def test_programs_run_at_once_but_only_so_many(make, users):
    logins = make("/bin/sh -c 'sleep 0.3; exit 1'")
    began = time.monotonic()
    await asyncio.gather(*(login(logins, password=b"%d" % index) for index in range(8)))
    assert 0.55 < time.monotonic() - began < 3


@pytest.mark.parametrize("command", ["", "  ", "/nonexistent/program", "/bin/sh 'open", "/etc/passwd"])
def test_a_command_that_cannot_run_is_refused_at_the_start(make, command):
    with pytest.raises(CommandError):
        make(command or " ")
