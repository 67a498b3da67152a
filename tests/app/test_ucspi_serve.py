"""Listeners for programs in the whole server: grants of the real store, workers, reload, drain, refusals."""

import os
import poplib
import shutil
import signal
import socket
import time
from pathlib import Path

import pytest

from popgate.integrations.ucspi.recorder import RECORDER
from support.popgate import Popgate
from support.ucspi import variables

USER, PASSWORD = "alice@example.org", "correct horse"
SHOW = 'command = ["env", "-0"]\n'


def ask(port: int, sent: bytes = b"") -> bytes:
    with socket.create_connection(("127.0.0.1", port), 10) as client:
        client.sendall(sent)
        shown = b""
        try:
            while octets := client.recv(65536):
                shown += octets
        except ConnectionResetError:
            pass
        return shown


def test_a_login_at_one_listener_gives_relayclient_at_the_other(tmp_path: Path) -> None:
    server = Popgate(
        tmp_path / "site",
        [("ucspi", SHOW + 'grant = "check"\nrelayclient = "@out"'), ("pop3", "plaintext_login = true")],
        '[grants]\nnever = []\nsender = "any"\n',
        workers=2,
    )
    server.environment |= {"RELAYCLIENT": "", "USER": "root", "NOTIFY_SOCKET": "@nobody", "KEPT": "1"}
    server.add_account(USER, PASSWORD)
    with server:
        port = server.port("ucspi")
        for _ in range(4):
            found = variables(ask(port))
            assert not {"RELAYCLIENT", "USER", "DOMAIN", "NOTIFY_SOCKET"} & set(found)
            assert (found["TCPLOCALHOST"], found["KEPT"]) == ("mail.example.org", "1")
        client = poplib.POP3("127.0.0.1", server.port("pop3"), timeout=10)
        client.user(USER)
        client.pass_(PASSWORD)
        for _ in range(4):
            found = variables(ask(port))
            assert (found["RELAYCLIENT"], found["USER"], found["DOMAIN"]) == ("@out", "alice", "example.org")
        client.quit()
        assert "ucspi.open" in server.log and "identity=alice@example.org" in server.log
    assert "defect" not in server.log


def test_a_chain_records_a_login_that_every_worker_sees(tmp_path: Path) -> None:
    chain = f'command = ["env", "USER=alice", "DOMAIN=example.org", "sh", "{RECORDER}", "echo", "+OK"]\n'
    server = Popgate(
        tmp_path / "site",
        [("ucspi", chain + 'grant = "allow"'), ("ucspi", SHOW + 'grant = "check"')],
        '[grants]\nnever = []\nsender = "any"\n',
        workers=2,
    )
    with server:
        assert ask(server.port("ucspi", 0)) == b"+OK\n"
        for _ in range(6):
            assert variables(ask(server.port("ucspi", 1)))["USER"] == "alice"
        assert "grant.allow" in server.log and "protocol=ucspi" in server.log


def test_a_store_that_cannot_be_read_defers(tmp_path: Path) -> None:
    server = Popgate(
        tmp_path / "site",
        [("ucspi", SHOW + 'grant = "check"'), ("ucspi", SHOW + 'grant = "check"\non_store_fault = "run"')],
        '[grants]\nnever = []\nsender = "any"\n',
    )
    with server:
        directory = server.directory / "data/allow"
        shutil.rmtree(directory)
        directory.write_text("not a directory")
        assert ask(server.port("ucspi", 0)).startswith(b"421 4.3.0 mail.example.org ")
        assert "RELAYCLIENT" not in variables(ask(server.port("ucspi", 1)))


def test_programs_outlive_the_death_of_their_worker_and_a_reload(tmp_path: Path) -> None:
    server = Popgate(tmp_path / "site", [("ucspi", 'command = ["cat"]\n')])
    with server:
        port = server.port("ucspi")
        with socket.create_connection(("127.0.0.1", port), 10) as client:
            client.sendall(b"one")
            assert client.recv(10) == b"one"
            worker = next(
                int(line.rpartition("pid=")[2])
                for line in server.log.splitlines()
                if "process.start" in line and "worker-0" in line
            )
            os.kill(worker, signal.SIGKILL)
            deadline = time.monotonic() + 10
            while "process.died" not in server.log or server.log.count("process=worker-0") < 3:
                assert time.monotonic() < deadline
                time.sleep(0.05)
            client.sendall(b"two")
            assert client.recv(10) == b"two"
        with socket.create_connection(("127.0.0.1", port), 10) as client:
            client.sendall(b"three")
            assert client.recv(10) == b"three"
            assert server.process is not None
            server.process.send_signal(signal.SIGHUP)
            while "server.reload " not in server.log:
                time.sleep(0.05)
            client.sendall(b"four")
            assert client.recv(10) == b"four"


def test_the_server_waits_for_programs_and_then_asks_them_to_end(tmp_path: Path) -> None:
    server = Popgate(tmp_path / "site", [("ucspi", 'command = ["cat"]\n')])
    with server:
        with socket.create_connection(("127.0.0.1", server.port("ucspi")), 10) as client:
            client.sendall(b"one")
            assert client.recv(10) == b"one"
            assert server.process is not None
            server.process.send_signal(signal.SIGTERM)
            time.sleep(0.5)
            client.sendall(b"two")
            assert client.recv(10) == b"two"
            assert client.recv(10) == b""
            assert server.process.wait(15) == 0
        assert "ucspi.close" in server.log


@pytest.mark.parametrize(
    "lines, fault",
    [
        ("", "names no program to run"),
        ('command = ["/nowhere/program"]', "/nowhere/program"),
        ('command = ["cat"]\ntls = "starttls"', "the bare connection"),
        ('command = ["cat"]\nproxy_from = ["192.0.2.1"]', "no header is read"),
        ('command = ["cat"]\nrelay_by = ["grant"]', "here the program decides"),
        ('command = ["cat"]\ngrant = "perhaps"', "grant"),
        ('command = ["cat"]\nrules_file = "/nowhere.cdb"', "nobody would be let in"),
    ],
)
def test_mistakes_are_told_at_the_start(tmp_path: Path, lines: str, fault: str) -> None:
    server = Popgate(tmp_path / "site", [("ucspi", lines)])
    done = server.command("config", "check", check=False)
    assert done.returncode == 2, done.stdout + done.stderr
    assert fault in done.stdout + done.stderr


def test_settings_of_programs_say_nothing_elsewhere(tmp_path: Path) -> None:
    server = Popgate(tmp_path / "site", [("pop3", 'plaintext_login = true\ncommand = ["cat"]')])
    done = server.command("config", "check", check=False)
    assert 'says nothing for service = "pop3"' in done.stdout + done.stderr
