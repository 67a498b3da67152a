"""Two processes deliver while a reader lists, fetches and deletes: nothing lost, nothing half."""

import multiprocessing
import re
import time

from popgate.files.real import RealDisk
from popgate.mailbox.backends.maildir import MaildirMailboxes
from popgate.mailbox.mailbox import MailboxInUse
from popgate.values.identity import Identity

SALES = Identity("sales", "example.com")
EACH = 150


class SystemClock:
    def now(self) -> float:
        return time.time()

    def monotonic(self) -> float:
        return time.monotonic()


def mailboxes(root):
    return MaildirMailboxes(root, RealDisk(), SystemClock(), "mx.example.com", lambda event: None)


def body(sender: int, number: int) -> bytes:
    return b"Message: %d-%d\r\n\r\n" % (sender, number) + b"line\r\n" * (number * 37 % 3000) + b"end\r\n"


def deliver(root: str, sender: int) -> None:
    own = mailboxes(root)
    for number in range(EACH):
        whole = body(sender, number)
        own.deliver(SALES, [whole[: number + 3], whole[number + 3 :]])


def fetch(root: str, taken: list[bytes]) -> None:
    try:
        maildrop = mailboxes(root).open_maildrop(SALES)
    except MailboxInUse:
        return
    indexes = range(len(maildrop.messages))
    for index in indexes:
        whole = b"".join(maildrop.read(index))
        assert len(whole) == maildrop.messages[index].octets
        taken.append(whole)
    maildrop.mark_seen([index for index in indexes if index % 2])
    assert list(maildrop.remove(indexes)) == []
    maildrop.close()


def test_two_deliver_while_one_fetches(tmp_path):
    context = multiprocessing.get_context("fork")
    senders = [context.Process(target=deliver, args=(str(tmp_path), sender)) for sender in (1, 2)]
    for sender in senders:
        sender.start()
    taken: list[bytes] = []
    while any(sender.is_alive() for sender in senders):
        fetch(str(tmp_path), taken)
    fetch(str(tmp_path), taken)
    for sender in senders:
        sender.join()
        assert sender.exitcode == 0
    expected = sorted(body(sender, number) for sender in (1, 2) for number in range(EACH))
    assert sorted(taken) == expected
    # each sender's messages came in the order in which they were sent
    for sender in (b"1", b"2"):
        numbers = [int(re.match(rb"Message: .-(\d+)", whole)[1]) for whole in taken if whole[9:10] == sender]
        assert numbers == sorted(numbers)
    assert list((tmp_path / "example.com/sales/tmp").iterdir()) == []
