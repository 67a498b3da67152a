"""A real server that keeps map files: logins, lapses, stops, kills, reloads, and files that others touch."""

import os
import poplib
import resource
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import lmdb
import pytest

from popgate.integrations.ucspi.cdb import Cdb
from popgate.integrations.ucspi.rule_file import RuleFile
from support.popgate import Popgate

ADDRESS, ADDRESS6, WHO = "203.0.113.9", "2001:db8::9", "alice@example.org"
GRANTS = '[grants]\nsender = "any"\nwindow_seconds = 60\n'


class Site:
    """A server with a map of each kind, in `maps`."""

    def __init__(self, directory: Path, more: str = "", grants: str = GRANTS) -> None:
        self.maps = directory / "maps"
        self.maps.mkdir()
        kinds = {"relay.cdb": "cdb", "relay.lmdb": "lmdb", "tcp": "tcprules", "granted": "text"}
        tables = "".join(
            f'[[map]]\npath = "{self.maps}/{name}"\nkind = "{kind}"\n' for name, kind in kinds.items()
        )
        self.popgate = Popgate(
            directory / "site", [("pop3", "plaintext_login = true")], grants + tables + more
        )

    def allow(self, address: str = ADDRESS, *more: str) -> None:
        self.popgate.command("grant", "allow", address, WHO, *more)

    def holds(self, address: str = ADDRESS) -> dict[str, bool]:
        """Which map has it."""
        found = {}
        key = address.encode()
        found["text"] = key in (self.maps / "granted").read_bytes().splitlines()
        found["cdb"] = Cdb((self.maps / "relay.cdb").read_bytes()).find(key) == b"RELAY"
        with (
            lmdb.open(str(self.maps / "relay.lmdb"), subdir=False, lock=False, readonly=True) as environment,
            environment.begin() as transaction,
        ):
            found["lmdb"] = transaction.get(key) == b"RELAY"
        if ":" not in address:
            verdict = RuleFile(str(self.maps / "tcp")).decide(address, None, None)
            assert not verdict.is_denied
            found["tcprules"] = verdict.settings == {b"RELAYCLIENT": b""}
        return found

    def everywhere(self, address: str = ADDRESS) -> bool:
        return all(self.holds(address).values())

    def nowhere(self, address: str = ADDRESS) -> bool:
        return not any(self.holds(address).values())

    def process(self) -> int:
        """The pid of the one that writes the maps."""
        lines = [line for line in self.popgate.log.splitlines() if "process.start process=maps" in line]
        return int(lines[-1].rpartition("pid=")[2])


def soon(condition: Callable[[], bool], seconds: float = 1.0) -> float:
    """Wait until it holds; how long that took."""
    began = time.monotonic()
    while not condition():
        assert time.monotonic() - began < seconds, "it does not come true"
        time.sleep(0.005)
    return time.monotonic() - began


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


def test_in_every_map_while_the_grant_is_live_and_not_a_second_longer(site: Site) -> None:
    with site.popgate:
        assert site.nowhere()
        for address in (ADDRESS, ADDRESS6):
            site.allow(address, "--window", "3")
            end = (site.popgate.directory / "data/allow" / address).stat().st_mtime + 3
            soon(lambda address=address: site.everywhere(address))  # type: ignore[misc]
            time.sleep(max(0.0, end - 0.2 - time.time()))
            assert site.everywhere(address) or time.time() > end
            soon(lambda address=address: site.nowhere(address), 1.2)  # type: ignore[misc]
            assert end < time.time() < end + 1
        # a login after the lapse, in the file that is there already
        site.allow(ADDRESS, "--window", "30")
        soon(site.everywhere)
        site.popgate.command("grant", "revoke", ADDRESS)
        soon(site.nowhere)
    assert site.popgate.log.count("map.fault") == 0


def test_a_login_at_the_pop3_server_and_what_explain_says(tmp_path: Path) -> None:
    site = Site(tmp_path, grants=GRANTS + "never = []\n")
    site.popgate.add_account(WHO, "secret")
    with site.popgate:
        assert "has it not" in site.popgate.command("grant", "explain", "127.0.0.1", check=False).stdout
        pop3 = poplib.POP3("127.0.0.1", site.popgate.port("pop3"), 10)
        pop3.user(WHO)
        pop3.pass_("secret")
        soon(lambda: site.everywhere("127.0.0.1"))
        pop3.quit()
        said = site.popgate.command("grant", "explain", "127.0.0.1").stdout
        assert [line for line in said.splitlines() if " the map " in line] == [
            f"  the map {site.maps}/{name} has it" for name in ("relay.cdb", "relay.lmdb", "tcp", "granted")
        ]
        listed = site.popgate.command("map", "list").stdout
        assert f"{site.maps}/relay.lmdb" in listed


def test_a_clean_stop_lets_nobody_relay(site: Site) -> None:
    with site.popgate:
        site.allow()
        soon(site.everywhere)
    assert site.nowhere()
    with site.popgate:
        assert site.everywhere()  # before anybody can connect


def test_when_only_the_parent_is_killed_the_maps_are_cleared(site: Site) -> None:
    with site.popgate:
        site.allow()
        soon(site.everywhere)
        os.kill(site.popgate.pid, signal.SIGKILL)
        soon(site.nowhere, 5)
        assert site.popgate.process is not None
        site.popgate.process.wait()


def test_when_the_writer_is_killed_another_one_goes_on(site: Site) -> None:
    with site.popgate:
        os.kill(site.process(), signal.SIGKILL)
        site.allow()
        soon(site.everywhere, 5)


def test_when_all_are_killed_refresh_takes_out_what_lapses(site: Site) -> None:
    with site.popgate:
        site.allow(ADDRESS, "--window", "2")
        site.allow(ADDRESS6, "--window", "60")
        soon(lambda: site.everywhere() and site.everywhere(ADDRESS6))
        site.popgate.kill()
        time.sleep(2.1)
        assert site.everywhere()  # docs/maps.md says so
        done = site.popgate.command("map", "refresh")
        assert "1 addresses may relay by 4 maps" in done.stdout + done.stderr
        assert site.nowhere() and site.everywhere(ADDRESS6)
        site.popgate.command("grant", "revoke", ADDRESS6)
        assert site.popgate.command("map", "refresh", "--quiet").stdout == ""
        assert site.nowhere(ADDRESS6)
        site.allow(ADDRESS6)
        site.popgate.start()
        assert site.everywhere(ADDRESS6)


def test_what_somebody_removes_or_replaces_is_written_again(site: Site) -> None:
    with site.popgate:
        site.allow()
        soon(site.everywhere)
        for name in ("relay.cdb", "relay.lmdb", "tcp", "granted"):
            (site.maps / name).unlink()
        (site.maps / "granted").write_text("203.0.113.66\n")
        soon(lambda: len(list(site.maps.iterdir())) == 4 and site.everywhere(), 2.5)
        with (
            lmdb.open(str(site.maps / "relay.lmdb"), subdir=False, lock=False) as environment,
            environment.begin(write=True) as transaction,
        ):
            transaction.put(b"203.0.113.66", b"RELAY")
            transaction.delete(ADDRESS.encode())
        soon(lambda: len(list(site.maps.iterdir())) == 4 and site.everywhere(), 2.5)
        assert site.nowhere("203.0.113.66")


def test_a_torn_database_is_replaced_at_the_start(site: Site) -> None:
    site.allow()
    for name in ("relay.cdb", "relay.lmdb", "tcp"):
        (site.maps / name).write_bytes(b"\1" * 5000)
    litter = site.maps / ".granted.99999999.new"
    litter.write_text("half")
    with site.popgate:
        assert site.everywhere()
        soon(lambda: not litter.exists())


def test_a_map_that_cannot_be_written_is_taken_away(site: Site) -> None:
    with site.popgate:
        site.allow()
        soon(site.everywhere)
        process = site.process()
        # as a full disk: no file may grow, the log neither
        resource.prlimit(process, resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))
        site.popgate.command("grant", "revoke", ADDRESS)
        soon(lambda: not (site.maps / "granted").exists() or (site.maps / "granted").read_bytes() == b"", 2)
        soon(lambda: not (site.maps / "relay.cdb").exists(), 2)
        resource.prlimit(process, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        site.allow()
        soon(lambda: len(list(site.maps.iterdir())) == 4 and site.everywhere(), 3)


def test_the_grant_directory_is_made_anew(site: Site) -> None:
    with site.popgate:
        site.allow()
        soon(site.everywhere)
        directory = site.popgate.directory / "data/allow"
        for each in directory.iterdir():
            each.unlink()
        soon(site.nowhere)
        directory.rmdir()
        time.sleep(1.1)
        site.allow()
        soon(site.everywhere, 3)


def test_a_reload_drops_a_map_and_keeps_the_others(site: Site) -> None:
    with site.popgate:
        site.allow()
        soon(site.everywhere)
        text = site.popgate.config.read_text()
        table = f'[[map]]\npath = "{site.maps}/granted"\nkind = "text"\n'
        assert table in text
        site.popgate.config.write_text(text.replace(table, ""))
        site.popgate.send_signal(signal.SIGHUP)
        soon(lambda: site.holds() == {"text": False, "cdb": True, "lmdb": True, "tcprules": True}, 10)
        site.popgate.config.write_text(text)
        site.popgate.send_signal(signal.SIGHUP)
        soon(site.everywhere, 10)
        site.popgate.config.write_text(text.replace("[[map]]", "[[chart]]"))
        site.popgate.send_signal(signal.SIGHUP)
        site.popgate.wait_for("server.reload.refused")
        site.popgate.command("grant", "revoke", ADDRESS, check=False)
        site.popgate.config.write_text(text)


def test_a_command_is_run_after_each_change_and_at_the_end(tmp_path: Path) -> None:
    told = tmp_path / "told"
    script = f"open({str(told)!r}, 'a').write(open({str(tmp_path)!r} + '/maps/list').read().strip() + ';')"
    command = [sys.executable, "-c", script]
    more = f'[[map]]\npath = "{tmp_path}/maps/list"\nkind = "text"\ncommand = {command!r}\n'
    failing = f'[[map]]\npath = "{tmp_path}/maps/other"\nkind = "text"\ncommand = ["/bin/false"]\n'
    site = Site(tmp_path, more.replace("'open", '"open').replace("')\"", "')\"") + failing)
    with site.popgate:
        site.allow()
        soon(lambda: told.exists() and f"{ADDRESS};" in told.read_text(), 5)
        site.popgate.wait_for("map.command.failed")
    assert told.read_text().endswith(f"{ADDRESS};;")


def test_permissions(tmp_path: Path) -> None:
    more = f'[[map]]\npath = "{tmp_path}/maps/x.lmdb"\nkind = "lmdb"\nfile_mode = "0640"\n'
    more += f'[[map]]\npath = "{tmp_path}/maps/x"\nkind = "text"\nfile_mode = "0600"\n'
    if os.geteuid() == 0:
        more = more.replace('"0640"', '"0640"\nfile_group = "nogroup"')
    site = Site(tmp_path, more)
    with site.popgate:
        modes = {name: (site.maps / name).stat().st_mode & 0o777 for name in ("x.lmdb", "x", "granted")}
        assert modes == {"x.lmdb": 0o640, "x": 0o600, "granted": 0o644}
        if os.geteuid() == 0:
            assert (site.maps / "x.lmdb").stat().st_gid == 65534


def test_it_does_not_start_where_a_map_cannot_be_written(site: Site) -> None:
    for each in site.maps.iterdir():
        each.unlink()
    site.maps.rmdir()
    done = site.popgate.command("serve", check=False)
    assert done.returncode == 2
    assert "its directory cannot be reached" in done.stderr
