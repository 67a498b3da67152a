"""What every mailbox back end does, whatever it keeps the mail in."""

import pytest

from popgate.files.real import RealDisk
from popgate.mailbox.backends.maildir import MaildirMailboxes
from popgate.mailbox.backends.memory import MemoryMailboxes
from popgate.mailbox.mailbox import MailboxError, MailboxFull, MailboxInUse
from popgate.values.identity import Identity

SALES = Identity("sales", "example.com")
PLAIN = Identity("sales")
MESSAGE = b"Subject: one\r\n\r\nfirst\r\nsecond\r\nthird\r\n"


class SteppingClock:
    """Each look at it is a millisecond later."""

    def __init__(self, now: float = 1_700_000_000.0) -> None:
        self.time = now

    def now(self) -> float:
        self.time += 0.001
        return self.time

    def monotonic(self) -> float:
        return self.time


@pytest.fixture(params=["maildir", "kept maildir", "memory"])
def mailboxes(request, tmp_path):
    if request.param == "memory":
        yield MemoryMailboxes()
        return
    maildirs = MaildirMailboxes(
        str(tmp_path),
        RealDisk(),
        SteppingClock(),
        "mx.example.com",
        lambda event: None,
        most_kept=2 if request.param == "kept maildir" else 0,
    )
    yield maildirs
    maildirs.close()


def whole(maildrop, index, body_lines=None):
    return b"".join(maildrop.read(index, body_lines))


def test_a_new_mailbox_is_empty(mailboxes):
    maildrop = mailboxes.open_maildrop(SALES)
    assert list(maildrop.messages) == []
    maildrop.close()


def test_delivered_messages_come_back_in_order(mailboxes):
    for number in range(12):
        mailboxes.deliver(SALES, [b"Subject: %d\r\n\r\nx\r\n" % number])
    maildrop = mailboxes.open_maildrop(SALES)
    assert [whole(maildrop, n)[9:11].strip() for n in range(12)] == [b"%d" % n for n in range(12)]
    assert len({message.uid for message in maildrop.messages}) == 12
    maildrop.close()


def test_names_with_and_without_a_domain_are_two_mailboxes(mailboxes):
    for identity in (SALES, PLAIN, Identity("example.com"), Identity("cur", "example.com"), Identity("new")):
        mailboxes.deliver(identity, [f"Subject: {identity}\r\n\r\n".encode()])
    for identity in (SALES, PLAIN, Identity("example.com"), Identity("cur", "example.com"), Identity("new")):
        maildrop = mailboxes.open_maildrop(identity)
        assert [whole(maildrop, 0)] == [f"Subject: {identity}\r\n\r\n".encode()]
        assert len(maildrop.messages) == 1
        maildrop.close()


@pytest.mark.parametrize(
    "given, stored",
    [
        (b"a\r\nb\r\n", b"a\r\nb\r\n"),
        (b"a\r\nb", b"a\r\nb\r\n"),
        (b"a\nb\n", b"a\r\nb\r\n"),
        (b"a\rb\r\n", b"a\rb\r\n"),
        (b"a\r\r\nb\r\n", b"a\r\r\nb\r\n"),
        (b"a\r", b"a\r\n"),
        (b"\r\n", b"\r\n"),
        (b"\r\n\r\n\r\n", b"\r\n\r\n\r\n"),
        (b".\r\n..\r\n", b".\r\n..\r\n"),
        (b"nul\0\xff\r\n", b"nul\0\xff\r\n"),
        (b"", b""),
    ],
)
@pytest.mark.parametrize("cut", [1, 2, 1000])
def test_line_ends(mailboxes, given, stored, cut):
    mailboxes.deliver(SALES, [given[at : at + cut] for at in range(0, len(given), cut)])
    maildrop = mailboxes.open_maildrop(SALES)
    assert whole(maildrop, 0) == stored
    assert maildrop.messages[0].octets == len(stored)
    maildrop.close()


def test_large_messages_come_in_blocks_of_at_most_64_kib(mailboxes):
    body = b"\r\n" * 150_000 + b"x" * 200_001 + b"\r\n"
    mailboxes.deliver(SALES, (body[at : at + 30_011] for at in range(0, len(body), 30_011)))
    maildrop = mailboxes.open_maildrop(SALES)
    blocks = list(maildrop.read(0))
    assert b"".join(blocks) == body
    assert all(0 < len(block) <= 65536 for block in blocks)
    assert maildrop.messages[0].octets == len(body)
    maildrop.close()


@pytest.mark.parametrize(
    "message, body_lines, expected",
    [
        (MESSAGE, 0, b"Subject: one\r\n\r\n"),
        (MESSAGE, 1, b"Subject: one\r\n\r\nfirst\r\n"),
        (MESSAGE, 2, b"Subject: one\r\n\r\nfirst\r\nsecond\r\n"),
        (MESSAGE, 3, MESSAGE),
        (MESSAGE, 10**12, MESSAGE),
        (b"Subject: no body\r\n", 3, b"Subject: no body\r\n"),
        (b"\r\nno header\r\nsecond\r\n", 1, b"\r\nno header\r\n"),
        (b"\r\n\r\nfirst line empty\r\n", 1, b"\r\n\r\n"),
        (b"A: b\r\n\r\nunended", 1, b"A: b\r\n\r\nunended\r\n"),
    ],
)
def test_top(mailboxes, message, body_lines, expected):
    mailboxes.deliver(SALES, [message])
    maildrop = mailboxes.open_maildrop(SALES)
    assert whole(maildrop, 0, body_lines) == expected
    maildrop.close()


def test_top_of_a_header_that_spans_blocks(mailboxes):
    for filler in range(32_740, 32_775):
        header = b"X: " + b"x" * filler
        mailboxes.deliver(SALES, [header + b"\r\n\r\none\r\ntwo\r\n"])
    maildrop = mailboxes.open_maildrop(SALES)
    for index in range(len(maildrop.messages)):
        assert whole(maildrop, index, 1).endswith(b"xx\r\n\r\none\r\n")
    maildrop.close()


def test_one_session_at_a_time(mailboxes):
    mailboxes.deliver(SALES, [MESSAGE])
    first = mailboxes.open_maildrop(SALES)
    with pytest.raises(MailboxInUse):
        mailboxes.open_maildrop(SALES)
    other = mailboxes.open_maildrop(PLAIN)
    other.close()
    first.close()
    first.close()
    again = mailboxes.open_maildrop(SALES)
    first.close()  # the lock is no longer its own
    with pytest.raises(MailboxInUse):
        mailboxes.open_maildrop(SALES)
    again.close()


def test_what_comes_while_a_session_is_open_waits_for_the_next(mailboxes):
    mailboxes.deliver(SALES, [MESSAGE])
    maildrop = mailboxes.open_maildrop(SALES)
    uid = maildrop.messages[0].uid
    mailboxes.deliver(SALES, [MESSAGE])
    assert len(maildrop.messages) == 1
    maildrop.close()
    maildrop = mailboxes.open_maildrop(SALES)
    assert len(maildrop.messages) == 2 and maildrop.messages[0].uid == uid
    maildrop.close()


def test_removed_messages_are_gone_and_the_others_keep_their_uid(mailboxes):
    for number in range(5):
        mailboxes.deliver(SALES, [b"Subject: %d\r\n\r\n" % number])
    maildrop = mailboxes.open_maildrop(SALES)
    uids = [message.uid for message in maildrop.messages]
    maildrop.mark_seen([1, 2])
    assert list(maildrop.remove([0, 2, 4])) == []
    with pytest.raises(MailboxError):
        list(maildrop.read(2))
    assert whole(maildrop, 1) == b"Subject: 1\r\n\r\n"
    assert list(maildrop.remove([2, 1])) == [2]
    maildrop.close()
    maildrop = mailboxes.open_maildrop(SALES)
    assert [message.uid for message in maildrop.messages] == [uids[3]]
    assert whole(maildrop, 0) == b"Subject: 3\r\n\r\n"
    maildrop.close()


def test_uids_do_not_change_when_messages_are_seen(mailboxes):
    for _ in range(3):
        mailboxes.deliver(SALES, [MESSAGE])
    maildrop = mailboxes.open_maildrop(SALES)
    before = list(maildrop.messages)
    maildrop.mark_seen([0, 1, 1, 2])
    assert whole(maildrop, 1) == MESSAGE
    maildrop.close()
    maildrop = mailboxes.open_maildrop(SALES)
    assert list(maildrop.messages) == before
    for message in before:
        assert 1 <= len(message.uid) <= 70 and all("!" <= char <= "~" for char in message.uid)
    maildrop.close()


def test_a_uid_is_never_used_again(mailboxes):
    used = set()
    for _ in range(5):
        mailboxes.deliver(SALES, [MESSAGE])
        maildrop = mailboxes.open_maildrop(SALES)
        used.add(maildrop.messages[0].uid)
        maildrop.remove([0])
        maildrop.close()
    assert len(used) == 5


def test_a_body_that_breaks_leaves_nothing(mailboxes):
    def broken():
        yield b"Subject: half\r\n"
        raise RuntimeError("the queue file is gone")

    with pytest.raises(RuntimeError):
        mailboxes.deliver(SALES, broken())
    maildrop = mailboxes.open_maildrop(SALES)
    assert list(maildrop.messages) == []
    maildrop.close()


def test_reading_half_a_message_leaves_no_descriptor_open(mailboxes):
    import gc
    import os

    mailboxes.deliver(SALES, [b"x\r\n" * 100_000])
    maildrop = mailboxes.open_maildrop(SALES)
    assert list(maildrop.read(0))  # what a session opens once it reads
    gc.collect()
    before = len(os.listdir("/proc/self/fd"))
    maildrop.read(0)
    blocks = maildrop.read(0)
    next(blocks)
    del blocks
    gc.collect()
    assert len(os.listdir("/proc/self/fd")) == before
    maildrop.close()


def test_a_full_mailbox_says_so():
    mailboxes = MemoryMailboxes(capacity_octets=60)
    mailboxes.deliver(SALES, [MESSAGE])
    with pytest.raises(MailboxFull):
        mailboxes.deliver(SALES, [MESSAGE])
    assert mailboxes.contents(SALES) == [MESSAGE]


def test_the_double_shows_and_loses_messages():
    mailboxes = MemoryMailboxes()
    mailboxes.deliver(SALES, [MESSAGE])
    mailboxes.deliver(SALES, [MESSAGE])
    maildrop = mailboxes.open_maildrop(SALES)
    maildrop.mark_seen([1])
    assert mailboxes.seen(SALES) == [False, True]
    mailboxes.lose(SALES, maildrop.messages[1].uid)
    with pytest.raises(MailboxError):
        maildrop.read(1)
    assert list(maildrop.remove([0, 1])) == [1]
    assert mailboxes.contents(SALES) == []
    maildrop.close()
