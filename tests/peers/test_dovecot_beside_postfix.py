"""Dovecot and Postfix as a site has them, unpatched, with popgate between: who logs in at the one may
relay at the other. Both sides are configured by the lines of docs/dovecot.md and docs/postfix.md.

Clients come from addresses of documentation networks: at Dovecot behind its own proxy port, at
Postfix behind XCLIENT.
"""

import base64
import poplib
import re
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from support import documents, ports
from support.dovecot import Dovecot
from support.postfix import Postfix
from support.relaying import ALICE, BOB, BRIEF, BRIEF_SECONDS, Client, RelaySite, may_relay

pytestmark = [
    pytest.mark.peer("postfix"),
    pytest.mark.peer("dovecot-core"),
    pytest.mark.peer("dovecot-pop3d"),
    pytest.mark.peer("dovecot-imapd"),
]

SECRET = "both-sides-of-this-site-know-it"
PASSWORD = "open sesame"
SOON = 1.0

DOVECOT_TOML = documents.blocks("dovecot.md", "popgate's side", "toml")[0]
POSTFIX_TOML = documents.blocks("postfix.md", "What to install", "toml")[0]
MAIN_CF = documents.blocks("postfix.md", "What to install", "main.cf")[0]
DOVECOT_CONF = documents.section("dovecot.md", "Dovecot's side")

PROXY_PORTS = """
haproxy_trusted_networks = 127.0.0.1
service pop3-login {{
  inet_listener pop3-proxied {{
    address = 127.0.0.1
    port = {pop3}
    haproxy = yes
  }}
}}
service imap-login {{
  inet_listener imap-proxied {{
    address = 127.0.0.1
    port = {imap}
    haproxy = yes
  }}
}}
"""


@dataclass
class Servers:
    site: RelaySite
    dovecot: Dovecot
    postfix: Postfix
    pop3_port: int
    imap_port: int

    def log_in(
        self, address: str, user: str = ALICE, password: str = PASSWORD, *, protocol: str = "pop3"
    ) -> None:
        """A session from `address`: log in and quit. Raises poplib.error_proto."""
        port = self.pop3_port if protocol == "pop3" else self.imap_port
        family, own = ("TCP6", "::1") if ":" in address else ("TCP4", "127.0.0.1")
        with socket.create_connection(("127.0.0.1", port), 10) as connection:
            talk = connection.makefile("rwb")
            talk.write(f"PROXY {family} {address} {own} 1000 110\r\n".encode())
            talk.flush()
            talk.readline()
            if protocol == "pop3":
                commands = [f"USER {user}", f"PASS {password}", "QUIT"]
            else:
                commands = [f'a LOGIN {user} "{password}"']
            for command in commands:
                talk.write(command.encode() + b"\r\n")
                talk.flush()
                reply = talk.readline()
                if not reply.startswith((b"+OK", b"a OK")):
                    raise poplib.error_proto(reply)

    def waits_for(self, code: int, address: str, sender: str = ALICE) -> None:
        """Reports are on their way for some milliseconds."""
        deadline = time.monotonic() + 5
        while (answer := may_relay(self.postfix, address, sender)) != code:
            assert time.monotonic() < deadline, f"{answer} instead of {code}\n{self.site.popgate.log[-2000:]}"
            time.sleep(0.05)


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    with _running(tmp_path_factory.mktemp("beside") / "site") as running:
        yield running


@contextmanager
def _running(directory: Path) -> Iterator[Servers]:
    site = RelaySite(
        directory, POSTFIX_TOML + DOVECOT_TOML, '[grants]\nnever = ["127.0.0.1"]\n', people=(BRIEF,)
    )
    secret = directory / "dovecot-secret"
    secret.write_text(SECRET + "\n")
    secret.chmod(0o600)
    text = site.popgate.config.read_text()
    site.popgate.config.write_text(text.replace("/etc/popgate/dovecot-secret", str(secret)))
    pop3, imap = ports.free_ports(2)
    settings = _dovecot_lines(site) + PROXY_PORTS.format(pop3=pop3, imap=imap)
    users = dict.fromkeys((ALICE, BOB, BRIEF), PASSWORD)
    with (
        site.popgate,
        Dovecot(users, settings=settings) as dovecot,
        Postfix(site.postfix_options(MAIN_CF), sasl_socket=dovecot.sasl_socket) as postfix,
    ):
        yield Servers(site, dovecot, postfix, pop3, imap)


def _dovecot_lines(site: RelaySite) -> str:
    lines = "".join(re.findall(r"^```\n(auth_policy.*?)^```", DOVECOT_CONF, re.DOTALL | re.MULTILINE))
    lines = re.sub(r"^!include_try .*\n", "", lines, flags=re.MULTILINE).replace("SECRET", SECRET)
    for place, here in site.places.items():
        lines = lines.replace(place, here)
    return lines


@pytest.mark.parametrize("protocol", ["pop3", "imap"])
@pytest.mark.parametrize("address", ["203.0.113.1", "2001:db8::1"])
def test_refused_login_accepted_lapsed_refused(servers: Servers, address: str, protocol: str) -> None:
    assert may_relay(servers.postfix, address, BRIEF) == 550
    began = time.monotonic()
    servers.log_in(address, BRIEF, protocol=protocol)
    assert time.monotonic() - began < SOON
    servers.waits_for(250, address, BRIEF)
    time.sleep(BRIEF_SECONDS + 0.1)
    assert may_relay(servers.postfix, address, BRIEF) == 550


def test_two_people_behind_one_address_use_their_own_senders(servers: Servers) -> None:
    servers.log_in("203.0.113.2", ALICE)
    servers.log_in("203.0.113.2", BOB, protocol="imap")
    servers.waits_for(250, "203.0.113.2", ALICE)
    servers.waits_for(250, "203.0.113.2", BOB)
    with Client(servers.postfix, "203.0.113.2") as client:
        assert client.ask(sender="carol@example.org")[0] == 550
    assert may_relay(servers.postfix, "203.0.113.3", ALICE) == 550


def test_a_failed_login_gives_nothing(servers: Servers) -> None:
    with pytest.raises(poplib.error_proto):
        servers.log_in("203.0.113.4", password="wrong")
    servers.log_in("203.0.113.5")
    servers.waits_for(250, "203.0.113.5")
    assert may_relay(servers.postfix, "203.0.113.4") == 550


def test_authentication_at_postfix_counts_for_its_own_session_alone(servers: Servers) -> None:
    """Postfix has Dovecot check it, and Dovecot tells of that too."""
    with Client(servers.postfix, "203.0.113.6") as client:
        proof = base64.b64encode(f"\0{ALICE}\0{PASSWORD}".encode()).decode()
        assert client.smtp.docmd("AUTH", f"PLAIN {proof}")[0] == 235
        assert client.ask()[0] == 250
    servers.log_in("203.0.113.7")
    servers.waits_for(250, "203.0.113.7")
    assert may_relay(servers.postfix, "203.0.113.6") == 550


def test_while_popgate_hangs_people_log_in_and_nobody_relays(servers: Servers) -> None:
    servers.log_in("203.0.113.8")
    servers.waits_for(250, "203.0.113.8")
    with servers.site.hanging():
        began = time.monotonic()
        servers.log_in("203.0.113.9")
        servers.log_in("203.0.113.9", protocol="imap")
        assert time.monotonic() - began < 2 * SOON
        with Client(servers.postfix, "203.0.113.8") as client:
            assert client.ask()[0] == 451
            assert client.ask("user@here.example", "stranger@elsewhere.example")[0] == 250
    servers.waits_for(250, "203.0.113.8")
