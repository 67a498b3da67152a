"""SCRAM-SHA-256 by every protocol of a started server (docs/accounts.md)."""

import base64
import socket
from collections.abc import Iterator

import pytest

from support.popgate import Popgate
from support.scram import ScramClient

USER, PASSWORD = "alice@example.org", "correct horse"
LISTENERS = (("smtp", "plaintext_login = true"), ("pop3", ""), ("imap", ""))
# service: how the command begins, how a challenge does, and the answers to a right and a wrong proof
FORMS = {
    "pop3": (b"AUTH", b"+ ", b"+OK", b"-ERR"),
    "smtp": (b"AUTH", b"334 ", b"235", b"535"),
    "imap": (b"a AUTHENTICATE", b"+ ", b"a OK", b"a NO"),
}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Popgate]:
    settings = "[auth]\napop = true\nfailure_delay_seconds = 0.0\n[grants]\nnever = []\n"
    server = Popgate(tmp_path_factory.mktemp("scram") / "site", LISTENERS, settings)
    server.add_account(USER, PASSWORD, "--recoverable")
    server.add_account("bob@example.org", PASSWORD)
    with server:
        yield server


def log_in(server: Popgate, service: str, name: str, password: str) -> bytes:
    command, challenge, _, _ = FORMS[service]
    with socket.create_connection(("127.0.0.1", server.port(service)), 10) as connection:
        wire = connection.makefile("rwb")

        def ask(line: bytes) -> bytes:
            wire.write(line + b"\r\n")
            wire.flush()
            return wire.readline()

        wire.readline()
        if service == "smtp":
            said = ask(b"EHLO scanner.example.org")
            while said[3:4] == b"-":
                said = wire.readline()
        client = ScramClient(name, password)
        said = ask(command + b" SCRAM-SHA-256 " + base64.b64encode(client.first))
        assert said.startswith(challenge), said
        said = ask(base64.b64encode(client.final(base64.b64decode(said[len(challenge) :]))))
        if not said.startswith(challenge):
            return said
        assert client.believes(base64.b64decode(said[len(challenge) :]))
        return ask(b"")


@pytest.mark.parametrize("service", FORMS)
def test_scram_logs_in_without_showing_the_password(site: Popgate, service: str) -> None:
    _, _, right, wrong = FORMS[service]
    assert log_in(site, service, USER, PASSWORD).startswith(right)
    assert "mechanism=SCRAM-SHA-256" in site.log
    for name, password in ((USER, "wrong"), ("nobody@example.org", PASSWORD), ("bob@example.org", PASSWORD)):
        assert log_in(site, service, name, password).startswith(wrong)


def test_a_login_by_scram_grants(site: Popgate) -> None:
    site.command("grant", "revoke", "127.0.0.1", check=False)
    assert log_in(site, "pop3", USER, PASSWORD).startswith(b"+OK")
    assert USER in site.command("grant", "list").stdout
