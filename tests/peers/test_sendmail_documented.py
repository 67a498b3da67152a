"""docs/sendmail.md, as it stands there, with Debian's Sendmail: who relays, who is refused, and what happens
while popgate is stopped, hangs or is killed. Only places and ports differ."""

import contextlib
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from support import peers
from support.beside import BRIEF, FRIEND, BesideSite, LocalClient, asked, free_port, soon
from support.documents import blocks
from support.popgate import SOURCE
from support.relaying import BRIEF_SECONDS
from support.sendmail import Sendmail

pytestmark = [pytest.mark.peer("sendmail-bin"), pytest.mark.peer("m4")]

DOCUMENT = "sendmail.md"
(TOML,) = blocks(DOCUMENT, "What to install", "toml")
(MC,) = blocks(DOCUMENT, "What to install", "mc")
(MAP_TOML,) = blocks(DOCUMENT, "A map instead", "toml")
(MAP_SCRIPT,) = blocks(DOCUMENT, "A map instead", "script")
(MAP_MC,) = blocks(DOCUMENT, "A map instead", "mc-map")
HERE = "root@here.example"
Both = tuple[BesideSite, Sendmail]


@contextlib.contextmanager
def running(tmp_path: Path) -> Iterator[Both]:
    peers.require("m4")
    site = BesideSite(tmp_path / "site", TOML, tmp_path)
    port = site.places["127.0.0.1:22812"].rpartition(":")[2]
    with Sendmail(free_port(), MC.replace("22812", port)) as sendmail, site.popgate:
        yield site, sendmail


def test_refused_then_a_login_then_relayed_then_lapsed_then_refused(tmp_path: Path) -> None:
    with running(tmp_path) as (site, sendmail):
        assert asked(sendmail.port, "127.0.0.9", BRIEF) == 550
        site.log_in("127.0.0.9", BRIEF)
        assert asked(sendmail.port, "127.0.0.9", BRIEF) == 250
        assert asked(sendmail.port, "127.0.0.10", BRIEF) == 550
        time.sleep(BRIEF_SECONDS + 0.1)
        assert asked(sendmail.port, "127.0.0.9", BRIEF) == 550
        site.log_in("127.0.0.9")
        with LocalClient(sendmail.port, "127.0.0.10") as client:
            assert client.ask(HERE, "stranger@elsewhere.example") == 250
            for trick in ("friend%elsewhere.example@here.example", "@here.example:friend@elsewhere.example"):
                assert client.ask(trick) in (550, 553)


def test_over_ipv6(tmp_path: Path) -> None:
    """In Sendmail's test mode: from ::1 it lets everybody relay."""
    with running(tmp_path) as (site, sendmail):
        spelled = "IPv6:2001:db8:0:0:0:0:0:9"
        assert "Relaying denied" in decides(sendmail, spelled)
        site.log_in("2001:db8::9", BRIEF)
        assert decides(sendmail, spelled).endswith("returns: $# OK")
        assert "Relaying denied" in decides(sendmail, "IPv6:2001:db8:0:0:0:0:0:a")
        time.sleep(BRIEF_SECONDS)
        assert "Relaying denied" in decides(sendmail, spelled)


def decides(sendmail: Sendmail, address: str) -> str:
    return sendmail.decides(address, FRIEND).strip()


@pytest.mark.peer("swaks")
def test_the_documented_commands_show_it(tmp_path: Path) -> None:
    commands, play, explain = blocks(DOCUMENT, "Test it", "sh")
    with running(tmp_path) as (site, sendmail):
        said = site.type_commands(commands, sendmail.port)
        assert "550 5.7.1" in said[0] and "Relaying denied" in said[0]
        assert "250 2.1.5" in said[2] and "Recipient ok" in said[2]
        play = play.replace("203.0.113.9", "127.0.0.9")
        play = play.replace("sendmail -bt", f"/usr/libexec/sendmail/sendmail -C {sendmail.cf} -bt")
        assert "returns: $# OK" in sendmail.command("sh", "-c", play)
        assert explain.strip() == "popgate grant explain 203.0.113.9"
        site.popgate.explain("127.0.0.9", "asked by socketmap: permit (granted), for alice@example.org")


def refuses_for_now(client: LocalClient, at_least: float, at_most: float) -> None:
    assert client.ask() == 451
    assert at_least <= client.seconds <= at_most
    assert client.ask(HERE) == 250  # mail for the site's own users goes on


def test_popgate_is_killed_in_mid_dialogue_stopped_and_started_again(tmp_path: Path) -> None:
    with running(tmp_path) as (site, sendmail), LocalClient(sendmail.port, "127.0.0.9") as client:
        site.log_in("127.0.0.9")
        assert client.ask() == 250
        site.popgate.kill()
        refuses_for_now(client, 0, 1)
        site.popgate.start()
        assert client.ask() == 250
        assert site.popgate.stop() == 0
        refuses_for_now(client, 0, 1)


@pytest.mark.slow
def test_popgate_hangs(tmp_path: Path) -> None:
    with running(tmp_path) as (site, sendmail), LocalClient(sendmail.port, "127.0.0.9") as client:
        site.log_in("127.0.0.9")
        assert client.ask() == 250
        with site.hanging():
            refuses_for_now(client, 29, 35)


def test_the_grants_cannot_be_read(tmp_path: Path) -> None:
    with running(tmp_path) as (site, sendmail), LocalClient(sendmail.port, "127.0.0.9") as client:
        site.log_in("127.0.0.9")
        assert client.ask() == 250
        site.lose_grants()
        refuses_for_now(client, 0, 1)


def test_by_a_map(tmp_path: Path) -> None:
    with Sendmail(free_port(), "", MAP_MC) as sendmail:
        run = sendmail.run
        script = run / "make-access"
        (run / "access.site").write_text("192.0.2\tREJECT\n")
        makemap = f"{peers.UNPACKED}/usr/libexec/sendmail/makemap"
        written = MAP_SCRIPT.replace("/etc/mail/access", f"{run}/access").replace("/run/popgate", str(run))
        script.write_text(written.replace("makemap", f"{makemap} -C {sendmail.cf}"))
        script.chmod(0o755)
        toml = MAP_TOML.replace("/etc/mail/popgate-access", str(script))
        site = BesideSite(tmp_path / "site", TOML + toml, run)
        environment = {"LD_LIBRARY_PATH": f"{peers.UNPACKED}/usr/lib/x86_64-linux-gnu"}
        site.popgate.environment |= environment
        with site.popgate:
            soon(lambda: (run / "access.db").exists(), 10)
            assert asked(sendmail.port, "127.0.0.9") == 550
            site.log_in("127.0.0.9", BRIEF)
            soon(lambda: asked(sendmail.port, "127.0.0.9") == 250, 1.8)
            soon(lambda: asked(sendmail.port, "127.0.0.9") == 550, 4)
            site.log_in("2001:db8::9")
            spelled = "IPv6:2001:db8:0:0:0:0:0:9"
            soon(lambda: decides(sendmail, spelled).endswith("RELAY"), 5)
            site.log_in("127.0.0.9")
            soon(lambda: asked(sendmail.port, "127.0.0.9") == 250, 5)
        assert asked(sendmail.port, "127.0.0.9") == 550
        assert os.path.exists(run / "access.db")


def test_every_line_of_configuration_in_the_document_is_used_here() -> None:
    text = (SOURCE.parent / "docs" / DOCUMENT).read_text()
    assert text.count("```mc") == 2
    assert text.count("```toml") == 2
