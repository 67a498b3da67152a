"""Followed logs in a process: what is seen becomes grants; what is open is remembered."""

import asyncio
import json
import os
import threading
import time
from collections.abc import Mapping
from pathlib import Path

import pytest

from popgate.integrations.logs import follow_source
from popgate.integrations.logs.follow_file import FollowedFile
from popgate.integrations.logs.follow_service import SEEN_A_TURN
from popgate.integrations.logs.settings import FollowSettings
from support.follow import FollowSite, dovecot_login, dovecot_logout, until

HERE = "2001:db8::9"
THERE = "203.0.113.10"


@pytest.fixture
def site(tmp_path: Path) -> FollowSite:
    site = FollowSite(tmp_path)
    site.write()
    return site


async def test_a_login_gives_a_grant_at_once(site: FollowSite) -> None:
    site.login("old", THERE)
    site.start()
    await site.told_soon("follow.start")
    await site.caught_up()
    began = time.monotonic()
    site.login("alice", HERE)
    await until(lambda: site.may_relay(HERE))
    assert time.monotonic() - began < 0.5  # well before the next poll
    assert not site.may_relay(THERE)
    assert site.told("grant.allow", client=HERE, identity="alice@example.org", protocol="imap") == 1
    assert site.told("follow.login", session="mail dovecot/s1", pattern="dovecot", reason="granted") == 1
    await site.stop()
    assert site.told("follow.stop") == 1


async def test_an_open_session_keeps_the_grant(site: FollowSite) -> None:
    followers = site.start()
    await site.caught_up()
    site.login("alice", HERE)
    await site.told_soon("follow.login")
    for _ in range(8):
        site.clock.shift += 200
        await asyncio.sleep(0)
        followers.tick()
        followers._followers[0].thread.caught_up_at = site.clock.monotonic()
        followers.tick()
    assert site.may_relay(HERE)
    site.logout("alice")
    await site.told_soon("follow.logout", identity="alice@example.org")
    site.clock.shift += 901
    followers.tick()
    assert not site.may_relay(HERE)
    await site.stop()


async def test_nothing_is_renewed_while_the_log_cannot_be_read(site: FollowSite) -> None:
    followers = site.start()
    await site.caught_up()
    site.login("alice", HERE)
    await site.told_soon("follow.login")
    thread = followers._followers[0].thread
    for _ in range(8):
        site.clock.shift += 200
        thread.caught_up_at = float("-inf")
        followers.tick()
    assert not site.may_relay(HERE)
    await site.stop()


async def test_a_restart_goes_on_where_it_was(site: FollowSite) -> None:
    site.start()
    await site.caught_up()
    site.login("alice", HERE, "s1")
    await site.told_soon("follow.login")
    await site.stop()
    site.login("bob", THERE, "s2", age=400)
    site.login("carol", "203.0.113.77", "s3", age=950)
    site.rename()
    site.write(dovecot_login("dave", "203.0.113.78", "s4", site.clock.now()))
    followers = site.start()
    await site.told_soon("follow.login", identity="dave@example.org")
    assert site.told("follow.login") == 3  # alice's not again
    assert site.may_relay(THERE) and not site.may_relay("203.0.113.77")
    site.clock.shift += 60
    followers._followers[0].tick()
    await site.stop()
    assert site.told("follow.late", count=1) == 1
    # bob's session has no end, so it is open; but it was found 400 seconds old
    assert site.told("follow.login", age_seconds=400) == 1


async def test_open_sessions_outlast_a_restart(site: FollowSite) -> None:
    site.start()
    await site.caught_up()
    site.login("alice", HERE, "s1")
    site.login("bob", THERE, "s2")
    await site.told_soon("follow.login", 2)
    await site.stop()
    site.logout("bob", "s2")
    followers = site.start()
    await site.told_soon("follow.logout", identity="bob@example.org")
    for _ in range(8):
        site.clock.shift += 200
        followers._followers[0].thread.caught_up_at = site.clock.monotonic()
        followers.tick()
    assert site.may_relay(HERE) and not site.may_relay(THERE)
    await site.stop()


async def test_sessions_are_not_renewed_where_their_ends_may_have_been_lost(site: FollowSite) -> None:
    site.start()
    await site.caught_up()
    site.login("alice", HERE)
    await site.told_soon("follow.login")
    await site.stop()
    site.log.write_bytes(b"another file\n")
    followers = site.start()
    await site.told_soon("follow.error", reason="lost")
    assert not followers._followers[0].sessions.saved()
    await site.stop()


async def test_one_process_follows_and_its_end_hands_over(site: FollowSite) -> None:
    first = site.start()
    await site.caught_up()
    second = site.another()
    await asyncio.sleep(0.3)
    assert site.told("follow.start") == 1
    site.login("alice", HERE)
    await site.told_soon("follow.login")
    first.close()
    site.login("bob", THERE, "s2")
    await site.told_soon("follow.start", 2)
    await site.told_soon("follow.login", identity="bob@example.org")
    assert site.told("follow.login") == 2
    site.followers = second
    await site.stop()


async def test_the_end_in_one_log_is_not_the_end_while_another_has_a_session(tmp_path: Path) -> None:
    site = FollowSite(tmp_path, revoke_on_logout=True)
    site.write()
    other = site.log.with_name("other.log")
    other.touch(mode=0o640)
    site.also.append(FollowSettings(file=str(other)))
    site.start()
    await site.caught_up()
    site.login("alice", HERE, "s1")
    with other.open("ab") as file:
        file.write(dovecot_login("alice", HERE, "s2", site.clock.now()))
    await site.told_soon("follow.login", 2)
    site.logout("alice", "s1")
    await site.told_soon("follow.logout")
    assert site.may_relay(HERE)
    with other.open("ab") as file:
        file.write(dovecot_logout("alice", "s2", site.clock.now()))
    await site.told_soon("follow.logout", 2)
    assert not site.may_relay(HERE)
    await site.stop()


@pytest.mark.parametrize(("older", "counts"), [(0, True), (85000, True), (87000, False)])
async def test_a_place_of_yesterday_is_none(site: FollowSite, older: int, counts: bool) -> None:
    """What was written since cannot grant anything; the log is begun at its end again."""
    site.start()
    await site.caught_up()
    site.login("alice", HERE)
    await site.told_soon("follow.login")
    await site.stop()
    assert site.state is not None
    (path,) = site.state.glob("*.json")
    document = json.loads(path.read_text())
    path.write_text(json.dumps({**document, "saved_at": document["saved_at"] - older}))
    site.login("bob", THERE, "s2")
    site.start()
    await site.caught_up()
    site.login("carol", "203.0.113.77", "s3")
    await site.told_soon("follow.login", identity="carol@example.org")
    assert site.may_relay(THERE) == counts
    await site.stop()


async def test_a_lock_that_was_removed_is_made_anew(site: FollowSite) -> None:
    followers = site.start()
    await site.told_soon("follow.start")
    assert site.state is not None
    (site.state / "lock").unlink()
    followers.tick()
    await site.told_soon("follow.start", 2)
    assert site.told("follow.error", reason="lock") == 1
    await site.caught_up()
    site.login("alice", HERE)
    await site.told_soon("follow.login")
    await site.stop()


async def test_what_is_not_asked_for_does_not_count(tmp_path: Path) -> None:
    site = FollowSite(tmp_path)
    site.write()
    site.follow.protocols = ["pop3"]
    site.follow.hosts = ["mail"]
    site.follow.patterns = ["dovecot"]
    site.follow.default_domain = "example.net"
    site.start()
    await site.caught_up()
    site.login("alice", HERE)
    site.write(dovecot_login("bob", THERE, "s2", site.clock.now(), "pop3").replace(b" mail ", b" other "))
    site.write(dovecot_login("carol", THERE, "s2", site.clock.now(), "pop3"))
    await site.told_soon("follow.login")
    assert site.told("follow.login", identity="carol@example.net") == 1
    assert site.told("follow.login") == 1 and not site.may_relay(HERE)
    await site.stop()


async def test_lines_from_the_future_are_of_now(site: FollowSite) -> None:
    site.start()
    await site.caught_up()
    site.login("alice", HERE, age=-7200)
    await site.told_soon("follow.login")
    assert site.may_relay(HERE)
    site.clock.shift += 905
    assert not site.may_relay(HERE)
    await site.stop()


async def test_a_line_of_unknown_age_grants_nothing(tmp_path: Path) -> None:
    site = FollowSite(tmp_path)
    site.follow.start = "beginning"
    site.login("alice", HERE, age=-7200)
    site.login("bob", THERE)
    site.start()
    await site.told_soon("follow.login")
    assert site.may_relay(THERE) and not site.may_relay(HERE)
    await site.stop()


async def test_a_disk_that_stands_still_stops_nobody_else(
    site: FollowSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    followers = site.start()
    await site.told_soon("follow.start")
    await site.caught_up()
    go_on = threading.Event()
    real = os.pread

    def stuck(*arguments: int) -> bytes:
        go_on.wait(20)
        return real(*arguments)

    monkeypatch.setattr(os, "pread", stuck)
    site.login("alice", HERE)
    latest = time.monotonic()
    for _ in range(30):
        await asyncio.sleep(0.01)
        followers.tick()
        assert time.monotonic() - latest < 0.2
        latest = time.monotonic()
    assert not site.told("follow.login")
    followers.close()
    assert followers.connections
    await asyncio.sleep(2.1)
    assert not followers.connections  # nobody waits longer
    second = site.another()
    await site.told_soon("follow.start", 2)
    go_on.set()
    await site.told_soon("follow.login")
    site.followers = second
    await site.stop()


async def test_a_defect_is_told_and_the_following_goes_on(
    site: FollowSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("popgate.integrations.logs.follow_thread._DEFECT_SECONDS", 0.05)
    site.start()
    await site.caught_up()
    real = FollowedFile.look
    faults = [ValueError("a mistake"), ZeroDivisionError("another")]

    def look(file: FollowedFile, now: float, monotonic: float) -> object:
        if faults:
            raise faults.pop()
        return real(file, now, monotonic)

    monkeypatch.setattr(FollowedFile, "look", look)
    site.login("alice", HERE)
    await site.told_soon("follow.login")
    assert site.told("follow.error", reason="defect") == 2
    await site.stop()


async def test_a_state_that_cannot_be_written_is_told(site: FollowSite) -> None:
    site.start()
    await site.told_soon("follow.start")
    assert site.state is not None
    await until(lambda: any(site.state.glob("*.json")))
    for path in site.state.glob("*.json"):
        path.unlink()
        path.mkdir()
        (path / "in-the-way").touch()
    site.login("alice", HERE)
    await site.told_soon("follow.error", reason="forgetful")
    assert site.may_relay(HERE)
    await site.stop()


@pytest.mark.parametrize(
    "change",
    [
        lambda document: b"",
        lambda document: b"[" * 100000,
        lambda document: b"[1,2]",
        lambda document: {**document, "format": 99},
        lambda document: {**document, "saved_at": "yesterday"},
        lambda document: {**document, "saved_at": document["saved_at"] - 90000},
        lambda document: {**document, "source": "/etc/passwd"},
        lambda document: {**document, "place": {"marks": [{"offset": -1}, 7]}},
        lambda document: {**document, "place": []},
        lambda document: {**document, "sessions": [7, [], ["a", "b", "c", "d", "e", "f"], ["k"] * 6]},
    ],
)
async def test_a_state_that_makes_no_sense(site: FollowSite, change: object) -> None:
    site.start()
    await site.caught_up()
    site.login("alice", HERE)
    await site.told_soon("follow.login")
    await site.stop()
    assert site.state is not None
    (path,) = site.state.glob("*.json")
    changed = change(json.loads(path.read_text()))  # type: ignore[operator]
    path.write_bytes(changed if isinstance(changed, bytes) else json.dumps(changed).encode())
    site.start()
    await site.told_soon("follow.start", 2)
    await site.caught_up()
    site.login("bob", THERE, "s2")
    await site.told_soon("follow.login", identity="bob@example.org")
    assert site.told("follow.error", reason="defect") == 0
    await site.stop()


async def test_many_logins_at_once_leave_others_their_turn(site: FollowSite) -> None:
    site.start()
    await site.caught_up()
    now = site.clock.now()
    site.write(*[dovecot_login(f"u{n}", f"2001:db8::{n:x}", f"x{n}", now) for n in range(3000)])
    await site.told_soon("follow.login")
    turns = 0
    while len(site.sink.events) < 6001:  # follow.start, then two for each
        await asyncio.sleep(0)
        turns += 1
    assert turns >= 3000 // SEEN_A_TURN - 2
    assert site.told("follow.login") == site.told("grant.allow") == 3000
    await site.stop()


def test_marks_are_all_or_none() -> None:
    good: Mapping[str, object] = {"device": 1, "inode": 2, "offset": 3, "head": "", "tail": ""}
    assert len(follow_source.marks_of({"marks": [good, good]})) == 2
    assert not follow_source.marks_of({"marks": [good, {**good, "offset": "x"}]})
    assert not follow_source.marks_of({"marks": "x"}) and not follow_source.marks_of({})
