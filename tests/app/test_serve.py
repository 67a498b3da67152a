"""`popgate serve` as a process: start, drain, reload, replacement, privileges, refusals."""

import io
import json
import os
import poplib
import pwd
import shutil
import signal
import smtplib
import socket
import stat
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from support.popgate import Popgate

USER, PASSWORD = "alice@example.org", "correct horse"


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Popgate]:
    server = Popgate(tmp_path / "site", workers=2)
    server.add_account(USER, PASSWORD)
    with server:
        yield server


def log_in(server: Popgate) -> poplib.POP3:
    client = poplib.POP3("127.0.0.1", server.port("pop3"), timeout=10)
    try:
        client.user(USER)
        client.pass_(PASSWORD)
    except poplib.error_proto:
        client.close()
        raise
    return client


def relays(server: Popgate) -> bool:
    with smtplib.SMTP("127.0.0.1", server.port("smtp"), timeout=10) as client:
        client.ehlo("scanner.example.org")
        client.mail(USER)
        return client.rcpt("invoices@partner.example")[0] == 250


def processes(server: Popgate, name: str) -> list[int]:
    """Process ids that the log names for a kind of process, oldest first."""
    return [
        int(line.rpartition("pid=")[2])
        for line in server.log.splitlines()
        if "process.start" in line and f"process={name} " in line
    ]


def test_the_ready_file_names_real_ports_and_systemd_is_told(tmp_path: Path) -> None:
    server = Popgate(tmp_path / "site")
    heard = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    heard.bind(str(tmp_path / "notify"))
    heard.settimeout(10)
    server.environment["NOTIFY_SOCKET"] = str(tmp_path / "notify")
    with heard, server:
        document = json.loads(server.ready_file.read_text())
        assert [listener["service"] for listener in document["listeners"]] == ["smtp", "pop3"]
        for port in server.ports:
            with socket.create_connection(("127.0.0.1", port), 5) as client:
                assert client.recv(4) in (b"220 ", b"+OK ")
        assert heard.recv(100) == b"READY=1"


def test_grants_hold_across_workers_and_restarts(site: Popgate) -> None:
    assert not any(relays(site) for _ in range(4))
    log_in(site).quit()
    assert all(relays(site) for _ in range(8)), "one worker does not know the grant"
    assert site.stop() == 0
    site.start()
    assert relays(site)


@contextmanager
def body_under_way(server: Popgate) -> Iterator[io.BufferedRWPair]:
    """An SMTP session that has sent the header of a message to our user."""
    with socket.create_connection(("127.0.0.1", server.port("smtp")), 10) as client:
        talk = client.makefile("rwb")
        talk.readline()
        for line in (
            b"EHLO x\r\n",
            b"MAIL FROM:<a@example.net>\r\n",
            f"RCPT TO:<{USER}>\r\n".encode(),
            b"DATA\r\n",
        ):
            talk.write(line)
            talk.flush()
            while talk.readline()[3:4] == b"-":
                pass
        talk.write(b"Subject: late\r\n\r\n")
        talk.flush()
        yield talk


def scanner_session(server: Popgate) -> poplib.POP3:
    """A session of the device account; raises error_proto where it may have no more."""
    client = poplib.POP3("127.0.0.1", server.port("pop3"), timeout=10)
    try:
        client.user("scanner@example.org")
        client.pass_("0000 0000")
    except poplib.error_proto:
        client.close()
        raise
    return client


def test_the_sessions_of_a_user_are_counted_over_workers_deaths_and_reloads(tmp_path: Path) -> None:
    server = Popgate(tmp_path / "site", workers=2)
    server.config.write_text("limits.sessions_per_user = 4\n" + server.config.read_text())
    server.add_account("scanner@example.org", "0000 0000", "--device")
    server.add_account(USER, PASSWORD)
    with server:
        sessions = [scanner_session(server) for _ in range(4)]
        for _ in range(8):
            with pytest.raises(poplib.error_proto, match="Too many sessions"):
                scanner_session(server)
        sessions.pop().quit()
        sessions.append(scanner_session(server))
        # the old workers end while the new ones count their sessions already
        with body_under_way(server) as talk:
            server.send_signal(signal.SIGHUP)
            server.wait_for("server.reload ")
            for old in sessions:
                old.close()
            sessions = [scanner_session(server) for _ in range(4)]
            talk.write(b"\r\n.\r\n")
            talk.flush()
            assert talk.readline().startswith(b"250")
        server.wait_for("process.end", count=3, seconds=20)
        for _ in range(8):
            with pytest.raises(poplib.error_proto, match="Too many sessions"):
                scanner_session(server)
        for pid in processes(server, "worker-0")[-1:] + processes(server, "worker-1")[-1:]:
            os.kill(pid, signal.SIGKILL)
        server.wait_for("process.died", count=2)
        for session in sessions:
            session.close()
        deadline = time.monotonic() + 10
        while len(processes(server, "worker-0")) < 3 or len(processes(server, "worker-1")) < 3:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        scanner_session(server).quit()


def test_sigterm_lets_an_open_session_end(site: Popgate) -> None:
    client = log_in(site)
    busy = smtplib.SMTP("127.0.0.1", site.port("smtp"), timeout=10)
    busy.ehlo("scanner.example.org")
    site.send_signal(signal.SIGTERM)
    site.wait_for("server.stop")
    # an idle session is told; nothing is reset away
    assert busy.docmd("NOOP")[0] in (421, 250)
    try:
        client.noop()
    except poplib.error_proto:
        pass
    busy.close()
    client.close()
    assert site.process is not None
    assert site.process.wait(15) == 0
    assert "process.killed" not in site.log


def test_a_message_under_way_is_finished_before_the_end(site: Popgate) -> None:
    with body_under_way(site) as talk:
        site.send_signal(signal.SIGTERM)
        site.wait_for("server.stop")
        time.sleep(0.5)
        talk.write(b"body\r\n.\r\n")
        talk.flush()
        assert talk.readline().startswith(b"250 ")
    assert site.process is not None
    assert site.process.wait(15) == 0
    site.start()
    site.wait_for("delivery.local")


def test_a_killed_worker_is_replaced(site: Popgate) -> None:
    os.kill(processes(site, "worker-0")[0], signal.SIGKILL)
    site.wait_for("process=worker-0 ", count=3)  # start, died, start
    assert "process.died" in site.log
    log_in(site).quit()
    assert relays(site)


def test_a_killed_delivery_is_replaced_and_delivers(site: Popgate) -> None:
    os.kill(processes(site, "delivery")[0], signal.SIGKILL)
    with smtplib.SMTP("127.0.0.1", site.port("smtp"), timeout=10) as client:
        client.sendmail("a@example.net", [USER], "Subject: x\r\n\r\nx\r\n")
    site.wait_for("delivery.local")


def test_the_parents_death_ends_the_children(site: Popgate) -> None:
    children = [pid for name in ("worker-0", "worker-1", "delivery") for pid in processes(site, name)]
    os.kill(site.pid, signal.SIGKILL)
    assert site.process is not None
    site.process.wait()
    deadline = time.monotonic() + 10
    while any(Path(f"/proc/{pid}/cmdline").exists() for pid in children):
        assert time.monotonic() < deadline, "a child outlived its parent"
        time.sleep(0.05)


def test_reload_takes_the_new_configuration_and_loses_no_connection(site: Popgate) -> None:
    stop = threading.Event()
    failures: list[str] = []
    count = [0]

    def hammer() -> None:
        while not stop.is_set():
            try:
                with socket.create_connection(("127.0.0.1", site.port("smtp")), 5) as client:
                    client.sendall(b"QUIT\r\n")
                    said = b""
                    while block := client.recv(1000):
                        said += block
                if not said.startswith(b"220 "):
                    failures.append(repr(said))
                count[0] += 1
            except OSError as fault:
                failures.append(repr(fault))

    open_session = log_in(site)
    clients = [threading.Thread(target=hammer) for _ in range(4)]
    for client in clients:
        client.start()
    try:
        for number in range(1, 4):
            text = site.config.read_text()
            site.config.write_text(text.replace("never = []", f"never = []\nwindow_seconds = {60 * number}"))
            site.send_signal(signal.SIGHUP)
            site.wait_for("server.reload ", count=number)
            site.config.write_text(text)
    finally:
        stop.set()
        for client in clients:
            client.join()
    assert count[0] > 50
    assert not failures, failures[:5]
    try:
        open_session.noop()
        open_session.quit()
    except poplib.error_proto as told:
        assert "SYS/TEMP" in str(told)
    finally:
        open_session.close()


def test_a_bad_new_configuration_is_named_and_the_old_stays(site: Popgate) -> None:
    text = site.config.read_text()
    site.config.write_text(text.replace("never = []", "never = []\nwindow_seconds = 0"))
    site.send_signal(signal.SIGHUP)
    site.wait_for("server.reload.refused")
    assert "popgate.toml:" in site.log
    assert "window_seconds = 0" in site.log
    log_in(site).quit()
    assert relays(site)


def test_accounts_changed_by_the_command_count_at_once(site: Popgate) -> None:
    log_in(site).quit()
    assert relays(site)
    site.command("account", "disable", USER)
    assert not relays(site), "a disabled account's grant lives on"
    with pytest.raises(poplib.error_proto, match="AUTH"):
        log_in(site)
    site.command("account", "enable", USER)
    log_in(site).quit()
    site.command("account", "passwd", USER, "--password-stdin", stdin="another horse\n")
    assert not relays(site)
    with pytest.raises(poplib.error_proto):
        log_in(site)


def test_a_warm_server_lets_nobody_in_by_an_account_of_before(tmp_path: Path) -> None:
    """Both workers know the password and keep the account's row."""
    settings = "[grants]\nnever = []\n\n[auth]\nfailure_delay_seconds = 0\n"
    server = Popgate(tmp_path / "site", settings=settings, workers=2)
    server.add_account(USER, PASSWORD)

    def logins() -> set[bool]:
        answers = set()
        for _ in range(12):
            try:
                log_in(server).quit()
                answers.add(True)
            except poplib.error_proto:
                answers.add(False)
        return answers

    with server:
        assert logins() == {True}
        server.command("account", "disable", USER)
        assert logins() == {False}
        server.command("account", "enable", USER)
        assert logins() == {True}
        server.command("account", "passwd", USER, "--password-stdin", stdin="another horse\n")
        assert logins() == {False}
        server.command("account", "passwd", USER, "--password-stdin", stdin=PASSWORD + "\n")
        assert logins() == {True}
        server.command("account", "remove", USER)
        assert logins() == {False}


def test_a_second_server_on_the_same_data_is_refused(site: Popgate) -> None:
    done = site.command("serve", check=False)
    assert done.returncode == 1
    assert f"served by another popgate (process {site.pid})" in done.stderr


def test_a_port_in_use_and_a_missing_listener_are_named(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        server = Popgate(tmp_path / "taken")
        bind = f'bind = "127.0.0.1:{taken.getsockname()[1]}"'
        server.config.write_text(server.config.read_text().replace('bind = "127.0.0.1:0"', bind, 1))
        done = server.command("serve", check=False)
        assert done.returncode == 2
        assert "ss -ltnp" in done.stderr
    empty = Popgate(tmp_path / "empty", listeners=())
    done = empty.command("serve", check=False)
    assert done.returncode == 2
    assert "[[listener]]" in done.stderr


@pytest.mark.skipif(os.geteuid() != 0 or sys.platform != "linux", reason="needs root")
def test_root_is_dropped_for_good() -> None:
    if sys.prefix.startswith("/root") or sys.base_prefix.startswith("/root"):
        reason = "the interpreter lies where only root can read"
    else:
        reason = ""
    directory = Path(tempfile.mkdtemp(prefix="popgate-test-"))
    try:
        directory.chmod(0o755)
        server = Popgate(directory / "site")
        server.config.write_text('user = "nobody"\n' + server.config.read_text())
        (directory / "site").chmod(0o755)
        run = directory / "run"
        run.mkdir()
        server.ready_file = run / "ready.json"
        server.add_account(USER, PASSWORD)
        refused = server.command("serve", "--ready-file", str(server.ready_file), check=False)
        assert refused.returncode == 2
        assert "cannot write there" in refused.stderr
        shutil.chown(run, "nobody")
        with server:
            nobody = pwd.getpwnam("nobody").pw_uid
            for pid in (server.pid, *processes(server, "worker-0"), *processes(server, "delivery")):
                status = Path(f"/proc/{pid}/status").read_text()
                uids = next(line for line in status.splitlines() if line.startswith("Uid:")).split()[1:]
                assert uids == [str(nobody)] * 4, status
            log_in(server).quit()
            assert relays(server)
            state = (server.directory / "data").stat()
            assert state.st_uid == nobody
            assert stat.S_IMODE(state.st_mode) == 0o700
    except AssertionError:
        if reason:
            pytest.skip(reason)
        raise
    finally:
        shutil.rmtree(directory)
