"""From the configuration to the back ends that it names."""

import asyncio
import inspect
import os
import resource
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from popgate.app import backends
from popgate.app.clock import SystemClock
from popgate.auth.authenticator import Denied, Login
from popgate.auth.workers import Workers as RealWorkers
from popgate.config import Config, load_text
from popgate.grants.grant import DEFAULT_TERMS
from popgate.grants.stores.directory import DirectoryStore
from popgate.grants.stores.memory import MemoryStore
from popgate.values.address import ClientAddress
from popgate.values.event import Event
from popgate.values.identity import Identity
from popgate.values.mail import MailAddress

ADDRESS = ClientAddress.parse("203.0.113.9")
ALICE = Identity.parse("alice@example.org")


@pytest.fixture
def events() -> list[Event]:
    return []


def config_of(tmp_path: Path, *overrides: str) -> Config:
    text = f'hostname = "mail.example.org"\ndata_dir = "{tmp_path}/data"\nlocal_domains = ["example.org"]\n'
    return load_text(text, overrides=overrides).config


@pytest.fixture
def accounts(tmp_path: Path) -> Iterator[backends.AccountDatabase]:
    database = backends.account_database(config_of(tmp_path))
    database.add("alice@example.org", "opensesame")
    yield database
    database.close()


async def login(
    config: Config, accounts: backends.AccountDatabase, events: list[Event], name: str, password: bytes
) -> object:
    logins = backends.authenticator(config, accounts, SystemClock(), events.append)
    try:
        answer = logins.check_password(name, password)
        return await answer if inspect.isawaitable(answer) else answer
    finally:
        logins.close()


@pytest.mark.parametrize(("workers", "threads"), [(1, 8), (2, 4), (3, 2), (8, 1), (100, 1)])
async def test_workers_share_the_cores_for_hashing(
    tmp_path: Path,
    accounts: backends.AccountDatabase,
    monkeypatch: pytest.MonkeyPatch,
    workers: int,
    threads: int,
) -> None:
    """A hash takes 19 MiB and a core: workers that each had a thread a core would take many times that."""
    made: list[int | None] = []

    def workers_of(threads: int | None = None) -> RealWorkers:
        made.append(threads)
        return RealWorkers(threads)

    monkeypatch.setattr("os.sched_getaffinity", lambda pid: set(range(8)))
    monkeypatch.setattr(backends, "Workers", workers_of)
    config = config_of(tmp_path, f"workers={workers}")
    backends.authenticator(config, accounts, SystemClock(), lambda event: None).close()
    assert made == [threads]


async def test_accounts_check_logins(
    tmp_path: Path, accounts: backends.AccountDatabase, events: list[Event]
) -> None:
    config = config_of(tmp_path)
    for name in ("alice@example.org", "alice"):
        answer = await login(config, accounts, events, name, b"opensesame")
        assert isinstance(answer, Login) and answer.identity == ALICE
    assert isinstance(await login(config, accounts, events, "alice", b"wrong"), Denied)


async def test_back_ends_are_asked_in_order(
    tmp_path: Path, accounts: backends.AccountDatabase, events: list[Event]
) -> None:
    users = tmp_path / "users"
    users.write_text("bob@example.org:{PLAIN}bobs\nalice@example.org:{PLAIN}other\n")
    users.chmod(0o600)
    config = config_of(tmp_path, f"auth.backends=['accounts', 'passwd_file:{users}']")
    assert isinstance(await login(config, accounts, events, "bob@example.org", b"bobs"), Login)
    assert isinstance(await login(config, accounts, events, "alice@example.org", b"other"), Denied)
    assert "auth.passwd_file.read" in [event.name for event in events]


async def test_a_program_checks_logins(
    tmp_path: Path, accounts: backends.AccountDatabase, events: list[Event]
) -> None:
    program = tmp_path / "check"
    program.write_text(
        '#!/bin/sh\nread line <&3\ncase "$line" in carol*) USER=carol exec "$@";; esac\nexit 1\n'
    )
    program.chmod(0o700)
    config = config_of(tmp_path, f"auth.backends=['checkpassword:{program}']")
    assert isinstance(await login(config, accounts, events, "carol@example.org", b"x"), Login)
    assert isinstance(await login(config, accounts, events, "dave@example.org", b"x"), Denied)


@pytest.mark.parametrize("backend", ["passwd_file:/no/such/file", 'checkpassword:sh "unclosed'])
def test_what_cannot_be_used_is_told(
    tmp_path: Path, accounts: backends.AccountDatabase, events: list[Event], backend: str
) -> None:
    config = config_of(tmp_path)
    config.auth.backends = [backend]
    with pytest.raises(backends.BackendError, match=r"auth\.backends"):
        backends.authenticator(config, accounts, SystemClock(), events.append)


def test_recipients_come_from_every_list(tmp_path: Path, accounts: backends.AccountDatabase) -> None:
    users = tmp_path / "users"
    users.write_text("bob@example.org:{PLAIN}bobs\n")
    users.chmod(0o600)
    accounts.add_alias("sales@example.org", ["bob@example.org"])
    config = config_of(tmp_path, f"auth.backends=['passwd_file:{users}']", "postmaster=bob@example.org")
    table = backends.recipients(config, accounts, SystemClock())
    for local in ("bob", "sales", "postmaster"):
        found = table.resolve(MailAddress(local, "example.org"))
        assert found is not None and found.mailboxes == (Identity("bob", "example.org"),)
    assert table.resolve(MailAddress("nobody", "example.org")) is None


def test_grants_are_kept_where_the_setting_says(tmp_path: Path, events: list[Event]) -> None:
    config = config_of(tmp_path)
    store = backends.grant_store(config)
    assert isinstance(store, DirectoryStore)
    grants = backends.grants(config, SystemClock(), events.append, store=store)
    assert grants.allow(ADDRESS, ALICE, "pop3", DEFAULT_TERMS, "s1")
    assert (tmp_path / "data" / "allow" / "203.0.113.9").is_file()
    store.close()
    in_memory = config_of(tmp_path, "grants.store=memory:", "workers=1")
    assert isinstance(backends.grant_store(in_memory), MemoryStore)


async def test_mailboxes_and_queue_lie_below_data_dir(tmp_path: Path, events: list[Event]) -> None:
    config = config_of(tmp_path)
    mailboxes = backends.mailboxes(config, SystemClock(), events.append)
    await asyncio.to_thread(mailboxes.deliver, ALICE, [b"Subject: x\r\n\r\nx\r\n"])
    assert len(list((tmp_path / "data/mail/example.org/alice/new").iterdir())) == 1
    queue = backends.queue(config, SystemClock(), events.append)
    assert queue.receive().queue_id
    closing = queue.close()
    if inspect.isawaitable(closing):
        await closing
    assert (tmp_path / "data" / "queue").is_dir()
    assert (tmp_path / "data").stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize(("mode", "file_mode"), [(0o700, 0o600), (0o777, 0o644), (0o710, 0o600)])
def test_grant_files_are_readable_where_the_directory_is_shared(
    tmp_path: Path, events: list[Event], mode: int, file_mode: int
) -> None:
    """relay-ctrl-check runs as the SMTP server's user, and must be able to read what the server records."""
    allow = tmp_path / "data/allow"
    allow.mkdir(parents=True, mode=0o700)
    allow.chmod(mode)
    grants = backends.grants(config_of(tmp_path), SystemClock(), events.append)
    assert grants.allow(ADDRESS, ALICE, "pop3", DEFAULT_TERMS, "s")
    assert (allow / "203.0.113.9").stat().st_mode & 0o777 == file_mode


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
@pytest.mark.parametrize("is_closed", [True, False])
def test_logins_of_other_users_count_where_the_directory_is_closed(
    tmp_path: Path, events: list[Event], is_closed: bool
) -> None:
    """What relay-ctrl-allow writes belongs to who logged in; in a directory that everybody reaches it may
    belong to anybody."""
    place = tempfile.mkdtemp(dir="/tmp")
    try:
        allow = Path(place) / "allow"
        allow.mkdir()
        allow.chmod(0o777)
        Path(place).chmod(0o700 if is_closed else 0o755)
        (allow / "203.0.113.9").write_bytes(b"USER=alice\0DOMAIN=example.org\0")
        os.chown(allow / "203.0.113.9", 64011, 64011)
        config = config_of(tmp_path, f'grants.store="directory:{allow}"')
        grants = backends.grants(config, SystemClock(), events.append)
        assert [str(one.identity) for one in grants.list()] == (["alice@example.org"] if is_closed else [])
    finally:
        shutil.rmtree(place)


@pytest.mark.parametrize(
    ("soft", "kept"), [(524_288, 4096), (20_000, 625), (1024, 32), (16, 0), (resource.RLIM_INFINITY, 4096)]
)
def test_kept_maildirs_take_a_small_part_of_the_descriptors(
    monkeypatch: pytest.MonkeyPatch, soft: int, kept: int
) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda kind: (soft, soft))
    assert backends.most_kept_maildirs() == kept


def test_a_worker_keeps_maildirs_open_and_a_delivery_process_does_not(tmp_path: Path) -> None:
    config = config_of(tmp_path)
    before = len(os.listdir("/proc/self/fd"))
    for most_kept, left in ((2, 2), (0, 0)):
        mailboxes = backends.mailboxes(config, SystemClock(), lambda event: None, most_kept=most_kept)
        mailboxes.open_maildrop(ALICE).close()
        assert len(os.listdir("/proc/self/fd")) == before + left
        mailboxes.close()
    assert len(os.listdir("/proc/self/fd")) == before
