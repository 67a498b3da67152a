"""Debian's Dovecot tells popgate of its logins: refused, login, accepted, lapsed, refused.

And what must never happen: a grant for what is no login to a mailbox, and a login that waits for us.
"""

import base64
import contextlib
import imaplib
import poplib
import re
import smtplib
import socket
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import pytest
import trustme

from support.dovecot import Dovecot
from support.popgate import Popgate

pytestmark = [
    pytest.mark.peer("dovecot-core"),
    pytest.mark.peer("dovecot-pop3d"),
    pytest.mark.peer("dovecot-imapd"),
]

SECRET = "dovecot-and-popgate-share-this"
USERS = {"alice": "open sesame", "bob@example.org": "letmein"}
SOON = 1.0
"""Seconds; a login that waits for popgate would take two or four."""

REPORT = """
auth_policy_server_url = http://127.0.0.1:{port}/
auth_policy_server_api_header = Authorization: Bearer {secret}
auth_policy_hash_nonce = a-string-of-this-site
auth_policy_check_before_auth = no
auth_policy_check_after_auth = no
auth_policy_report_after_auth = yes
auth_policy_request_attributes = login=%{{requested_username}} user=%{{user}} master=%{{master_user}} \
remote=%{{rip}} protocol=%s session_id=%{{session}}
"""
EXPORTER = """
event_exporter popgate {{
  format = json
  format_args = time-rfc3339
  transport = http-post
  transport_args = http://popgate:{secret}@127.0.0.1:{port}/event
  transport_timeout = 250 msecs
}}
"""
EXPORTED_LOGINS = """
metric popgate_login {{
  exporter = popgate
  filter = event=auth_request_finished AND success=yes AND (service=pop3 OR service=imap)
}}
"""
EXPORTED_SESSIONS = """
metric popgate_use {{
  exporter = popgate
  filter = event=imap_command_finished AND (cmd_name=NOOP OR cmd_name=IDLE)
}}
metric popgate_wake {{
  exporter = popgate
  filter = event=imap_client_unhibernated
}}
metric popgate_end {{
  exporter = popgate
  filter = event=mail_user_session_finished AND (category=service:pop3 OR category=service:imap)
}}
"""
WAYS = {"policy": REPORT, "exporter": EXPORTER + EXPORTED_LOGINS}
HIBERNATION = """
imap_hibernate_timeout = 1s
service imap {{
  unix_listener imap-master {{
    mode = 0666
  }}
}}
service imap-hibernate {{
  unix_listener imap-hibernate {{
    mode = 0666
  }}
  chroot =
}}
"""
# A master user, and no pauses after failed logins
MASTER = """
auth_failure_delay = 0
service anvil {{
  unix_listener anvil-auth-penalty {{
    mode = 0
  }}
}}
auth_master_user_separator = *
passdb {{
  driver = static
  args = password=master-password
  master = yes
}}
"""


class Site:
    """popgate with an SMTP listener for each family, and a Dovecot that tells it of logins."""

    def __init__(self, directory: Path, *, window: int = 600, more: str = "") -> None:
        directory.mkdir()
        secret = directory / "secret"
        secret.write_text(SECRET + "\n")
        secret.chmod(0o600)
        self.popgate = Popgate(
            directory,
            [
                ("smtp", ""),
                ("smtp", ""),
                ("dovecot_auth_policy", f'secret_file = "{secret}"\n{more}'),
            ],
            f"[grants]\nnever = []\nwindow_seconds = {window}\n",
            workers=2,
        )
        text = self.popgate.config.read_text()
        head, _, tail = text.partition('bind = "127.0.0.1:0"')
        self.popgate.config.write_text(f'{head}bind = "[::1]:0"{tail}')

    @property
    def policy_port(self) -> int:
        return self.popgate.port("dovecot_auth_policy")

    def relays(self, source: str, sender: str = "alice@example.org") -> bool:
        is_ipv6 = ":" in source
        with smtplib.SMTP(timeout=10, source_address=(source, 0)) as client:
            client.connect("::1" if is_ipv6 else "127.0.0.1", self.popgate.port("smtp", 0 if is_ipv6 else 1))
            client.ehlo("scanner.example.org")
            client.mail(sender)
            code, _ = client.rcpt("invoices@partner.example")
            assert code in (250, 550), code
            return code == 250

    def wait_until_relays(self, source: str, sender: str = "alice@example.org", seconds: float = 5) -> None:
        deadline = time.monotonic() + seconds
        while not self.relays(source, sender):
            assert time.monotonic() < deadline, self.popgate.log[-3000:]
            time.sleep(0.02)

    def wait_until_refused(self, source: str, seconds: float = 20) -> None:
        deadline = time.monotonic() + seconds
        while self.relays(source):
            assert time.monotonic() < deadline, self.popgate.log[-3000:]
            time.sleep(0.2)


def dovecot(settings: str, port: int) -> Dovecot:
    return Dovecot(USERS, listen="127.0.0.1, ::1", settings=settings.format(port=port, secret=SECRET))


def pop3(server: Dovecot, source: str, user: str = "alice", password: str | None = None) -> socket.socket:
    """A session that has logged in. Raises poplib.error_proto."""
    client = socket.create_connection(
        ("::1" if ":" in source else "127.0.0.1", server.pop3_port), 10, source_address=(source, 0)
    )
    try:
        with client.makefile("rb") as replies:
            assert replies.readline().startswith(b"+OK")
            client.sendall(f"USER {user}\r\n".encode())
            assert replies.readline().startswith(b"+OK")
            client.sendall(f"PASS {USERS[user] if password is None else password}\r\n".encode())
            reply = replies.readline()
    except BaseException:
        client.close()
        raise
    if not reply.startswith(b"+OK"):
        client.close()
        raise poplib.error_proto(reply)
    return client


class Imap4(imaplib.IMAP4):
    """From a source address."""

    def __init__(self, host: str, port: int, source: str) -> None:
        self._source = source
        super().__init__(host, port, timeout=10)

    def _create_socket(self, timeout: float | None) -> socket.socket:
        return socket.create_connection((self.host, self.port), timeout, source_address=(self._source, 0))


def imap(server: Dovecot, source: str, user: str = "alice") -> Imap4:
    client = Imap4("::1" if ":" in source else "127.0.0.1", server.imap_port, source)
    client.login(user, USERS[user])
    return client


# The story, by each way to tell


@pytest.mark.parametrize("way", WAYS)
def test_refused_login_accepted_lapsed_refused(tmp_path: Path, way: str) -> None:
    site = Site(tmp_path / "site", window=4)
    with site.popgate, dovecot(WAYS[way], site.policy_port) as server:
        for source, protocol in (
            ("127.0.0.9", "pop3"),
            ("127.0.0.10", "imap"),
            ("::1", "pop3"),
        ):
            assert not site.relays(source)
            began = time.monotonic()
            if protocol == "pop3":
                pop3(server, source).close()
            else:
                imap(server, source).logout()
            assert time.monotonic() - began < SOON
            site.wait_until_relays(source)
            assert not site.relays(source, "eve@example.org")
        assert not site.relays("127.0.0.11"), "nobody has logged in from there"
        imap(server, "::1", "bob@example.org").logout()
        site.wait_until_relays("::1", "bob@example.org")
        time.sleep(4.5)
        for source in ("127.0.0.9", "127.0.0.10", "::1"):
            assert not site.relays(source)
    log = site.popgate.log
    assert re.search(
        r"grant\.allow session=\S+ client=127\.0\.0\.9 identity=alice@example\.org protocol=pop3"
        r" reason=login via=dovecot",
        log,
    )
    assert re.search(r"client=127\.0\.0\.10 identity=alice@example\.org protocol=imap", log)
    assert "http.refused" not in log
    assert SECRET not in log


@pytest.mark.parametrize("way", WAYS)
def test_what_is_no_login_to_a_mailbox_grants_nothing(tmp_path: Path, way: str) -> None:
    site = Site(tmp_path / "site")
    with site.popgate, dovecot(WAYS[way] + MASTER, site.policy_port) as server:
        for user, password in (("alice", "wrong"), ("alice", ""), ("nobody", "open sesame")):
            with pytest.raises(poplib.error_proto):
                pop3(server, "127.0.0.9", user, password)
        pop3(server, "127.0.0.12", "alice*administrator", "master-password").close()
        authenticate_for_smtp(server, "127.0.0.13", "alice", USERS["alice"])
        authenticate_for_smtp(server, "127.0.0.13", "alice", USERS["alice"], service="submission")
        pop3(server, "127.0.0.14").close()  # the last: what was told before has been heard
        site.wait_until_relays("127.0.0.14")
        for source in ("127.0.0.9", "127.0.0.12", "127.0.0.13"):
            assert not site.relays(source)
        assert site.popgate.log.count("grant.allow") == 1


def authenticate_for_smtp(
    server: Dovecot, source: str, user: str, password: str, service: str = "smtp"
) -> None:
    """As Postfix and Exim have Dovecot check an SMTP client's AUTH."""
    proof = base64.b64encode(f"\0{user}\0{password}".encode()).decode()
    with socket.socket(socket.AF_UNIX) as client, client.makefile("rb") as replies:
        client.settimeout(10)
        client.connect(str(server.sasl_socket))
        client.sendall(b"VERSION\t1\t2\nCPID\t4242\n")
        while replies.readline() != b"DONE\n":
            pass
        client.sendall(
            f"AUTH\t1\tPLAIN\tservice={service}\trip={source}\tlip=127.0.0.1\tresp={proof}\n".encode()
        )
        assert replies.readline().startswith(b"OK\t1\t")


# Sessions and their ends


@pytest.mark.parametrize("protocol", ["pop3", "imap"])
def test_the_window_runs_from_the_end_of_the_session(
    tmp_path: Path, protocol: Literal["pop3", "imap"]
) -> None:
    site = Site(tmp_path / "site", window=4, more="session_ends = true")
    with site.popgate, dovecot(REPORT + EXPORTER + EXPORTED_SESSIONS, site.policy_port) as server:
        session = pop3(server, "127.0.0.9") if protocol == "pop3" else imap(server, "127.0.0.9")
        site.wait_until_relays("127.0.0.9")
        site.popgate.wait_for("reason=session-open", count=4)
        assert site.relays("127.0.0.9"), "its session is open"
        if isinstance(session, socket.socket):
            session.close()
        else:
            session.shutdown()
        assert site.relays("127.0.0.9")
        site.wait_until_refused("127.0.0.9")


def test_commands_of_imap_renew_where_ends_are_not_told(tmp_path: Path) -> None:
    site = Site(tmp_path / "site", window=4)
    with site.popgate, dovecot(REPORT + EXPORTER + EXPORTED_SESSIONS, site.policy_port) as server:
        client = imap(server, "127.0.0.9")
        site.wait_until_relays("127.0.0.9")
        for _ in range(5):
            time.sleep(1.2)
            client.noop()
        assert site.relays("127.0.0.9")
        client.logout()


def test_a_session_that_hibernates(tmp_path: Path) -> None:
    site = Site(tmp_path / "site", window=9, more="session_ends = true")
    with (
        site.popgate,
        dovecot(REPORT + EXPORTER + EXPORTED_SESSIONS + HIBERNATION, site.policy_port) as server,
        imap(server, "127.0.0.9") as client,
    ):
        site.wait_until_relays("127.0.0.9")
        client.select()
        client.send(b"x IDLE\r\n")
        assert client.readline().startswith(b"+")
        time.sleep(2)  # it hibernates after one
        renewals = site.popgate.log.count("reason=session-open")
        time.sleep(3)
        assert site.popgate.log.count("reason=session-open") == renewals, "that was told as its end"
        client.send(b"DONE\r\n")
        assert client.readline().startswith(b"x OK")
        site.popgate.wait_for("reason=session-open", count=renewals + 2)  # it is awake, and open
        client.logout()
        site.wait_until_refused("127.0.0.9")


def test_popgate_comes_back_while_dovecot_runs(tmp_path: Path) -> None:
    site = Site(tmp_path / "site")
    with site.popgate:
        port = site.policy_port
        with dovecot(REPORT, port) as server:
            pop3(server, "127.0.0.9").close()
            site.wait_until_relays("127.0.0.9")
            site.popgate.stop()
            began = time.monotonic()
            pop3(server, "127.0.0.10").close()
            assert time.monotonic() - began < SOON
            head, _, tail = site.popgate.config.read_text().rpartition('bind = "127.0.0.1:0"')
            site.popgate.config.write_text(f'{head}bind = "127.0.0.1:{port}"{tail}')
            site.popgate.start()
            assert site.relays("127.0.0.9"), "grants outlive a restart"
            assert not site.relays("127.0.0.10"), "nobody heard of it"
            pop3(server, "127.0.0.10").close()
            site.wait_until_relays("127.0.0.10")


def test_under_tls(tmp_path: Path) -> None:
    authority = trustme.CA()
    certificate = authority.issue_cert("127.0.0.1", "localhost")
    site = Site(tmp_path / "site", more='tls = "implicit"')
    place = tmp_path / "site"
    certificate.cert_chain_pems[0].write_to_path(place / "cert.pem")
    certificate.private_key_pem.write_to_path(place / "key.pem")
    (place / "key.pem").chmod(0o600)
    with site.popgate.config.open("a") as config:
        config.write(f'[tls]\ncertificate = "{place}/cert.pem"\nkey = "{place}/key.pem"\n')
    with tempfile.NamedTemporaryFile(suffix=".pem") as trusted:  # where Dovecot's users can read it
        trusted.write(authority.cert_pem.bytes())
        trusted.flush()
        Path(trusted.name).chmod(0o644)
        settings = (REPORT + EXPORTER + EXPORTED_SESSIONS).replace("http://", "https://")
        settings += f"ssl_client_ca_file = {trusted.name}\n"
        with site.popgate, dovecot(settings, site.policy_port) as server:
            imap(server, "127.0.0.9").logout()
            site.wait_until_relays("127.0.0.9")
            assert "http.refused" not in site.popgate.log
            assert "tls.failed" not in site.popgate.log
            assert "auth-policy" not in server.log


# Nobody waits for popgate


@contextlib.contextmanager
def our_end(behaviour: str) -> Iterator[int]:
    """What may stand in popgate's place; gives the port."""
    listener = socket.create_server(("127.0.0.1", 0))
    listener.settimeout(0.1)
    is_over = threading.Event()
    connections: list[socket.socket] = []

    def serve() -> None:
        while not is_over.is_set():
            try:
                connection, _ = listener.accept()
            except TimeoutError:
                continue
            connections.append(connection)
            threading.Thread(target=answer, args=(connection,), daemon=True).start()

    def answer(connection: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while connection.recv(65536):
                if behaviour == "slow":
                    is_over.wait(5)
                if behaviour in ("slow", "500"):
                    connection.sendall(b"HTTP/1.1 500 Oops\r\nContent-Length: 0\r\n\r\n")
                elif behaviour == "garbage":
                    connection.sendall(b"\x00\xff" * 1000)
                elif behaviour == "closes":
                    connection.shutdown(socket.SHUT_RDWR)

    port = listener.getsockname()[1]
    if behaviour == "down":
        listener.close()
        yield port
        return
    thread = threading.Thread(target=serve)
    if behaviour != "never accepts":
        thread.start()
    try:
        yield port
    finally:
        is_over.set()
        if thread.is_alive():
            thread.join()
        for connection in connections:
            connection.close()
        listener.close()


@pytest.mark.parametrize("behaviour", ["down", "slow", "silent", "never accepts", "500", "garbage", "closes"])
def test_no_login_waits_for_our_end(behaviour: str) -> None:
    with our_end(behaviour) as port, dovecot(REPORT + EXPORTER + EXPORTED_LOGINS, port) as server:
        for _ in range(3):
            began = time.monotonic()
            pop3(server, "127.0.0.9").close()
            imap(server, "127.0.0.9").logout()
            assert time.monotonic() - began < SOON
