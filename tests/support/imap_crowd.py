"""Many clients at once on one mailbox: each does what users do, and believes nothing it is told.

Every client is an ImapClient, whose model checks each response. On top of that the crowd knows what it
did: every message has a mark in its subject, so at the end nothing that was filed and not expunged may
be missing, nothing may be there twice, and a flag that only one client may change must be as it left it.
"""

import random
import re
import threading
import time
from dataclasses import dataclass, field

from support.imap_client import Broken, ImapClient, connect
from support.imap_site import ImapSite
from support.imap_wire import numbers

SYSTEM = ("\\Seen", "\\Answered", "\\Flagged", "\\Draft")


@dataclass
class Ledger:
    """What all clients together have done, under one lock. `marks`: of uids that were filed in the shared
    mailbox; `removed`: uids whose expunge was answered with OK; `own`: of a uid, whether its owner has
    set the keyword that nobody else touches."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    marks: dict[int, str] = field(default_factory=dict)
    doomed: set[int] = field(default_factory=set)
    moved: dict[str, int] = field(default_factory=dict)
    own: dict[int, dict[str, bool]] = field(default_factory=dict)
    commands: int = 0
    faults: list[str] = field(default_factory=list)


class Member:
    """One client of the crowd."""

    def __init__(self, number: int, site: ImapSite, box: str, ledger: Ledger, seed: int) -> None:
        self.number, self.site, self.box, self.ledger = number, site, box, ledger
        self.random = random.Random(seed)
        self.keyword = f"own{number}"
        self.client: ImapClient = connect(site)
        self.is_resync = "QRESYNC" in self.client.capabilities and number % 3 == 0
        if self.is_resync:
            self.client.ok("ENABLE QRESYNC")
        self._select()
        self._count = 0

    def _select(self) -> None:
        self.client.select(self.box)
        self._learn()

    def _learn(self) -> None:
        """Uids and flags of all messages, so that the model can tell one from the other."""
        assert self.client.model is not None
        if self.client.model.messages:
            self._may("FETCH 1:* (UID FLAGS)")

    def _may(self, line: str) -> None:
        """A command that others may have made impossible by an expunge."""
        result = self.client.command(line)
        if not result.ok and (result.tagged.kind, result.tagged.code) != ("NO", "EXPUNGEISSUED"):
            raise Broken(f"{line}: {result.tagged.raw!r}")

    def act(self) -> None:
        acts = (
            *(self.append,) * 4,
            *(self.flag,) * 6,
            *(self.mark,) * 4,
            *(self.read,) * 3,
            *(self.search,) * 2,
            *(self.expunge,) * 2,
            *(self.move, self.noop, self.idle, self.reselect),
        )
        self.random.choice(acts)()
        with self.ledger.lock:
            self.ledger.commands += 1

    # What a user does

    def append(self) -> None:
        self._count += 1
        mark = f"mark-{self.number}-{self._count}"
        content = (
            f"Subject: {mark}\r\nFrom: crowd@example.org\r\n\r\n{'x' * self.random.randint(0, 3000)}\r\n"
        )
        flags = " ".join(self.random.sample(SYSTEM, self.random.randint(0, 2)))
        result = self.client.ok(f"APPEND {self.box} ({flags}) %s", content.encode())
        if result.tagged.code != "APPENDUID":
            raise Broken(f"APPEND without APPENDUID: {result.tagged.raw!r}")
        (uid,) = numbers(str(result.tagged.code_values[1]))
        with self.ledger.lock:
            if uid in self.ledger.marks:
                raise Broken(f"uid {uid} given to {self.ledger.marks[uid]} and {mark}")
            self.ledger.marks[uid] = mark

    def _some_uids(self) -> list[int]:
        assert self.client.model is not None
        known = [uid for uid in self.client.model.uids if uid]
        return sorted(self.random.sample(known, min(len(known), self.random.randint(1, 5))))

    def flag(self) -> None:
        """System flags, which everybody changes."""
        uids = self._some_uids()
        if uids:
            sign, silent = self.random.choice("+-"), self.random.choice(("", ".SILENT"))
            flag = self.random.choice(SYSTEM)
            self._may(f"UID STORE {_set(uids)} {sign}FLAGS{silent} ({flag})")

    def mark(self) -> None:
        """The keyword that is only ours: by number, so a wrong number marks a wrong message."""
        model = self.client.model
        assert model is not None
        if not model.messages:
            return
        number = self.random.randint(1, len(model.messages))
        uid = model.messages[number - 1].uid
        if not uid:
            self._learn()
            return
        is_on = self.random.random() < 0.6
        sign = "+" if is_on else "-"
        result = self.client.command(f"STORE {number} {sign}FLAGS ({self.keyword})")
        if result.ok:
            with self.ledger.lock:
                self.ledger.own.setdefault(uid, {})[self.keyword] = is_on

    def read(self) -> None:
        """The subject of a message by number must be that of its uid."""
        model = self.client.model
        assert model is not None
        if not model.messages:
            return
        low = self.random.randint(1, len(model.messages))
        high = min(low + self.random.randint(0, 9), len(model.messages))
        result = self.client.command(
            f"FETCH {low}:{high} (UID FLAGS RFC822.SIZE BODY.PEEK[HEADER.FIELDS (SUBJECT)])"
        )
        for response in result.all("FETCH"):
            uid = response.items.get("UID")
            header = response.items.get("BODY[HEADER.FIELDS (SUBJECT)]")
            if isinstance(uid, int) and isinstance(header, bytes) and header.strip():
                found = re.match(rb"Subject: (\S+)", header)
                with self.ledger.lock:
                    wanted = self.ledger.marks.get(uid)
                if found is None or (wanted and found[1].decode() != wanted):
                    raise Broken(f"uid {uid} is {wanted} and not {header!r}")

    def search(self) -> None:
        """SEARCH finds in order, and nothing that we were told is gone."""
        self.client.ok("NOOP")
        assert self.client.model is not None
        gone = set(self.client.model.gone)
        uids = [int(str(uid)) for uid in self.client.ok("UID SEARCH ALL").one("SEARCH").values]
        if uids != sorted(set(uids)):
            raise Broken(f"SEARCH out of order: {uids}")
        if again := [uid for uid in uids if uid in gone]:
            raise Broken(f"SEARCH finds {again}, which were expunged")

    def expunge(self) -> None:
        uids = self._some_uids()[:2]
        if not uids:
            return
        with self.ledger.lock:
            self.ledger.doomed.update(uids)
        self._may(f"UID STORE {_set(uids)} +FLAGS.SILENT (\\Deleted)")
        self._may(f"UID EXPUNGE {_set(uids)}")

    def move(self) -> None:
        if "MOVE" not in self.client.capabilities:
            return
        uids = self._some_uids()[:2]
        if uids:
            with self.ledger.lock:
                self.ledger.doomed.update(uids)
            self._may(f"UID MOVE {_set(uids)} {self.box}-moved")

    def noop(self) -> None:
        self.client.ok(self.random.choice(("NOOP", "CHECK")))

    def idle(self) -> None:
        self.client.idle(self.random.uniform(0.01, 0.3))

    def reselect(self) -> None:
        self._select()

    # The end

    def agree(self, fresh: dict[int, frozenset[str]]) -> None:
        """After NOOP the model is what a fresh session sees."""
        self.client.ok("NOOP")
        self._learn()
        assert self.client.model is not None
        mine = {each.uid: _without_recent(each.flags) for each in self.client.model.messages}
        if mine != fresh:
            difference = {uid: (mine.get(uid), fresh.get(uid)) for uid in mine.keys() | fresh.keys()}
            wrong = {uid: both for uid, both in difference.items() if both[0] != both[1]}
            raise Broken(f"client {self.number} sees otherwise than a fresh one: {wrong}")


def _set(uids: list[int]) -> str:
    return ",".join(map(str, uids))


def _without_recent(flags: frozenset[str] | None) -> frozenset[str]:
    return (flags or frozenset()) - {"\\Recent"}


def _fresh(site: ImapSite, box: str) -> tuple[dict[int, frozenset[str]], dict[int, str]]:
    """Flags and marks by uid, as a new session sees them."""
    with connect(site) as client:
        client.select(box)
        assert client.model is not None
        marks: dict[int, str] = {}
        if client.model.messages:
            for response in client.ok("FETCH 1:* (UID FLAGS BODY.PEEK[HEADER.FIELDS (SUBJECT)])").all(
                "FETCH"
            ):
                header = response.items["BODY[HEADER.FIELDS (SUBJECT)]"]
                assert isinstance(header, bytes)
                uid = response.items["UID"]
                assert isinstance(uid, int)
                marks[uid] = header.decode().removeprefix("Subject: ").strip()
        return {each.uid: _without_recent(each.flags) for each in client.model.messages}, marks


def run_crowd(site: ImapSite, *, clients: int, seconds: float, seed: int, box: str = "crowd") -> Ledger:
    """`clients` at once for so long; then everybody is compared with everybody. Raises Broken."""
    with connect(site) as owner:
        for name in (box, f"{box}-moved"):
            owner.command(f"DELETE {name}")
            owner.ok(f"CREATE {name}")
    ledger = Ledger()
    members = [Member(number, site, box, ledger, seed * 1000 + number) for number in range(clients)]
    end = time.monotonic() + seconds

    def live(member: Member) -> None:
        try:
            while time.monotonic() < end and not ledger.faults:
                member.act()
        except Exception as fault:
            ledger.faults.append(f"client {member.number}: {type(fault).__name__}: {fault}")

    threads = [threading.Thread(target=live, args=(member,)) for member in members]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    try:
        if ledger.faults:
            raise Broken("\n\n".join(ledger.faults[:3]))
        _settle(site, box, ledger, members)
    finally:
        for member in members:
            member.client.close()
    return ledger


def _settle(site: ImapSite, box: str, ledger: Ledger, members: list[Member]) -> None:
    flags, marks = _fresh(site, box)
    for member in members:
        member.agree(flags)
    lost = {uid: mark for uid, mark in ledger.marks.items() if uid not in marks and uid not in ledger.doomed}
    if lost:
        raise Broken(f"messages are lost: {lost}")
    wrong = {
        uid: (mark, ledger.marks.get(uid)) for uid, mark in marks.items() if mark != ledger.marks.get(uid)
    }
    if wrong:
        raise Broken(f"uids that are other messages: {wrong}")
    for uid, words in ledger.own.items():
        for word, is_on in words.items():
            if uid in flags and (word in flags[uid]) is not is_on:
                raise Broken(f"uid {uid}: {word} was {'set' if is_on else 'taken away'}: {flags[uid]}")
    moved = list(_fresh(site, f"{box}-moved")[1].values())
    stayed = set(marks.values())
    if both := [mark for mark in moved if mark in stayed]:
        raise Broken(f"moved and still there: {both}")
