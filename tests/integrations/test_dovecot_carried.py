"""Open sessions over reloads and restarts."""

from pathlib import Path

from grants_kit import ALICE, HandClock, Sink, address
from popgate.grants.grant import DEFAULT_TERMS
from popgate.grants.service import Grants
from popgate.grants.settings import GrantSettings
from popgate.grants.stores.memory import MemoryStore
from popgate.integrations.dovecot.carried import FRESH_SECONDS, LOOK_SECONDS, CarriedSessions
from popgate.integrations.open_sessions import OpenSessions


class Server:
    """`worker` starts one; all share the grants and the directory."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.clock = HandClock()
        self.settings = GrantSettings()
        self.grants = Grants(MemoryStore(), self.settings, self.clock, Sink())

    def worker(self) -> "Worker":
        return Worker(self)

    def is_granted(self) -> bool:
        return self.grants.right(address(), "").verdict == "permit"


class Worker:
    def __init__(self, server: Server) -> None:
        self.sessions = OpenSessions(
            server.grants, server.settings, server.clock, lambda identity: DEFAULT_TERMS
        )
        self.carried = CarriedSessions(self.sessions, str(server.directory), server.clock)

    def log_in(self, key: str = "one") -> None:
        self.sessions.login(address(), ALICE, "imap", key)


def test_over_a_reload_the_new_worker_is_there_first(tmp_path: Path) -> None:
    server = Server(tmp_path)
    old = server.worker()
    old.log_in()
    new = server.worker()
    new.log_in("two")
    server.clock.pass_seconds(20)
    new.carried.tick()
    assert len(new.sessions) == 1
    old.carried.leave()
    server.clock.pass_seconds(1)
    new.carried.tick()
    assert len(new.sessions) == 2
    new.sessions.logout("two")
    for _ in range(100):
        server.clock.pass_seconds(15)
        new.sessions.tick()
    assert server.is_granted()
    new.sessions.logout("one")
    server.clock.pass_seconds(1000)
    new.sessions.tick()
    assert not server.is_granted()


def test_over_a_short_restart(tmp_path: Path) -> None:
    server = Server(tmp_path)
    old = server.worker()
    old.log_in()
    old.carried.leave()
    server.clock.pass_seconds(FRESH_SECONDS - 1)
    new = server.worker()
    assert len(new.sessions) == 1
    assert len(server.worker().sessions) == 0, "it was taken once"


def test_what_is_old_says_nothing(tmp_path: Path) -> None:
    server = Server(tmp_path)
    old = server.worker()
    old.log_in()
    old.carried.leave()
    server.clock.pass_seconds(FRESH_SECONDS + 1)
    assert len(server.worker().sessions) == 0


def test_nobody_looks_for_ever(tmp_path: Path) -> None:
    server = Server(tmp_path)
    old, new = server.worker(), server.worker()
    old.log_in()
    server.clock.pass_seconds(LOOK_SECONDS + 1)
    old.carried.leave()
    new.carried.tick()
    assert len(new.sessions) == 0


def test_files_that_cannot_be_read_or_written(tmp_path: Path) -> None:
    server = Server(tmp_path)
    old = server.worker()
    old.log_in()
    old.carried.leave()
    (file,) = tmp_path.iterdir()
    assert file.stat().st_mode & 0o777 == 0o600
    file.write_text(
        '{"format": 1, "source": "dovecot-sessions", "saved_at": 1e400, "place": [], "sessions": 1}'
    )
    assert len(server.worker().sessions) == 0
    server.directory = tmp_path / "nosuch"
    worker = server.worker()
    worker.log_in("two")
    worker.carried.leave()


def test_a_clock_that_was_set_back(tmp_path: Path) -> None:
    server = Server(tmp_path)
    old = server.worker()
    old.log_in()
    old.carried.leave()
    server.clock.time -= 1000
    assert len(server.worker().sessions) == 0
