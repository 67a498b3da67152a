"""HTTP listeners of `popgate serve`: workers, secrets, reload, unix sockets, TLS, drain."""

import json
import os
import signal
import socket
import ssl
import time
from http.client import HTTPConnection, HTTPResponse
from pathlib import Path

import pytest

from support.popgate import Popgate

SECRET = "0123456789abcdef0123456789abcdef"
OTHER = "fedcba9876543210fedcba9876543210"
REPORT = {
    "login": "alice",
    "protocol": "pop3",
    "remote": "127.0.0.9",
    "success": True,
    "policy_reject": False,
}


def site(directory: Path, *, workers: int = 1, more: str = "", http: str = "") -> Popgate:
    directory.mkdir(exist_ok=True)
    secret = directory / "secret"
    secret.write_text(SECRET + "\n")
    secret.chmod(0o600)
    listeners = [
        ("dovecot_auth_policy", f'secret_file = "{secret}"\n{more}'),
        ("http", http),
    ]
    return Popgate(directory, listeners, workers=workers)


def post(
    connection: HTTPConnection, fields: object, secret: str = SECRET, path: str = "/?command=report"
) -> int:
    headers = {"Content-Type": "application/json", "Authorization": f"Bearer {secret}"}
    connection.request("POST", path, json.dumps(fields), headers)
    response = connection.getresponse()
    response.read()
    return response.status


def decide(server: Popgate, address: str = "127.0.0.9") -> dict[str, object]:
    connection = HTTPConnection("127.0.0.1", server.port("http"), timeout=10)
    connection.request("GET", f"/v1/decide?address={address}")
    response = connection.getresponse()
    assert response.status == 200
    document = json.loads(response.read())
    connection.close()
    assert isinstance(document, dict)
    return document


def test_reports_over_one_connection_and_an_answer_from_every_worker(tmp_path: Path) -> None:
    with site(tmp_path / "site", workers=2) as server:
        assert decide(server)["verdict"] == "refuse"
        connection = HTTPConnection("127.0.0.1", server.port("dovecot_auth_policy"), timeout=10)
        for _ in range(3):
            assert post(connection, REPORT) == 200
        assert connection.sock is not None, "it was kept open"
        for _ in range(8):
            assert decide(server)["identity"] == "alice@example.org"
        assert post(connection, REPORT, OTHER) == 401
        connection.close()
        server.explain("127.0.0.9", "alice@example.org logged in by pop3 (told by dovecot): may relay")
    assert SECRET not in server.log


def test_a_new_secret_counts_after_a_reload_and_the_open_connection_is_answered(tmp_path: Path) -> None:
    with site(tmp_path / "site") as server:
        old = HTTPConnection("127.0.0.1", server.port("dovecot_auth_policy"), timeout=10)
        assert post(old, REPORT) == 200
        (tmp_path / "site/secret").write_text(OTHER)
        server.send_signal(signal.SIGHUP)
        server.wait_for("server.reload generation=2")
        server.wait_for("process.end process=worker-0")
        new = HTTPConnection("127.0.0.1", server.port("dovecot_auth_policy"), timeout=10)
        assert post(new, REPORT, OTHER) == 200
        assert post(new, REPORT) == 401
        old.close()
        new.close()


def test_sessions_keep_the_grant_until_they_end(tmp_path: Path) -> None:
    server = site(tmp_path / "site", workers=2, more="session_ends = true")
    with server.config.open("a") as config:
        config.write("window_seconds = 2\n")
    with server:
        connection = HTTPConnection("127.0.0.1", server.port("dovecot_auth_policy"), timeout=10)
        assert post(connection, REPORT | {"session_id": "one"}) == 200
        time.sleep(3.5)
        assert decide(server)["verdict"] == "permit"
        end = {"event": "mail_user_session_finished", "fields": {"user": "alice", "session": "one"}}
        assert post(connection, end, path="/event") == 204
        assert decide(server)["verdict"] == "permit"
        time.sleep(2.5)
        assert decide(server)["verdict"] == "refuse"
        connection.close()


def test_a_secret_that_others_can_read_or_that_is_short(tmp_path: Path) -> None:
    server = site(tmp_path / "site")
    (tmp_path / "site/secret").write_text("short")
    done = server.command("serve", check=False)
    assert done.returncode == 2
    assert "16" in done.stderr
    (tmp_path / "site/secret").write_text(SECRET)
    (tmp_path / "site/secret").chmod(0o644)
    done = server.command("config", "check", check=False)
    assert done.returncode != 0
    assert "can read the secrets" in done.stdout + done.stderr


def test_a_unix_socket_that_curl_can_ask(tmp_path: Path) -> None:
    server = site(tmp_path / "site")
    path = tmp_path / "ask"
    text = server.config.read_text()
    head, _, tail = text.rpartition('bind = "127.0.0.1:0"')
    server.config.write_text(f'{head}bind = "unix:{path}"{tail}')
    with server:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
            client.settimeout(10)
            client.connect(str(path))
            client.sendall(b"GET /v1/decide?address=203.0.113.9 HTTP/1.1\r\nHost: localhost\r\n\r\n")
            response = HTTPResponse(client)
            response.begin()
            assert response.status == 200
            assert json.loads(response.read())["reason"] == "no-grant"
        assert os.stat(path).st_mode & 0o117 == 0


def test_a_connection_over_the_limit_is_told_so_in_http(tmp_path: Path) -> None:
    server = site(tmp_path / "site", http="max_connections = 1")
    with server:
        first = HTTPConnection("127.0.0.1", server.port("http"), timeout=10)
        first.request("GET", "/v1/decide?address=203.0.113.9")
        first.getresponse().read()
        second = HTTPConnection("127.0.0.1", server.port("http"), timeout=10)
        second.request("GET", "/v1/decide?address=203.0.113.9")
        response = second.getresponse()
        assert (response.status, response.getheader("Retry-After")) == (503, "1")
        first.close()
        second.close()


def test_tls_from_the_first_byte(tmp_path: Path) -> None:
    trustme = pytest.importorskip("trustme")
    authority = trustme.CA()
    certificate = authority.issue_cert("127.0.0.1")
    directory = tmp_path / "site"
    directory.mkdir()
    certificate.cert_chain_pems[0].write_to_path(directory / "cert.pem")
    certificate.private_key_pem.write_to_path(directory / "key.pem")
    (directory / "key.pem").chmod(0o600)
    server = site(directory, http='tls = "implicit"')
    with server.config.open("a") as config:
        config.write(f'[tls]\ncertificate = "{directory}/cert.pem"\nkey = "{directory}/key.pem"\n')
    context = ssl.create_default_context()
    authority.configure_trust(context)
    context.set_alpn_protocols(["http/1.1"])
    with (
        server,
        socket.create_connection(("127.0.0.1", server.port("http")), 10) as plain,
        context.wrap_socket(plain, server_hostname="127.0.0.1") as client,
    ):
        assert client.selected_alpn_protocol() == "http/1.1"
        client.sendall(b"GET /v1/decide?address=203.0.113.9 HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert client.recv(100).startswith(b"HTTP/1.1 200 OK\r\n")


@pytest.mark.parametrize(
    ("octets", "expected"),
    [
        (b"", b""),
        (b"GET /v1/decide?address=203.0.113.9 HTTP/1.1\r\nHost: loc", b"HTTP/1.1 408 "),
        (b"POST /v1/charge HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\n{", b"HTTP/1.1 408 "),
    ],
)
def test_half_a_request_is_not_waited_for(tmp_path: Path, octets: bytes, expected: bytes) -> None:
    server = site(tmp_path / "site")
    with server.config.open("a") as config:
        config.write("[limits]\ncommand_seconds = 1\n")
    server.config.write_text(
        server.config.read_text().replace(
            "limits.drain_seconds = 2\nlimits.connections_per_subnet = 100000\n", ""
        )
    )
    with server, socket.create_connection(("127.0.0.1", server.port("http")), 10) as client:
        client.sendall(octets)
        began = time.monotonic()
        answer = b""
        while block := client.recv(4096):
            answer += block
        assert answer.startswith(expected) and bool(answer) is bool(expected)
        assert 0.5 < time.monotonic() - began < 6


def test_open_sessions_over_a_reload(tmp_path: Path) -> None:
    server = site(tmp_path / "site", workers=2, more="session_ends = true")
    with server.config.open("a") as config:
        config.write("window_seconds = 5\n")
    with server:
        connection = HTTPConnection("127.0.0.1", server.port("dovecot_auth_policy"), timeout=10)
        assert post(connection, REPORT | {"session_id": "one"}) == 200
        connection.close()
        server.send_signal(signal.SIGHUP)
        server.wait_for("server.reload generation=2")
        server.wait_for("process.end process=worker-0")
        time.sleep(6.5)
        assert decide(server)["verdict"] == "permit"
        end = {"event": "mail_user_session_finished", "fields": {"user": "alice", "session": "one"}}
        connection = HTTPConnection("127.0.0.1", server.port("dovecot_auth_policy"), timeout=10)
        assert post(connection, end, path="/event") == 204
        connection.close()
        time.sleep(5.5)
        assert decide(server)["verdict"] == "refuse"


def test_callers_beside_this_machine_are_listed(tmp_path: Path) -> None:
    """From behind a load balancer the client is whom the PROXY header names."""
    server = site(tmp_path / "site", http='callers = ["192.0.2.25"]\nproxy_from = ["127.0.0.1"]')
    asked = b"GET /v1/decide?address=203.0.113.9 HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    with server:
        for client, is_listed in (("192.0.2.25", True), ("192.0.2.26", False), ("127.0.0.1", True)):
            with socket.create_connection(("127.0.0.1", server.port("http")), 10) as connection:
                connection.sendall(f"PROXY TCP4 {client} 127.0.0.1 1000 80\r\n".encode() + asked)
                answer = b""
                try:
                    while block := connection.recv(4096):
                        answer += block
                except ConnectionResetError:
                    pass
            assert answer.startswith(b"HTTP/1.1 200 OK\r\n") is is_listed
            assert b"permit" not in answer
