"""`popgate logs`: old logs read again, patterns listed, one line explained."""

import bz2
import gzip
import lzma
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Run = Callable[..., Any]

DOVECOT = (
    "{stamp} mail dovecot: pop3-login: Login: user=<{user}>, method=PLAIN, rip={rip}, lip=192.0.2.1,"
    " mpid=1, session=<{session}>"
)
LOGOUT = (
    "{stamp} mail dovecot: pop3({user})<1><{session}>: Disconnected: Logged out top=0/0, retr=0/0, size=0"
)


def stamp(at: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S+00:00", time.gmtime(at))


def login(at: float, rip: str = "203.0.113.9", user: str = "alice", session: str = "s1") -> str:
    return DOVECOT.format(stamp=stamp(at), user=user, rip=rip, session=session)


def logout(at: float, user: str = "alice", session: str = "s1") -> str:
    return LOGOUT.format(stamp=stamp(at), user=user, session=session)


def write(path: Path, *lines: str, at: float | None = None) -> str:
    path.write_bytes("".join(f"{line}\n" for line in lines).encode())
    if at is not None:
        os.utime(path, (at, at))
    return str(path)


NOON = 1795521600.0  # 2026-11-24 12:00 UTC


def test_a_dry_run_tells_windows_and_grants_nothing(site: Path, run: Run, run_json: Run) -> None:
    log = write(
        site / "mail.log",
        login(NOON),
        logout(NOON + 60),
        "2026-11-24T12:05:00+00:00 mail postfix/smtpd[1]: connect from unknown[203.0.113.9]",
        login(NOON + 300, session="s2"),
        logout(NOON + 310, session="s2"),
        login(NOON + 20000, rip="2001:db8::9", user="bob@example.net", session="s3"),
        login(NOON + 20001, rip="127.0.0.1", session="s4"),
    )
    told = run_json("logs", "replay", "--dry-run", log)
    first, second = told["windows"]
    assert (first["identity"], first["address"], first["protocol"]) == (
        "alice@example.org",
        "203.0.113.9",
        "pop3",
    )
    assert (first["from"], first["logins"], first["is_open"]) == (NOON, 2, False)
    assert first["until"] == pytest.approx(NOON + 310 + 900, abs=60)
    assert (second["identity"], second["address"], second["is_open"]) == (
        "bob@example.net",
        "2001:db8::9",
        True,
    )
    assert told["refused"] == {"never": 1}
    assert (told["logins"], told["logouts"]) == (4, 2)
    assert run_json("grant", "list") == []
    assert "alice@example.org" in run("logs", "replay", "--dry-run", log).stdout


def test_an_open_session_keeps_its_window(site: Path, run_json: Run) -> None:
    log = write(site / "mail.log", login(NOON), logout(NOON + 3000), login(NOON + 9000, rip="203.0.113.10"))
    window = run_json("logs", "replay", "--dry-run", log)["windows"][0]
    assert window["until"] == pytest.approx(NOON + 3000 + 900, abs=300)


def test_windows_that_are_open_now_are_granted(site: Path, run_json: Run) -> None:
    now = time.time()
    log = write(
        site / "mail.log",
        login(now - 5000, rip="203.0.113.1"),
        logout(now - 4990),
        login(now - 300, session="s2"),
        logout(now - 200, session="s2"),
        login(now - 60, rip="203.0.113.5", user="mallory>, rip=198.51.100.9", session="s3"),
    )
    assert run_json("logs", "replay", log)["granted"] == 1
    (grant,) = run_json("grant", "list")
    assert (grant["address"], grant["identity"], grant["protocol"]) == (
        "203.0.113.9",
        "alice@example.org",
        "pop3",
    )
    assert grant["login_at"] == pytest.approx(now - 300, abs=2)
    assert grant["renewed_at"] == pytest.approx(now - 200, abs=60)
    assert run_json("logs", "replay", log)["granted"] == 1  # again: nothing changes
    assert run_json("grant", "list") == [grant]


@pytest.mark.parametrize(
    ("name", "compress"), [("log.gz", gzip.compress), ("log.2", lzma.compress), ("log.bz2", bz2.compress)]
)
def test_compressed_logs_are_read(
    site: Path, run_json: Run, name: str, compress: Callable[[bytes], bytes]
) -> None:
    path = site / name
    path.write_bytes(compress(f"{login(NOON)}\n".encode()))
    assert run_json("logs", "replay", "--dry-run", str(path))["logins"] == 1


def test_damaged_and_missing_files_are_named(site: Path, run: Run) -> None:
    path = site / "log.gz"
    path.write_bytes(gzip.compress(f"{login(NOON)}\n".encode())[:-9])
    assert "log.gz" in run("logs", "replay", "--dry-run", str(path), code=2).stderr
    assert "missing" in run("logs", "replay", "--dry-run", str(site / "missing"), code=2).stderr
    assert "directory" in run("logs", "replay", "--dry-run", str(site), code=2).stderr


def test_rotated_files_are_read_in_the_order_of_their_change(site: Path, run_json: Run) -> None:
    newer = write(site / "mail.log", logout(NOON + 2000), at=NOON + 2000)
    older = write(site / "mail.log.1", login(NOON), at=NOON + 10)
    window = run_json("logs", "replay", "--dry-run", newer, older)["windows"][0]
    assert window["until"] == pytest.approx(NOON + 2000 + 900, abs=300)


def test_a_line_from_the_future_does_not_stop_the_others(site: Path, run_json: Run) -> None:
    log = write(site / "mail.log", login(4e9), login(NOON), at=NOON + 5)
    told = run_json("logs", "replay", "--dry-run", log)
    assert told["refused"] == {"future": 1}
    assert [window["from"] for window in told["windows"]] == [NOON]


def test_half_a_line_at_the_end_does_not_count(site: Path, run_json: Run) -> None:
    path = site / "mail.log"
    path.write_text(f"{login(NOON)}\n" + login(NOON + 1, rip="203.0.113.25").partition("5, lip")[0])
    assert [w["address"] for w in run_json("logs", "replay", "--dry-run", str(path))["windows"]] == [
        "203.0.113.9"
    ]


def test_hosts_and_pattern_sets_choose(site: Path, run_json: Run) -> None:
    log = write(site / "mail.log", login(NOON), login(NOON).replace(" mail ", " other "))
    assert run_json("logs", "replay", "--dry-run", "--host", "other", log)["logins"] == 1
    assert run_json("logs", "replay", "--dry-run", "--pattern-set", "courier,cyrus-3", log)["logins"] == 0


def test_diff_tells_what_only_one_set_sees(site: Path, run: Run) -> None:
    log = write(
        site / "mail.log",
        login(NOON),
        "2026-11-24T12:00:01+00:00 mail pop3d: LOGIN, user=carol, ip=[::ffff:203.0.113.8], port=[1]",
    )
    told = run("logs", "replay", log, "--pattern-set", "dovecot", "--diff", "courier", code=1).stdout
    assert [line[0] for line in told.splitlines()] == ["-", "+"]
    assert run("logs", "replay", log, "--diff", "all").stdout == ""


def test_without_a_configuration_a_dry_run_uses_the_defaults(
    tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("POPGATE_CONFIG", raising=False)
    monkeypatch.setattr(sys.modules["popgate.config.load"], "SEARCH", ("popgate.toml",))
    log = write(tmp_path / "mail.log", login(NOON))
    result = run("logs", "replay", "--dry-run", log)
    assert "there is no configuration" in result.stderr
    assert " alice " in result.stdout
    run("logs", "replay", log, code=2)
    assert os.listdir(tmp_path) == ["mail.log"]


def test_standard_input(site: Path, run_json: Run, run: Run) -> None:
    text = login(NOON) + "\n"
    assert run_json("logs", "replay", "--dry-run", "-", stdin=text)["logins"] == 1
    assert "twice" in run("logs", "replay", "-", "--diff", "all", code=2, stdin=text).stderr


def test_patterns_are_listed(run: Run, run_json: Run) -> None:
    assert "dovecot-2.4" in run("logs", "patterns").stdout
    names = [one["name"] for one in run_json("logs", "patterns")]
    assert names == sorted(names)
    assert len(names) > 20


def test_a_line_is_explained(run: Run) -> None:
    told = run("logs", "test", login(NOON)).stdout
    assert "program dovecot" in told
    assert "login of alice at 203.0.113.9 by pop3" in told
    told = run("logs", "test", login(NOON).replace("Login: user", "Disconnected: user"), code=1).stdout
    assert "dovecot (login): does not match behind 'pop3-login: '" in told
    assert "no pattern is for that" in run("logs", "test", "Nov 24 11:31:02 m sshd[1]: x", code=1).stdout
    assert "no syntax" in run("logs", "test", "whatever", code=1).stdout
    assert "a user name" in run("logs", "test", login(NOON, user="al*ice"), code=1).stdout


def test_lines_that_belong_together_are_explained(run_json: Run) -> None:
    text = (
        "Nov 24 11:31:02 m popa3d[9]: Session from 203.0.113.9\n"
        "Nov 24 11:31:02 m popa3d[9]: Authentication passed for hal\n"
    )
    first, second = run_json("logs", "test", stdin=text)
    assert first["seen"] == []
    assert second["seen"][0]["address"] == "203.0.113.9"


def test_a_pattern_of_ones_own(site: Path, run: Run, run_json: Run) -> None:
    own = site / "own.toml"
    own.write_text(
        'name = "own"\nprograms = { popd = "pop3" }\n'
        r"login = ['^hello (?P<user>[a-z]+) from (?P<address>[0-9.]+)$']"
    )
    log = write(site / "mail.log", "2026-11-24T12:00:01+00:00 mail popd[3]: hello dora from 203.0.113.7")
    told = run_json("logs", "replay", "--dry-run", "--pattern-set", str(own), log)
    assert told["windows"][0]["identity"] == "dora@example.org"
    own.write_text(own.read_text().replace("[a-z]+", "(?:[a-z]+)+"))
    error = run("logs", "replay", "--dry-run", "--pattern-set", str(own), log, code=2).stderr
    assert "own.toml:3: login.0: repeats what is itself repeated" in error
