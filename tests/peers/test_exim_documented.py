"""docs/exim.md, as it stands there, with Debian's Exim and Debian's configuration: who relays, who is
refused, and what happens while popgate is stopped, hangs or is killed. Only places and ports differ."""

import contextlib
import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.beside import ALICE, BRIEF, FRIEND, BesideSite, LocalClient, asked, free_port, soon
from support.documents import blocks
from support.exim import Exim
from support.popgate import SOURCE
from support.relaying import BOB, BRIEF_SECONDS

pytestmark = [pytest.mark.peer("exim4-daemon-light")]

DOCUMENT = "exim.md"
(TOML,) = blocks(DOCUMENT, "What to install", "toml")
(RCPT,) = blocks(DOCUMENT, "What to install", "exim")
(DATA,) = blocks(DOCUMENT, "The sender, and quotas", "exim-data")
(MAP_TOML,) = blocks(DOCUMENT, "A map instead", "toml")
(MAP_RCPT,) = blocks(DOCUMENT, "A map instead", "exim-map")
HERE = "postmaster@here.example"
Both = tuple[BesideSite, Exim]


@contextlib.contextmanager
def running(tmp_path: Path, toml: str = TOML, rcpt: str = RCPT, data: str = "") -> Iterator[Both]:
    with Exim(free_port(), rcpt, data) as exim:
        # its group is known in there alone
        toml = toml.replace('socket_group = "Debian-exim"', 'socket_mode = "0666"')
        site = BesideSite(tmp_path / "site", toml, exim.run, people=(ALICE, BOB, BRIEF))
        with site.popgate:
            yield site, exim


def test_refused_then_a_login_then_relayed_then_lapsed_then_refused(tmp_path: Path) -> None:
    with running(tmp_path) as (site, exim):
        assert asked(exim.port, "127.0.0.9", BRIEF) == 550
        site.log_in("127.0.0.9", BRIEF)
        assert asked(exim.port, "127.0.0.9", BRIEF) == 250
        assert asked(exim.port, "127.0.0.10", BRIEF) == 550
        time.sleep(BRIEF_SECONDS + 0.1)
        assert asked(exim.port, "127.0.0.9", BRIEF) == 550
        site.log_in("127.0.0.9", ALICE)
        site.log_in("127.0.0.9", BOB)
        with LocalClient(exim.port, "127.0.0.9") as client:
            assert [client.ask(sender=each) for each in (ALICE, BOB, "")] == [250, 250, 250]
            assert client.ask(sender="carol@example.org") == 550
            assert client.ask(sender='"a b"@example.org') == 451  # a question that cannot be read
            assert client.ask(HERE, "stranger@elsewhere.example") == 250


def test_over_ipv6(tmp_path: Path) -> None:
    """Played by Exim itself: from ::1 Debian's configuration lets everybody relay."""
    with running(tmp_path) as (site, exim):
        assert played(exim, "2001:db8::9") == "550 relay not permitted"
        site.log_in("2001:db8::9", BRIEF)
        assert played(exim, "2001:db8::9") == "250 Accepted"
        assert played(exim, "2001:db8::a") == "550 relay not permitted"
        time.sleep(BRIEF_SECONDS)
        assert played(exim, "2001:db8::9") == "550 relay not permitted"


def played(exim: Exim, address: str, sender: str = BRIEF) -> str:
    """What a client from `address` is answered at RCPT, in a session that Exim plays."""
    dialogue = f"EHLO x\r\nMAIL FROM:<{sender}>\r\nRCPT TO:<{FRIEND}>\r\nQUIT\r\n"
    *_, answer, _bye = exim.command("exim4", "-bh", address, stdin=dialogue).splitlines()
    return answer


@pytest.mark.peer("swaks")
def test_the_documented_commands_show_it(tmp_path: Path) -> None:
    commands, explain = blocks(DOCUMENT, "Test it", "sh")
    with running(tmp_path) as (site, exim):
        said = site.type_commands(commands, exim.port)
        assert "550 relay not permitted" in said[0]
        assert "250 Accepted" in said[2]
        assert explain.strip() == "popgate grant explain 203.0.113.9"
        site.popgate.explain(
            "127.0.0.9",
            "asked by line: permit (granted), mail from alice@example.org to friend@example.net,"
            " for alice@example.org",
        )
        assert played(exim, "127.0.0.9", ALICE) == "250 Accepted"


def refuses_for_now(client: LocalClient, at_least: float, at_most: float) -> None:
    assert client.ask() == 451
    assert at_least <= client.seconds <= at_most
    assert client.ask(HERE) == 250  # mail for the site's own users goes on


def test_popgate_hangs_is_killed_in_mid_dialogue_and_stopped(tmp_path: Path) -> None:
    with running(tmp_path) as (site, exim), LocalClient(exim.port, "127.0.0.9") as client:
        site.log_in("127.0.0.9")
        assert client.ask() == 250
        with site.hanging():
            refuses_for_now(client, 2.9, 5)
        assert client.ask() == 250
        site.popgate.kill()
        refuses_for_now(client, 0, 1)
        site.popgate.start()
        soon(lambda: client.ask() == 250)
        assert site.popgate.stop() == 0
        refuses_for_now(client, 0, 1)


def test_the_grants_cannot_be_read(tmp_path: Path) -> None:
    with running(tmp_path) as (site, exim), LocalClient(exim.port, "127.0.0.9") as client:
        site.log_in("127.0.0.9")
        assert client.ask() == 250
        site.lose_grants()
        refuses_for_now(client, 0, 1)


def test_messages_are_counted_at_the_end(tmp_path: Path) -> None:
    with running(tmp_path, data=DATA) as (site, exim):
        site.log_in("127.0.0.9")
        with LocalClient(exim.port, "127.0.0.9") as client:
            for recipients in ([FRIEND, "other@elsewhere.example"], [HERE]):
                assert client.smtp.mail(ALICE)[0] == 250
                assert [client.smtp.rcpt(each)[0] for each in recipients] == [250] * len(recipients)
                assert client.smtp.data(b"Subject: scan\r\n\r\n" + b"x" * 500 + b"\r\n")[0] == 250
        (grant,) = json.loads(site.popgate.command("grant", "list", "--json").stdout)
        assert (grant["messages"], grant["recipients"]) == (1, 2)
        assert 500 < grant["bytes"] < 1500


def test_by_a_map(tmp_path: Path) -> None:
    with running(tmp_path, TOML + MAP_TOML, MAP_RCPT) as (site, exim):
        assert asked(exim.port, "127.0.0.9") == 550
        site.log_in("127.0.0.9", BRIEF)
        soon(lambda: asked(exim.port, "127.0.0.9") == 250)
        time.sleep(BRIEF_SECONDS)
        assert asked(exim.port, "127.0.0.9") == 550
        for address in ("127.0.0.9", "2001:db8::9"):
            assert played(exim, address) == "550 relay not permitted"
            site.log_in(address)
            soon(lambda address=address: played(exim, address) == "250 Accepted", 15)  # type: ignore[misc]
        assert site.popgate.stop() == 0
        assert asked(exim.port, "127.0.0.9") == 550
        (exim.run / "relay.cdb").unlink()
        assert asked(exim.port, "127.0.0.9") == 421
        with LocalClient(exim.port, "127.0.0.9") as client:
            assert client.ask(HERE) == 250


def test_every_line_of_configuration_in_the_document_is_used_here() -> None:
    text = (SOURCE.parent / "docs" / DOCUMENT).read_text()
    assert text.count("```exim") == 3
    assert text.count("```toml") == 2
