"""ImapSession: the order of a login, and what one session is told of what another did."""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from imap_session_site import LETTER, Site, Talk
from popgate.mailbox.mailbox import MailboxError, MailboxFull
from popgate.sessions.imap.searching import TEXTS_A_SLICE

GRANT = "203.0.113.9 ann@example.org imap"


def two_sessions(letters: int = 3) -> tuple[Site, Talk, Talk]:
    site = Site()
    one, other = site.talk(), site.talk()
    one.login()
    other.login()
    for _ in range(letters):
        one.append()
    one.do(b"SELECT INBOX")
    other.do(b"SELECT INBOX")
    return site, one, other


def test_a_login_grants_and_its_end_is_told() -> None:
    site = Site()
    talk = site.talk()
    assert b" NO [AUTHENTICATIONFAILED] " in talk.do(b"LOGIN ann@example.org wrong")
    assert site.grants.granted == []
    assert b" OK " in talk.login()
    assert site.grants.granted == [GRANT]
    talk.session.tick()
    talk.send(b"z LOGOUT\r\n")
    assert talk.is_closing
    talk.session.closed("quit")
    talk.session.closed("reset")
    site.settle()
    assert [verb for verb, _, _ in site.grants.told] == ["allow", "renew", "logout"]
    assert [event.name for event in site.events] == ["imap.login.failed", "imap.login", "imap.close"]
    assert not +site.users.open


def test_a_login_that_finds_too_many_sessions_grants_nothing() -> None:
    site = Site()
    site.users.most = 1
    assert b" OK " in site.talk().login()
    assert b" NO [LIMIT] " in site.talk().login()
    assert len(site.grants.granted) == 1


@pytest.mark.parametrize("command", [b"FETCH 1:* FLAGS", b"STORE 1 +FLAGS (\\Seen)", b"SEARCH ALL"])
def test_no_expunge_while_the_client_speaks_in_numbers(command: bytes) -> None:
    _, one, other = two_sessions()
    other.do(b"STORE 2 +FLAGS (\\Deleted)")
    other.do(b"EXPUNGE")
    assert b"EXPUNGE\r\n" not in one.do(command)
    assert b"* 2 EXPUNGE\r\n" in one.do(b"NOOP")


def test_who_idles_is_told_at_once() -> None:
    _, one, other = two_sessions()
    assert one.send(b"i IDLE\r\n") == b"+ idling\r\n"
    other.do(b"STORE 1 +FLAGS (\\Deleted)")
    other.do(b"EXPUNGE")
    other.append()
    told = one.take()
    assert b"* 1 EXPUNGE\r\n" in told
    assert b"* 3 EXISTS\r\n" in told
    assert one.send(b"DONE\r\n") == b"i OK Done.\r\n"


def test_an_idle_client_hears_now_and_then_that_there_is_nothing_new() -> None:
    site, one, other = two_sessions()
    one.session.tick()
    assert one.take() == b"", "it does not idle"
    one.send(b"i IDLE\r\n")
    site.clock.time += 119
    one.session.tick()
    assert one.take() == b""
    site.clock.time += 1
    one.session.tick()
    assert one.take() == b"* OK Still here.\r\n"
    site.clock.time += 60
    other.append()
    assert b"EXISTS" in one.take()
    site.clock.time += 60
    one.session.tick()
    assert one.take() == b"", "it counts from what was said last"
    one.session.wake = lambda: False
    site.clock.time += 120
    one.session.tick()
    assert one.take() == b"", "it does not read"


@pytest.mark.parametrize("command", [b"NOOP", b'LIST "" *', b"APPEND"])
def test_what_was_done_is_ok_though_the_selected_folder_is_gone(command: bytes) -> None:
    # NO after the message was stored would have the client store it again
    site = Site()
    one, other = site.talk(), site.talk()
    one.login()
    other.login()
    one.do(b"CREATE Short")
    one.do(b"SELECT Short")
    other.do(b"DELETE Short")
    told = one.append() if command == b"APPEND" else one.do(command)
    assert b"* BYE [UNAVAILABLE] " in told
    assert b" OK " in told.splitlines()[-1]
    assert one.is_closing


@pytest.mark.parametrize(
    "command", [b"EXPUNGE", b"FETCH 1 FLAGS", b"STORE 1 +FLAGS (\\Seen)", b"SEARCH ALL", b"NOOP"]
)
def test_a_fault_that_may_pass_costs_the_news_alone_and_is_told_once(
    command: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    # as on a full disk, where the index cannot take in what others have changed
    site, one, other = two_sessions()
    other.append()

    def broken(since_modseq: int) -> None:
        raise MailboxFull("no space left on the disk")

    assert one.session._desk is not None and one.session._desk.view is not None
    with monkeypatch.context() as patched:
        patched.setattr(one.session._desk.view.folder, "changes", broken)
        for _ in range(3):
            told = one.do(command)
            assert b" OK " in told.splitlines()[-1]
            assert b"EXISTS" not in told
    assert not one.is_closing
    faults = [event.fields["detail"] for event in site.events if event.name == "imap.fault"]
    assert faults == ["no space left on the disk"]
    assert b"* 4 EXISTS" in one.do(b"NOOP")


def test_a_mailbox_that_cannot_be_used_is_told_to_the_administrator(monkeypatch: pytest.MonkeyPatch) -> None:
    site = Site()
    one = site.talk()
    one.login()

    def broken(name: str) -> None:
        raise MailboxError("the index of ann@example.org: it is a link")

    assert one.session._desk is not None
    monkeypatch.setattr(one.session._desk._account, "open", broken)
    assert b" NO [UNAVAILABLE] " in one.do(b"SELECT INBOX")
    assert [event.fields["detail"] for event in site.events if event.name == "imap.fault"] == [
        "the index of ann@example.org: it is a link"
    ]
    assert b" NO [TRYCREATE] " in one.append(b"Nowhere")
    assert len([event for event in site.events if event.name == "imap.fault"]) == 1


# What a client is told must be enough to know what each number means

PROGRAM = st.lists(
    st.tuples(
        st.integers(0, 1),
        st.sampled_from(
            ["append", "delete", "expunge", "noop", "fetch", "uid fetch", "search", "move", "store", "idle"]
        ),
        st.integers(0, 7),
    ),
    max_size=30,
)


class Model:
    """What a client knows: the uids of the numbers, None where it was never told."""

    def __init__(self, talk: Talk) -> None:
        self.talk = talk
        self.uids: list[int | None] = []
        talk.login()

    def select(self) -> None:
        self.uids = []
        self.hear(self.talk.do(b"SELECT INBOX"))

    def hear(self, told: bytes) -> bytes:
        for line in told.split(b"\r\n"):
            if found := re.match(rb"\* (\d+) EXPUNGE", line):
                del self.uids[int(found[1]) - 1]
            elif found := re.match(rb"\* VANISHED ([\d:,]+)", line):
                gone = _members(found[1])
                assert gone <= {uid for uid in self.uids if uid}, "only what it knows"
                self.uids = [uid for uid in self.uids if uid not in gone]
            elif found := re.match(rb"\* (\d+) EXISTS", line):
                count = int(found[1])
                assert count >= len(self.uids), "a count must not fall"
                self.uids += [None] * (count - len(self.uids))
            elif found := re.match(rb"\* (\d+) FETCH .*?UID (\d+)", line):
                number, uid = int(found[1]), int(found[2])
                assert self.uids[number - 1] in (None, uid), "a number means another message"
                self.uids[number - 1] = uid
            elif found := re.match(rb"\* (\d+) FETCH", line):
                assert int(found[1]) <= len(self.uids)
        return told

    def run(self, verb: str, place: int) -> None:
        if verb == "append":
            self.hear(self.talk.append())
            return
        number = place % len(self.uids) + 1 if self.uids else 0
        commands = {
            "delete": b"STORE %d +FLAGS (\\Deleted)" % number,
            "store": b"STORE %d -FLAGS (\\Deleted)" % number,
            "fetch": b"FETCH 1:* (UID FLAGS)",
            "move": b"MOVE %d Other" % number,
        }
        if verb in commands and not number:
            return
        if verb == "idle":
            self.hear(self.talk.send(b"i IDLE\r\n") + self.talk.take() + self.talk.send(b"DONE\r\n"))
            return
        plain = {
            "expunge": b"EXPUNGE",
            "noop": b"NOOP",
            "uid fetch": b"UID FETCH 1:* FLAGS",
            "search": b"SEARCH ALL",
        }
        told = self.hear(self.talk.do(commands.get(verb) or plain[verb]))
        if verb in ("delete", "store", "fetch", "search"):
            assert b" EXPUNGE\r\n" not in told
            assert b" VANISHED " not in told


def _members(text: bytes) -> set[int]:
    found: set[int] = set()
    for piece in text.split(b","):
        low, _, high = piece.partition(b":")
        found.update(range(int(low), int(high or low) + 1))
    return found


@settings(max_examples=150, deadline=None)
@given(program=PROGRAM, is_qresync=st.booleans())
def test_numbers_told_are_numbers_held(program: list[tuple[int, str, int]], is_qresync: bool) -> None:
    site = Site()
    clients = [Model(site.talk()), Model(site.talk())]
    clients[0].talk.do(b"CREATE Other")
    for client in clients:
        if is_qresync:
            client.talk.do(b"ENABLE QRESYNC")
        client.select()
        client.hear(client.talk.do(b"UID FETCH 1:* UID"))
    for who, verb, place in program:
        clients[who].run(verb, place)
        if is_qresync:  # VANISHED names uids, so the model must know those of all that EXISTS told of
            clients[who].hear(clients[who].talk.do(b"NOOP"))
            clients[who].hear(clients[who].talk.do(b"UID FETCH 1:* UID"))
    for client in clients:
        client.hear(client.talk.do(b"NOOP"))
        client.hear(client.talk.do(b"UID FETCH 1:* (FLAGS)"))
    assert clients[0].uids == clients[1].uids
    assert None not in clients[0].uids


@pytest.mark.parametrize("first", [1, 30, 1990])
def test_the_first_unseen_message_is_told_where_it_is_near_an_end(first: int) -> None:
    site = Site()
    talk = site.talk()
    talk.login()
    for _ in range(2000 // 20):
        command = b"APPEND INBOX" + b" (\\Seen) {%d+}\r\n%b" % (len(LETTER), LETTER) * 20
        talk.do(command)
    talk.do(b"SELECT INBOX")
    talk.do(b"STORE %d,1995 -FLAGS.SILENT (\\Seen)" % first)
    assert b"* OK [UNSEEN %d] " % first in talk.do(b"SELECT INBOX")
    talk.do(b"STORE %d,1995 +FLAGS.SILENT (\\Seen)" % first)
    talk.do(b"STORE 990,1005,1995 -FLAGS.SILENT (\\Seen)")
    assert b"* OK [UNSEEN 990] " in talk.do(b"SELECT INBOX")
    assert b"UNSEEN" not in talk.do(b"ENABLE IMAP4REV2") + talk.do(b"SELECT INBOX")


@pytest.mark.parametrize(
    "command",
    [b"SEARCH TEXT Hello", b"SORT (SUBJECT) UTF-8 TEXT Hello", b"THREAD REFERENCES UTF-8 TEXT Hello"],
)
def test_a_long_search_lets_others_have_the_thread(command: bytes) -> None:
    site, one, _ = two_sessions(letters=3 * TEXTS_A_SLICE)
    before = site.runs
    told = one.do(command)
    assert site.runs == before + 3
    assert len(re.findall(rb"\d+", told.splitlines()[0])) == 3 * TEXTS_A_SLICE


def test_a_search_that_fails_leaves_nothing_saved() -> None:
    # RFC 5182 2.1
    _, one, _ = two_sessions()
    one.do(b"SEARCH RETURN (SAVE) ALL")
    assert b"* 1 FETCH" in one.do(b"FETCH $ UID")

    def broken(uids: object = None) -> None:
        raise MailboxError("the disk is broken")

    folder = one.session._desk.view.folder  # type: ignore[union-attr]
    rows, folder.rows = folder.rows, broken  # type: ignore[assignment,method-assign]
    assert b" NO " in one.do(b"SEARCH RETURN (SAVE) ALL")
    folder.rows = rows  # type: ignore[method-assign]
    assert b"FETCH (" not in one.do(b"FETCH $ UID")
