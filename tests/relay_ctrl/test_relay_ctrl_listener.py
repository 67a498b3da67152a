"""Logins told by the real relay-ctrl-send to the listener of a started server."""

import os
import signal
import smtplib
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from popgate.protocols import relay_ctrl_udp as wire
from popgate.values.address import ClientAddress
from support.popgate import Popgate
from support.relay_ctrl import Installed

KEY = "a key that both machines share"
CLIENT = "127.0.0.9"
ANY = '[grants]\nnever = []\nsender = "any"\n'
BOUND = "[grants]\nnever = []\n"


def write_key(path: Path, text: str = KEY) -> Path:
    path.write_text(text + "\n")
    path.chmod(0o600)
    return path


@pytest.fixture
def key(tmp_path: Path) -> Path:
    return write_key(tmp_path / "key")


def site(
    tmp_path: Path, lines: str, grants: str = BOUND, *, workers: int = 1, host: str = "127.0.0.1"
) -> Popgate:
    return Popgate(
        tmp_path / "site", [("relay_ctrl_udp", lines), ("smtp", "")], grants, workers=workers, host=host
    )


def send(
    programs: Installed, server: Popgate, *flags: str, host: str = "127.0.0.1", **environment: str
) -> "subprocess.CompletedProcess[bytes]":
    port = server.port("relay_ctrl_udp")
    environment = {
        "TCPREMOTEIP": CLIENT,
        "USER": "bob",
        "DOMAIN": "example.org",
        "RELAY_CTRL_TRIES": "1",
        "RELAY_CTRL_REMOTES": f"[{host}]:{port}" if ":" in host else f"{host}:{port}",
        **environment,
    }
    return programs.run(["relay-ctrl-send", *flags, "/bin/echo", "ran"], environment)


def may_relay(
    server: Popgate, client: str = CLIENT, sender: str = "bob@example.org", host: str = "127.0.0.1"
) -> bool:
    with smtplib.SMTP(
        host, server.port("smtp"), local_hostname="c.example.org", timeout=10, source_address=(client, 0)
    ) as session:
        session.ehlo()
        session.mail(sender)
        return session.rcpt("x@elsewhere.example")[0] == 250


def login(nonce: int, user: str = "bob", seconds_ago: float = 0.0, client: str = CLIENT) -> wire.PeerLogin:
    return wire.PeerLogin(
        ClientAddress.parse(client), user, "example.org", time.time() - seconds_ago, f"{nonce:032x}"
    )


@contextmanager
def talking(server: Popgate, caller: str = "127.0.0.1", to: str = "127.0.0.1") -> "Iterator[socket.socket]":
    with socket.socket(socket.AF_INET6 if ":" in to else socket.AF_INET, socket.SOCK_DGRAM) as here:
        here.bind((caller, 0))
        here.connect((to, server.port("relay_ctrl_udp")))
        here.settimeout(5)
        yield here


def ask(here: socket.socket, data: bytes) -> bytes:
    here.send(data)
    return here.recv(2000)


def assert_no_answer(here: socket.socket, data: bytes, seconds: float = 0.3) -> None:
    here.send(data)
    here.settimeout(seconds)
    with pytest.raises(TimeoutError):
        here.recv(2000)
    here.settimeout(5)


def test_a_login_at_one_machine_lets_relay_at_the_other(
    tmp_path: Path, key: Path, programs: Installed
) -> None:
    with site(tmp_path, f'key_file = "{key}"') as server:
        assert not may_relay(server)
        done = send(programs, server, RELAY_CTRL_KEY=str(key))
        assert (done.returncode, done.stdout, done.stderr) == (0, b"ran\n", b"")
        assert may_relay(server)
        assert not may_relay(server, sender="eve@example.org"), "a sender who did not log in"
        assert not may_relay(server, "127.0.0.8"), "another client"
        explained = server.command("grant", "explain", CLIENT).stdout
        assert "bob@example.org" in explained and "peer" in explained
    assert "peer.login session=" in server.log and "form=signed reason=recorded" in server.log
    assert "defect" not in server.log


def test_over_ipv6_for_an_ipv6_client(tmp_path: Path, key: Path, programs: Installed) -> None:
    if not socket.has_ipv6:
        pytest.skip("no IPv6 here")
    with site(tmp_path, f'key_file = "{key}"', host="[::1]") as server:
        assert not may_relay(server, "::1", host="::1")
        done = send(programs, server, host="::1", RELAY_CTRL_KEY=str(key), TCPREMOTEIP="::1")
        assert done.stderr == b""
        assert may_relay(server, "::1", host="::1")


def test_what_does_not_count_gets_no_answer_and_no_grant(
    tmp_path: Path, key: Path, programs: Installed
) -> None:
    other = write_key(tmp_path / "other", "a key that nobody shares")
    with site(tmp_path, f'key_file = "{key}"', ANY) as server:
        for flags, environment in (((), {"RELAY_CTRL_KEY": str(other)}), ((), {}), (("--insecure",), {})):
            done = send(programs, server, *flags, **environment)
            assert done.stdout == b"ran\n" and b"Timed out" in done.stderr
        with talking(server) as here:
            for data in (
                wire.signed_login(login(1), b"a key that nobody shares"),
                wire.signed_login(login(2, seconds_ago=61.5), KEY.encode()),
                wire.signed_login(login(3, seconds_ago=-62), KEY.encode()),
                wire.signed_login(login(4), KEY.encode())[:-1],
                wire.signed_login(login(5), KEY.encode()) + b"0",
                b"popgate-login-1 " + b"x" * 1100,
                b"x" * 60000,
                b"",
                CLIENT.encode(),
            ):
                assert_no_answer(here, data, 0.1)
        assert not may_relay(server)
        for reason in ("signature", "unsigned", "clock", "malformed", "too-long"):
            server.wait_for(f"reason={reason}")
    assert "peer.login" not in server.log


def test_only_callers_are_heard(tmp_path: Path, key: Path) -> None:
    """127.0.0.0/8 is this machine, so the stranger comes from another address of it."""
    addresses = _own_addresses()
    if not addresses:
        pytest.skip("this machine has no address but loopback")
    stranger = addresses[0]
    lines = f'key_file = "{key}"\ncallers = ["192.0.2.1"]'
    with site(tmp_path, lines, ANY, host="0.0.0.0") as server:
        data = wire.signed_login(login(1), KEY.encode())
        with talking(server, stranger, stranger) as here:
            assert_no_answer(here, data)
        server.wait_for(f"caller={stranger} reason=stranger")
        assert not may_relay(server)
        with talking(server) as here:
            assert wire.is_answer(ask(here, data), f"{1:032x}", KEY.encode()) is True
        server.config.write_text(server.config.read_text().replace("192.0.2.1", stranger))
        server.send_signal(signal.SIGHUP)
        server.wait_for("server.reload ")
        with talking(server, stranger, stranger) as here:
            assert wire.is_answer(ask(here, data), f"{1:032x}", KEY.encode()) is True


def _own_addresses() -> list[str]:
    shown = subprocess.run(["hostname", "-I"], capture_output=True, text=True, check=False).stdout.split()
    return [address for address in shown if "." in address]


def test_a_forged_source_gets_no_more_than_it_sent(tmp_path: Path, key: Path) -> None:
    """Who sends a recorded login in another's name has the answer sent there: it is shorter."""
    with site(tmp_path, f'key_file = "{key}"', ANY) as server, talking(server, "127.0.0.5") as here:
        shortest = wire.PeerLogin(ClientAddress.parse("::"), "", "", time.time(), f"{1:032x}")
        for number, told in enumerate((login(7), shortest)):
            data = wire.signed_login(told, KEY.encode())
            assert len(ask(here, data)) < len(data), number
            with talking(server, "127.0.0.6") as forged:
                assert len(ask(forged, data)) < len(data)
                with pytest.raises(TimeoutError):
                    forged.settimeout(0.2)
                    forged.recv(2000)


def test_the_answer_comes_from_the_address_that_was_asked(
    tmp_path: Path, key: Path, programs: Installed
) -> None:
    with site(tmp_path, f'key_file = "{key}"', host="0.0.0.0") as server:
        done = send(programs, server, host="127.0.0.77", RELAY_CTRL_KEY=str(key))
        assert done.stderr == b""


def test_a_repetition_is_answered_and_grants_nothing_even_after_death_and_reload(
    tmp_path: Path, key: Path
) -> None:
    """Two workers, then a killed one, then a reload, then a restart: the same datagram never counts again."""
    server = site(tmp_path, f'key_file = "{key}"', ANY, workers=2)
    with server, talking(server) as here:
        data = wire.signed_login(login(1), KEY.encode())
        answer = ask(here, data)
        for _ in range(20):
            assert ask(here, data) == answer
        assert may_relay(server)
        server.command("grant", "revoke", CLIENT)
        assert not may_relay(server)
        for pid in _workers(server):
            os.kill(pid, signal.SIGKILL)
            assert ask(here, data) == answer
        server.send_signal(signal.SIGHUP)
        server.wait_for("server.reload ")
        for _ in range(5):
            assert ask(here, data) == answer
            time.sleep(0.1)
        assert not may_relay(server)
        assert ask(here, wire.signed_login(login(2), KEY.encode())) != answer
        assert may_relay(server)
        server.command("grant", "revoke", CLIENT)
    assert server.log.count("peer.login") == 2
    with server, talking(server) as here:
        assert ask(here, data) == answer and not may_relay(server)
    assert server.log.count("peer.login") == 2


def _workers(server: Popgate) -> list[int]:
    return [
        int(line.rpartition("pid=")[2])
        for line in server.log.splitlines()
        if "process.start" in line and "process=worker" in line
    ]


def test_a_lost_login_is_sent_again(tmp_path: Path, key: Path, programs: Installed) -> None:
    """The server is not there for the first try; the second finds it."""
    server = site(tmp_path, f'key_file = "{key}"')
    with server:
        port = server.port("relay_ctrl_udp")
    server.config.write_text(server.config.read_text().replace(":0", f":{port}", 1))
    environment = {
        "PATH": "/bin", "TCPREMOTEIP": CLIENT, "USER": "bob", "DOMAIN": "example.org",
        "RELAY_CTRL_KEY": str(key), "RELAY_CTRL_REMOTES": f"127.0.0.1:{port}", "RELAY_CTRL_TRIES": "20",
    }  # fmt: skip
    subprocess.run([programs.path("relay-ctrl-send"), "/bin/true"], env=environment, check=True)
    with server:
        server.wait_for("peer.login", 15)
        assert may_relay(server)


def test_a_flood_is_bounded_and_the_mail_goes_on(tmp_path: Path, key: Path) -> None:
    with site(tmp_path, f'key_file = "{key}"', ANY) as server, talking(server) as here:
        good = wire.signed_login(login(1), KEY.encode())
        sent, end = 0, time.monotonic() + 1.5
        slowest = 0.0
        junk = wire.signed_login(login(2), b"a key that nobody shares")
        while time.monotonic() < end:
            for _ in range(200):
                here.send(junk)
                sent += 1
            before = time.monotonic()
            may_relay(server, "127.0.0.8")
            slowest = max(slowest, time.monotonic() - before)
        assert sent > 500 and slowest < 2.0
        assert wire.is_answer(ask(here, good), f"{1:032x}", KEY.encode()) is True
        assert may_relay(server)
    told = server.log.count("peer.refused ")
    more = server.log.rpartition("peer.refused.more reason=callers count=")[2].split()[0]
    assert told == 10 and 0 < int(more) <= sent - 10


def test_one_process_at_a_time_reads(tmp_path: Path, key: Path) -> None:
    with site(tmp_path, f'key_file = "{key}"', ANY, workers=3) as server:
        path = server.directory / "data/peer-logins"

        def holders() -> list[int]:
            """The workers that have the file open, which is those with the lock."""
            return [
                pid
                for pid in _workers(server)
                if any(
                    os.path.realpath(name) == str(path.resolve())
                    for name in Path(f"/proc/{pid}/fd").glob("*")
                )
            ]

        assert len(holders()) == 1
        first = holders()[0]
        os.kill(first, signal.SIGKILL)
        with talking(server) as here:
            ask(here, wire.signed_login(login(1), KEY.encode()))
        assert len(holders()) == 1 and holders() != [first]
        path.unlink()
        server.wait_for("made anew")
        with talking(server) as here:
            ask(here, wire.signed_login(login(2), KEY.encode()))
        assert path.exists() and len(holders()) == 1 and path.stat().st_mode & 0o777 == 0o600


def test_a_new_key_counts_after_a_reload(tmp_path: Path, key: Path, programs: Installed) -> None:
    other = write_key(tmp_path / "other", "the key of the next year")
    with site(tmp_path, f'key_file = "{key}"') as server:
        assert b"Timed out" in send(programs, server, RELAY_CTRL_KEY=str(other)).stderr
        write_key(key, "the key of the next year")
        server.send_signal(signal.SIGHUP)
        server.wait_for("server.reload ")
        done = send(programs, server, RELAY_CTRL_KEY=str(other), RELAY_CTRL_TRIES="3")
        assert done.stderr == b"" and may_relay(server)
        key.chmod(0o604)
        server.send_signal(signal.SIGHUP)
        server.wait_for("server.reload.refused")
        assert send(programs, server, RELAY_CTRL_KEY=str(other)).stderr == b""


def test_a_reload_brings_and_takes_the_listener(tmp_path: Path, key: Path, programs: Installed) -> None:
    """With a TCP listener of the same number, which is another port and stays as it is."""
    server = site(tmp_path, f'key_file = "{key}"')
    with server:
        port = server.port("smtp")
        text = server.config.read_text()
        table = text[text.index("[[listener]]") : text.index("[[listener]]", text.index("[[listener]]") + 2)]
        without = text.replace(table, "").replace("127.0.0.1:0", f"127.0.0.1:{port}")
        server.config.write_text(without)
        server.send_signal(signal.SIGHUP)
        server.wait_for("server.reload ")
        assert b"Timed out" in send(programs, server, RELAY_CTRL_KEY=str(key)).stderr
        server.config.write_text(without + table.replace("127.0.0.1:0", f"127.0.0.1:{port}"))
        server.send_signal(signal.SIGHUP)
        server.wait_for("server.reload ", count=2)
        server.ports[0] = port
        done = send(programs, server, RELAY_CTRL_KEY=str(key), RELAY_CTRL_TRIES="3")
        assert done.stderr == b"" and may_relay(server)


def test_what_has_come_in_is_answered_before_the_end(tmp_path: Path, key: Path) -> None:
    with site(tmp_path, f'key_file = "{key}"', ANY) as server, talking(server) as here:
        (pid,) = _workers(server)
        os.kill(pid, signal.SIGSTOP)
        here.send(wire.signed_login(login(1), KEY.encode()))
        server.send_signal(signal.SIGTERM)
        time.sleep(0.3)
        os.kill(pid, signal.SIGCONT)
        assert wire.is_answer(here.recv(2000), f"{1:032x}", KEY.encode()) is True


def test_unsigned_datagrams_between_loopback_addresses(tmp_path: Path, programs: Installed) -> None:
    with site(tmp_path, "", ANY) as server:
        assert send(programs, server).stderr == b""
        assert may_relay(server) and "form=plain" in server.log
        with talking(server) as here:
            assert ask(here, b"127.0.0.10\0rest") == b"\x01"
            assert_no_answer(here, b"127.0.0.10x")
            assert_no_answer(here, wire.signed_login(login(1), KEY.encode()))


def test_a_login_that_may_have_no_grant_is_answered_so(
    tmp_path: Path, key: Path, programs: Installed
) -> None:
    with site(tmp_path, f'key_file = "{key}"', '[grants]\nnever = ["127.0.0.0/8"]\n') as server:
        done = send(programs, server, RELAY_CTRL_KEY=str(key))
        assert b"could not record the login" in done.stderr and not may_relay(server)


def test_user_and_domain_that_disagree_give_nothing(tmp_path: Path, key: Path) -> None:
    with site(tmp_path, f'key_file = "{key}"', ANY) as server, talking(server) as here:
        data = wire.signed_login(login(1, user="bob@elsewhere.example"), KEY.encode())
        assert wire.is_answer(ask(here, data), f"{1:032x}", KEY.encode()) is False
        assert not may_relay(server)
        server.wait_for("reason=two-domains")
        data = wire.signed_login(login(2, user="bob@example.org"), KEY.encode())
        assert wire.is_answer(ask(here, data), f"{2:032x}", KEY.encode()) is True


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_as_root_the_key_is_read_and_the_port_is_bound_for_the_user(
    open_path: Path, programs: Installed
) -> None:
    (open_path / "keys").mkdir(mode=0o755)
    key = write_key(open_path / "keys/key")
    server = site(open_path, f'key_file = "{key}"')
    server.config.write_text('user = "nobody"\n' + server.config.read_text())
    process = _serve_to_the_end(server)
    assert process.returncode == 2 and b"nobody cannot read it" in process.stderr
    assert b"listener.0.key_file" in process.stderr and f"chown nobody {key}".encode() in process.stderr
    os.chown(key, 65534, -1)
    key.parent.chmod(0o700)  # only who becomes the user finds that
    process = _serve_to_the_end(server)
    assert process.returncode == 2 and b"as the user that popgate runs as" in process.stderr
    key.parent.chmod(0o755)
    os.chown(server.directory, 65534, -1)
    with server:
        (pid,) = _workers(server)
        assert "\nUid:\t65534\t65534\t65534" in Path(f"/proc/{pid}/status").read_text()
        assert send(programs, server, RELAY_CTRL_KEY=str(key)).stderr == b""
        assert (server.directory / "data/peer-logins").stat().st_uid == 65534
        assert may_relay(server)


def _serve_to_the_end(server: Popgate) -> "subprocess.CompletedProcess[bytes]":
    command = [sys.executable, "-m", "popgate", "serve", "--config", str(server.config)]
    return subprocess.run(command, env=server.environment, capture_output=True, timeout=30, check=False)


@pytest.mark.parametrize(
    ("lines", "host", "status", "text"),
    [
        ("", "0.0.0.0", 2, "could let any address relay"),
        ("", "[::]", 2, "could let any address relay"),
        ("", "192.0.2.1", 2, "could let any address relay"),
        ("", "127.0.0.1", 0, "unsigned logins name nobody"),
        ("insecure = true", "0.0.0.0", 0, "in a caller's name lets any address relay"),
        ("insecure = true", "0.0.0.0", 0, "only this machine may tell of logins"),
        ('key_file = "{good}"', "0.0.0.0", 0, "only this machine may tell of logins"),
        ('key_file = "{good}"\ncallers = ["0.0.0.0/0"]', "0.0.0.0", 2, "is most of the Internet"),
        ('key_file = "{good}"\ncallers = ["mail"]', "0.0.0.0", 2, "is not a network"),
        ('key_file = "{open}"', "127.0.0.1", 2, "everybody on this machine can read"),
        ('key_file = "{group}"', "127.0.0.1", 2, "its group can replace the key"),
        ('key_file = "{short}"', "127.0.0.1", 2, "holds 5 octets"),
        ('key_file = "{good}x"', "127.0.0.1", 2, "there is no such file"),
        ('tls = "starttls"', "127.0.0.1", 2, "datagrams have no TLS"),
        ('proxy_from = ["192.0.2.1"]', "127.0.0.1", 2, "no PROXY header"),
        ('relay_by = ["grant"]', "127.0.0.1", 2, "datagrams relay nothing"),
        ('insecure = "yes"', "127.0.0.1", 2, "must be true or false"),
        ('command = ["cat"]', "127.0.0.1", 0, "says nothing for service"),
        ("backlog = 7", "127.0.0.1", 0, "says nothing for service"),
    ],
)
def test_config_check(tmp_path: Path, lines: str, host: str, status: int, text: str) -> None:
    for name, mode, content in (("good", 0o640, KEY), ("open", 0o604, KEY), ("group", 0o660, KEY),
                                ("short", 0o600, "short")):  # fmt: skip
        write_key(tmp_path / name, content).chmod(mode)
        lines = lines.replace(f"{{{name}}}", str(tmp_path / name))
    server = site(tmp_path, lines, host=host)
    done = server.command("config", "check", check=False)
    assert done.returncode == status, done.stdout + done.stderr
    said = done.stdout + done.stderr
    assert text in said and f"{server.config}:" in said and "listener.0." in said


def test_tcp_and_udp_may_have_one_port_and_elsewhere_the_settings_say_nothing(
    tmp_path: Path, key: Path
) -> None:
    server = Popgate(
        tmp_path / "site",
        [("relay_ctrl_udp", f'key_file = "{key}"'), ("smtp", "insecure = true"), ("relay_ctrl_udp", "")],
    )
    text = server.config.read_text()
    server.config.write_text(text.replace(":0", ":4025", 2))
    done = server.command("config", "check")
    assert 'says nothing for service = "smtp"' in done.stderr + done.stdout
    server.config.write_text(text.replace(":0", ":4025", 3))
    done = server.command("config", "check", check=False)
    assert done.returncode == 2 and "is taken: listener 0" in done.stderr + done.stdout
