"""The kept history, and the explanation that is read from it."""

import json
import os
from pathlib import Path

import pytest

from grants_kit import ALICE, BOB, NOW, HandClock, address, grant
from popgate.grants import history, rules
from popgate.grants.grant import DEFAULT_TERMS, Terms, Usage
from popgate.grants.history import History, events_of, explain
from popgate.grants.service import Grants
from popgate.grants.settings import GrantSettings
from popgate.grants.store import StoreError
from popgate.grants.stores.memory import MemoryStore
from popgate.values.event import Event

HERE = address()
SETTINGS = GrantSettings()


def event(n: int, name: str = "grant.allow", client: str = HERE.text, **fields: str) -> Event:
    return Event(name, NOW + n, {"client": client, "identity": f"user{n}", "session": None, **fields})


def test_only_grant_and_relay_events_are_kept(tmp_path: Path) -> None:
    kept = History(str(tmp_path / "history"))
    for name in ("grant.allow", "pop3.login", "smtp.relay.refused", "smtp.accept", "grants"):
        kept(event(1, name))
    kept.close()
    assert [each.name for each in events_of(str(tmp_path / "history"), HERE, SETTINGS)] == [
        "grant.allow",
        "smtp.relay.refused",
    ]
    assert (tmp_path / "history" / history.CURRENT).stat().st_mode & 0o777 == 0o600


def test_lines_gather_until_a_flush_or_until_they_are_many(tmp_path: Path) -> None:
    kept = History(str(tmp_path))
    for n in range(63):
        kept(event(n))
    assert events_of(str(tmp_path), HERE, SETTINGS) == []
    kept(event(63))
    assert len(events_of(str(tmp_path), HERE, SETTINGS)) == 64
    kept(event(64))
    kept.flush()
    assert [each.fields["identity"] for each in events_of(str(tmp_path), HERE, SETTINGS)] == [
        f"user{n}" for n in range(65)
    ]
    kept.close()


def test_what_a_client_can_put_into_a_field_stays_in_its_line(tmp_path: Path) -> None:
    kept = History(str(tmp_path))
    nasty = 'x\n{"at":1,"event":"grant.allow","client":"203.0.113.9"}\r\x00"' + "y" * 5000
    kept(event(1, "smtp.relay.refused", sender=nasty))
    kept.close()
    (only,) = events_of(str(tmp_path), HERE, SETTINGS)
    assert only.fields["sender"] == nasty[:512]
    kept(event(2))
    kept.close()
    assert len((tmp_path / history.CURRENT).read_bytes().splitlines()) == 2


def test_another_address_is_another_story(tmp_path: Path) -> None:
    kept = History(str(tmp_path))
    for client in ("203.0.113.9", "203.0.113.90", "2001:db8::9", "2001:db8::a"):
        kept(event(1, client=client))
    kept.close()
    assert len(events_of(str(tmp_path), HERE, SETTINGS)) == 1
    assert len(events_of(str(tmp_path), address("2001:db8::9"), SETTINGS)) == 1
    assert len(events_of(str(tmp_path), address("2001:db8::77"), GrantSettings(ipv6_prefix=64))) == 2


@pytest.mark.parametrize(
    "junk",
    [b"{", b"[]\n", b"3\n", b'{"at":"x","event":"grant.allow"}\n', b'{"at":1,"event":[]}\n', b"\xff\xfe\n"],
)
def test_broken_lines_are_passed_over(tmp_path: Path, junk: bytes) -> None:
    client = b'"client":"203.0.113.9"'
    (tmp_path / history.CURRENT).write_bytes(junk.rstrip(b"\n") + client + b"\n" + junk + b"\n")
    kept = History(str(tmp_path))
    kept(event(1))
    kept.close()
    assert len(events_of(str(tmp_path), HERE, SETTINGS)) == 1


def test_no_history_at_all(tmp_path: Path) -> None:
    assert events_of(str(tmp_path / "none"), HERE, SETTINGS) == []


def test_rotation_keeps_two_bounded_files(tmp_path: Path) -> None:
    kept = History(str(tmp_path), max_file_bytes=2000)
    for n in range(200):
        kept(event(n))
        kept.flush()
    kept.close()
    assert sorted(os.listdir(tmp_path)) == [history.OLDER, history.CURRENT]
    assert all((tmp_path / name).stat().st_size <= 2000 for name in os.listdir(tmp_path))
    told = [each.fields["identity"] for each in events_of(str(tmp_path), HERE, SETTINGS)]
    assert told == [f"user{n}" for n in range(200 - len(told), 200)] and len(told) > 20


def test_several_processes_write_and_rotate_without_losing_a_line(tmp_path: Path) -> None:
    bound = 60_000  # less than all lines, so that it rotates once; two files hold them all
    inherited = History(str(tmp_path), max_file_bytes=bound)
    inherited(event(9999))
    children = []
    for child in range(4):
        pid = os.fork()
        if pid == 0:
            try:
                for n in range(200):
                    inherited(event(child * 1000 + n))
                    if n % 3 == 0:
                        inherited.flush()
                inherited.close()
                os._exit(0)
            except BaseException:
                os._exit(1)
        children.append(pid)
    assert [os.waitpid(pid, 0)[1] for pid in children] == [0] * 4
    inherited.close()
    lines = b"".join((tmp_path / name).read_bytes() for name in (history.OLDER, history.CURRENT)).splitlines()
    told = sorted(json.loads(line)["identity"] for line in lines)
    assert told == sorted(
        [f"user{child * 1000 + n}" for child in range(4) for n in range(200)] + ["user9999"]
    )


def test_a_file_that_was_moved_away_is_made_anew(tmp_path: Path) -> None:
    kept = History(str(tmp_path))
    kept(event(1))
    kept.flush()
    (tmp_path / history.CURRENT).rename(tmp_path / "saved")
    kept(event(2))
    kept.close()
    assert len(events_of(str(tmp_path), HERE, SETTINGS)) == 1


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_what_root_writes_the_server_can_append_to(tmp_path: Path) -> None:
    os.chown(tmp_path, 12345, 12346)
    kept = History(str(tmp_path / "history"))
    kept(event(1))
    kept.close()
    for path in (tmp_path / "history", tmp_path / "history" / history.CURRENT):
        assert (path.stat().st_uid, path.stat().st_gid) == (12345, 12346)


@pytest.mark.parametrize("how", ["symlink", "link", "fifo"])
def test_nothing_is_written_into_what_was_put_in_its_place(tmp_path: Path, how: str) -> None:
    (tmp_path / "secret").write_bytes(b"")
    place = tmp_path / history.CURRENT
    if how == "symlink":
        place.symlink_to("secret")
    elif how == "link":
        os.link(tmp_path / "secret", place)
    else:
        os.mkfifo(place)
    kept = History(str(tmp_path))
    kept(event(1))
    kept.close()
    assert (tmp_path / "secret").read_bytes() == b"" and kept.lost_lines == 1
    assert events_of(str(tmp_path), HERE, SETTINGS) == []


def test_what_cannot_be_written_is_counted_and_does_not_raise(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    kept = History(str(tmp_path / "file"))
    kept(event(1))
    kept.flush()
    kept.close()
    assert kept.lost_lines == 1


# Explanations.


def told(lines: list[history.Explained]) -> list[tuple[str, str]]:
    return [(line.kind, line.reason) for line in lines]


def test_the_whole_story_of_an_address(tmp_path: Path) -> None:
    clock, store, kept = HandClock(), MemoryStore(), History(str(tmp_path))
    service = Grants(store, SETTINGS, clock, kept)
    service.allow(HERE, ALICE, "pop3", DEFAULT_TERMS, "s1")
    clock.pass_seconds(10)
    kept(
        Event(
            "smtp.relay.refused",
            clock.now(),
            {"client": HERE.text, "reason": "sender-not-bound", "sender": "x@y"},
        )
    )
    kept.flush()
    lines = explain(str(tmp_path), store, SETTINGS, HERE, clock.now())
    assert told(lines) == [
        ("verdict", "granted"),
        ("state", "live"),
        ("story", "grant.allow"),
        ("story", "smtp.relay.refused"),
    ]
    assert lines[0].at == NOW + 900
    assert lines[1].text == (
        "alice@example.org: a live grant by pop3; relayed 0 of 100 messages, 0 of 500 recipients,"
        " 0 of 1073741824 bytes"
    )
    assert [line.text for line in lines[2:]] == [
        "alice@example.org logged in by pop3: may relay",
        "mail from x@y to ?: refused with ? (sender-not-bound)",
    ]
    clock.pass_seconds(891)
    assert told(explain(str(tmp_path), store, SETTINGS, HERE, clock.now()))[:2] == [
        ("verdict", "lapsed"),
        ("state", "lapsed"),
    ]
    clock.pass_seconds(50)
    service.sweep()
    kept.flush()
    lines = explain(str(tmp_path), store, SETTINGS, HERE, clock.now())
    assert told(lines)[:2] == [("verdict", "no-grant"), ("state", "no-grant")]
    assert (lines[-1].reason, lines[-1].at) == ("grant.lapse", NOW + 900)


@pytest.mark.parametrize(
    ("one", "verdict", "state"),
    [
        (grant(used=Usage(100)), "over-quota", "over-quota"),
        (grant(login_at=NOW + 50), "no-grant", "future"),
        (rules.retired(grant(used=Usage(3))), "no-grant", "ended"),
        (grant(terms=Terms(quota_messages=0), used=Usage(1000)), "granted", "live"),
    ],
)
def test_states_of_a_grant(tmp_path: Path, one, verdict: str, state: str) -> None:
    store = MemoryStore()
    store.change(HERE, lambda _: [one])
    assert told(explain(str(tmp_path), store, SETTINGS, HERE, NOW)) == [
        ("verdict", verdict),
        ("state", state),
    ]


def test_networks_that_decide_before_any_grant(tmp_path: Path) -> None:
    store = MemoryStore()
    store.change(HERE, lambda _: [grant(identity=BOB)])
    settings = GrantSettings(trusted=["203.0.113.0/24"], never=["203.0.113.9"])
    lines = explain(str(tmp_path), store, settings, HERE, NOW)
    assert told(lines) == [
        ("verdict", "trusted"),
        ("state", "trusted"),
        ("state", "never"),
        ("state", "live"),
    ]
    for where, own in (
        (HERE, frozenset({HERE})),
        (address("::1"), frozenset()),
        (address("0.0.0.0"), frozenset()),
    ):
        assert explain(str(tmp_path), store, SETTINGS, where, NOW, own)[0].reason == "never"


def test_a_store_at_fault_is_the_explanation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = MemoryStore()

    def broken(_):
        raise StoreError("the disk is gone")

    monkeypatch.setattr(store, "find", broken)
    lines = explain(str(tmp_path), store, SETTINGS, HERE, NOW)
    assert told(lines) == [("verdict", "store-unavailable"), ("state", "store-unavailable")]
    assert lines[1].text == "the disk is gone"


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        (
            {
                "verdict": "permit",
                "reason": "granted",
                "sender": "a@b",
                "recipient": "c@d",
                "identity": "a@b",
            },
            "asked by socketmap: permit (granted), mail from a@b to c@d, for a@b",
        ),
        ({"verdict": "refuse", "reason": "lapsed"}, "asked by socketmap: refuse (lapsed)"),
        (
            {"verdict": "refuse", "reason": "no-grant", "sender": ""},
            "asked by socketmap: refuse (no-grant), mail from <>",
        ),
    ],
)
def test_what_another_server_was_answered(tmp_path: Path, fields: dict[str, str], text: str) -> None:
    kept = History(str(tmp_path))
    kept(Event("relay.decide", NOW, {"client": HERE.text, "service": "socketmap", **fields}))
    kept.flush()
    *_, last = explain(str(tmp_path), MemoryStore(), SETTINGS, HERE, NOW)
    assert (last.kind, last.text) == ("story", text)
