"""The grant directory against hostile content, and beside relay-ctrl's programs."""

import fcntl
import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from grants_kit import ALICE, ALICE_FILE, BOB, NAME, NOW, HandClock, Sink, address, grant, put, used
from popgate.grants import rules
from popgate.grants.grant import Terms, Usage
from popgate.grants.service import Grants
from popgate.grants.settings import GrantSettings
from popgate.grants.store import StoreError
from popgate.grants.stores import directory, spool
from popgate.grants.stores.directory import DirectoryStore
from popgate.values.identity import Identity
from popgate.values.mail import MailAddress


def decides(allow: Path, sender: str = "any") -> str:
    service = Grants(
        DirectoryStore(str(allow)),
        GrantSettings(sender=sender),
        HandClock(),
        Sink(),
        local_domains=frozenset({"example.org"}),
    )
    return service.decide(address(), MailAddress("alice", "example.org"), 1, 0, "s").verdict


def ours(*grants) -> bytes:
    """A file as the store writes it."""
    return spool.serialise([directory._record(each) for each in grants])[0]


# What relay-ctrl-allow and relay-ctrl-udp write.


@pytest.mark.parametrize(
    ("content", "identity"),
    [
        (ALICE_FILE, ALICE),
        (b"USER=alice\0", Identity("alice")),
        (b"USER=Alice\0DOMAIN=EXAMPLE.org\0", ALICE),
        (b"USER=alice@example.org\0", ALICE),
        (b"USER=alice@example.org\0DOMAIN=example.org\0", ALICE),
        (b"", rules.ANONYMOUS),
        (b"DOMAIN=example.org\0", rules.ANONYMOUS),
    ],
)
def test_a_file_of_relay_ctrl_is_a_grant(allow: Path, content: bytes, identity: Identity) -> None:
    put(allow, content)
    store = DirectoryStore(str(allow))
    assert list(store.find(address())) == [grant(identity=identity, protocol="relay-ctrl")]
    assert decides(allow) == "permit"
    assert decides(allow, "bound") == ("permit" if identity != rules.ANONYMOUS else "refuse")


def test_relay_ctrl_sees_the_last_login(allow: Path) -> None:
    store = DirectoryStore(str(allow))
    store.change(address(), lambda _: [grant(login_at=NOW), grant(identity=BOB, login_at=NOW + 5)])
    content = (allow / NAME).read_bytes()
    assert content.startswith(b"USER=bob\0DOMAIN=example.org\0POPGATE_VERSION=2\0POPGATE_GRANT=")
    assert all(piece.startswith((b"USER=", b"DOMAIN=", b"POPGATE_")) for piece in content[:-1].split(b"\0"))
    state = (allow / NAME).stat()
    assert int(state.st_mtime) == NOW + 5
    assert state.st_mode & 0o7777 == 0o600
    assert os.listdir(allow) == [NAME]  # no lock file for relay-ctrl-age to remove


def test_a_login_by_relay_ctrl_replaces_the_others(allow: Path) -> None:
    store = DirectoryStore(str(allow))
    store.change(address(), lambda _: [grant(), grant(identity=BOB)])
    store.find(address())
    put(allow, b"USER=carol\0", ".1.000002:3", NOW + 1).rename(allow / NAME)
    assert [each.identity.user for each in store.find(address())] == ["carol"]


@pytest.mark.parametrize("before", [None, ALICE, BOB])
@pytest.mark.parametrize("used", [0, 3])
def test_a_login_by_relay_ctrl_during_a_change_is_kept(
    allow: Path, before: Identity | None, used: int
) -> None:
    """Whether the change makes a file, puts another in its place, writes into it or only dates it."""
    store = DirectoryStore(str(allow))
    if before is not None:
        store.change(address(), lambda _: [grant(identity=before)])
    runs = []

    def change(grants):
        runs.append(grants)
        if len(runs) == 1:
            put(allow, b"USER=carol\0", ".1.000002:3", NOW + 1).rename(allow / NAME)
        others = [each for each in grants if each.identity != BOB]
        return [grant(identity=BOB, since=NOW, login_at=NOW + 2, used=Usage(used)), *others]

    store.change(address(), change)
    assert [each.identity.user for each in store.find(address())] == ["bob", "carol"]
    assert os.listdir(allow) == [NAME]


@pytest.mark.parametrize("counted", [0, 2])
@pytest.mark.parametrize("since", [NOW, NOW + 2])
def test_what_relay_ctrl_removed_during_a_change_comes_back(allow: Path, counted: int, since: float) -> None:
    """Whether the change only dates the file, writes into it or puts another in its place."""
    store = DirectoryStore(str(allow))
    store.change(address(), lambda _: [grant()])
    for count in range(counted):
        store.change(address(), used(count + 1))
    is_removed = []

    def change(grants):
        if not is_removed:
            (allow / NAME).unlink()
            is_removed.append(True)
        return [grant(since=since, login_at=NOW + 2, used=Usage(counted))]

    store.change(address(), change)
    assert [each.login_at for each in DirectoryStore(str(allow)).find(address())] == [NOW + 2]


@pytest.mark.parametrize("rename2", [True, False])
def test_without_the_newer_rename(allow: Path, monkeypatch: pytest.MonkeyPatch, rename2: bool) -> None:
    store = DirectoryStore(str(allow))
    if not rename2:
        monkeypatch.setattr(store._placing, "_rename2", None)
    for turn in range(3):
        store.change(address(), lambda _, turn=turn: [grant(login_at=NOW + turn)])
    assert store.find(address())[0].login_at == NOW + 2
    store.close()  # spares go with it
    assert os.listdir(allow) == [NAME]


# What must not grant.

GOOD = ours(grant())
USED = b"0000000000 0000000000 000000000000000"
RECORD = (
    b"alice@example.org pop3 1700000000000000 1700000000000000 1700000000000000 - - - - - " + USED + b" 0 -"
)
HEAD = ALICE_FILE + b"POPGATE_VERSION=2\0"


def test_the_record_that_the_bad_ones_are_made_from_is_good(allow: Path) -> None:
    assert GOOD == HEAD + b"POPGATE_GRANT=" + RECORD + b"\0"
    put(allow, GOOD)
    assert decides(allow) == "permit"


@pytest.mark.parametrize(
    "content",
    [
        b"USER=alice\0LD_PRELOAD=/tmp/x.so\0",
        b"LD_PRELOAD=/tmp/x.so\0USER=alice\0",
        b"RELAYCLIENT=@file\0",
        b"USER=alice",
        b"USER=alice\0\0",
        b"\0",
        b"\0\0USER=alice\0",
        b"junk\0USER=alice\0",
        b"USER=a\nb=c\0",
        b"USER=../x\0",
        b"USER=a/b\0",
        b"USER=alice\0USER=bob\0",
        b"DOMAIN=example.org\0USER=alice\0",
        b"USER=alice\0DOMAIN=exa mple\0",
        b"USER=alice@example.net\0DOMAIN=example.org\0",
        b"USER=al\xc3\xadce\0",
        b"USER=alice\0" + b"DOMAIN=" + b"d" * 8192 + b"\0",
        HEAD,
        HEAD + b"POPGATE_GRANT=\0",
        ALICE_FILE + b"POPGATE_GRANT=" + RECORD + b"\0",
        ALICE_FILE + b"POPGATE_VERSION=1\0POPGATE_GRANT=" + RECORD + b"\0",
        HEAD + b"POPGATE_OTHER=" + RECORD + b"\0",
        HEAD + b"POPGATE_GRANT=" + RECORD + b" \0",
        HEAD + b"POPGATE_GRANT=" + RECORD + b"\0POPGATE_GRANT=" + RECORD + b"\0",
        HEAD + b"POPGATE_GRANT=" + RECORD + b"\0LD_PRELOAD=x\0",
        HEAD + b"POPGATE_GRANT=" + RECORD.replace(b"alice", b"mallory") + b"\0",
        b"USER=mallory\0" + HEAD[11:] + b"POPGATE_GRANT=" + RECORD + b"\0",
        HEAD[len(ALICE_FILE) :] + b"POPGATE_GRANT=" + RECORD + b"\0",
        HEAD + b"POPGATE_GRANT=" + RECORD.replace(b"pop3", b"POP3") + b"\0",
        HEAD + b"POPGATE_GRANT=" + RECORD.replace(b"1700000000000000 -", b"101700000000000000 -") + b"\0",
        HEAD + b"POPGATE_GRANT=" + RECORD.replace(b"1700000000000000 -", b"=" * 15 + b" -") + b"\0",
        HEAD + b"POPGATE_GRANT=" + RECORD.replace(b"1700000000000000 -", b"=" * 15 + b"0 -") + b"\0",
        HEAD + b"POPGATE_GRANT=" + RECORD.replace(b"pop3 1700000000000000", b"pop3 " + b"=" * 16) + b"\0",
        HEAD + b"POPGATE_GRANT=" + RECORD.replace(b"1700000000000000 -", b"-1700000000000000 -") + b"\0",
        HEAD + b"POPGATE_GRANT=" + RECORD.replace(b"1700000000000000 -", b"1e15 -") + b"\0",
        HEAD + b"POPGATE_GRANT=" + RECORD.replace(b"1700000000000000 -", b"nan -") + b"\0",
        HEAD + b"POPGATE_GRANT=" + RECORD.replace(b" 0 -", b" 2 -") + b"\0",
        HEAD + b"POPGATE_GRANT=" + RECORD[:-1] + b",\0",
        HEAD + b"POPGATE_GRANT=" + RECORD[:-1] + b"A@example.org\0",
        HEAD + b"POPGATE_GRANT=" + RECORD[:-1] + b"%4\0",
        HEAD + b"POPGATE_GRANT=" + RECORD[:-1] + b"%FF\0",
    ],
)
def test_odd_content_is_no_grant(allow: Path, content: bytes) -> None:
    put(allow, content)
    assert list(DirectoryStore(str(allow)).find(address())) == []
    assert decides(allow) == "refuse"


def test_every_cut_and_every_flipped_byte_is_parsed_or_refused(allow: Path) -> None:
    content = ours(
        grant(used=Usage(5)), grant(identity=BOB, login_at=NOW - 5, terms=Terms(60, senders=("a@b.c",)))
    )
    whole = {end for end in range(1, len(content) + 1) if content[end - 1] == 0} - {len(HEAD)}
    for end in range(1, len(content) + 1):
        assert (spool.parse(content[:end], int(NOW * 1e6)) is not None) is (end in whole)
    for index in range(len(content)):
        for bit in (1, 8, 32, 128):
            flipped = content[:index] + bytes([content[index] ^ bit]) + content[index + 1 :]
            for record in spool.parse(flipped, int(NOW * 1e6)) or []:
                assert record.renewed <= NOW * 1e6


def symlink(allow: Path) -> None:
    put(allow, ALICE_FILE, "../target")
    (allow / NAME).symlink_to("../target")


def dangling(allow: Path) -> None:
    (allow / NAME).symlink_to("nowhere")


def fifo(allow: Path) -> None:
    os.mkfifo(allow / NAME)


def subdirectory(allow: Path) -> None:
    (allow / NAME).mkdir()


def full_directory(allow: Path) -> None:
    (allow / NAME / "x").mkdir(parents=True)


def hard_link(allow: Path) -> None:
    os.link(put(allow, ALICE_FILE, "../target"), allow / NAME)


def unix_socket(allow: Path) -> None:
    with socket.socket(socket.AF_UNIX) as sock:
        here = os.open(allow, os.O_RDONLY)
        sock.bind(f"/proc/self/fd/{here}/{NAME}")
        os.close(here)


def huge(allow: Path) -> None:
    put(allow, ALICE_FILE + b"x" * 10_000_000)


def wrong_owner(allow: Path) -> None:
    os.chown(put(allow, ALICE_FILE), 12345, 12345)


def far_future(allow: Path) -> None:
    put(allow, ALICE_FILE, modified=4_070_908_800.0)  # 2099


def past(allow: Path) -> None:
    put(allow, ALICE_FILE, modified=NOW - 901)


def touched(allow: Path) -> None:
    put(allow, ours(grant(login_at=NOW - 3600, renewed_at=NOW - 100)))


def set_back(allow: Path) -> None:
    put(allow, ours(grant()), modified=NOW - 901)


HOSTILE = [
    symlink,
    dangling,
    fifo,
    subdirectory,
    full_directory,
    hard_link,
    unix_socket,
    huge,
    wrong_owner,
    far_future,
    past,
    touched,
    set_back,
]
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
hostile = pytest.mark.parametrize(
    "make",
    [pytest.param(each, marks=needs_root) if each is wrong_owner else each for each in HOSTILE],
    ids=lambda make: make.__name__,
)


@hostile
def test_hostile_entries_grant_nothing(allow: Path, make: Callable[[Path], None]) -> None:
    make(allow)
    assert decides(allow) == "refuse"


@hostile
def test_hostile_entries_do_not_keep_a_login_from_granting(allow: Path, make: Callable[[Path], None]) -> None:
    make(allow)
    store = DirectoryStore(str(allow))
    service = Grants(store, GrantSettings(), HandClock(), Sink())
    assert service.allow(address(), ALICE, "pop3", Terms(), "s")
    assert decides(allow) == "permit"
    target = allow.parent / "target"
    assert not target.exists() or target.read_bytes() == ALICE_FILE


@hostile
def test_sweep_removes_hostile_entries(allow: Path, make: Callable[[Path], None]) -> None:
    make(allow)
    Grants(DirectoryStore(str(allow)), GrantSettings(), HandClock(), Sink()).sweep()
    assert os.listdir(allow) == ([NAME] if make is full_directory else [])
    target = allow.parent / "target"
    assert not target.exists() or target.read_bytes() == ALICE_FILE


@needs_root
def test_further_owners_can_be_allowed(allow: Path) -> None:
    wrong_owner(allow)
    assert len(DirectoryStore(str(allow), allowed_uids=[12345]).find(address())) == 1


@needs_root
def test_what_root_writes_the_server_can_read(allow: Path) -> None:
    os.chown(allow.parent, 12345, 12346)
    os.chmod(allow.parent, 0o711)
    made = allow.parent / "made" / "by" / "root"
    DirectoryStore(str(made)).change(address(), lambda _: [grant(used=Usage(1))])
    for path in (made.parent, made, made / NAME):
        assert (path.stat().st_uid, path.stat().st_gid) == (12345, 12346)
    os.chown(made / NAME, 12345, 12346)  # as the server writes it
    assert len(DirectoryStore(str(made)).find(address())) == 1


def test_names_that_are_not_canonical_are_nobodys(allow: Path) -> None:
    names = [
        "203.000.113.9",
        "2001:DB8::9",
        "::ffff:203.0.113.9",
        "999.999.999.999",
        "...",
        "1",
        "1234567890123456",
    ]
    for name in names:
        put(allow, ALICE_FILE, name)
    store = DirectoryStore(str(allow))
    assert list(store.addresses()) == []
    assert decides(allow) == "refuse"
    store.sweep(NOW, lambda each: False)
    assert os.listdir(allow) == []


def test_sweep_leaves_what_it_does_not_know_and_what_is_in_use(allow: Path) -> None:
    put(allow, b"", ".1700000000.000001:77", NOW - 60)
    put(allow, b"", ".1700000000.000002:77", NOW - 61)
    put(allow, b"", "README", NOW - 9999)
    put(allow, b"", ".keep", NOW - 9999)
    put(allow, ALICE_FILE)
    DirectoryStore(str(allow)).sweep(NOW, lambda each: False)
    assert sorted(os.listdir(allow)) == [".1700000000.000001:77", ".keep", NAME, "README"]


def test_sweep_looks_again_before_it_removes(allow: Path) -> None:
    put(allow, ALICE_FILE, modified=NOW - 901)
    store = DirectoryStore(str(allow))
    asked = []

    def is_dead(each) -> bool:
        asked.append(each)
        if len(asked) == 1:  # a login between the look and the lock
            DirectoryStore(str(allow)).change(address(), lambda _: [grant()])
        return each.login_at < NOW

    assert list(store.sweep(NOW, is_dead)) == []
    assert store.find(address())[0].login_at == NOW


# The directory itself.


def test_a_directory_that_was_removed_is_a_fault_and_not_a_refusal(allow: Path) -> None:
    store = DirectoryStore(str(allow))
    allow.rmdir()
    with pytest.raises(StoreError):
        store.find(address())
    with pytest.raises(StoreError):
        store.change(address(), lambda _: [grant()])
    store.sweep(NOW, lambda each: False)  # makes it anew
    store.change(address(), lambda _: [grant()])
    assert os.listdir(allow) == [NAME]


@pytest.mark.parametrize("first", ["find", "change"])
def test_a_directory_made_anew_by_another_process_needs_no_restart(allow: Path, first: str) -> None:
    """Workers never sweep: they deferred every decision, and lost every login, until they were restarted."""
    store = DirectoryStore(str(allow))
    allow.rmdir()
    with pytest.raises(StoreError):
        store.find(address())
    DirectoryStore(str(allow)).close()  # as the process that sweeps does
    if first == "find":
        assert list(store.find(address())) == []
    store.change(address(), lambda _: [grant()])
    assert os.listdir(allow) == [NAME]
    assert len(store.find(address())) == 1


def test_a_directory_that_was_replaced_is_found_by_the_sweep(allow: Path) -> None:
    store = DirectoryStore(str(allow))
    allow.rename(allow.with_name("old"))
    allow.mkdir()
    put(allow, ALICE_FILE)
    store.sweep(NOW, lambda each: False)
    assert len(store.find(address())) == 1


def test_what_cannot_be_a_directory(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StoreError):
        DirectoryStore(str(tmp_path / "file"))


def test_a_lock_held_by_another_is_not_waited_for_long(allow: Path) -> None:
    other = os.open(allow, os.O_RDONLY)
    fcntl.flock(other, fcntl.LOCK_EX)
    store = DirectoryStore(str(allow), lock_seconds=0.05)
    with pytest.raises(StoreError, match="locked"):
        store.change(address(), lambda _: [grant()])
    assert list(store.find(address())) == []
    os.close(other)
    store.change(address(), lambda _: [grant()])


def test_a_write_that_fails_leaves_nothing(allow: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = DirectoryStore(str(allow))
    store.change(address(), lambda _: [grant()])
    real = os.write
    monkeypatch.setattr(os, "write", lambda file, data: real(file, data[:5]))
    with pytest.raises(StoreError):
        store.change(address(), lambda _: [grant(identity=BOB, login_at=NOW + 1)])
    monkeypatch.undo()
    assert os.listdir(allow) == [NAME]
    assert store.find(address()) == (grant(),)


def test_file_mode_for_a_checker_of_another_user(allow: Path) -> None:
    before = os.umask(0o077)
    try:
        DirectoryStore(str(allow), file_mode=0o644).change(address(), lambda _: [grant()])
    finally:
        os.umask(before)
    assert (allow / NAME).stat().st_mode & 0o777 == 0o644
