"""What is measured: one function a row, which yields the contenders for as long as their servers run.

A contender is a name and a function that runs one trial. The first is ours, the others are
peers or, where the name says so, the floor of the machine.
"""

import contextlib
import os
import socket
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from bench import asked, load
from bench.load import LoadFailed, Trial
from bench.log_replay import replays
from bench.relay_ctrl_start import start_site
from bench.sites import (
    MANY,
    MANY_MESSAGES,
    PASSWORD,
    CannedSite,
    DovecotSite,
    PeerMissing,
    PopgateSite,
    PostfixSite,
)
from bench.ucspi_listener import Listeners
from popgate.grants.grant import DEFAULT_TERMS, Grant, Usage
from popgate.grants.stores.directory import DirectoryStore
from popgate.mailbox.backends.maildir_listings import SETTLED_SECONDS
from popgate.values.address import ClientAddress
from popgate.values.identity import Identity
from support import ports

OURS = "popgate"


@dataclass(frozen=True)
class Scale:
    """How much work a trial is; `--quick` divides it."""

    divisor: int = 1

    def of(self, count: int) -> int:
        return max(load.USERS, count // self.divisor)


@dataclass(frozen=True)
class Target:
    """Bounds of performance.md's kind for ours over `peer`: at most `floor` times its `of`, or, with
    `is_least`, at least. `peer` "" is an absolute bound."""

    what: str
    of: str
    peer: str
    floor: float
    goal: float
    is_least: bool = False


Contenders = dict[str, Callable[[], Trial]]


class Bench:
    """Starts the contenders of a row and names the peers that are missing."""

    def __init__(self, scale: Scale) -> None:
        self.scale = scale
        self.missing: dict[str, str] = {}
        self.stack = contextlib.ExitStack()

    def __enter__(self) -> "Bench":
        return self

    def __exit__(self, *_: object) -> None:
        self.stack.close()

    def peer(self, contenders: Contenders, name: str, start: Callable[[], Callable[[], Trial]]) -> None:
        """Add a peer, or record that the machine lacks it."""
        try:
            contenders[name] = start()
        except PeerMissing as lack:
            self.missing[name] = str(lack)

    @staticmethod
    def with_peer(require: Callable[[], None], trial: Callable[[], Trial]) -> Callable[[], Trial]:
        """`trial`, which starts its own peer; raises PeerMissing at once where it could not."""
        require()
        return trial


@dataclass(frozen=True)
class Row:
    """`name` is what --only takes; `unit` what is counted."""

    name: str
    title: str
    unit: str
    contenders: Callable[[Bench], Contenders]
    targets: tuple[Target, ...] = ()
    columns: tuple[str, ...] = ("rate", "cpu_us")


# POP3


def _pop3(site_port: int, pid: int, count: int, user: str) -> Callable[[], Trial]:
    options = ("-c", load.AT_ONCE, "-n", count, "--users", load.USERS, "--user", user, "--pass", PASSWORD)

    def trial() -> Trial:
        report = load.run("pop3", *options, "--source-range", load.SOURCES, port=site_port, pid=pid)
        return load.sessions(report)

    return trial


def pop3_session(bench: Bench) -> Contenders:
    site = bench.stack.enter_context(PopgateSite())
    site.log_in()
    count = bench.scale.of(12_000)
    contenders = {OURS: _pop3(site.port("pop3"), site.pid, count, "user%d@example.org")}

    def dovecot(*, is_fast: bool, count: int) -> Callable[[], Trial]:
        peer = bench.stack.enter_context(DovecotSite(is_fast=is_fast))
        return _pop3(peer.pop3_port, peer.pid, count, "user%d")

    bench.peer(contenders, "Dovecot, high-performance mode", lambda: dovecot(is_fast=True, count=count // 3))
    bench.peer(contenders, "Dovecot, default", lambda: dovecot(is_fast=False, count=bench.scale.of(600)))
    floor = bench.stack.enter_context(CannedSite("pop3"))
    contenders["floor: uvloop Protocol, canned answers"] = _pop3(floor.port, floor.pid, count, "user%d")
    return contenders


def pop3_many(bench: Bench) -> Contenders:
    site = bench.stack.enter_context(PopgateSite(count=1, has_many=True))

    def trial() -> Trial:
        return _list_many(site.port("pop3"), f"{MANY}@example.org", site.pid)

    def changed() -> Trial:
        mark = site.maildir(MANY) / "new/.changed"
        mark.touch()
        mark.unlink()
        return trial()

    def unchanged() -> Trial:
        time.sleep(SETTLED_SECONDS + 0.5)
        for _ in range(8):  # so that every worker has seen it
            trial()
        return trial()

    contenders: Contenders = {OURS: changed, f"{OURS}, nothing new since a login": unchanged}

    def warm() -> Callable[[], Trial]:
        peer = bench.stack.enter_context(DovecotSite(is_fast=True, count=1, has_many=True))

        def cold() -> Trial:
            peer.forget_indexes(MANY)
            return _list_many(peer.pop3_port, MANY, peer.pid)

        contenders["Dovecot, no index"] = cold
        return lambda: _list_many(peer.pop3_port, MANY, peer.pid)

    bench.peer(contenders, "Dovecot, with its index", warm)
    return contenders


def _list_many(port: int, user: str, pid: int) -> Trial:
    """One session: log in, LIST, UIDL, QUIT; its time up to the end of UIDL."""
    before = load.cpu_seconds(pid)
    start = time.perf_counter()
    with socket.create_connection(("127.0.0.1", port), timeout=60) as client:
        reader = client.makefile("rb")
        reader.readline()
        for command in (f"USER {user}", f"PASS {PASSWORD}"):
            client.sendall(f"{command}\r\n".encode())
            answer = reader.readline()
            if not answer.startswith(b"+OK"):
                raise LoadFailed(f"{command.split()[0]}: {answer!r}")
        for command in (b"LIST\r\n", b"UIDL\r\n"):
            client.sendall(command)
            lines = 0
            while reader.readline() != b".\r\n":
                lines += 1
            if lines != MANY_MESSAGES + 1:
                raise LoadFailed(f"{command!r}: {lines} lines")
        seconds = time.perf_counter() - start
        client.sendall(b"QUIT\r\n")
        reader.readline()
    time.sleep(0.1)
    return Trial(1 / seconds, (load.cpu_seconds(pid) - before) * 1e6, milliseconds=seconds * 1000)


# SMTP


def _smtp(port: int, pid: int, count: int, *options: str | int) -> Callable[[], dict[str, float]]:
    common = ("-c", load.AT_ONCE, "-n", count, "--users", load.USERS, "--source-range", load.SOURCES)
    sender = ("--from", "user%d@example.org", "--helo", "device.example.org")
    return lambda: load.run("smtp", *common, *sender, *options, port=port, pid=pid)


def relay_decision(bench: Bench) -> Contenders:
    site = bench.stack.enter_context(PopgateSite())
    count = bench.scale.of(12_000)
    decision = ("--rset", "--rcpt", "somebody@elsewhere.example.net")
    ours = _smtp(site.port("smtp"), site.pid, count, *decision)
    site.log_in()
    contenders: Contenders = {OURS: lambda: load.sessions(ours())}

    def postfix() -> Callable[[], Trial]:
        peer = bench.stack.enter_context(PostfixSite(does_hold=True))
        run = _smtp(peer.port, peer.pid, count // 2, *decision)
        return lambda: load.sessions(run())

    bench.peer(contenders, "Postfix, mynetworks", postfix)
    floor = bench.stack.enter_context(CannedSite("smtp"))
    canned = _smtp(floor.port, floor.pid, count, *decision)
    contenders["floor: uvloop Protocol, canned answers"] = lambda: load.sessions(canned())
    return contenders


_MESSAGE = ("--size", 4096, "--rcpt", "somebody@elsewhere.example.net")


def smtp_message(bench: Bench) -> Contenders:
    def ours(site: PopgateSite) -> Callable[[], Trial]:
        bench.stack.enter_context(site)
        site.log_in()
        run = _smtp(site.port("smtp"), site.pid, bench.scale.of(8_000), *_MESSAGE)
        return lambda: load.sessions(run())

    def postfix(peer: PostfixSite) -> Callable[[], Trial]:
        bench.stack.enter_context(peer)
        run = _smtp(peer.port, peer.pid, bench.scale.of(4_000), *_MESSAGE)
        return lambda: load.sessions(run())

    contenders: Contenders = {OURS: ours(PopgateSite(does_deliver=False))}
    bench.peer(contenders, "Postfix, hold queue", lambda: postfix(PostfixSite(does_hold=True)))
    return contenders


def smtp_smarthost_down(bench: Bench) -> Contenders:
    def ours() -> Callable[[], Trial]:
        site = bench.stack.enter_context(PopgateSite(smarthost=f"smtp://127.0.0.1:{ports.free_port()}"))
        site.log_in()
        run = _smtp(site.port("smtp"), site.pid, bench.scale.of(8_000), *_MESSAGE)
        return lambda: load.sessions(run())

    def postfix() -> Callable[[], Trial]:
        smarthost = f"[127.0.0.1]:{ports.free_port()}"
        peer = bench.stack.enter_context(PostfixSite(does_hold=False, smarthost=smarthost))
        run = _smtp(peer.port, peer.pid, bench.scale.of(4_000), *_MESSAGE)
        return lambda: load.sessions(run())

    contenders: Contenders = {OURS: ours()}
    bench.peer(contenders, "Postfix", postfix)
    return contenders


def smtp_turnover(bench: Bench) -> Contenders:
    message = ("--size", 4096, "--rcpt", "user%d@example.org")
    site = bench.stack.enter_context(PopgateSite())
    site.log_in()

    def turnover(
        pid: int, run: Callable[[], dict[str, float]], delivered: Callable[[], int], count: int
    ) -> Trial:
        before, there = load.cpu_seconds(pid), delivered()
        start = time.perf_counter()
        run()
        while delivered() < there + count:
            if time.perf_counter() - start > 300:
                raise LoadFailed("the messages were not all delivered in five minutes")
            time.sleep(0.02)
        seconds = time.perf_counter() - start
        time.sleep(0.2)
        return Trial(count / seconds, (load.cpu_seconds(pid) - before) / count * 1e6)

    count = bench.scale.of(3_000)
    ours = _smtp(site.port("smtp"), site.pid, count, *message)
    contenders: Contenders = {OURS: lambda: turnover(site.pid, ours, site.delivered, count)}

    def postfix() -> Callable[[], Trial]:
        peer = bench.stack.enter_context(PostfixSite(does_hold=False))
        theirs = _smtp(peer.port, peer.pid, count, *message)
        return lambda: turnover(peer.pid, theirs, peer.delivered, count)

    bench.peer(contenders, "Postfix, virtual(8) to Maildir", postfix)
    return contenders


# Idle sessions


def _hold(mode: str, port: int, pid: int, count: int, *options: str | int) -> Trial:
    """Open `count` sessions, log in and wait."""
    sources = ("--source-range", load.SOURCES)
    held = ("-c", count, "--hold", count, "--hold-secs", 2)
    report = load.run(mode, *held, *options, *sources, port=port, pid=pid)
    return Trial(0.0, 0.0, kib=(report["pss_held_kib"] - report["pss_before_kib"]) / count)


# Each trial has a server of its own: what sessions once took is kept for the next ones and
# would hide them. Ours served a few sessions before, so that nothing is counted that the first takes.


def idle_pop3(bench: Bench) -> Contenders:
    count, theirs, warm = 300, 80, 40

    def ours() -> Trial:
        with PopgateSite(count=count + warm) as site:
            port, login = site.port("pop3"), ("--user", "user%d@example.org", "--pass", PASSWORD)
            first = ("-n", 2 * warm, "-c", 4, "--users", warm, "--user-first", count)
            load.run("pop3", *first, *login, port=port, pid=site.pid, is_warm_up=True)
            return _hold("pop3", port, site.pid, count, "--users", count, *login)

    def dovecot() -> Trial:
        with DovecotSite(is_fast=False, count=theirs) as peer:
            login = ("--users", theirs, "--user", "user%d", "--pass", PASSWORD)
            return _hold("pop3", peer.pop3_port, peer.pid, theirs, *login)

    contenders: Contenders = {OURS: ours}
    bench.peer(contenders, "Dovecot, default", lambda: bench.with_peer(DovecotSite.require, dovecot))
    return contenders


def idle_smtp(bench: Bench) -> Contenders:
    count, theirs = 1000, 80

    def ours() -> Trial:
        with PopgateSite(count=1) as site:
            _smtp(site.port("smtp"), site.pid, 200, "--rset", "--rcpt", "user0@example.org")()
            return _hold("smtp", site.port("smtp"), site.pid, count)

    def postfix() -> Trial:
        with PostfixSite(does_hold=True) as peer:
            return _hold("smtp", peer.port, peer.pid, theirs)

    contenders: Contenders = {OURS: ours}
    bench.peer(contenders, "Postfix", lambda: bench.with_peer(PostfixSite.require, postfix))
    return contenders


# Grants


def grant_store(bench: Bench) -> Contenders:
    directory = bench.stack.enter_context(tempfile.TemporaryDirectory(prefix="popgate-grants-"))
    count = bench.scale.of(20_000)
    contenders: Contenders = {}
    places = [("the disk of temporary files", Path(directory))]
    if os.access("/dev/shm", os.W_OK):
        memory = bench.stack.enter_context(
            tempfile.TemporaryDirectory(prefix="popgate-grants-", dir="/dev/shm")
        )
        places.append(("tmpfs", Path(memory)))
    addresses = [ClientAddress.parse(f"192.0.{high}.{low}") for high in range(4) for low in range(1, 251)]
    for name, path in places:
        store = DirectoryStore(str(path / "allow"))
        bench.stack.callback(store.close)
        for verb, act in (
            ("write", _write),
            ("look-up", _look_up),
            ("look-up, not in memory", _look_up_cold),
        ):
            contenders[f"{verb}, {name}"] = _timed(act, store, addresses, count)
    return contenders


def log_replay(bench: Bench) -> Contenders:
    directory = bench.stack.enter_context(tempfile.TemporaryDirectory(prefix="popgate-log-"))
    return replays(directory, bench.scale.of(200))


def _timed(
    act: Callable[[DirectoryStore, ClientAddress], object],
    store: DirectoryStore,
    addresses: list[ClientAddress],
    count: int,
) -> Callable[[], Trial]:
    def trial() -> Trial:
        start, used = time.perf_counter(), time.process_time()
        for number in range(count):
            act(store, addresses[number % len(addresses)])
        seconds = time.perf_counter() - start
        return Trial(count / seconds, (time.process_time() - used) / count * 1e6)

    return trial


def _write(store: DirectoryStore, address: ClientAddress) -> None:
    now = time.time()
    identity = Identity("user", "example.org")
    grant = Grant(address, identity, "pop3", now, now, now, DEFAULT_TERMS, Usage())
    store.change(address, lambda grants: [grant])


def _look_up(store: DirectoryStore, address: ClientAddress) -> None:
    if not store.find(address):
        raise LoadFailed(f"no grant for {address}")


def _look_up_cold(store: DirectoryStore, address: ClientAddress) -> None:
    store.forget()
    _look_up(store, address)


# Workers


# Programs that run once a connection

BARE_PYTHON = "bare Python script, the same file operations"


def _start(name: str) -> Callable[[Bench], Contenders]:
    def contenders(bench: Bench) -> Contenders:
        ours, bare = bench.stack.enter_context(start_site()).trials(name, max(10, 100 // bench.scale.divisor))
        return {OURS: ours, BARE_PYTHON: bare}

    return contenders


TCPSERVER = "tcpserver, checker in C"


def ucspi(bench: Bench) -> Contenders:
    listeners = bench.stack.enter_context(Listeners())
    count = bench.scale.of(4_000)
    contenders: Contenders = {OURS: listeners.ours(count)}

    def tcpserver() -> Callable[[], Trial]:
        trial = listeners.tcpserver(count)
        if trial is None:
            raise PeerMissing("the Debian package ucspi-tcp is not installed")
        return trial

    bench.peer(contenders, TCPSERVER, tcpserver)
    contenders["the program itself, spawned bare (taken off the CPU above)"] = listeners.alone(count // 4)
    return contenders


def scaling(bench: Bench) -> Contenders:
    contenders: Contenders = {}
    for workers, name in ((2, f"{OURS}, 2 workers"), (1, f"{OURS}, 1 worker")):
        site = bench.stack.enter_context(PopgateSite(workers=workers))
        site.log_in()
        contenders[name] = _pop3(site.port("pop3"), site.pid, bench.scale.of(12_000), "user%d@example.org")
    return contenders


HPM = "Dovecot, high-performance mode"
ROWS = (
    Row(
        "pop3-session",
        "POP3 session: connect, login, STAT, QUIT; 20 at once, mailbox of three",
        "session",
        pop3_session,
        (Target("CPU", "cpu_us", HPM, 1 / 3, 1 / 6),),
    ),
    Row(
        "relay-decision",
        "SMTP relay decision: connect, EHLO, MAIL, RCPT, RSET, QUIT; 20 at once",
        "session",
        relay_decision,
        (Target("CPU", "cpu_us", "Postfix, mynetworks", 1 / 2, 1 / 5),),
    ),
    Row(
        "smtp-message",
        "SMTP message of 4 KiB, on disk before 250; 20 at once, a session each, nothing delivered",
        "message",
        smtp_message,
        (
            Target("messages/s", "rate", "Postfix, hold queue", 1.5, 4, is_least=True),
            Target("CPU", "cpu_us", "Postfix, hold queue", 1 / 2, 1 / 6),
        ),
    ),
    Row(
        "smtp-smarthost-down",
        "The same with delivery at work and a smart host that takes nothing",
        "message",
        smtp_smarthost_down,
        (
            Target("messages/s", "rate", "Postfix", 1.5, 4, is_least=True),
            Target("CPU", "cpu_us", "Postfix", 1 / 2, 1 / 6),
        ),
    ),
    Row(
        "smtp-turnover",
        "The same delivered to local Maildirs: from the first connection to the last delivery",
        "message",
        smtp_turnover,
    ),
    Row(
        "pop3-many",
        "POP3 on 10,000 messages: login, LIST, UIDL; page cache warm",
        "session",
        pop3_many,
        (Target("ms", "milliseconds", "", 500, 150),),
        ("milliseconds", "cpu_us"),
    ),
    Row(
        "idle-pop3",
        "Memory of an idle POP3 session, logged in (PSS)",
        "session",
        idle_pop3,
        (Target("KiB", "kib", "", 50, 15),),
        ("kib",),
    ),
    Row(
        "idle-smtp",
        "Memory of an idle SMTP session, after EHLO (PSS)",
        "session",
        idle_smtp,
        (Target("KiB", "kib", "", 50, 15),),
        ("kib",),
    ),
    Row("grant-store", "The directory store, one process: 1,000 addresses in turn", "operation", grant_store),
    Row(
        "log-replay",
        "Logins recognised in a mail log that is read again, one process",
        "MB",
        log_replay,
        (Target("CPU µs a MB", "cpu_us", "", 60_000, 20_000),),
    ),
    Row(
        "relay-ctrl-allow",
        "relay-ctrl-allow, one start after the other, then /bin/true",
        "start",
        _start("allow"),
        (Target("CPU", "cpu_us", BARE_PYTHON, 1.3, 1.2),),
    ),
    Row(
        "relay-ctrl-check",
        "relay-ctrl-check, one start after the other, then /bin/true",
        "start",
        _start("check"),
        (Target("CPU", "cpu_us", BARE_PYTHON, 1.3, 1.2),),
    ),
    Row(
        "ucspi",
        "A program in C for each connection, the right to relay looked up before it; 4 at once;"
        " CPU over that of the program itself, which is measured in the same run",
        "connection",
        ucspi,
        (Target("CPU over the program's", "cpu_us", TCPSERVER, 1.0, 0.7),),
    ),
    *(
        Row(
            name,
            f"{title}: answers of one process, 20 connections, each waits for its answer;"
            " ms is the 99th percentile of the time to an answer",
            "answer",
            contenders,
            (Target("answers/s", "rate", "", 15_000, 40_000, is_least=True),),
            ("rate", "cpu_us", "milliseconds"),
        )
        for name, title, contenders in (
            ("policy", "Postfix policy requests at RCPT with all attributes", asked.policy),
            ("socketmap", "Socketmap look-ups", asked.socketmap),
            ("tcp-table", "tcp_table look-ups", asked.tcp_table),
        )
    ),
    Row(
        "behind-postfix",
        "Postfix's relay decision (connect, EHLO, MAIL, RCPT, RSET, QUIT; 20 at once) with popgate behind it"
        " and with mynetworks alone; CPU is that of both",
        "session",
        asked.behind_postfix,
        (Target("sessions/s", "rate", asked.MYNETWORKS, 0.6, 0.8, is_least=True),),
    ),
    Row(
        "scaling",
        "POP3 sessions with two workers and with one, load generator on the same cores",
        "session",
        scaling,
        (Target("sessions/s", "rate", f"{OURS}, 1 worker", 1.6, 1.9, is_least=True),),
    ),
)


def every(names: list[str]) -> Iterator[Row]:
    """The rows named, all when none is. Raises LoadFailed for a name that is none."""
    known = {row.name for row in ROWS}
    for name in names:
        if name not in known:
            raise LoadFailed(f"there is no row {name!r}; there are {', '.join(sorted(known))}")
    return (row for row in ROWS if not names or row.name in names)
