"""The main job, end to end: a POP3 login, a message relayed on its grant, Debian's Postfix as the
smart host behind TLS and a login of its own. What the client sent arrives there byte for byte."""

import poplib
import random
import smtplib
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.dovecot import Dovecot
from support.popgate import Popgate
from support.postfix import Delivered, Postfix

pytestmark = [pytest.mark.peer("postfix"), pytest.mark.peer("dovecot-core")]

USER, PASSWORD = "scanner@example.org", "correct horse"
SMARTHOST_USER, SMARTHOST_PASSWORD = "reader@example.org", "reader-secret"
REMOTE = "invoices@partner.example"
HEADER = b"From: scanner@example.org\r\nSubject: scan\r\n\r\n"

# What is easy to spoil on the way: in the body below HEADER, with the line ends that SMTP asks for.
BODIES = {
    "eight bits": bytes(range(128, 256)) + b" na\xefve \xe2\x82\xac\r\n",
    "dots": b".\r\n..\r\n.x\r\n. \r\n...\r\nx.\r\n.\r\n",
    "lines of the greatest length": b"".join((b"%d" % (n % 10)) * 998 + b"\r\n" for n in range(30)),
    "trailing white space": b"blank \r\ntab\t\r\n \r\n\t \r\n\r\n\r\n \r\n",
    "looks like headers": b"From nobody\r\n>From nobody\r\nBcc: <x@example.net>\r\n \r\nQUIT\r\nDATA\r\n",
    "no body": b"",
    "control characters": b"\x01\x02\x07\x0b\x0c\x1b[31m\x7f\r\n",
    "more than a megabyte": b"\r\n.".join(random.Random(1).randbytes(36).hex().encode() for _ in range(15000))
    + b"\r\n",
}


@pytest.fixture(params=["plain", "login"])
def smarthost(request: pytest.FixtureRequest, dovecot: Dovecot) -> Iterator[Postfix]:
    """A Postfix that takes mail from nobody who has not authenticated by this one mechanism, under TLS."""
    options = {"smtpd_sasl_mechanism_filter": request.param, "smtpd_tls_auth_only": "yes"}
    with Postfix(options, sasl_socket=dovecot.sasl_socket) as postfix:
        yield postfix


def started(directory: Path, smarthost: Postfix, scheme: str, password: str) -> Popgate:
    """A site that sends everything through `smarthost`."""
    directory.mkdir()
    smarthost.certificate_authority.cert_pem.write_to_path(directory / "ca.pem")
    secret = directory / "smarthost.secret"
    secret.touch(0o600)
    secret.write_text(password + "\n")
    port = smarthost.tls_port if scheme == "smtps" else smarthost.port
    user = SMARTHOST_USER.replace("@", "%40")
    site = Popgate(
        directory,
        settings=f"""
[grants]
never = []
[delivery]
smarthost = "{scheme}://{user}@localhost:{port}"
password_file = "{secret}"
ca_file = "{directory}/ca.pem"
""",
        workers=2,
    )
    site.add_account(USER, PASSWORD, "--device")
    return site.start()


def log_in(site: Popgate) -> None:
    client = poplib.POP3("127.0.0.1", site.port("pop3"), timeout=10)
    client.user(USER)
    client.pass_(PASSWORD)
    client.quit()


def submit(site: Popgate, recipient: str, content: bytes, *, bdat: bool) -> None:
    """Send exactly `content`, by BDAT or dot-stuffed by DATA; smtplib would mend it."""
    with socket.create_connection(("127.0.0.1", site.port("smtp")), 10) as connection:
        talk = connection.makefile("rwb")

        def command(line: bytes) -> bytes:
            talk.write(line)
            talk.flush()
            while (answer := talk.readline())[3:4] == b"-":
                pass
            return answer

        assert command(b"").startswith(b"220")
        assert command(b"EHLO scanner.example.org\r\n").startswith(b"250")
        assert command(f"MAIL FROM:<{USER}> BODY=8BITMIME\r\n".encode()).startswith(b"250")
        assert command(f"RCPT TO:<{recipient}>\r\n".encode()).startswith(b"250")
        if bdat:
            half = len(content) // 2
            for part, last in ((content[:half], b""), (content[half:], b" LAST")):
                answer = command(b"BDAT %d%s\r\n%s" % (len(part), last, part))
        else:
            assert command(b"DATA\r\n").startswith(b"354")
            stuffed = (b"\r\n" + content).replace(b"\r\n.", b"\r\n..")[2:]
            answer = command(stuffed + b".\r\n")
        assert answer.startswith(b"250 2.6.0 "), answer
        assert command(b"QUIT\r\n").startswith(b"221")


def below_our_trace(one: Delivered) -> bytes:
    """The content below the Received field that popgate put on top."""
    trace, _, _ = one.body.partition(b"From: scanner@example.org\r\n")
    assert trace.startswith(b"Received: from scanner.example.org ([127.0.0.1])\r\n\tby mail.example.org ")
    assert trace.count(b"Received:") == 1
    assert b"(grant: scanner@example.org by pop3 at " in trace
    return one.body[len(trace) :]


@pytest.mark.parametrize("scheme", ["smtp+starttls", "smtps"])
def test_what_a_device_relays_reaches_the_smart_host_byte_for_byte(
    tmp_path: Path, smarthost: Postfix, request: pytest.FixtureRequest, scheme: str
) -> None:
    site = started(tmp_path / "site", smarthost, scheme, SMARTHOST_PASSWORD)
    with smtplib.SMTP("127.0.0.1", site.port("smtp"), timeout=10) as stranger:
        stranger.ehlo("scanner.example.org")
        stranger.mail(USER)
        code, text = stranger.rcpt(REMOTE)
        assert (code, text[:25]) == (550, b"5.7.1 relaying denied for")
    try:
        log_in(site)
        for number, body in enumerate(BODIES.values()):
            submit(site, f"data{number}@partner.example", HEADER + body, bdat=False)
            submit(site, f"bdat{number}@partner.example", HEADER + body, bdat=True)
        site.wait_for(" delivery.sent ", 30, count=2 * len(BODIES))
        arrived = {one.recipient: one for one in smarthost.wait_for(2 * len(BODIES), 30)}
        for number, (name, body) in enumerate(BODIES.items()):
            for way in ("data", "bdat"):
                one = arrived[f"{way}{number}@partner.example"]
                assert below_our_trace(one) == HEADER + body, f"{name} by {way}"
                assert one.sender == USER
        assert len(arrived) == 2 * len(BODIES)
    finally:
        assert site.stop() == 0
    mechanism = "PLAIN" if "sasl_method=PLAIN" in smarthost.log else "LOGIN"
    assert mechanism == request.node.callspec.params["smarthost"].upper()
    assert f"sasl_username={SMARTHOST_USER}" in smarthost.log
    assert SMARTHOST_PASSWORD not in site.log


def test_a_smart_host_that_refuses_our_login_is_tried_again(tmp_path: Path, smarthost: Postfix) -> None:
    """A wrong password is the site's own mistake: no sender's mail bounces for it, and nothing is
    sent without the login."""
    site = started(tmp_path / "site", smarthost, "smtp+starttls", "not-the-password")
    try:
        log_in(site)
        submit(site, REMOTE, HEADER + b"x\r\n", bdat=False)
        site.wait_for(" delivery.deferred ")
        assert smarthost.messages() == []
        assert " delivery.failed " not in site.log
        assert "not-the-password" not in site.log
        (tmp_path / "site/smarthost.secret").write_text(SMARTHOST_PASSWORD + "\n")
        assert site.stop() == 0
        site.start()
        site.command("queue", "retry", "--all")
        (one,) = smarthost.wait_for(1)
        assert below_our_trace(one) == HEADER + b"x\r\n"
    finally:
        assert site.stop() == 0
