"""The recipe's run scripts with one word changed: `popgate tcpserver` under Debian's daemontools, the same
programs behind it, and its environment and lines next to those of Debian's tcpserver."""

import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from support import peers
from support.ports import free_port
from support.qmail_site import POP3_RUN, QMAILD, SMTP_RUN, QmailSite, eventually, running
from support.ucspi import variables

ROOT = Path(__file__).parents[2]
OURS = (
    "env",
    f"PYTHONPATH={ROOT / 'src'}",
    "PYTHONDONTWRITEBYTECODE=1",
    sys.executable,
    "-m",
    "popgate",
    "tcpserver",
)

pytestmark = [pytest.mark.peer("ucspi-tcp", "daemontools")]


@pytest.fixture(scope="module", autouse=True)
def _as_root() -> None:
    peers.require_root("ucspi-tcp")


@pytest.fixture(scope="module")
def site() -> Iterator[QmailSite]:
    with running(QmailSite(" ".join(OURS))) as site:
        yield site


def test_refused_login_accepted_lapsed_refused(site: QmailSite) -> None:
    client = "127.0.4.1"
    assert not site.may_relay(client)
    assert site.log_in(client) == 1
    assert site.may_relay(client)
    assert not site.may_relay("127.0.4.2")
    site.make_older(client, 901)
    assert not site.may_relay(client)
    assert site.log_in(client, apop=True) == 1
    assert site.may_relay(client)
    assert "login alice@example.org\n" in site.send(client)


def test_a_wrong_password_gives_nothing(site: QmailSite) -> None:
    import poplib

    client = "127.0.4.3"
    for password in ("wrong", ""):
        with pytest.raises(poplib.error_proto):
            site.log_in(client, password)
    assert not site.grant_file(client).exists()
    assert not site.may_relay(client)


def test_it_becomes_the_user_and_keeps_no_descriptor_of_the_directory_for_programs(site: QmailSite) -> None:
    pid = site.pid("smtpd")
    assert f"Uid:\t{QMAILD}\t{QMAILD}\t{QMAILD}\t{QMAILD}" in Path(f"/proc/{pid}/status").read_text()
    with socket.create_connection((site.host, site.ports["smtpd"]), timeout=10) as client:
        assert client.recv(100).startswith(b"220")
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        opened = {
            os.readlink(f"/proc/{child}/fd/{fd}")
            for child in children
            for fd in os.listdir(f"/proc/{child}/fd")
        }
        assert children and not [path for path in opened if str(site.allow) in path]


def test_grants_of_either_kind_count_for_either_kind() -> None:
    """POP3 by one kind of listener, SMTP by the other, the directory between them."""
    ours = " ".join(OURS)
    mixed = [
        (SMTP_RUN.replace("{tcpserver}", ours), POP3_RUN),
        (SMTP_RUN, POP3_RUN.replace("{tcpserver}", ours)),
    ]
    for smtp, pop3 in mixed:
        with running(QmailSite(smtp_run=smtp, pop3_run=pop3)) as site:
            assert not site.may_relay("127.0.4.4")
            site.log_in("127.0.4.4", user="bob")
            assert "login bob@example.org\n" in site.send("127.0.4.4")


def test_an_unset_host_opens_nothing() -> None:
    import poplib

    client = "127.0.4.5"
    with running(QmailSite(" ".join(OURS), pop3_run=POP3_RUN.replace("mail.example.org", "$HOST"))) as site:
        for password in ("wrong", "correct horse"):
            with pytest.raises(poplib.error_proto):
                site.log_in(client, password)
        assert not site.may_relay(client)
        assert list(site.allow.iterdir()) == []
        assert "stands where the password checker belongs" in site.log_of("pop3d").read_text()


class Server:
    """A tcpserver of either kind with its lines."""

    def __init__(
        self, words: tuple[str, ...], arguments: list[str], host: str, program: list[str], log: Path
    ) -> None:
        self.host, self.port, self.log = host, free_port(host), log
        with open(log, "wb") as out:
            self.process = subprocess.Popen(
                [*words, *arguments, host, str(self.port), *program],
                stderr=out,
                stdin=subprocess.DEVNULL,
                env={"PATH": os.environ["PATH"], "TCPREMOTEIP": "9.9.9.9", "A": "b"},
            )  # fmt: skip
        assert eventually(self._is_there, 20), log.read_text()

    def _is_there(self) -> bool:
        try:
            self.ask()
        except OSError:
            return False
        return True

    def ask(self) -> bytes:
        with socket.create_connection((self.host, self.port), 10) as client:
            shown = b""
            try:
                while octets := client.recv(65536):
                    shown += octets
            except ConnectionResetError:
                pass
            return shown

    def stop(self) -> int:
        self.process.terminate()
        return self.process.wait(20)


def _is_quiet(log: Path) -> bool:
    """Has a connection been served, and its end been told?"""
    lines = log.read_text().splitlines()
    return any("tcpserver: end " in line for line in lines) and "status: 0/" in lines[-1]


def _both(arguments: list[str], program: list[str], tmp_path: Path) -> list[tuple[bytes, str, int]]:
    """What each kind shows a client, its lines with numbers made equal, and its exit status."""
    told = []
    for name, words in (("theirs", ("tcpserver",)), ("ours", OURS)):
        server = Server(words, arguments, "127.0.0.1", program, tmp_path / name)
        try:
            if "-v" in "".join(arguments):
                assert eventually(lambda server=server: _is_quiet(server.log))  # type: ignore[misc]
            server.log.write_text("")
            shown = server.ask()
            if "-v" in "".join(arguments):
                assert eventually(lambda server=server: _is_quiet(server.log))  # type: ignore[misc]
        finally:
            status = server.stop()
        lines = server.log.read_text().replace("\0", "").replace(str(server.port), "PORT")
        told.append(
            (shown.replace(b"%d" % server.port, b"PORT"), re.sub(r"\b[0-9]{3,}\b", "N", lines), status)
        )
    return told


@pytest.mark.parametrize(
    "options",
    [
        ["-vHRl0"],
        ["-v", "-H", "-R", "-l", "mail.example.org", "-c", "3", "-B", "banner "],
        ["-qHRlx", "-b", "5", "-D", "-o"],
    ],
)
def test_environment_and_lines_are_those_of_tcpserver(options: list[str], tmp_path: Path) -> None:
    theirs, ours = _both(options, ["sh", "-c", "env -0; exit 3"], tmp_path)
    differing = {"PWD", "_", "OLDPWD", "PYTHONPATH", "PYTHONDONTWRITEBYTECODE", "TCPREMOTEPORT", "SHLVL"}
    differing.add("LC_CTYPE")  # Python may add it
    banner = theirs[0].startswith(b"banner ")
    assert ours[0].startswith(b"banner ") == banner
    shown = [
        {
            name: text
            for name, text in variables(each[0].removeprefix(b"banner ")).items()
            if name not in differing
        }
        for each in (theirs, ours)
    ]
    assert shown[0] == shown[1]
    assert shown[1]["TCPREMOTEIP"] == "127.0.0.1" and shown[1]["A"] == "b"
    assert sorted(theirs[1].splitlines()) == sorted(ours[1].splitlines())
    assert theirs[2] == ours[2] == 0


def test_rules_of_tcprules_decide_alike(tmp_path: Path) -> None:
    rules = tmp_path / "rules.cdb"
    for text in ('127.:allow,RELAYCLIENT="@x"\n', "127.0.0.1:deny\n:allow\n", "10.:allow\n:deny\n"):
        subprocess.run(["tcprules", str(rules), f"{rules}.tmp"], input=text.encode(), check=True)
        theirs, ours = _both(["-HRl0", "-x", str(rules)], ["sh", "-c", 'echo "$RELAYCLIENT"'], tmp_path)
        assert theirs[0] == ours[0]


@pytest.mark.parametrize(
    "arguments", [["-c"], ["-u"], ["127.0.0.1"], ["127.0.0.1", "1"], ["-u", "", "0", "1", "true"]]
)
def test_wrong_use_starts_nothing(arguments: list[str]) -> None:
    done = subprocess.run([*OURS, *arguments], capture_output=True, text=True, check=False, timeout=30)
    assert done.returncode == 100
    assert "usage: popgate tcpserver" in done.stderr


def test_ipv6() -> None:
    server = Server(OURS, ["-HRl0"], "::1", ["env", "-0"], Path(os.devnull))
    try:
        found = variables(server.ask())
        assert (found["PROTO"], found["TCPREMOTEIP"], found["TCP6REMOTEIP"]) == ("TCP6", "::1", "::1")
    finally:
        server.stop()
