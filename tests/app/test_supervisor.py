"""The parent process, with real forks. The parent runs in a child of the test, as it never returns early."""

import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from popgate.app.supervisor import ChildPipes, ReloadRefused, Role, Supervisor
from popgate.values.event import Event


class _Clock:
    def now(self) -> float:
        return time.time()

    def monotonic(self) -> float:
        return time.monotonic()


def _obedient(name: str, out: Path, *, ready: bool = True) -> Callable[[ChildPipes], int]:
    """A child that says it is ready and waits for SIGTERM or the parent's end."""

    def run(pipes: ChildPipes) -> int:
        with (out / "started").open("a") as log:
            log.write(f"{name} {os.getpid()}\n")
        if not ready:
            return 3
        signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
        os.write(pipes.ready, b"r")
        os.close(pipes.ready)
        while os.read(pipes.lifeline, 1):
            pass
        (out / f"orphan-{os.getpid()}").touch()
        return 0

    return run


class Parent:
    """A supervisor in a process of its own, whose events go to a file."""

    def __init__(
        self, directory: Path, roles: Sequence[Role], reload: Callable[[], Sequence[Role]] | None = None
    ) -> None:
        self.directory = directory
        self.events_file = directory / "events"
        self.events_file.touch()
        self.pid = os.fork()
        if self.pid == 0:
            status = 99
            try:
                status = Supervisor(
                    roles,
                    reload=reload or (lambda: roles),
                    on_ready=lambda: self._note(Event("ready", 0, {})),
                    drain_seconds=1,
                    clock=_Clock(),
                    emit=self._note,
                ).run()
            finally:
                os._exit(status)

    def _note(self, event: Event) -> None:
        with self.events_file.open("a") as out:
            out.write(f"{event.name} {event.fields.get('process', '')}\n")

    def wait_for(self, text: str, count: int = 1) -> None:
        deadline = time.monotonic() + 10
        while self.events_file.read_text().count(text) < count:
            assert time.monotonic() < deadline, f"{text!r} did not come:\n{self.events_file.read_text()}"
            time.sleep(0.01)

    def started(self) -> list[tuple[str, int]]:
        lines = (self.directory / "started").read_text().splitlines()
        return [(name, int(pid)) for name, pid in (line.split() for line in lines)]

    def send(self, number: int) -> None:
        os.kill(self.pid, number)

    def end(self, number: int = signal.SIGTERM) -> int:
        self.send(number)
        _, status = os.waitpid(self.pid, 0)
        return os.waitstatus_to_exitcode(status)


def _is_alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


def test_children_run_and_are_ended_by_sigterm(tmp_path: Path) -> None:
    parent = Parent(tmp_path, [Role(name, _obedient(name, tmp_path), lambda: None) for name in ("a", "b")])
    parent.wait_for("ready")
    children = parent.started()
    assert sorted(name for name, _ in children) == ["a", "b"]
    assert parent.end() == 0
    assert not any(_is_alive(pid) for _, pid in children)


def test_a_killed_child_is_replaced_and_cleaned_up_after(tmp_path: Path) -> None:
    role = Role("a", _obedient("a", tmp_path), lambda: (tmp_path / "cleaned").touch())
    parent = Parent(tmp_path, [role])
    parent.wait_for("ready")
    os.kill(parent.started()[0][1], signal.SIGKILL)
    parent.wait_for("process.start a", 2)
    assert (tmp_path / "cleaned").exists()
    deadline = time.monotonic() + 5
    while len(parent.started()) < 2 and time.monotonic() < deadline:
        time.sleep(0.01)
    assert _is_alive(parent.started()[1][1])
    assert parent.end() == 0


def test_a_first_generation_that_fails_ends_the_server(tmp_path: Path) -> None:
    roles = [
        Role("good", _obedient("good", tmp_path), lambda: None),
        Role("bad", _obedient("bad", tmp_path, ready=False), lambda: None),
    ]
    parent = Parent(tmp_path, roles)
    _, status = os.waitpid(parent.pid, 0)
    assert os.waitstatus_to_exitcode(status) == 1
    assert not any(_is_alive(pid) for _, pid in parent.started())


def test_reload_starts_the_new_before_it_ends_the_old(tmp_path: Path) -> None:
    old = [Role("a", _obedient("old", tmp_path), lambda: None)]
    new = [Role("a", _obedient("new", tmp_path), lambda: None)]
    parent = Parent(tmp_path, old, lambda: new)
    parent.wait_for("ready")
    parent.send(signal.SIGHUP)
    parent.wait_for("server.reload ")
    parent.wait_for("process.end a")
    (_, first), (name, second) = parent.started()
    assert name == "new"
    assert not _is_alive(first)
    assert _is_alive(second)
    assert parent.end() == 0


@pytest.mark.parametrize("how", ["refused", "not ready"])
def test_a_reload_that_fails_leaves_the_old_generation(tmp_path: Path, how: str) -> None:
    def reload() -> Sequence[Role]:
        if how == "refused":
            raise ReloadRefused("popgate.toml:3: no")
        return [Role("a", _obedient("new", tmp_path, ready=False), lambda: None)]

    parent = Parent(tmp_path, [Role("a", _obedient("old", tmp_path), lambda: None)], reload)
    parent.wait_for("ready")
    parent.send(signal.SIGHUP)
    parent.wait_for("server.reload.refused")
    assert _is_alive(parent.started()[0][1])
    assert parent.end() == 0


def test_children_end_when_the_parent_is_killed(tmp_path: Path) -> None:
    parent = Parent(tmp_path, [Role("a", _obedient("a", tmp_path), lambda: None)])
    parent.wait_for("ready")
    child = parent.started()[0][1]
    assert parent.end(signal.SIGKILL) == -signal.SIGKILL
    deadline = time.monotonic() + 5
    while _is_alive(child) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not _is_alive(child)
    assert (tmp_path / f"orphan-{child}").exists()
