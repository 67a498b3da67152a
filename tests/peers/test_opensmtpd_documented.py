"""docs/opensmtpd.md, as it stands there, with Debian's OpenSMTPD: who relays, who is refused, and what
happens while popgate is stopped, hangs or is killed. Only places differ, and root needs no sudo."""

import contextlib
import os
import signal
import smtplib
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.beside import ALICE, BRIEF, BesideSite, LocalClient, asked, free_port, soon
from support.documents import blocks
from support.opensmtpd import OpenSmtpd
from support.popgate import SOURCE
from support.relay_ctrl import Installed, interpreter_for_everybody
from support.relaying import BRIEF_SECONDS

pytestmark = [pytest.mark.peer("opensmtpd")]

DOCUMENT = "opensmtpd.md"
(TOML,) = blocks(DOCUMENT, "What to install", "toml")
(TABLE_TOML,) = blocks(DOCUMENT, "What to install", "table-toml")
(CONF,) = blocks(DOCUMENT, "What to install", "smtpd.conf")
(LIST_TOML,) = blocks(DOCUMENT, "A list instead", "toml")
(LIST_CONF,) = blocks(DOCUMENT, "A list instead", "smtpd.conf")
(SUDOERS,) = blocks(DOCUMENT, "A list instead", "sudoers")
HERE = "root@here.example"
Both = tuple[BesideSite, OpenSmtpd]


@pytest.fixture(scope="module")
def installed() -> Iterator[Installed]:
    if interpreter_for_everybody() is None:
        pytest.skip("no Python 3.11 that smtpd's user can start")
    installed = Installed()
    yield installed
    installed.remove()


@pytest.fixture
def table(installed: Installed) -> str:
    """The program as it is installed."""
    _, link = blocks(DOCUMENT, "What to install", "sh")[0].splitlines()
    assert link.split() == [
        "ln", "-s", "/opt/popgate/bin/popgate-table-opensmtpd", "/usr/libexec/opensmtpd/table-popgate"
    ]  # fmt: skip
    return installed.path("popgate-table-opensmtpd")


def opensmtpd(table: str, table_toml: str | None = TABLE_TOML) -> OpenSmtpd:
    files = {} if table_toml is None else {"popgate/opensmtpd.toml": table_toml}
    return OpenSmtpd(free_port(), CONF, {"popgate": table}, files)


def beside(tmp_path: Path, smtpd: OpenSmtpd) -> BesideSite:
    # its group is known in there alone
    toml = TOML.replace('socket_group = "opensmtpd"', 'socket_mode = "0666"')
    return BesideSite(tmp_path / "site", toml, smtpd.run)


@contextlib.contextmanager
def running(tmp_path: Path, table: str, table_toml: str = TABLE_TOML) -> Iterator[Both]:
    with opensmtpd(table, table_toml) as smtpd:
        site = beside(tmp_path, smtpd)
        with site.popgate:
            yield site, smtpd


def program(smtpd: OpenSmtpd) -> int:
    (pid,) = [
        pid for pid, command in smtpd.processes.items() if "opensmtpd.toml" in command and "table" in command
    ]
    return pid


def test_refused_then_a_login_then_relayed_then_lapsed_then_refused(tmp_path: Path, table: str) -> None:
    with (
        running(tmp_path, table) as (site, smtpd),
        LocalClient(smtpd.port, "127.0.0.9") as one,
        LocalClient(smtpd.port, "::1") as other,
    ):
        assert (one.ask(), other.ask()) == (550, 550)
        site.log_in("127.0.0.9", BRIEF)
        assert (one.ask(), other.ask()) == (250, 550)
        site.log_in("::1", BRIEF)
        assert other.ask() == 250
        assert asked(smtpd.port, "127.0.0.10") == 550
        time.sleep(BRIEF_SECONDS + 0.1)
        assert (one.ask(), other.ask()) == (550, 550)
        assert other.ask(HERE, "stranger@elsewhere.example") == 250
        assert "popgate-table-opensmtpd" not in smtpd.log


def is_not_relayed(client: LocalClient, code: int, at_least: float, at_most: float) -> None:
    assert client.ask() == code
    assert at_least <= client.seconds <= at_most
    assert client.ask(HERE, "stranger@elsewhere.example") == 250  # mail for the site's own users goes on


def test_popgate_hangs_is_killed_in_mid_dialogue_and_stopped(tmp_path: Path, table: str) -> None:
    with running(tmp_path, table) as (site, smtpd), LocalClient(smtpd.port, "127.0.0.9") as client:
        site.log_in("127.0.0.9", ALICE)
        assert client.ask() == 250
        with site.hanging():
            is_not_relayed(client, 451, 1.9, 3)
            is_not_relayed(client, 451, 0, 1)
        soon(lambda: client.ask() == 250, 4)
        site.popgate.kill()
        is_not_relayed(client, 451, 0, 1)
        assert asked(smtpd.port, "127.0.0.9") == 451
        site.popgate.start()
        assert client.ask() == 250  # the grant is in the directory
        site.popgate.command("grant", "revoke", "127.0.0.9")
        assert client.ask() == 550
        site.log_in("127.0.0.9", ALICE)
        assert client.ask() == 250
        assert site.popgate.stop() == 0
        is_not_relayed(client, 451, 0, 1)
        lines = [line for line in smtpd.log.splitlines() if "popgate-table-opensmtpd" in line]
        assert 2 <= len(lines) <= 3, lines  # once a minute, and that it is over
        assert "does not answer within 2 seconds; nobody relays" in lines[0]
        assert "answers again" in lines[1]


def test_popgate_is_killed_and_its_clients_are_refused_for_good(tmp_path: Path, table: str) -> None:
    assert 'on_fault = "defer"' in TABLE_TOML
    table_toml = TABLE_TOML.replace('"defer"', '"refuse"')
    with (
        running(tmp_path, table, table_toml) as (site, smtpd),
        LocalClient(smtpd.port, "127.0.0.9") as client,
    ):
        site.log_in("127.0.0.9", ALICE)
        assert client.ask() == 250
        site.popgate.kill()
        is_not_relayed(client, 550, 0, 1)
        site.popgate.start()
        assert client.ask() == 250


def test_the_grants_cannot_be_read(tmp_path: Path, table: str) -> None:
    with running(tmp_path, table) as (site, smtpd), LocalClient(smtpd.port, "127.0.0.9") as client:
        site.log_in("127.0.0.9")
        assert client.ask() == 250
        site.lose_grants()
        assert client.ask() == 451
        assert client.ask(HERE, "stranger@elsewhere.example") == 250


def test_smtpd_starts_without_popgate(tmp_path: Path, table: str) -> None:
    with opensmtpd(table) as smtpd, LocalClient(smtpd.port, "127.0.0.9") as client:
        assert client.ask() == 451
        assert client.ask(HERE, "stranger@elsewhere.example") == 250
        assert (
            f"cannot connect to {smtpd.run}/opensmtpd: No such file or directory; nobody relays" in smtpd.log
        )
        site = beside(tmp_path, smtpd)
        with site.popgate:
            assert client.ask() == 550
            site.log_in("127.0.0.9")
            assert client.ask() == 250


def test_smtpd_starts_without_settings_and_they_are_mended(tmp_path: Path, table: str) -> None:
    conf = CONF.replace("/etc/popgate/", "/run/popgate/")
    with OpenSmtpd(free_port(), conf, {"popgate": table}) as smtpd:
        settings = smtpd.run / "opensmtpd.toml"
        (smtpd.run / "other.conf").write_text(conf.replace(" popgate:", " nonesuch:"))
        with pytest.raises(AssertionError, match='"nonesuch" does not exist'):
            smtpd.command("smtpd", "-n", "-f", f"{smtpd.run}/other.conf")
        site = beside(tmp_path, smtpd)
        with site.popgate, LocalClient(smtpd.port, "127.0.0.9") as client:
            site.log_in("127.0.0.9")
            assert client.ask() == 550
            assert client.ask(HERE, "stranger@elsewhere.example") == 250
            assert "opensmtpd.toml: No such file or directory; nobody relays" in smtpd.log
            settings.write_text("socket = 5\n")
            soon(lambda: "socket: the path of a listener is needed" in updated(smtpd))
            assert client.ask() == 550
            settings.write_text(TABLE_TOML.replace("/run/popgate", str(smtpd.run)))
            soon(lambda: client.ask() == 250)
            settings.write_text("[socket")
            soon(lambda: "the settings from before stay" in updated(smtpd))
            assert client.ask() == 250


def updated(smtpd: OpenSmtpd) -> str:
    """The log behind `smtpctl update table granted`, whose own word depends on how it went."""
    with contextlib.suppress(AssertionError):
        smtpd.command("smtpctl", "update", "table", "granted")
    return smtpd.log


def test_the_table_program_is_killed_and_smtpd_ends(tmp_path: Path, table: str) -> None:
    with running(tmp_path, table) as (site, smtpd), LocalClient(smtpd.port, "127.0.0.9") as client:
        site.log_in("127.0.0.9")
        assert client.ask() == 250
        pid = program(smtpd)
        os.kill(pid, signal.SIGKILL)
        with pytest.raises((smtplib.SMTPServerDisconnected, ConnectionError)):
            client.ask()
        soon(lambda: not any("smtpd" in command for command in smtpd.processes.values()))


def test_the_table_program_ends_with_smtpd(tmp_path: Path, table: str) -> None:
    with running(tmp_path, table) as (_, smtpd):
        pid = program(smtpd)
        for each, command in smtpd.processes.items():
            if each != pid and "smtpd: lookup" in command:
                os.kill(each, signal.SIGKILL)
        soon(lambda: pid not in smtpd.processes)


@pytest.mark.peer("swaks")
def test_the_documented_commands_show_it(tmp_path: Path, table: str) -> None:
    commands, explain = blocks(DOCUMENT, "Test it", "sh")
    with running(tmp_path, table) as (site, smtpd):
        said = site.type_commands(commands, smtpd.port)
        assert "550 Invalid recipient" in said[0]
        assert "250 2.1.5 Destination address valid: Recipient ok" in said[2]
        assert explain.strip() == "popgate grant explain 203.0.113.9"
        told = "asked by line: permit (granted), for alice@example.org"
        assert told in (SOURCE.parent / "docs" / DOCUMENT).read_text()
        site.popgate.explain("127.0.0.9", told)


# A list instead


@contextlib.contextmanager
def running_with_a_list(tmp_path: Path) -> Iterator[Both]:
    with OpenSmtpd(free_port(), LIST_CONF) as smtpd:
        smtpctl = smtpd.smtpctl(tmp_path)
        assert SUDOERS.strip().endswith("NOPASSWD: /usr/sbin/smtpctl update table granted")
        toml = LIST_TOML.replace('"sudo", "-n", "smtpctl"', f'"{smtpctl}"')
        assert f'["{smtpctl}", "update", "table", "granted"]' in toml
        site = BesideSite(tmp_path / "site", toml, smtpd.run)
        with site.popgate:
            yield site, smtpd


def test_a_list_has_who_logged_in_until_it_lapses(tmp_path: Path) -> None:
    with running_with_a_list(tmp_path) as (site, smtpd):
        for address in ("127.0.0.9", "::1"):
            assert asked(smtpd.port, address) == 550
            site.log_in(address, BRIEF)
            soon(lambda address=address: asked(smtpd.port, address) == 250)  # type: ignore[misc]
            assert asked(smtpd.port, "127.0.0.10") == 550
            soon(lambda address=address: asked(smtpd.port, address) == 550, BRIEF_SECONDS + 2)  # type: ignore[misc]
        with LocalClient(smtpd.port, "127.0.0.10") as client:
            assert client.ask(HERE, "stranger@elsewhere.example") == 250
        told = site.popgate.command("grant", "explain", "127.0.0.9", check=False).stdout
        assert f"the map {smtpd.run}/granted has it not" in told
    assert "map.command.failed" not in site.popgate.log


def test_a_list_while_popgate_is_stopped_hangs_and_is_killed(tmp_path: Path) -> None:
    with running_with_a_list(tmp_path) as (site, smtpd):
        site.log_in("127.0.0.9", ALICE)
        soon(lambda: asked(smtpd.port, "127.0.0.9") == 250)
        assert site.popgate.stop() == 0
        assert asked(smtpd.port, "127.0.0.9") == 550
        site.popgate.start()
        soon(lambda: asked(smtpd.port, "127.0.0.9") == 250)
        site.log_in("127.0.0.10", BRIEF)
        soon(lambda: asked(smtpd.port, "127.0.0.10") == 250)
        with site.hanging():
            time.sleep(BRIEF_SECONDS)
            assert asked(smtpd.port, "127.0.0.10") == 250  # as the document warns
            assert asked(smtpd.port, "127.0.0.11") == 550
            site.popgate.command("map", "refresh", "--quiet")
            assert asked(smtpd.port, "127.0.0.10") == 550
        site.popgate.kill()
        assert asked(smtpd.port, "127.0.0.9") == 250
        site.popgate.command("grant", "revoke", "127.0.0.9")
        site.popgate.command("map", "refresh", "--quiet")
        assert asked(smtpd.port, "127.0.0.9") == 550


def test_every_line_of_configuration_in_the_document_is_used_here() -> None:
    text = (SOURCE.parent / "docs" / DOCUMENT).read_text()
    languages = ("smtpd.conf", "toml", "table-toml", "sudoers")
    assert [text.count(f"```{language}\n") for language in languages] == [2, 2, 1, 1]
