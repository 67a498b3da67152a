"""Real mail clients against a started server: they log in, they relay, they read.

Each test logs in from a loopback address of its own, so that one test's grant is not another's.
"""

import imaplib
import itertools
import os
import poplib
import shutil
import smtplib
import ssl
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme

from support.popgate import Popgate

PASSWORD = "correct horse"
USER = "alice@example.org"
REMOTE = "invoices@partner.example"
REFUSAL = b"relaying denied"

_addresses = itertools.count(10)


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, authority: trustme.CA) -> Iterator[Popgate]:
    """A site with every kind of listener; what it relays is held in the queue of a dead smart host."""
    directory = tmp_path_factory.mktemp("site")
    issued = authority.issue_cert("localhost", "127.0.0.1", "mail.example.org")
    issued.cert_chain_pems[0].write_to_path(str(directory / "cert.pem"))
    issued.private_key_pem.write_to_path(str(directory / "key.pem"))
    (directory / "key.pem").chmod(0o600)
    authority.cert_pem.write_to_path(str(directory / "ca.pem"))
    server = Popgate(
        directory,
        [
            ("smtp", 'tls = "starttls"\nplaintext_login = true'),
            ("smtp", 'tls = "implicit"'),
            ("submission", 'tls = "starttls"'),
            ("pop3", 'tls = "starttls"\nplaintext_login = true'),
            ("pop3", 'tls = "implicit"'),
        ],
        f"""
[tls]
certificate = "{directory}/cert.pem"
key = "{directory}/key.pem"

[auth]
apop = true
failure_delay_seconds = 0.1

[grants]
never = []
window_seconds = 60

[[delivery.route]]
domains = ["partner.example"]
to = "smtp://127.0.0.1:9"
""",
    )
    server.add_account(USER, PASSWORD, "--recoverable")
    with server:
        yield server


@pytest.fixture
def source() -> str:
    """A client address that nobody else uses."""
    return f"127.0.7.{next(_addresses)}"


def run(*command: str, ok: bool = True, stdin: str = "", env: dict[str, str] | None = None) -> str:
    """Run a client; its output, both streams."""
    done = subprocess.run(
        command,
        input=stdin,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ, **(env or {})},
        errors="replace",
    )
    if ok:
        assert done.returncode == 0, f"{' '.join(command)}: status {done.returncode}\n{done.stdout}"
    return done.stdout


def may_relay(site: Popgate, source: str, sender: str = USER) -> bool:
    """What a plain client at `source` is told at RCPT."""
    with smtplib.SMTP("127.0.0.1", site.port("smtp"), source_address=(source, 0), timeout=10) as client:
        client.ehlo("scanner.example.org")
        assert client.mail(sender)[0] == 250
        code, text = client.rcpt(REMOTE)
        assert (code == 250) or (code == 550 and REFUSAL in text), (code, text)
        return code == 250


def deliver(site: Popgate, subject: str) -> None:
    """One message into the mailbox by SMTP, there when this returns."""
    before = site.log.count("delivery.local")
    with smtplib.SMTP("127.0.0.1", site.port("smtp"), timeout=10) as client:
        client.sendmail(
            "sender@example.net", [USER], f"Subject: {subject}\r\nFrom: sender@example.net\r\n\r\nbody\r\n"
        )
    site.wait_for("delivery.local", count=before + 1)


def pop3(site: Popgate, source: str) -> poplib.POP3:
    client = poplib.POP3.__new__(poplib.POP3)
    client._create_socket = lambda timeout: __import__("socket").create_connection(  # type: ignore[method-assign]
        ("127.0.0.1", site.port("pop3")), 10, (source, 0)
    )
    client.__init__("127.0.0.1", site.port("pop3"), 10)  # type: ignore[misc]
    return client


# Python


def test_poplib_and_smtplib(site: Popgate, source: str) -> None:
    assert not may_relay(site, source)
    deliver(site, "for poplib")
    client = pop3(site, source)
    assert "STLS" in client.capa()
    client.user(USER)
    client.pass_(PASSWORD)
    count, octets = client.stat()
    assert count >= 1
    assert octets > 0
    lines = client.retr(count)[1]
    assert b"Subject: for poplib" in lines
    assert len(client.top(count, 0)[1]) < len(lines)
    assert client.uidl(count).startswith(b"+OK")
    client.dele(count)
    client.rset()
    assert client.stat() == (count, octets)
    client.quit()
    assert may_relay(site, source)
    assert not may_relay(site, source, "mallory@example.net"), "a grant is bound to who logged in"


def test_poplib_apop_and_stls(site: Popgate, source: str, authority: trustme.CA) -> None:
    client = pop3(site, source)
    client.apop(USER, PASSWORD)
    client.quit()
    assert may_relay(site, source)
    context = ssl.create_default_context()
    authority.configure_trust(context)
    client = pop3(site, source)
    client.stls(context)
    client.user(USER)
    client.pass_(PASSWORD)
    client.quit()


def test_smtplib_authenticates_on_submission(site: Popgate, source: str, authority: trustme.CA) -> None:
    context = ssl.create_default_context()
    authority.configure_trust(context)
    with smtplib.SMTP("localhost", site.port("submission"), source_address=(source, 0), timeout=10) as client:
        client.ehlo()
        assert client.mail(USER)[0] == 530
        client.starttls(context=context)
        client.login(USER, PASSWORD)
        assert client.sendmail(USER, [REMOTE], "Subject: x\r\n\r\nx\r\n") == {}
    assert not may_relay(site, source), "AUTH gives no grant"
    with smtplib.SMTP_SSL("localhost", site.port("smtp", 1), context=context, timeout=10) as client:
        client.login(USER, PASSWORD)
        assert client.sendmail(USER, [REMOTE], "Subject: x\r\n\r\nx\r\n") == {}


@pytest.mark.parametrize("mechanism", ["PLAIN", "LOGIN", "CRAM-MD5"])
def test_smtplib_by_each_mechanism(site: Popgate, mechanism: str) -> None:
    with smtplib.SMTP("127.0.0.1", site.port("smtp"), timeout=10) as client:
        client.ehlo()
        client.user, client.password = USER, PASSWORD
        method = getattr(client, "auth_" + mechanism.lower().replace("-", "_"))
        assert client.auth(mechanism, method)[0] == 235


# curl


@pytest.mark.peer("curl")
@pytest.mark.parametrize("how", ["plain", "stls", "pop3s"])
def test_curl_reads_by_pop3(site: Popgate, source: str, how: str) -> None:
    deliver(site, f"for curl {how}")
    ca = str(site.directory / "ca.pem")
    url = f"pop3://localhost:{site.port('pop3')}/"
    options = ["--ssl-reqd", "--cacert", ca] if how == "stls" else []
    if how == "pop3s":
        url, options = f"pop3s://localhost:{site.port('pop3', 1)}/", ["--cacert", ca]
    common = ["curl", "-sS", "-4", "--interface", source, "--user", f"{USER}:{PASSWORD}", *options]
    listing = run(*common, url)
    number = len(listing.split("\n")) - 1
    assert f"Subject: for curl {how}" in run(*common, f"{url}{number}")
    assert may_relay(site, source)


@pytest.mark.peer("curl")
def test_curl_by_apop(site: Popgate, source: str) -> None:
    url = f"pop3://localhost:{site.port('pop3')}/"
    common = ["curl", "-sS", "-4", "-v", "--interface", source, "--user", f"{USER}:{PASSWORD}"]
    common += ["--login-options", "AUTH=+APOP"]
    assert "APOP alice@example.org" in run(*common, url)
    assert may_relay(site, source)


@pytest.mark.peer("curl")
@pytest.mark.parametrize("how", ["grant", "auth", "starttls", "smtps"])
def test_curl_sends(site: Popgate, source: str, tmp_path: Path, how: str) -> None:
    message = tmp_path / "message"
    message.write_bytes(b"Subject: curl\r\n\r\nbody\r\n.dot\r\n")
    ca = ["--cacert", str(site.directory / "ca.pem")]
    url, options = f"smtp://localhost:{site.port('smtp')}", []
    if how != "grant":
        options = ["--user", f"{USER}:{PASSWORD}"]
    if how == "starttls":
        options += ["--ssl-reqd", *ca]
    if how == "smtps":
        url, options = f"smtps://localhost:{site.port('smtp', 1)}", [*options, *ca]
    command = [
        *("curl", "-sS", "-4", "--interface", source, *options, url),
        *("--mail-from", USER, "--mail-rcpt", REMOTE, "--upload-file", str(message)),
    ]
    if how == "grant":
        assert "550" in run(*command, ok=False)
        run(
            "curl",
            "-sS",
            "-4",
            "--interface",
            source,
            "--user",
            f"{USER}:{PASSWORD}",
            f"pop3://localhost:{site.port('pop3')}/",
        )
    accepted = site.log.count("smtp.accept")
    run(*command)
    site.wait_for("smtp.accept", count=accepted + 1)


# swaks, msmtp, mpop, fetchmail, getmail, Net::POP3, nmap


@pytest.mark.peer("swaks")
@pytest.mark.parametrize("how", ["grant", "plain", "login", "cram-md5", "tls"])
def test_swaks(site: Popgate, source: str, how: str) -> None:
    command = [
        *("swaks", "--server", "127.0.0.1", "--port", str(site.port("smtp")), "--local-interface", source),
        *("--from", USER, "--to", REMOTE, "--helo", "scanner.example.org"),
    ]
    if how == "grant":
        assert "550 5.7.1" in run(*command, ok=False)
        client = pop3(site, source)
        client.user(USER)
        client.pass_(PASSWORD)
        client.close()  # some devices never QUIT
    elif how == "tls":
        command += ["--tls", "--auth", "PLAIN", "--auth-user", USER, "--auth-password", PASSWORD]
    else:
        command += ["--auth", how.upper(), "--auth-user", USER, "--auth-password", PASSWORD]
    assert "250 2.6.0" in run(*command) or "queued as" in run(*command)


@pytest.mark.peer("swaks")
def test_swaks_pipelined_to_a_local_mailbox(site: Popgate) -> None:
    before = site.log.count("delivery.local")
    run(
        *("swaks", "--server", "127.0.0.1", "--port", str(site.port("smtp")), "--pipeline"),
        *("--from", "sender@example.net", "--to", USER, "--body", "pipelined"),
    )
    site.wait_for("delivery.local", count=before + 1)


@pytest.mark.peer("msmtp")
def test_msmtp(site: Popgate, source: str, tmp_path: Path) -> None:
    common = [
        *("msmtp", "--file=/dev/null", "--host=127.0.0.1", f"--source-ip={source}", f"--from={USER}"),
    ]
    plain = [*common, f"--port={site.port('smtp')}", "--auth=off", "--tls=off", REMOTE]
    assert "550" in run(*plain, ok=False, stdin="Subject: x\n\nx\n")
    client = pop3(site, source)
    client.apop(USER, PASSWORD)
    client.quit()
    run(*plain, stdin="Subject: x\n\nx\n")
    secret = tmp_path / "secret"
    secret.write_text(PASSWORD + "\n")
    for mechanism in ("plain", "scram-sha-256"):
        run(
            *(*common, f"--port={site.port('submission')}", "--tls=on", "--tls-starttls=on"),
            *(f"--tls-trust-file={site.directory}/ca.pem", f"--auth={mechanism}", f"--user={USER}"),
            *(f"--passwordeval=cat {secret}", REMOTE),
            stdin="Subject: x\n\nx\n",
        )


@pytest.mark.peer("mpop")
def test_mpop(site: Popgate, source: str, tmp_path: Path) -> None:
    deliver(site, "for mpop")
    (tmp_path / "mail" / "new").mkdir(parents=True)
    (tmp_path / "mail" / "cur").mkdir()
    (tmp_path / "mail" / "tmp").mkdir()
    (tmp_path / "secret").write_text(PASSWORD + "\n")
    for auth in ("user", "apop", "plain", "scram-sha-256"):
        run(
            *("mpop", "--file=/dev/null", "--host=127.0.0.1", f"--port={site.port('pop3')}", "--tls=off"),
            *(f"--source-ip={source}", f"--auth={auth}", f"--user={USER}", "--keep=on", "--only-new=off"),
            *(f"--passwordeval=cat {tmp_path}/secret", f"--delivery=maildir,{tmp_path}/mail"),
            f"--uidls-file={tmp_path}/uidls",
        )
    texts = [path.read_text() for path in (tmp_path / "mail" / "new").iterdir()]
    assert sum("Subject: for mpop" in text for text in texts) == 4
    assert may_relay(site, source)


@pytest.mark.peer("fetchmail")
def test_fetchmail(site: Popgate, tmp_path: Path) -> None:
    deliver(site, "for fetchmail")
    configuration = tmp_path / "fetchmailrc"
    configuration.write_text(
        f'poll localhost port {site.port("pop3")} proto pop3 uidl user "{USER}" password "{PASSWORD}"'
        f' sslproto "" keep fetchall mda "cat >> {tmp_path}/out; echo >> {tmp_path}/out"\n'
    )
    configuration.chmod(0o600)
    run(
        *("fetchmail", "-f", str(configuration), "--nosyslog", "--pidfile", str(tmp_path / "pid")),
        *("-i", str(tmp_path / "ids"), "-v"),
        env={"HOME": str(tmp_path), "FETCHMAILHOME": str(tmp_path)},
    )
    assert "Subject: for fetchmail" in (tmp_path / "out").read_text()


def test_getmail(site: Popgate, tmp_path: Path) -> None:
    program = shutil.which("getmail") or str(Path(sys.executable).parent / "getmail")
    deliver(site, "for getmail")
    out = tmp_path / "out"
    (tmp_path / "getmailrc").write_text(
        "[retriever]\ntype = SimplePOP3Retriever\nserver = 127.0.0.1\n"
        f"port = {site.port('pop3')}\nusername = {USER}\npassword = {PASSWORD}\n"
        f'[destination]\ntype = MDA_external\npath = /usr/bin/tee\narguments = ("-a", "{out}")\n'
        "allow_root_commands = true\nignore_stderr = true\n"
        "[options]\nread_all = true\ndelete = false\n"
    )
    run(sys.executable, program, f"--getmaildir={tmp_path}", "--rcfile=getmailrc")
    assert "Subject: for getmail" in out.read_text()


@pytest.mark.peer("perl")
def test_perl_net_pop3(site: Popgate, source: str) -> None:
    script = """
use Net::POP3;
my ($port, $source, $user, $secret, $how) = @ARGV;
my $pop = Net::POP3->new("127.0.0.1", Port => $port, Timeout => 10, LocalAddr => $source)
    or die "connect: $@";
my $count = $how eq "apop" ? $pop->apop($user, $secret) : $pop->login($user, $secret);
die "login: " . $pop->message unless defined $count;
my $list = $pop->list; print scalar(keys %$list), " messages\\n";
my $uidl = $pop->uidl; print scalar(keys %$uidl), " uids\\n";
$pop->quit;
"""
    deliver(site, "for perl")
    for how in ("login", "apop"):
        text = run("perl", "-e", script, str(site.port("pop3")), source, USER, PASSWORD, how)
        messages, uids = (int(line.split()[0]) for line in text.splitlines())
        assert messages == uids > 0
    assert may_relay(site, source)


@pytest.mark.peer("nmap")
@pytest.mark.slow
def test_nmap_finds_no_open_relay_unless_granted(site: Popgate, tmp_path: Path) -> None:
    """A second site, since nmap always comes from 127.0.0.1 and other tests log in there."""
    server = Popgate(
        tmp_path / "any",
        settings='[grants]\nnever = []\nwindow_seconds = 60\nsender = "any"\n\n'
        '[delivery]\nsmarthost = "smtp://127.0.0.1:9"\n',
    )
    server.add_account(USER, PASSWORD)
    with server:
        command = [
            *("nmap", "-Pn", "-n", "-sT", "-p", str(server.port("smtp")), "127.0.0.1"),
            *("--script", "+smtp-open-relay"),
            *(
                "--script-args",
                "smtp-open-relay.domain=partner.example,smtp-open-relay.to=relaytest",
            ),
        ]
        assert "all tests failed" in run(*command)
        client = poplib.POP3("127.0.0.1", server.port("pop3"), timeout=10)
        client.user(USER)
        client.pass_(PASSWORD)
        client.quit()
        granted = run(*command)
        assert "Server is an open relay" in granted, granted


def test_an_imap_client_is_told_nothing(site: Popgate) -> None:
    """IMAP is not served yet: a client that tries it on the POP3 port gets an error, not a hang."""
    with pytest.raises(imaplib.IMAP4.error):
        imaplib.IMAP4("127.0.0.1", site.port("pop3"), timeout=10)
