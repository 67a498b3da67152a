"""The real servers that other tests lean on do what those tests believe of them."""

import imaplib
import poplib
import smtplib
import ssl

import pytest

from support.dovecot import Dovecot
from support.postfix import Postfix

# Lines that Postfix would mend for a client of its own: no Message-ID, no Date, 8 bit, dots, a long line.
MESSAGE = b"Subject: caf\xe9\r\n\r\n.\r\n..x\r\n" + b"y" * 5000 + b"\r\ntrailing \r\n\r\n"


@pytest.mark.peer("postfix")
def test_postfix_keeps_every_byte_it_was_sent(smarthost: Postfix) -> None:
    with smtplib.SMTP("127.0.0.1", smarthost.port, local_hostname="client.example", timeout=10) as client:
        client.sendmail("a@example.org", ["b@example.com", "c@example.net"], MESSAGE)
    messages = smarthost.wait_for(2)
    assert {message.recipient for message in messages} == {"b@example.com", "c@example.net"}
    assert {message.sender for message in messages} == {"a@example.org"}
    assert [message.body for message in messages] == [MESSAGE, MESSAGE]
    assert all(message.content.startswith(b"Received: from client.example") for message in messages)


@pytest.mark.peer("postfix")
def test_postfix_keeps_the_null_sender(smarthost: Postfix) -> None:
    with smtplib.SMTP("127.0.0.1", smarthost.port, timeout=10) as client:
        client.sendmail("", ["b@example.com"], b"Subject: bounce\r\n\r\n")
    (message,) = smarthost.wait_for(1)
    assert message.sender == ""


@pytest.mark.peer("postfix")
def test_postfix_refuses_and_defers_the_recipients_kept_for_that(smarthost: Postfix) -> None:
    with smtplib.SMTP("127.0.0.1", smarthost.port, timeout=10) as client:
        client.ehlo()
        client.mail("a@example.org")
        assert client.rcpt("refuse@refuse.example")[0] == 550
        assert client.rcpt("defer@refuse.example")[0] == 451
        assert client.rcpt("other@refuse.example")[0] == 250


@pytest.mark.peer("postfix")
def test_postfix_speaks_tls_by_starttls_and_from_the_first_byte(smarthost: Postfix) -> None:
    context = ssl.create_default_context()
    smarthost.certificate_authority.configure_trust(context)
    with smtplib.SMTP("localhost", smarthost.port, timeout=10) as client:
        client.starttls(context=context)
        assert client.noop()[0] == 250
    with smtplib.SMTP_SSL("localhost", smarthost.tls_port, context=context, timeout=10) as client:
        assert client.noop()[0] == 250


@pytest.mark.peer("postfix")
@pytest.mark.peer("dovecot-core")
def test_postfix_asks_dovecot_who_may_send(dovecot: Dovecot) -> None:
    with (
        Postfix(sasl_socket=dovecot.sasl_socket) as server,
        smtplib.SMTP("127.0.0.1", server.port, timeout=10) as client,
    ):
        with pytest.raises(smtplib.SMTPRecipientsRefused):
            client.sendmail("a@example.org", ["b@example.com"], MESSAGE)
        client.login("reader@example.org", "reader-secret")
        client.sendmail("a@example.org", ["b@example.com"], MESSAGE)
        (message,) = server.wait_for(1)
        assert message.body == MESSAGE


@pytest.mark.peer("dovecot-pop3d")
def test_dovecot_reads_a_maildir_by_pop3(dovecot: Dovecot) -> None:
    dovecot.deliver("reader@example.org", "1.M1P1.host", b"Subject: one\n\n.dot\n")
    client = poplib.POP3("127.0.0.1", dovecot.pop3_port, timeout=10)
    client.user("reader@example.org")
    client.pass_("reader-secret")
    assert client.stat()[0] == 1
    assert client.retr(1)[1] == [b"Subject: one", b"", b".dot"]
    client.quit()


@pytest.mark.peer("dovecot-imapd")
def test_dovecot_reads_a_maildir_by_imap(dovecot: Dovecot) -> None:
    dovecot.deliver("second@example.org", "1.M1P1.host", b"Subject: one\n\ntext\n")
    with imaplib.IMAP4("127.0.0.1", dovecot.imap_port, timeout=10) as client:
        client.login("second@example.org", "second-secret")
        assert client.select() == ("OK", [b"1"])


@pytest.mark.peer("dovecot-core")
def test_dovecot_runs_in_its_fast_mode() -> None:
    with Dovecot({"a@example.org": "secret"}, is_fast=True) as server:
        for _ in range(3):
            client = poplib.POP3("127.0.0.1", server.pop3_port, timeout=10)
            client.user("a@example.org")
            client.pass_("secret")
            client.quit()
