"""docs/maps.md and the rules of docs/qmail.md, as they stand there, with Debian's Postfix and tcpserver: who
relays, who is refused, and what happens while popgate is stopped, hangs or is killed. Only places differ."""

import contextlib
import shlex
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from support import documents, peers, ports
from support.documents import blocks, section
from support.popgate import SOURCE
from support.postfix import Postfix
from support.process import ServerProcess
from support.relaying import ALICE, BRIEF, BRIEF_SECONDS, HERE, PASSWORD, Client, RelaySite, may_relay

DOCUMENT = "maps.md"
LMDB, CDB = blocks(DOCUMENT, "Postfix", "toml")
LMDB_CF, CDB_CF = blocks(DOCUMENT, "Postfix", "main.cf")
FROM_LOOPBACK = "never = []\n"


@pytest.fixture
def place() -> Iterator[Path]:
    """Where the documents have /run/popgate; open to the mail server's users, which pytest's own is not."""
    directory = Path(tempfile.mkdtemp(prefix="popgate-maps-"))
    (maps,) = [
        shlex.split(line.replace("/run/popgate", str(directory)).replace("-o popgate ", ""))
        for line in "".join(blocks(DOCUMENT, "What to install", "sh")).splitlines()
    ]
    subprocess.run(maps, check=True)
    yield directory
    shutil.rmtree(directory)


def site_with_maps(directory: Path, place: Path, tables: str, more: str = "") -> RelaySite:
    """popgate with the documented [[map]], where tests may write."""
    maps = "[[map]]" + tables.partition("[[map]]")[2].replace("/run/popgate", str(place))
    return RelaySite(directory, LMDB, f'[grants]\nsender = "any"\n{more}{maps}', people=(ALICE, BRIEF))


@contextlib.contextmanager
def running(tmp_path: Path, place: Path, kind: str, more: str = "") -> Iterator[tuple[RelaySite, Postfix]]:
    peers.require(f"postfix-{kind}")
    toml, main_cf = (LMDB, LMDB_CF) if kind == "lmdb" else (CDB, CDB_CF)
    site = site_with_maps(tmp_path / "site", place, toml, more)
    options = site.postfix_options(main_cf.replace("/run/popgate", str(place)))
    with site.popgate, Postfix(options) as postfix:  # in this order, as the document says
        yield site, postfix


def soon(postfix: Postfix, address: str, code: int, seconds: float = 2.0, sender: str = ALICE) -> None:
    """Until a new session from there is answered so."""
    deadline = time.monotonic() + seconds
    while (answer := may_relay(postfix, address, sender)) != code:
        assert time.monotonic() < deadline, f"{answer}, and not {code}:\n{postfix.log[-2000:]}"
        time.sleep(0.02)


@pytest.mark.peer("postfix")
@pytest.mark.parametrize("kind", ["lmdb", "cdb"])
def test_refused_then_a_login_then_relayed_then_lapsed_then_refused(
    tmp_path: Path, place: Path, kind: str
) -> None:
    with running(tmp_path, place, kind) as (site, postfix):
        for address in ("203.0.113.1", "2001:db8::1", "2001:db8:0:1:1:1:1:1"):
            assert may_relay(postfix, address, BRIEF) == 554
            site.log_in(address, BRIEF)
            time.sleep(0.1)
            assert may_relay(postfix, address, BRIEF) == 250
            assert may_relay(postfix, "203.0.113.77", BRIEF) == 554
            time.sleep(BRIEF_SECONDS)
            assert may_relay(postfix, address, BRIEF) == 554
        with Client(postfix, "203.0.113.1") as client:
            assert client.ask(HERE, "stranger@elsewhere.example")[0] == 250


@pytest.mark.peer("postfix")
@pytest.mark.parametrize("kind", ["lmdb", "cdb"])
def test_in_a_session_that_is_open(tmp_path: Path, place: Path, kind: str) -> None:
    with running(tmp_path, place, kind) as (site, postfix):
        site.log_in("203.0.113.1", BRIEF)
        time.sleep(0.1)
        with Client(postfix, "203.0.113.1") as client:
            assert client.ask()[0] == 250
            time.sleep(BRIEF_SECONDS + 0.1)
            # the document says what a constant database does
            assert client.ask()[0] == (554 if kind == "lmdb" else 250)
        assert may_relay(postfix, "203.0.113.1") == 554


@pytest.mark.peer("postfix")
@pytest.mark.parametrize("kind", ["lmdb", "cdb"])
def test_popgate_is_stopped_hangs_and_is_killed(tmp_path: Path, place: Path, kind: str) -> None:
    with running(tmp_path, place, kind) as (site, postfix):
        site.log_in("203.0.113.1", BRIEF)
        site.log_in("2001:db8::1")
        soon(postfix, "203.0.113.1", 250)
        assert site.popgate.stop() == 0
        assert may_relay(postfix, "203.0.113.1") == 554
        assert may_relay(postfix, "2001:db8::1") == 554
        site.popgate.start()
        assert may_relay(postfix, "2001:db8::1") == 250
        site.log_in("203.0.113.1", BRIEF)
        soon(postfix, "203.0.113.1", 250)
        with site.hanging():
            time.sleep(BRIEF_SECONDS + 0.1)
            assert may_relay(postfix, "203.0.113.1") == 250  # as the document warns
            assert may_relay(postfix, "203.0.113.77") == 554
            (cron,) = blocks(DOCUMENT, "When popgate does not run", "crontab")
            refresh = cron.split()[7:]
            assert cron.split()[:7] == [*"*****", "popgate", "popgate"]
            site.popgate.command(*refresh)
            assert may_relay(postfix, "203.0.113.1") == 554
        site.log_in("203.0.113.1", BRIEF)
        soon(postfix, "203.0.113.1", 250)
        site.popgate.kill()
        time.sleep(BRIEF_SECONDS + 0.1)
        assert may_relay(postfix, "203.0.113.1") == 250
        site.popgate.command(*refresh)
        assert may_relay(postfix, "203.0.113.1") == 554
        assert may_relay(postfix, "2001:db8::1") == 250
        for each in place.iterdir():
            each.unlink()  # nothing is there to look up
        with Client(postfix, "2001:db8::1") as client:
            code, _ = client.ask()
            assert code in (451, 554)
            if kind == "cdb":
                assert client.ask(HERE)[0] == 250


@pytest.mark.peer("postfix")
@pytest.mark.peer("swaks")
def test_the_documented_commands_show_it(tmp_path: Path, place: Path) -> None:
    commands, explain = blocks(DOCUMENT, "Test it", "sh")
    with running(tmp_path, place, "lmdb", FROM_LOOPBACK) as (site, postfix):
        said = site.type_commands(commands, postfix.port, 0.1)
        assert "554 5.7.1" in said[0] and "Recipient address rejected: Access denied" in said[0]
        assert "250 2.1.5 Ok" in said[2]
        first, second = explain.replace("203.0.113.9", "127.0.0.9").splitlines()
        shown = site.popgate.command(*first.split()[1:]).stdout
        assert f"the map {place}/relay.lmdb has it\n" in shown
        assert "`the map /run/popgate/relay.lmdb has it`" in section(DOCUMENT, "Test it")
        assert f"{place}/relay.lmdb" in site.popgate.command(*second.split()[1:]).stdout


# tcpserver


class TcpServer:
    """Debian's, with the rules at `rules` before a program that says whether it may relay."""

    def __init__(self, rules: Path, directory: Path) -> None:
        self.port = ports.free_port()
        program = ["sh", "-c", 'printf "%s\\n" "${RELAYCLIENT-no}"']
        command = [
            peers.require("ucspi-tcp"), "-vRHl0", "-x", str(rules), "127.0.0.1", str(self.port), *program,
        ]  # fmt: skip
        self.process = ServerProcess(command, directory / "tcpserver.log")
        self.process.wait_for_ports([self.port])

    def answer(self, address: str) -> str:
        """RELAYCLIENT, `no`, or nothing where the connection was refused."""
        with (
            socket.create_connection(
                ("127.0.0.1", self.port), timeout=10, source_address=(address, 0)
            ) as connection,
            contextlib.suppress(ConnectionResetError),
        ):
            return connection.makefile().read()
        return ""


@pytest.mark.peer("ucspi-tcp")
def test_rules_of_tcpserver(tmp_path: Path, place: Path) -> None:
    (toml,) = blocks("qmail.md", "Rules that popgate writes", "toml")
    (run,) = blocks("qmail.md", "Rules that popgate writes", "run")
    (rules,) = [word for word in run.split() if word.startswith("/run/popgate/")]
    site = site_with_maps(tmp_path / "site", place, toml, FROM_LOOPBACK)
    with site.popgate:
        server = TcpServer(Path(rules.replace("/run/popgate", str(place))), tmp_path)
        try:
            assert server.answer("127.0.0.1") == "\n"
            assert server.answer("127.0.0.9") == "no\n"
            log_in_from("127.0.0.9", site, BRIEF)
            wait(lambda: server.answer("127.0.0.9") == "\n")
            assert server.answer("127.0.0.10") == "no\n"
            time.sleep(BRIEF_SECONDS)
            assert server.answer("127.0.0.9") == "no\n"
            log_in_from("127.0.0.66", site, ALICE)
            log_in_from("127.0.0.9", site, ALICE)
            wait(lambda: server.answer("127.0.0.9") == "\n")
            assert server.answer("127.0.0.66") == ""  # denied by a rule, grant or not
            assert site.popgate.stop() == 0
            assert server.answer("127.0.0.9") == "no\n"
            assert server.answer("127.0.0.1") == "\n"
            Path(rules.replace("/run/popgate", str(place))).unlink()
            assert server.answer("127.0.0.1") == ""
        finally:
            server.process.stop()


def log_in_from(address: str, site: RelaySite, user: str) -> None:
    """At popgate's POP3 server, from an address of loopback."""
    with socket.create_connection(
        ("127.0.0.1", site.popgate.port("pop3", 1)), timeout=10, source_address=(address, 0)
    ) as connection:
        talk = connection.makefile("rwb")
        assert talk.readline().startswith(b"+OK")
        for command in (f"USER {user}", f"PASS {PASSWORD}", "QUIT"):
            talk.write(command.encode() + b"\r\n")
            talk.flush()
            assert talk.readline().startswith(b"+OK"), command


def wait(condition: Callable[[], bool], seconds: float = 2.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_every_line_of_configuration_in_the_document_is_used_here() -> None:
    text = (SOURCE.parent / "docs" / DOCUMENT).read_text()
    assert text.count("```main.cf") == 2
    assert text.count("```toml") == 2
    assert documents.listeners(LMDB)
