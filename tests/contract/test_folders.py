"""What every back end of folders does, whatever it keeps them in."""

import time

import pytest

from popgate.files.real import RealDisk
from popgate.mailbox.backends.folders_memory import MemoryAccounts
from popgate.mailbox.backends.maildir_accounts import MaildirAccounts
from popgate.mailbox.folders import (
    BadFolderName,
    FolderExists,
    MessageGone,
    NoSuchFolder,
    TooMany,
)
from popgate.mailbox.mailbox import MailboxError
from popgate.values.identity import Identity


class SystemClock:
    def now(self) -> float:
        return time.time()

    def monotonic(self) -> float:
        return time.monotonic()


SALES = Identity("sales", "example.com")
ONE = b"Subject: one\r\nTo: b@example.com\r\n\r\nfirst\r\nsecond\r\n"
NOTHING = frozenset()
SEEN = frozenset({"\\Seen"})
DELETED = frozenset({"\\Deleted"})


@pytest.fixture(params=["maildir", "memory"])
def accounts(request, tmp_path):
    if request.param == "memory":
        yield MemoryAccounts()
        return
    events = []
    maildirs = MaildirAccounts(str(tmp_path), RealDisk(), SystemClock(), "mx.example.com", events.append)
    yield maildirs
    maildirs.close()
    assert events == []


@pytest.fixture
def account(accounts):
    account = accounts.open_account(SALES)
    yield account
    account.close()


@pytest.fixture
def inbox(account):
    folder = account.open("INBOX")
    yield folder
    folder.close()


def drafted(account, wire=ONE):
    draft = account.draft()
    for at in range(0, len(wire), 7):
        draft.write(wire[at : at + 7])
    draft.finish()
    return draft


def put(account, name="INBOX", count=1, flags=NOTHING, wire=None, received=1_700_000_000):
    drafts = [
        (drafted(account, wire or b"Subject: %d\r\n\r\nbody\r\n" % number), flags, received)
        for number in range(count)
    ]
    placed = account.append(name, drafts)
    for draft, _, _ in drafts:
        draft.discard()
    return placed


def whole(folder, uid, start=0, octets=None):
    return b"".join(folder.read(uid, start, octets))


def names(account):
    return [info.name for info in account.folders()]


def info(account, name):
    return next(info for info in account.folders() if info.name == name)


def flags_of(folder):
    return {row.uid: row.flags for row in folder.rows()}


# Folders


def test_a_new_account_has_an_inbox_and_nothing_else(account):
    (inbox,) = account.folders()
    assert (inbox.name, inbox.exists, inbox.is_subscribed, inbox.special_use) == ("INBOX", True, False, "")
    assert inbox.id
    state = account.state("INBOX")
    assert (state.messages, state.unseen, state.deleted, state.octets, state.uid_next) == (0, 0, 0, 0, 1)
    assert state.uid_validity > 0 and state.highest_modseq > 0 and state.id == inbox.id
    assert account.used() == (0, 0)


def test_create_makes_the_parents_too(account):
    made = account.create("Work/2026/Drafts")
    assert (made.name, made.exists) == ("Work/2026/Drafts", True)
    assert names(account) == ["INBOX", "Work", "Work/2026", "Work/2026/Drafts"]
    assert all(each.exists for each in account.folders())
    assert len({each.id for each in account.folders()}) == 4
    with pytest.raises(FolderExists):
        account.create("Work")
    assert account.create("Work/2027/").name == "Work/2027"  # RFC 9051 6.3.4


def test_inbox_exists_whatever_its_case(account):
    for name in ("INBOX", "inbox", "InBox"):
        with pytest.raises(FolderExists):
            account.create(name)
    assert account.create("inbox/below").name == "INBOX/below"


@pytest.mark.parametrize(
    "name",
    [
        "",
        "/",
        "//",
        ".",
        "..",
        "../..",
        "../../etc/passwd",
        "/etc/x",
        "a//b",
        "a/../b",
        "a\\..\\b",
        ".Trash.new",
        ".Trash/new",
        "a.b",
        "~root",
        "x\ny",
        "x\x00y",
        "x\x7fy",
        "x\u0085y",
        "x\u2028y",
        "x\ud800y",
        "a*",
        "a%",
        "%2e%2e/x",
        " a",
        "a ",
        "x" * 255,
        "\u00fc" * 120,
        "/".join("x" * 40),
    ],
)
def test_imap_021_to_039_names_that_no_folder_has(account, name):
    with pytest.raises(BadFolderName):
        account.create(name)
    with pytest.raises(NoSuchFolder):
        account.open(name)
    with pytest.raises(NoSuchFolder):
        account.state(name)
    with pytest.raises((NoSuchFolder, BadFolderName)):
        account.delete(name)
    account.create("fine")
    with pytest.raises(BadFolderName):
        account.rename("fine", name)
    assert names(account) == ["INBOX", "fine"]


@pytest.mark.parametrize(
    "name",
    [
        "cur",
        "new",
        "tmp",
        "a&b",
        "&",
        "&-",
        "&AC4-",
        "Gel\u00f6scht",
        "\u53f0\u5317/\u65e5\u672c",
        "\U0001f4ec",
        "a b",
        "a'b\"c",
        "x,y=z;:",
        "Mail-1",
        "popgate",
        "dovecot",
        "x" * 250,
        "\u00fc" * 60,
    ],
)
def test_names_that_folders_have(account, name):
    account.create(name)
    put(account, name)
    assert name in names(account)
    assert account.state(name).messages == 1
    folder = account.open(name)
    assert [row.uid for row in folder.rows()] == [1]
    account.delete(name)
    assert name not in names(account)


def test_a_folder_is_deleted_with_its_messages_and_its_children_stay(account):
    account.create("a/b")
    put(account, "a", 2)
    account.delete("a")
    assert [(each.name, each.exists) for each in account.folders()] == [
        ("INBOX", True),
        ("a", False),
        ("a/b", True),
    ]
    for call in (account.open, account.state, account.delete):
        with pytest.raises(NoSuchFolder):
            call("a")
    with pytest.raises(BadFolderName):
        account.delete("INBOX")
    account.create("a")
    assert account.state("a").messages == 0


def test_a_deleted_folder_that_comes_again_is_another(account):
    account.create("a")
    put(account, "a", 2)
    before = account.state("a")
    folder = account.open("a")
    account.delete("a")
    account.create("a")
    after = account.state("a")
    assert after.uid_validity > before.uid_validity and after.id != before.id
    with pytest.raises(NoSuchFolder):
        folder.refresh()
    for call in (lambda: list(folder.rows()), lambda: list(folder.read(1)), folder.expunge):
        with pytest.raises(MailboxError):
            call()


def test_rename_keeps_what_a_folder_is(account):
    account.create("a/b/c", "\\Archive")
    put(account, "a/b", 3)
    before = account.state("a/b")
    folder = account.open("a/b")
    account.rename("a", "x/y")
    assert names(account) == ["INBOX", "x", "x/y", "x/y/b", "x/y/b/c"]
    assert account.state("x/y/b") == before
    assert info(account, "x/y/b/c").special_use == "\\Archive"
    assert folder.refresh() == before  # also for who has it open
    assert whole(folder, 2) == b"Subject: 1\r\n\r\nbody\r\n"


def test_rename_of_what_is_not_there_or_onto_what_is(account):
    account.create("a/b")
    account.create("c")
    with pytest.raises(NoSuchFolder):
        account.rename("x", "y")
    with pytest.raises(FolderExists):
        account.rename("a", "c")
    with pytest.raises(FolderExists):
        account.rename("a", "INBOX")
    with pytest.raises(BadFolderName):
        account.rename("a", "a/b/c")
    assert names(account) == ["INBOX", "a", "a/b", "c"]


def test_rename_of_inbox_moves_its_messages(account):
    account.create("INBOX/child")
    put(account, "INBOX", 3, SEEN)
    account.rename("INBOX", "old")
    assert names(account) == ["INBOX", "INBOX/child", "old"]
    assert account.state("INBOX").messages == 0 and account.state("INBOX").uid_next == 4
    assert flags_of(account.open("old")) == {1: SEEN, 2: SEEN, 3: SEEN}


def test_special_use(account):
    account.create("Sent")
    account.create("Work/Sent")
    account.create("Papierkorb", "\\Trash")
    account.create("Trash")
    uses = {each.name: each.special_use for each in account.folders()}
    assert uses == {
        "INBOX": "",
        "Papierkorb": "\\Trash",
        "Sent": "\\Sent",
        "Trash": "",
        "Work": "",
        "Work/Sent": "",
    }


def test_subscriptions(account):
    account.create("a")
    account.subscribe("a")
    account.subscribe("not/there yet \u00fc")
    account.subscribe("INBOX")
    account.subscribe("INBOX")
    told = {each.name: (each.exists, each.is_subscribed) for each in account.folders()}
    assert told == {"INBOX": (True, True), "a": (True, True), "not/there yet \u00fc": (False, True)}
    account.subscribe("a", subscribed=False)
    account.subscribe("never was", subscribed=False)
    assert not info(account, "a").is_subscribed
    with pytest.raises(BadFolderName):
        account.subscribe("x\ny")


def test_a_subscription_survives_the_folder(account):  # RFC 9051 6.3.7
    account.create("a")
    account.subscribe("a")
    account.delete("a")
    assert [(each.name, each.exists, each.is_subscribed) for each in account.folders()] == [
        ("INBOX", True, False),
        ("a", False, True),
    ]


# Messages come


def test_append_and_read(account, inbox):
    placed = put(account, wire=ONE, flags=frozenset({"\\Flagged", "Work"}), received=1_234_567_890)
    assert (placed.uid_validity, list(placed.target)) == (account.state("INBOX").uid_validity, [1])
    inbox.refresh()
    assert list(inbox.uids()) == [1]
    (row,) = inbox.rows()
    assert (row.uid, row.flags, row.octets, row.received) == (
        1,
        {"\\Flagged", "Work"},
        len(ONE),
        1_234_567_890,
    )
    assert row.email_id and row.thread_id == ""
    assert whole(inbox, 1) == ONE


def test_ranges_of_a_message(account, inbox):
    long = b"Subject: long\r\n\r\n" + b"".join(b"line %d\r\n" % number for number in range(20_000))
    put(account, wire=long)
    for start, octets in (
        (0, None),
        (0, 0),
        (0, 1),
        (13, 2),
        (14, 1),
        (1, 100_000),
        (70_001, 65_536),
        (150_000, None),
        (len(long) - 1, 10),
        (len(long), None),
        (len(long) + 5, 3),
        (4_294_967_295, 4_294_967_295),
    ):
        expected = long[start:] if octets is None else long[start : start + octets]
        blocks = list(inbox.read(1, start, octets))
        assert b"".join(blocks) == expected, (start, octets)
        assert all(0 < len(block) <= 65536 for block in blocks)


def test_several_at_once_come_in_their_order(account, inbox):
    placed = put(account, count=3)
    assert list(placed.target) == [1, 2, 3]
    assert [whole(inbox, uid)[:10] for uid in placed.target] == [b"Subject: 0", b"Subject: 1", b"Subject: 2"]
    assert len({row.email_id for row in inbox.rows()}) == 3


def test_append_to_no_folder(account):
    with pytest.raises(NoSuchFolder):
        put(account, "nowhere")
    assert account.used()[0] == 0


def test_a_draft_that_was_discarded_leaves_nothing(account, inbox):
    draft = account.draft()
    draft.write(b"Subject: half")
    draft.discard()
    draft.discard()
    assert inbox.refresh().messages == 0


def test_a_filed_message_stays_when_its_draft_goes(account, inbox):
    draft = drafted(account)
    account.append("INBOX", [(draft, SEEN, 5)])
    draft.discard()
    assert whole(inbox, 1) == ONE


def test_counts(account, inbox):
    put(account, wire=ONE)
    put(account, wire=ONE, flags=SEEN)
    put(account, wire=ONE, flags=DELETED)
    state = inbox.refresh()
    assert (state.messages, state.unseen, state.deleted) == (3, 2, 1)
    assert (state.octets, state.deleted_octets, state.uid_next) == (3 * len(ONE), len(ONE), 4)
    inbox.store([1], "add", SEEN | DELETED)
    inbox.store([3], "remove", DELETED)
    state = inbox.refresh()
    assert (state.messages, state.unseen, state.deleted, state.deleted_octets) == (3, 1, 1, len(ONE))
    inbox.expunge()
    state = account.state("INBOX")
    assert (state.messages, state.unseen, state.deleted, state.deleted_octets) == (2, 1, 0, 0)
    assert state.octets == 2 * len(ONE)
    messages, octets = account.used()
    assert messages == 2 and octets > 0


def test_recent_is_told_once(account, inbox):
    put(account, count=2)
    assert inbox.refresh().recent_from == 1
    assert inbox.claim_recent() == 1
    assert inbox.refresh().recent_from == 3
    assert inbox.claim_recent() == 3
    put(account)
    assert account.open("INBOX").claim_recent() == 3


def test_what_is_known_of_the_content(account, inbox):
    put(account, wire=ONE)
    put(account)
    for _ in range(2):  # the second time from what was kept
        found = dict(inbox.parsed([1, 2, 99]))
        assert list(found) == [1, 2]
        assert found[1].header == b"Subject: one\r\nTo: b@example.com\r\n\r\n"
        root = found[1].root
        assert (root.type, root.subtype, root.body, root.end) == ("text", "plain", 35, len(ONE))
        assert found[1].preview.startswith("first")


# Flags


def test_flags_are_replaced_added_and_removed(account, inbox):
    put(account, count=2)
    inbox.refresh()
    stored = inbox.store([2, 1, 7], "add", frozenset({"\\seen", "$Forwarded"}))
    assert [row.uid for row in stored.rows] == [1, 2] and list(stored.gone) == [7]
    assert stored.rows[0].flags == {"\\Seen", "$Forwarded"}
    inbox.store([1], "remove", frozenset({"\\SEEN", "\\Draft"}))
    inbox.store([2], "replace", frozenset({"\\Answered", "\\Recent", "\\Unheard", "Later"}))
    assert flags_of(inbox) == {1: {"$Forwarded"}, 2: {"\\Answered", "Later"}}


def test_a_keyword_is_one_whatever_its_case(account, inbox):
    put(account, flags=frozenset({"Work"}))
    inbox.store([1], "add", frozenset({"WORK"}))
    assert flags_of(inbox) == {1: {"Work"}}
    inbox.store([1], "remove", frozenset({"work"}))
    assert flags_of(inbox) == {1: NOTHING}


def test_each_change_has_a_greater_modseq(account, inbox):
    put(account, count=3)
    first = inbox.refresh().highest_modseq
    (one,) = inbox.store([1], "add", SEEN).rows
    (two,) = inbox.store([2], "add", SEEN).rows
    assert first < one.modseq < two.modseq == inbox.refresh().highest_modseq
    (same,) = inbox.store([2], "add", SEEN).rows
    assert same.modseq == two.modseq == inbox.refresh().highest_modseq


def test_unchanged_since(account, inbox):  # RFC 7162 3.1.3
    put(account, count=3)
    since = inbox.refresh().highest_modseq
    inbox.store([2], "add", frozenset({"\\Flagged"}))
    stored = inbox.store([1, 2, 3, 4], "add", SEEN, since)
    assert [row.uid for row in stored.rows] == [1, 3]
    assert (list(stored.modified), list(stored.gone)) == ([2], [4])
    assert flags_of(inbox) == {1: SEEN, 2: {"\\Flagged"}, 3: SEEN}
    assert list(inbox.store([1], "add", DELETED, 0).modified) == [1]


def test_too_many_keywords(account, inbox):
    put(account, count=2)
    inbox.store([1], "add", frozenset(f"k{number}" for number in range(26)))
    assert len(flags_of(inbox)[1]) == 26
    with pytest.raises(TooMany):
        inbox.store([1, 2], "add", frozenset({"one-more"}))
    with pytest.raises(TooMany):
        put(account, flags=frozenset({"one-more"}))
    inbox.store([2], "add", frozenset({"K3"}))
    assert flags_of(inbox)[2] == {"k3"}
    account.create("other")
    put(account, "other", flags=frozenset({"one-more"}))


# What differs


def test_changes(account, inbox):
    put(account, count=4)
    everything = inbox.changes(0)
    assert [row.uid for row in everything.changed] == [1, 2, 3, 4] and list(everything.vanished) == []
    since = everything.state.highest_modseq
    assert inbox.changes(since) == type(everything)(everything.state, [], [])
    inbox.store([3], "add", SEEN)
    inbox.store([1, 2], "add", DELETED)
    inbox.expunge([2])
    put(account)
    told = inbox.changes(since)
    assert [row.uid for row in told.changed] == [1, 3, 5]
    assert list(told.vanished) == [2]
    assert told.state.messages == 4 and told.state.highest_modseq > since
    assert list(inbox.changes(told.state.highest_modseq).vanished) == []
    inbox.expunge()
    assert list(inbox.changes(told.state.highest_modseq).vanished) == [1]
    assert list(inbox.changes(since).vanished) == [1, 2]


def test_uids_are_never_changed_in_place(account, inbox):
    put(account, count=3)
    inbox.refresh()
    before = inbox.uids()
    assert list(before) == [1, 2, 3]
    inbox.store([2], "add", DELETED)
    inbox.expunge()
    put(account)
    inbox.refresh()
    assert list(before) == [1, 2, 3] and list(inbox.uids()) == [1, 3, 4]


def test_rows_in_order_of_uid(account, inbox):
    put(account, count=5)
    inbox.refresh()
    assert [row.uid for row in inbox.rows([5, 1, 3, 3, 77, 4_294_967_295])] == [1, 3, 5]
    assert [row.uid for row in inbox.rows()] == [1, 2, 3, 4, 5]
    assert list(inbox.rows([])) == []
    assert [row.uid for row in inbox.rows(range(1, 5_000))] == [1, 2, 3, 4, 5]


# Messages go


def test_expunge_takes_what_is_deleted(account, inbox):
    put(account, count=5)
    inbox.store([1, 3, 5], "add", DELETED)
    assert list(inbox.expunge([3, 4, 9])) == [3]
    assert list(inbox.expunge()) == [1, 5]
    assert list(inbox.expunge()) == []
    inbox.refresh()
    assert list(inbox.uids()) == [2, 4]
    with pytest.raises(MessageGone):
        list(inbox.read(3))
    assert put(account).target[0] == 6  # a uid is never used again


def test_copy(account, inbox):
    account.create("other")
    put(account, "other")
    put(account, count=4, flags=frozenset({"\\Flagged", "Work"}), received=1_111_111_111)
    placed = inbox.copy([4, 2, 9, 2], "other")
    assert (list(placed.source), list(placed.target)) == ([2, 4], [2, 3])
    assert placed.uid_validity == account.state("other").uid_validity
    other = account.open("other")
    assert inbox.refresh().messages == 4
    for source, target in ((2, 2), (4, 3)):
        (one,) = inbox.rows([source])
        (two,) = other.rows([target])
        assert (one.flags, one.received, one.octets, one.email_id) == (
            two.flags,
            two.received,
            two.octets,
            two.email_id,
        )
        assert whole(other, target) == whole(inbox, source)
    inbox.store([2], "add", DELETED)
    inbox.expunge()
    assert whole(other, 2) == b"Subject: 1\r\n\r\nbody\r\n"  # its own life
    with pytest.raises(NoSuchFolder):
        inbox.copy([1], "nowhere")
    assert list(inbox.copy([77], "other").target) == []


def test_copy_into_the_same_folder(account, inbox):
    put(account, count=2)
    placed = inbox.copy([1, 2], "INBOX")
    assert (list(placed.source), list(placed.target)) == ([1, 2], [3, 4])
    assert [whole(inbox, uid)[:10] for uid in (1, 2, 3, 4)] == [b"Subject: 0", b"Subject: 1"] * 2
    assert inbox.refresh().messages == 4


def test_move(account, inbox):
    account.create("other")
    put(account, count=4, flags=SEEN | {"Work"}, received=1_111_111_111)
    since = inbox.refresh().highest_modseq
    ids = {row.uid: row.email_id for row in inbox.rows()}
    placed = inbox.move([3, 1, 9], "other")
    assert (list(placed.source), list(placed.target)) == ([1, 3], [1, 2])
    other = account.open("other")
    assert [(row.uid, row.flags, row.received, row.email_id) for row in other.rows()] == [
        (1, SEEN | {"Work"}, 1_111_111_111, ids[1]),
        (2, SEEN | {"Work"}, 1_111_111_111, ids[3]),
    ]
    assert whole(other, 2) == b"Subject: 2\r\n\r\nbody\r\n"
    told = inbox.changes(since)
    assert list(told.vanished) == [1, 3] and told.state.messages == 2
    assert list(other.changes(0).vanished) == []
    with pytest.raises(NoSuchFolder):
        inbox.move([2], "nowhere")
    assert inbox.refresh().messages == 2
    back = other.move([1], "INBOX")
    assert list(back.target) == [5]


def test_move_into_the_same_folder(account, inbox):  # RFC 6851 3.3: it gets a new uid
    put(account, count=2)
    placed = inbox.move([1], "INBOX")
    assert (list(placed.source), list(placed.target)) == ([1], [3])
    inbox.refresh()
    assert list(inbox.uids()) == [2, 3]
    assert whole(inbox, 3) == b"Subject: 0\r\n\r\nbody\r\n"


def test_two_accounts_share_nothing(accounts, account):
    other = accounts.open_account(Identity("sales", "example.org"))
    account.create("a")
    put(account, "a")
    assert names(other) == ["INBOX"] and other.used() == (0, 0)
    other.close()
    other.close()


def test_two_sessions_see_the_same(accounts, account, inbox):
    again = accounts.open_account(SALES)
    other = again.open("INBOX")
    put(account, count=2)
    since = other.refresh().highest_modseq
    assert list(other.uids()) == [1, 2]
    inbox.store([1], "add", SEEN)
    assert [row.uid for row in other.changes(since).changed] == [1]
    other.close()
    other.close()
    again.close()
    assert inbox.refresh().messages == 2
