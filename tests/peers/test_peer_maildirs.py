"""Maildirs shared with other programs: each reads, flags and deletes what the other delivered."""

import imaplib
import mailbox
import poplib
import re
import time
from pathlib import Path

import pytest

from popgate.files.real import RealDisk
from popgate.mailbox.backends.maildir import MaildirMailboxes
from popgate.values.identity import Identity
from support.dovecot import Dovecot

SALES = Identity("sales", "example.com")
MESSAGES = [
    b"Subject: short\r\n\r\nx\r\n",
    b"Subject: dots\r\n\r\n.\r\n..\r\n.x\r\n",
    b"Subject: eight\r\n\r\n\xe4\xf6\xfc\r\n\r\n",
    b"Subject: no body\r\n\r\n",
    b"Subject: long\r\n\r\n" + b"y" * 900 + b"\r\n" + b"line\r\n" * 30_000,
]


class SystemClock:
    def now(self) -> float:
        return time.time()

    def monotonic(self) -> float:
        return time.monotonic()


def site(root: Path) -> MaildirMailboxes:
    return MaildirMailboxes(str(root), RealDisk(), SystemClock(), "mx.example.com", lambda event: None)


def listed(mailboxes: MaildirMailboxes) -> dict[str, bytes]:
    maildrop = mailboxes.open_maildrop(SALES)
    found = {}
    for index, message in enumerate(maildrop.messages):
        whole = b"".join(maildrop.read(index))
        assert message.octets == len(whole)
        found[message.uid] = whole
    maildrop.close()
    return found


@pytest.fixture(scope="module")
def dovecot():
    with Dovecot({"sales": "secret"}, mail_location="maildir:~/../example.com/%u") as server:
        yield server


@pytest.fixture
def shared(dovecot):
    """A mail root whose Maildir of SALES is Dovecot's too."""
    root = dovecot.root / "mail"
    mailboxes = site(root)
    mailboxes.open_maildrop(SALES).close()
    (root / "example.com").chmod(0o755)
    dovecot.give(root / "example.com")
    yield mailboxes
    maildrop = mailboxes.open_maildrop(SALES)
    maildrop.remove(range(len(maildrop.messages)))
    maildrop.close()


def imap(dovecot) -> imaplib.IMAP4:
    client = imaplib.IMAP4("127.0.0.1", dovecot.imap_port, timeout=10)
    client.login("sales", "secret")
    client.select()
    return client


@pytest.mark.peer("dovecot-core", "dovecot-imapd", "dovecot-pop3d")
def test_dovecot_reads_what_we_delivered(dovecot, shared):
    for message in MESSAGES:
        shared.deliver(SALES, [message[:7], message[7:]])
    before = listed(shared)
    dovecot.give(dovecot.root / "mail/example.com")
    client = imap(dovecot)
    for number, message in enumerate(MESSAGES, 1):
        _, answer = client.fetch(str(number), "(RFC822.SIZE BODY[])")
        assert answer[0][1] == message
        assert re.search(rb"RFC822.SIZE (\d+)", answer[0][0])[1] == b"%d" % len(message)
    client.store("2", "+FLAGS", r"(\Flagged)")
    client.logout()
    pop = poplib.POP3("127.0.0.1", dovecot.pop3_port, timeout=10)
    pop.user("sales")
    pop.pass_("secret")
    assert [int(line.split()[1]) for line in pop.list()[1]] == [len(message) for message in MESSAGES]
    pop.quit()
    # by now they lie in cur with flags: the same messages with the same UIDs in the same order
    assert list(listed(shared).items()) == list(before.items())
    assert "Broken" not in dovecot.log and "rror" not in dovecot.log, dovecot.log


@pytest.mark.peer("dovecot-core", "dovecot-imapd")
def test_we_read_what_dovecot_delivered(dovecot, shared):
    client = imap(dovecot)
    for message in MESSAGES:
        assert client.append("INBOX", None, None, message)[0] == "OK"
    client.append("INBOX", r"(\Seen \Answered)", None, MESSAGES[0])
    client.logout()
    found = listed(shared)
    assert sorted(found.values()) == sorted([*MESSAGES, MESSAGES[0]])
    home = dovecot.root / "mail/example.com/sales"
    assert all(",W=" in path.name for path in [*(home / "new").iterdir(), *(home / "cur").iterdir()])


@pytest.mark.peer("dovecot-core", "dovecot-imapd")
def test_dovecot_flags_and_deletes_while_our_session_is_open(dovecot, shared):
    for message in MESSAGES:
        shared.deliver(SALES, [message])
    dovecot.give(dovecot.root / "mail/example.com")
    maildrop = shared.open_maildrop(SALES)
    client = imap(dovecot)
    client.store("1:5", "+FLAGS", r"(\Seen \Flagged)")
    client.store("4", "+FLAGS", r"(\Deleted)")
    client.expunge()
    client.logout()
    for index in (0, 1, 2, 4):
        assert b"".join(maildrop.read(index)) == MESSAGES[index]
    maildrop.mark_seen([0])
    assert list(maildrop.remove([0, 2, 3])) == [3]
    maildrop.close()
    client = imap(dovecot)
    assert client.search(None, "ALL")[1] == [b"1 2"]
    assert client.fetch("1", "(BODY.PEEK[])")[1][0][1] == MESSAGES[1]
    client.logout()
    assert list(listed(shared).values()) == [MESSAGES[1], MESSAGES[4]]


def test_python_reads_what_we_delivered_and_we_what_python_did(tmp_path):
    mailboxes = site(tmp_path)
    for message in MESSAGES:
        mailboxes.deliver(SALES, [message])
    theirs = mailbox.Maildir(str(tmp_path / "example.com/sales"), create=False)
    contents = [theirs.get_bytes(key).replace(b"\n", b"\r\n") for key in theirs.iterkeys()]
    assert sorted(contents) == sorted(MESSAGES)
    before = listed(mailboxes)
    for key in list(theirs.keys()):
        message = theirs[key]
        message.set_subdir("cur")
        message.set_flags("RS")
        theirs[key] = message
    assert listed(mailboxes) == before
    theirs.add(b"Subject: theirs\n\nhello\n")
    after = listed(mailboxes)
    assert sorted(after.values()) == sorted([*MESSAGES, b"Subject: theirs\r\n\r\nhello\r\n"])
    assert before.items() <= after.items()
