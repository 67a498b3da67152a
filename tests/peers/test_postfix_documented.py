"""docs/postfix.md, as it stands there, with Debian's Postfix: who relays, who is refused, and what
happens while popgate is down, hangs or is killed. Only places and ports differ."""

import json
import shlex
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.documents import blocks, section
from support.dovecot import Dovecot
from support.popgate import SOURCE
from support.postfix import Postfix
from support.relaying import (
    ALICE,
    BOB,
    BRIEF,
    BRIEF_SECONDS,
    FRIEND,
    HERE,
    PASSWORD,
    Client,
    RelaySite,
    may_relay,
    running,
)

pytestmark = [pytest.mark.peer("postfix")]

DOCUMENT = "postfix.md"
(TOML,) = blocks(DOCUMENT, "What to install", "toml")
(MAIN_CF,) = blocks(DOCUMENT, "What to install", "main.cf")
Both = tuple[RelaySite, Postfix]


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Both]:
    place, people = tmp_path_factory.mktemp("documented") / "site", (ALICE, BOB, BRIEF)
    with running(place, TOML, MAIN_CF, people=people) as servers:
        yield servers


@pytest.mark.parametrize("address", ["203.0.113.1", "2001:db8::1", "2001:db8:0:1:1:1:1:1"])
def test_refused_then_a_login_then_relayed_then_lapsed_then_refused(both: Both, address: str) -> None:
    site, postfix = both
    with Client(postfix, address) as client:
        code, text = client.ask(sender=BRIEF)
        assert code == 550
        assert (
            f"relaying denied for [{address}]: no mail login from this address in the last 15 minutes" in text
        )
        site.log_in(address, BRIEF)
        assert client.ask(sender=BRIEF)[0] == 250
        time.sleep(BRIEF_SECONDS + 0.1)
        assert client.ask(sender=BRIEF)[0] == 550


def test_two_people_behind_one_address_use_their_own_senders(both: Both) -> None:
    site, postfix = both
    site.log_in("203.0.113.2", ALICE)
    site.log_in("203.0.113.2", BOB)
    with Client(postfix, "203.0.113.2") as client:
        assert client.ask(sender=ALICE)[0] == 250
        assert client.ask(sender=BOB)[0] == 250
        assert client.ask(sender="")[0] == 250
        code, text = client.ask(sender="carol@example.org")
        assert code == 550
        assert "does not belong to the account of the mail login" in text
        assert "alice" not in text
    site.popgate.wait_for(f"identity={ALICE} verdict=permit reason=granted sender={ALICE} recipient={FRIEND}")
    site.popgate.wait_for(f"identity={BOB} verdict=permit reason=granted sender={BOB} recipient={FRIEND}")


def test_a_neighbour_has_no_part_in_it(both: Both) -> None:
    site, postfix = both
    site.log_in("203.0.113.3")
    site.log_in("2001:db8:3::1")
    assert may_relay(postfix, "203.0.113.3") == 250
    assert may_relay(postfix, "203.0.113.4") == 550
    assert may_relay(postfix, "2001:db8:3::2") == 550


def test_mail_for_the_sites_own_users_is_not_asked_about(both: Both) -> None:
    site, postfix = both
    with Client(postfix, "198.51.100.9") as client:
        assert client.ask(HERE, "stranger@elsewhere.example")[0] == 250
    assert "198.51.100.9" not in site.popgate.log


def test_a_message_relayed_is_delivered_and_counted_once_with_each_recipient(both: Both) -> None:
    site, postfix = both
    site.log_in("203.0.113.5")
    with Client(postfix, "203.0.113.5") as client:
        assert client.ask()[0] == 250
        assert client.add("other@elsewhere.example")[0] == 250
        assert client.add(FRIEND)[0] == 250  # a second time
        assert client.data("Subject: scan\r\n\r\nx\r\n")[0] == 250
    assert {one.recipient for one in postfix.wait_for(2)} == {FRIEND, "other@elsewhere.example"}
    explained = site.popgate.explain(
        "203.0.113.5",
        f"asked by postfix_policy: permit (granted), mail from {ALICE} to {FRIEND}, for {ALICE}",
    )
    assert "relayed 1 of 100 messages, 2 of 500 recipients" in explained


@pytest.mark.peer("swaks")
def test_the_documented_commands_show_it(tmp_path: Path) -> None:
    """From an address of loopback, because swaks knows no XCLIENT; the POP3 server is as documented."""
    commands, explain = blocks(DOCUMENT, "Test it", "sh")
    settings = "[grants]\nnever = []\n"
    with running(tmp_path / "site", TOML, MAIN_CF, settings) as (site, postfix):
        said = site.type_commands(commands.replace("friend@example.net", FRIEND), postfix.port)
        first, _, last = said
        assert "550 5.7.1" in first
        assert "no mail login from this address in the last 15 minutes" in first
        assert "250 2.1.5 Ok" in last
        assert explain.strip() == "popgate grant explain 203.0.113.9"
        story = site.popgate.explain("127.0.0.9", "asked by postfix_policy: permit (granted)")
        assert "may relay: senders of who logged in" in story
        (sentence,) = [
            part for part in section(DOCUMENT, "Test it").split("`") if part.startswith("asked by")
        ]
        assert sentence.replace("friend@example.net", FRIEND) in story.replace("\n", " ")


# While popgate does not answer. What is said of the times stands in the document's table.


def refuses_for_now(client: Client, at_least: float, at_most: float, code: str = "4.3.5") -> None:
    answer, text = client.ask()
    assert (answer, text[:5]) == (451, code)
    assert at_least <= client.seconds <= at_most
    # mail for the site's own users goes on
    assert client.ask(HERE)[0] == 250


def test_popgate_is_stopped_killed_in_mid_dialogue_and_started_again(tmp_path: Path) -> None:
    with (
        running(tmp_path / "site", TOML, MAIN_CF) as (site, postfix),
        Client(postfix, "203.0.113.1") as client,
    ):
        site.log_in("203.0.113.1")
        assert client.ask()[0] == 250
        site.kill_workers()
        answer, text = client.add("other@elsewhere.example")
        assert (answer, text[:5]) == (451, "4.3.5")
        assert client.seconds < 2.5
        with Client(postfix, "203.0.113.1") as another:
            refuses_for_now(another, 0.9, 2.5)
        site.popgate.start()
        assert client.ask()[0] == 250
        assert site.popgate.stop() == 0
        refuses_for_now(client, 0.9, 2.5)


def test_popgate_hangs(tmp_path: Path) -> None:
    with (
        running(tmp_path / "site", TOML, MAIN_CF) as (site, postfix),
        Client(postfix, "203.0.113.1") as client,
    ):
        site.log_in("203.0.113.1")
        assert client.ask()[0] == 250
        with site.hanging():
            refuses_for_now(client, 6.9, 9)
        assert client.ask()[0] == 250


def test_a_session_that_is_open_while_popgate_reloads_waits_a_second(tmp_path: Path) -> None:
    with (
        running(tmp_path / "site", TOML, MAIN_CF) as (site, postfix),
        Client(postfix, "203.0.113.1") as client,
    ):
        site.log_in("203.0.113.1")
        assert client.ask()[0] == 250
        site.popgate.send_signal(signal.SIGHUP)
        site.popgate.wait_for(" server.reload ")
        site.popgate.wait_for("process.end process=worker-0")
        assert client.ask()[0] == 250
        assert client.seconds < 2.5
        with Client(postfix, "203.0.113.77") as stranger:
            assert stranger.ask()[0] == 550


def test_the_grants_cannot_be_read(tmp_path: Path) -> None:
    with (
        running(tmp_path / "site", TOML, MAIN_CF) as (site, postfix),
        Client(postfix, "203.0.113.1") as client,
    ):
        site.log_in("203.0.113.1")
        assert client.ask()[0] == 250
        site.lose_grants()
        refuses_for_now(client, 0, 1, "4.7.1")


# The other ways that the document describes.


def test_a_unix_socket_in_postfixs_jail(tmp_path: Path) -> None:
    (toml,) = blocks(DOCUMENT, "A unix socket instead of a port", "toml")
    (main_cf,) = blocks(DOCUMENT, "A unix socket instead of a port", "main.cf")
    (install,) = blocks(DOCUMENT, "A unix socket instead of a port", "sh")
    site = RelaySite(tmp_path / "site", toml)
    with Postfix(site.postfix_options(main_cf), is_chrooted=True) as postfix:
        queue = postfix.root / "queue"
        subprocess.run(shlex.split(install.replace("/var/spool/postfix", str(queue))), check=True)
        site.put_sockets_below(queue)
        with site.popgate:
            assert may_relay(postfix, "203.0.113.1") == 550
            site.log_in("203.0.113.1")
            assert may_relay(postfix, "203.0.113.1") == 250


def test_counted_at_the_end_and_named_in_the_header(tmp_path: Path) -> None:
    (toml,) = blocks(DOCUMENT, "Quotas", "toml")
    (restrictions,) = blocks(DOCUMENT, "Quotas", "main.cf")
    with running(tmp_path / "site", toml, MAIN_CF + restrictions) as (site, postfix):
        site.log_in("203.0.113.1")
        with Client(postfix, "203.0.113.1") as client:
            assert client.ask()[0] == 250
            assert client.add("other@elsewhere.example")[0] == 250
            assert client.ask()[0] == 250  # the first one was given up, and is not counted
            assert client.data("Subject: scan\r\n\r\n" + "x" * 5000 + "\r\n")[0] == 250
        with Client(postfix, "203.0.113.2") as client:
            assert client.ask(HERE, "stranger@elsewhere.example")[0] == 250
            assert client.data("Subject: from outside\r\nX-Popgate-Identity: forged\r\n\r\nx\r\n")[0] == 250
        arrived = {one.recipient: one.content.decode() for one in postfix.wait_for(2)}
        assert f"X-Popgate-Identity: {ALICE} (pop3)\r\n" in arrived[FRIEND]
        assert "(pop3)" not in arrived[HERE]
        (grant,) = json.loads(site.popgate.command("grant", "list", "--json").stdout)
        assert (grant["messages"], grant["recipients"]) == (1, 1)
        assert 5000 < grant["bytes"] < 6000


@pytest.mark.parametrize("service", ["socketmap", "tcp_table"])
def test_by_look_up(tmp_path: Path, service: str) -> None:
    (toml,) = blocks(DOCUMENT, "Clients that authenticate", "toml")
    (main_cf,) = blocks(DOCUMENT, "By look-up instead", "main.cf")
    if service == "tcp_table":
        assert "`check_client_access tcp:127.0.0.1:22812`" in section(DOCUMENT, "By look-up instead")
        main_cf = main_cf.replace("socketmap:inet:127.0.0.1:22811:popgate", "tcp:127.0.0.1:22811")
        toml = toml.replace("socketmap", "tcp_table")
    with running(tmp_path / "site", toml, main_cf) as (site, postfix):
        for address in ("203.0.113.1", "2001:db8::1"):
            with Client(postfix, address) as client:
                assert client.ask()[0] == 554
                site.log_in(address)
                assert client.ask()[0] == 250
                assert client.ask(sender="anybody@example.org")[0] == 250
        site.kill_workers()
        if service == "socketmap":  # a tcp table takes nine seconds
            with Client(postfix, "203.0.113.1") as client:
                refuses_for_now(client, 0, 2.5)


@pytest.mark.peer("dovecot-core")
def test_authenticated_clients_use_their_own_senders(tmp_path: Path) -> None:
    (toml,) = blocks(DOCUMENT, "Clients that authenticate", "toml")
    (main_cf,) = blocks(DOCUMENT, "Clients that authenticate", "main.cf")
    site = RelaySite(tmp_path / "site", toml, people=(BOB,))
    site.popgate.add_account(
        "office@example.org", PASSWORD, "--sender", "info@example.org", "--sender", "@list.example.org"
    )
    with Dovecot({BOB: PASSWORD, "office@example.org": PASSWORD}) as dovecot:
        options = site.postfix_options(main_cf)
        with Postfix(options, sasl_socket=dovecot.sasl_socket) as postfix, site.popgate:
            codes = {}
            for user in (BOB, "office@example.org"):
                with Client(postfix, "203.0.113.1") as client:
                    client.smtp.user, client.smtp.password = user, PASSWORD
                    client.smtp.auth("PLAIN", client.smtp.auth_plain)
                    for sender in (
                        BOB,
                        "info@example.org",
                        "any@list.example.org",
                        "stranger@elsewhere.example",
                    ):
                        codes[user, sender] = client.ask(HERE, sender)[0]
            assert codes == {
                (BOB, BOB): 250,
                (BOB, "info@example.org"): 553,
                (BOB, "any@list.example.org"): 553,
                (BOB, "stranger@elsewhere.example"): 553,
                ("office@example.org", BOB): 553,
                ("office@example.org", "info@example.org"): 250,
                ("office@example.org", "any@list.example.org"): 250,
                ("office@example.org", "stranger@elsewhere.example"): 553,
            }


def test_wired_to_the_wrong_port_nothing_is_relayed(tmp_path: Path) -> None:
    """Each wrong service by a restriction class of its own: a fault that passes, also with a grant."""
    toml = "".join(
        f'[[listener]]\nservice = "{service}"\nbind = "127.0.0.1:{number}"\n'
        for number, service in enumerate(("socketmap", "tcp_table", "line"), 1)
    )
    site = RelaySite(tmp_path / "site", toml)
    ask = "check_policy_service {{ inet:{}, timeout=3s, try_limit=1 }}, permit"
    classes = {f"asks{place[-1]}": ask.format(here) for place, here in site.places.items()}
    rows = " ".join("{ %s.example = %s }" % (name, name) for name in classes)
    relaying = f"check_recipient_access inline:{{ {rows} }}, reject"
    options = {
        **site.postfix_options(""),
        "smtpd_relay_restrictions": relaying,
        "smtpd_restriction_classes": ", ".join(classes),
        **classes,
    }
    with Postfix(options) as postfix, site.popgate, Client(postfix, "203.0.113.1") as client:
        site.log_in("203.0.113.1")
        for name in classes:
            answer, text = client.ask(f"friend@{name}.example")
            assert (answer, text[:5]) == (451, "4.3.5"), f"{name}: {text}\n{postfix.log[-2000:]}"
    assert len(classes) == 3


def test_every_line_of_configuration_in_the_document_is_used_here() -> None:
    text = (SOURCE.parent / "docs" / DOCUMENT).read_text()
    assert text.count("```main.cf") == 5
    assert text.count("```toml") == 4
