"""IMAP by a started server: grants from logins, idle clients, TLS, limits, stop and reload."""

import base64
import imaplib
import re
import signal
import smtplib
import socket
import ssl
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from support.certificates import Certificates
from support.popgate import Popgate

USER, PASSWORD = "alice@example.org", "correct horse"
PLAIN = (("smtp", ""), ("imap", "plaintext_login = true"), ("pop3", "plaintext_login = true"))
SHORT = "[grants]\nnever = []\nwindow_seconds = 3\n"


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Popgate]:
    server = Popgate(tmp_path / "site", PLAIN, workers=2)
    server.add_account(USER, PASSWORD)
    with server:
        yield server


@contextmanager
def serving(directory: Path, settings: str, listeners: object = PLAIN, limits: str = "") -> Iterator[Popgate]:
    server = Popgate(directory / "site", listeners, settings)  # type: ignore[arg-type]
    server.config.write_text(limits + server.config.read_text())
    server.add_account(USER, PASSWORD)
    with server:
        yield server


def log_in(server: Popgate) -> imaplib.IMAP4:
    client = imaplib.IMAP4("127.0.0.1", server.port("imap"), timeout=10)
    client.login(USER, PASSWORD)
    return client


def relays(server: Popgate) -> bool:
    with smtplib.SMTP("127.0.0.1", server.port("smtp"), timeout=10) as client:
        client.ehlo("scanner.example.org")
        client.mail(USER)
        return client.rcpt("invoices@partner.example")[0] == 250


def deliver(server: Popgate, subject: str) -> None:
    with smtplib.SMTP("127.0.0.1", server.port("smtp"), timeout=10) as client:
        client.sendmail("bob@example.net", [USER], f"Subject: {subject}\r\n\r\nHello.\r\n")


class Wire:
    """A bare connection, for what no IMAP library would send."""

    def __init__(self, server: Popgate, number: int = 0) -> None:
        self.socket = socket.create_connection(("127.0.0.1", server.port("imap", number)), 10)
        self.buffer = b""

    def send(self, octets: bytes) -> None:
        self.socket.sendall(octets)

    def line(self) -> bytes:
        while b"\n" not in self.buffer:
            block = self.socket.recv(65536)
            if not block:
                raise EOFError(self.buffer)
            self.buffer += block
        line, _, self.buffer = self.buffer.partition(b"\n")
        return line + b"\n"

    def until(self, start: bytes) -> list[bytes]:
        """The lines up to one that begins so."""
        lines = [self.line()]
        while not lines[-1].startswith(start):
            lines.append(self.line())
        return lines

    def rest(self) -> bytes:
        try:
            while block := self.socket.recv(65536):
                self.buffer += block
        except ConnectionResetError:
            pass
        return self.buffer

    def select_and_idle(self) -> None:
        self.until(b"* OK")
        self.send(b'a LOGIN alice@example.org "correct horse"\r\nb SELECT INBOX\r\nc IDLE\r\n')
        self.until(b"+ ")

    def close(self) -> None:
        self.socket.close()

    def __enter__(self) -> "Wire":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


# Grants


def test_a_login_grants_before_the_client_reads_ok(site: Popgate) -> None:
    assert not relays(site)
    for _ in range(5):
        with Wire(site) as wire:
            wire.until(b"* OK")
            wire.send(b'a LOGIN alice@example.org "correct horse"\r\n')
            wire.until(b"a OK")
            assert relays(site), "the grant is not there when OK is read"
        site.command("grant", "revoke", "127.0.0.1")
        assert not relays(site)
    assert "imap" in site.explain("127.0.0.1", "imap")


@pytest.mark.parametrize("command", [b"AUTHENTICATE PLAIN %s", b"AUTHENTICATE PLAIN\r\n%s"])
def test_authenticate_grants_too(site: Popgate, command: bytes) -> None:
    response = base64.b64encode(f"\0{USER}\0{PASSWORD}".encode())
    with Wire(site) as wire:
        wire.until(b"* OK")
        wire.send(b"a " + command % response + b"\r\n")
        wire.until(b"a OK")
        assert relays(site)


@pytest.mark.slow
def test_an_idle_session_keeps_its_grant_and_its_end_lets_it_lapse(tmp_path: Path) -> None:
    with serving(tmp_path, SHORT) as site, Wire(site) as wire:
        wire.select_and_idle()
        end = time.monotonic() + 7.0  # two windows, and a bit
        while time.monotonic() < end:
            assert relays(site), "the grant lapsed although the session is open"
            time.sleep(0.3)
        wire.send(b"DONE\r\nz LOGOUT\r\n")
        wire.until(b"z OK")
        ended = time.monotonic()
        assert relays(site), "the window runs from the end of the session"
        while relays(site):
            assert time.monotonic() - ended < 6.0, "the grant outlived its session by two windows"
            time.sleep(0.2)


@pytest.mark.slow
def test_without_renewal_the_grant_of_an_open_session_lapses(tmp_path: Path) -> None:
    with serving(tmp_path, SHORT + "renew_while_open = false\n") as site, Wire(site) as wire:
        wire.select_and_idle()
        assert relays(site)
        began = time.monotonic()
        while relays(site):
            assert time.monotonic() - began < 6.0
            time.sleep(0.2)
        wire.send(b"DONE\r\n")
        wire.until(b"c OK")


@pytest.mark.parametrize("way", ["logout", "close"])
def test_the_end_of_a_session_revokes_where_it_is_set(tmp_path: Path, way: str) -> None:
    with serving(tmp_path, "[grants]\nnever = []\nrevoke_on_logout = true\n") as site:
        client = log_in(site)
        assert relays(site)
        if way == "logout":
            client.logout()
        else:
            client.shutdown()
        deadline = time.monotonic() + 5
        while relays(site):
            assert time.monotonic() < deadline
            time.sleep(0.05)


@pytest.mark.parametrize(
    ("send", "answer"),
    [
        (b"a LOGIN alice@example.org no\r\n", b"a NO"),  # grant-005
        (b"a AUTHENTICATE PLAIN\r\n*\r\n", b"a BAD"),  # grant-006
        (b"a AUTHENTICATE PLAIN AGFsaWNlQGV4YW1wbGUub3JnAG5v\r\n", b"a NO"),
        (b'a LOGIN "alice@example.org" {7}\r\ncorrect horse\r\n', b"a BAD"),
        (b'a LOGIN nobody@example.org "correct horse"\r\n', b"a NO"),
        (b'a LOGIN alice@example.org "correct horse"', b""),  # never completed
    ],
)
def test_a_login_that_does_not_succeed_grants_nothing(site: Popgate, send: bytes, answer: bytes) -> None:
    with Wire(site) as wire:
        wire.until(b"* OK")
        wire.send(send)
        if answer:
            said = [wire.line()]
            while said[-1].startswith(b"+"):
                said.append(wire.line())
            assert said[-1].startswith(answer), said
        else:
            time.sleep(0.3)
        assert not relays(site)


def test_a_device_logs_in_to_an_empty_inbox(tmp_path: Path) -> None:
    with serving(tmp_path, "[grants]\nnever = []\n") as site:
        site.add_account("scanner@example.org", "0000 0000", "--device")
        with Wire(site) as wire:
            wire.send(
                b'a LOGIN scanner@example.org "0000 0000"\r\nb SELECT INBOX\r\nc STATUS INBOX (MESSAGES)\r\n'
            )
            assert b"* 0 EXISTS\r\n" in wire.until(b"b OK")
            assert b"* STATUS INBOX (MESSAGES 0)\r\n" in wire.until(b"c OK")
            wire.send(b"d IDLE\r\n")
            wire.until(b"+ ")
            wire.send(b"DONE\r\ne CREATE Sent\r\nf UID FETCH 1:* FLAGS\r\ng UID SEARCH ALL\r\n")
            assert wire.until(b"e ")[-1].startswith(b"e NO")
            assert b"* SEARCH\r\n" in wire.until(b"g OK")
            wire.send(b"h APPEND INBOX {5+}\r\nhello\r\ni LOGOUT\r\n")
            said = wire.until(b"i OK")
            assert any(line.startswith(b"h NO") for line in said)
        assert "scanner@example.org" in site.command("grant", "list").stdout
        assert not (site.directory / "data/mail/example.org/scanner").exists()


# TLS


TLS = (("imap", 'tls = "starttls"'), ("imap", 'tls = "implicit"'), ("imap", ""), ("smtp", ""))


@pytest.fixture
def tls_site(tmp_path: Path) -> Iterator[Popgate]:
    files = Certificates(tmp_path).settings
    Path(files.key).chmod(0o600)
    settings = f'[tls]\ncertificate = "{files.certificate}"\nkey = "{files.key}"\n[grants]\nnever = []\n'
    with serving(tmp_path, settings, TLS) as server:
        yield server


def _context() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


@pytest.mark.parametrize("number", [0, 2])
def test_passwords_are_refused_without_tls(tls_site: Popgate, number: int) -> None:
    with Wire(tls_site, number) as wire:
        wire.until(b"* OK")
        wire.send(b"a CAPABILITY\r\n")
        told = b"".join(wire.until(b"a OK"))
        assert b" LOGINDISABLED" in told
        assert b"AUTH=PLAIN" not in told
        assert (b" STARTTLS" in told) == (number == 0)
        wire.send(b'b LOGIN alice@example.org "correct horse"\r\n')
        assert wire.until(b"b ")[-1].startswith(b"b NO [PRIVACYREQUIRED]")
        wire.send(b"c AUTHENTICATE PLAIN AGFsaWNlQGV4YW1wbGUub3JnAGNvcnJlY3QgaG9yc2U=\r\n")
        assert wire.until(b"c ")[-1].startswith(b"c NO")
        assert not relays(tls_site)


def test_starttls_025_capabilities_are_told_afresh(tls_site: Popgate) -> None:
    client = imaplib.IMAP4("127.0.0.1", tls_site.port("imap"), timeout=10)
    assert "LOGINDISABLED" in client.capabilities
    client.starttls(_context())
    assert "LOGINDISABLED" not in client.capabilities
    assert "STARTTLS" not in client.capabilities
    assert "AUTH=PLAIN" in client.capabilities
    client.login(USER, PASSWORD)
    assert relays(tls_site)
    client.shutdown()


def test_starttls_024_is_refused_after_the_login(tls_site: Popgate) -> None:
    client = imaplib.IMAP4("127.0.0.1", tls_site.port("imap"), timeout=10)
    client.starttls(_context())
    client.login(USER, PASSWORD)
    client.send(b"z STARTTLS\r\n")
    assert client.readline().startswith(b"z BAD")
    client.logout()


@pytest.mark.parametrize(
    "injected",
    [b'B LOGIN alice@example.org "correct horse"\r\n', b"B LOGIN {5}\r\n", b"B CAPABILITY\r\n"],
    ids=["starttls-014", "starttls-015", "capability"],
)
def test_nothing_sent_before_the_handshake_is_answered_after_it(tls_site: Popgate, injected: bytes) -> None:
    with Wire(tls_site) as wire:
        wire.until(b"* OK")
        wire.send(b"A STARTTLS\r\n" + injected)
        try:
            wire.until(b"A ")
            secure = _context().wrap_socket(wire.socket)
        except (OSError, EOFError):  # closed, which is as good
            return
        secure.settimeout(1.0)
        try:
            assert secure.recv(1000) == b"", "an answer to what came in clear"
        except TimeoutError:
            pass
        assert not relays(tls_site)
        secure.close()


def test_implicit_tls_and_curl(tls_site: Popgate, tmp_path: Path) -> None:
    deliver_to = f"imaps://127.0.0.1:{tls_site.port('imap', 1)}"
    login = [
        "curl",
        "--silent",
        "--show-error",
        "--insecure",
        "--user",
        f"{USER}:{PASSWORD}",
        "--max-time",
        "20",
    ]
    message = tmp_path / "message"
    message.write_bytes(b"Subject: by curl\r\n\r\nHello.\r\n")
    subprocess.run([*login, "--upload-file", str(message), f"{deliver_to}/INBOX"], check=True)
    read = subprocess.run([*login, f"{deliver_to}/INBOX;MAILINDEX=1"], check=True, capture_output=True)
    assert read.stdout == message.read_bytes()
    listed = subprocess.run([*login, f"{deliver_to}/"], check=True, capture_output=True)
    assert b"INBOX" in listed.stdout
    starttls = f"imap://127.0.0.1:{tls_site.port('imap')}/INBOX;MAILINDEX=1"
    read = subprocess.run([*login, "--ssl-reqd", starttls], check=True, capture_output=True)
    assert read.stdout == message.read_bytes()


# What an idle client hears


def test_new_mail_is_told_to_an_idle_client_of_another_worker(site: Popgate) -> None:
    idle = [Wire(site) for _ in range(4)]
    for wire in idle:
        wire.select_and_idle()
    deliver(site, "new")
    for wire in idle:
        wire.until(b"* 1 EXISTS")
    client = log_in(site)
    assert client.select("INBOX")[1] == [b"1"]
    _, fetched = client.fetch("1", "(BODY.PEEK[HEADER.FIELDS (SUBJECT)])")
    assert b"Subject: new" in fetched[0][1]  # type: ignore[index]
    client.store("1", "+FLAGS", "\\Flagged")
    for wire in idle:
        assert b"\\Flagged" in wire.until(b"* 1 FETCH")[-1]
    client.store("1", "+FLAGS", "\\Deleted")
    client.expunge()
    for wire in idle:
        wire.until(b"* 1 EXPUNGE")
        wire.send(b"DONE\r\n")
        wire.until(b"c OK")
        wire.close()
    client.logout()


def test_pop3_and_imap_show_one_mailbox(site: Popgate) -> None:
    import poplib

    client = log_in(site)
    client.append("INBOX", "", imaplib.Time2Internaldate(time.time()), b"Subject: both\r\n\r\nHello.\r\n")
    pop = poplib.POP3("127.0.0.1", site.port("pop3"), timeout=10)
    pop.user(USER)
    pop.pass_(PASSWORD)
    assert pop.retr(1)[1] == [b"Subject: both", b"", b"Hello."]
    pop.dele(1)
    pop.quit()
    assert client.select("INBOX")[1] == [b"0"]
    client.logout()


# Limits and deadlines


def test_who_does_not_log_in_is_sent_away(tmp_path: Path) -> None:
    with serving(tmp_path, "", limits="limits.login_seconds = 2\n") as site, Wire(site) as wire:
        wire.until(b"* OK")
        began = time.monotonic()
        with pytest.raises(EOFError):
            while time.monotonic() - began < 8:
                wire.send(b"a NOOP\r\n")  # slow-001: whatever it says does not count
                wire.line()
                time.sleep(0.2)
        assert 1.0 < time.monotonic() - began < 5.0


def test_a_client_that_says_nothing_for_too_long_is_logged_out(tmp_path: Path) -> None:
    limits = "limits.imap_idle_seconds = 3\n"
    with serving(tmp_path, "[grants]\nnever = []\n", limits=limits) as site:
        with Wire(site) as idle, Wire(site) as quiet:
            idle.select_and_idle()
            quiet.until(b"* OK")
            quiet.send(b'a LOGIN alice@example.org "correct horse"\r\n')
            quiet.until(b"a OK")
            began = time.monotonic()
            for number in range(3):  # what it is told does not keep it
                deliver(site, f"{number}")
                time.sleep(0.6)
            assert b"* BYE" in idle.rest()
            assert b"* BYE" in quiet.rest()
            assert 2.0 < time.monotonic() - began < 8.0
        site.wait_for("timeout", count=2)


def test_too_many_connections_and_sessions_are_told_so(tmp_path: Path) -> None:
    listeners = (("imap", "plaintext_login = true\nmax_connections = 3"),)
    with serving(tmp_path, "", listeners, limits="limits.sessions_per_user = 2\n") as site:
        clients = [log_in(site), log_in(site)]
        with Wire(site) as third:
            third.until(b"* OK")
            third.send(b'a LOGIN alice@example.org "correct horse"\r\n')
            assert re.match(rb"a NO .*too many", third.until(b"a ")[-1], re.IGNORECASE)
        deadline = time.monotonic() + 5
        while "imap.close" not in site.log and time.monotonic() < deadline:
            time.sleep(0.05)
        with Wire(site) as third, Wire(site) as fourth:
            third.until(b"* OK")
            assert fourth.rest() == b"* BYE [UNAVAILABLE] too many connections, try again later\r\n"
        for client in clients:
            client.logout()


@pytest.mark.parametrize(
    ("sent", "answer"),
    [
        (b"A" * 4096 + b"\r\n", rb"\* OK .*\r\n(\* BAD|\* BYE)"),
        (b"A" * 65536 + b"\r\n", rb"\* OK .*\r\n(\* BAD|\* BYE)"),
        (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", rb"\* OK .*\r\n\Z"),
        (b"NOOP\n", rb"\* OK .*\r\n(\* BAD|\* BYE)"),
    ],
    ids=["limit-028", "limit-029", "limit-034", "limit-037"],
)
def test_what_is_no_command_is_refused(site: Popgate, sent: bytes, answer: bytes) -> None:
    with Wire(site) as wire:
        wire.send(sent)
        wire.socket.shutdown(socket.SHUT_WR)
        assert re.match(answer, wire.rest())


def test_commands_behind_a_login_are_run_after_it(site: Popgate) -> None:  # pipe-012
    with Wire(site) as wire:
        wire.send(b'a LOGIN alice@example.org "correct horse"\r\nb SELECT INBOX\r\nc LOGOUT\r\n')
        said = wire.rest()
        assert said.index(b"a OK") < said.index(b"EXISTS") < said.index(b"b OK") < said.index(b"c OK")
    with Wire(site) as wire:
        wire.send(b"a LOGIN alice@example.org wrong\r\nb SELECT INBOX\r\nc LOGOUT\r\n")
        said = wire.rest()
        assert said.index(b"a NO") < said.index(b"b BAD") < said.index(b"c OK")


def test_octets_without_end_are_not_kept(tmp_path: Path) -> None:
    with serving(tmp_path, "") as site, Wire(site) as wire:  # limit-030
        wire.until(b"* OK")
        sent = 0
        with pytest.raises(OSError):
            while sent < 50_000_000:
                wire.send(b"A" * 65536)
                sent += 65536
        assert sent < 20_000_000


@pytest.mark.slow
def test_a_thousand_idle_sessions_hear_of_one_message(tmp_path: Path) -> None:
    count = 1000
    listeners = (("smtp", ""), ("imap", "plaintext_login = true\nmax_connections = 2000"))
    limits = "limits.sessions_per_user = 2000\n"
    with serving(tmp_path, "[grants]\nnever = []\n", listeners, limits=limits) as site:
        worker = int(re.findall(r"process=worker-0 .*?pid=(\d+)", site.log)[-1])
        wires = [Wire(site) for _ in range(50)]
        for wire in wires:
            wire.select_and_idle()
        before = _private_bytes(worker)
        more = [Wire(site) for _ in range(count - 50)]
        for wire in more:
            wire.select_and_idle()
        each = (_private_bytes(worker) - before) / (count - 50)
        assert each < 50 * 1024, f"{each / 1024:.1f} KiB for each idle session"
        wires += more
        deliver(site, "to all")
        began = time.monotonic()
        for wire in wires:
            wire.until(b"* 1 EXISTS")
        assert time.monotonic() - began < 10
        for wire in wires:
            wire.close()


def _private_bytes(pid: int) -> int:
    rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
    return sum(int(kib) for kib in re.findall(r"Private_(?:Clean|Dirty):\s+(\d+) kB", rollup)) * 1024


# Stop and reload


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_idle_clients_are_told_of_a_stop_and_of_a_reload(site: Popgate, number: int) -> None:
    with Wire(site) as idle, Wire(site) as waiting:
        idle.select_and_idle()
        waiting.until(b"* OK")
        waiting.send(b'a LOGIN alice@example.org "correct horse"\r\n')
        waiting.until(b"a OK")
        site.send_signal(number)
        assert idle.until(b"* BYE")[-1].endswith(b"\r\n")
        assert waiting.until(b"* BYE")
    if number == signal.SIGHUP:
        site.wait_for("server.reload ")
        log_in(site).logout()
    else:
        assert site.process is not None
        assert site.process.wait(15) == 0
        assert "process.killed" not in site.log
