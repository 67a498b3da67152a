"""docs/opensmtpd.md, as it stands there, with Debian's OpenSMTPD: who relays, who is refused, and what
happens while popgate is stopped or killed. Only places differ, and root needs no sudo."""

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.beside import ALICE, BRIEF, BesideSite, LocalClient, asked, free_port, soon
from support.documents import blocks
from support.opensmtpd import OpenSmtpd
from support.popgate import SOURCE
from support.relaying import BRIEF_SECONDS

pytestmark = [pytest.mark.peer("opensmtpd")]

DOCUMENT = "opensmtpd.md"
(TOML,) = blocks(DOCUMENT, "What to install", "toml")
(CONF,) = blocks(DOCUMENT, "What to install", "smtpd.conf")
(SUDOERS,) = blocks(DOCUMENT, "What to install", "sudoers")
HERE = "root@here.example"
Both = tuple[BesideSite, OpenSmtpd]


@contextlib.contextmanager
def running(tmp_path: Path) -> Iterator[Both]:
    with OpenSmtpd(free_port(), CONF) as smtpd:
        smtpctl = smtpd.smtpctl(tmp_path)
        assert SUDOERS.strip().endswith("NOPASSWD: /usr/sbin/smtpctl update table granted")
        toml = TOML.replace('"sudo", "-n", "smtpctl"', f'"{smtpctl}"')
        assert f'["{smtpctl}", "update", "table", "granted"]' in toml
        site = BesideSite(tmp_path / "site", toml, smtpd.run)
        with site.popgate:
            yield site, smtpd


def test_refused_then_a_login_then_relayed_then_lapsed_then_refused(tmp_path: Path) -> None:
    with running(tmp_path) as (site, smtpd):
        for address in ("127.0.0.9", "::1"):
            assert asked(smtpd.port, address) == 550
            site.log_in(address, BRIEF)
            soon(lambda address=address: asked(smtpd.port, address) == 250)  # type: ignore[misc]
            assert asked(smtpd.port, "127.0.0.10") == 550
            soon(lambda address=address: asked(smtpd.port, address) == 550, BRIEF_SECONDS + 2)  # type: ignore[misc]
        with LocalClient(smtpd.port, "127.0.0.10") as client:
            assert client.ask(HERE, "stranger@elsewhere.example") == 250
    assert "map.command.failed" not in site.popgate.log


def test_popgate_is_stopped_hangs_and_is_killed(tmp_path: Path) -> None:
    with running(tmp_path) as (site, smtpd):
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


@pytest.mark.peer("swaks")
def test_the_documented_commands_show_it(tmp_path: Path) -> None:
    commands, explain = blocks(DOCUMENT, "Test it", "sh")
    with running(tmp_path) as (site, smtpd):
        said = site.type_commands(commands, smtpd.port, 0.5)
        assert "550 Invalid recipient" in said[0]
        assert "250 2.1.5 Destination address valid: Recipient ok" in said[2]
        story = site.popgate.command(*explain.replace("203.0.113.9", "127.0.0.9").split()[1:]).stdout
        assert f"the map {smtpd.run}/granted has it" in story


def test_every_line_of_configuration_in_the_document_is_used_here() -> None:
    text = (SOURCE.parent / "docs" / DOCUMENT).read_text()
    assert text.count("```smtpd.conf") == text.count("```toml") == text.count("```sudoers") == 1
