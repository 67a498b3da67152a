"""A real server that other mail servers ask: sockets, who may connect, and what happens at a reload."""

import os
import shlex
import signal
import socket
import stat
import subprocess
from pathlib import Path

import pytest

from relay_site import policy_request
from support.documents import blocks
from support.documents import listeners as listeners_of
from support.popgate import Popgate

SETTINGS = '[grants]\nsender = "bound"\ntrusted = ["198.51.100.0/24"]\n'


def ask(where: int | Path, question: bytes, *, ends: bool = False) -> bytes:
    """What comes back; up to the close where `ends`, else one read."""
    family, place = (
        (socket.AF_UNIX, str(where)) if isinstance(where, Path) else (socket.AF_INET, ("127.0.0.1", where))
    )
    with socket.socket(family) as asker:
        asker.settimeout(5)
        asker.connect(place)
        asker.sendall(question)
        if not ends:
            return asker.recv(4096)
        asker.shutdown(socket.SHUT_WR)
        answer = b""
        while block := asker.recv(4096):
            answer += block
        return answer


def listeners(directory: Path) -> list[tuple[str, str]]:
    return [
        ("pop3", "plaintext_login = true"),
        ("postfix_policy", ""),
        ("socketmap", f'bind = "unix:{directory}/socketmap"\nsocket_mode = "0600"'),
        ("tcp_table", ""),
        ("line", f'bind = "unix:{directory}/line"\nsocket_group = "nogroup"\nline_end = "none"'),
    ]


def test_all_four_services_answer(tmp_path: Path) -> None:
    with Popgate(tmp_path / "site", listeners(tmp_path), SETTINGS, workers=2) as site:
        granted = "198.51.100.7"
        policy = site.port("postfix_policy")
        assert ask(policy, policy_request(granted)) == b"action=permit\n\n"
        assert ask(policy, policy_request("203.0.113.1")) == b"action=dunno\n\n"
        assert ask(policy, policy_request("203.0.113.1") * 50).startswith(b"action=dunno\n\n")
        assert ask(tmp_path / "socketmap", b"20:popgate 198.51.100.7,") == b"8:OK RELAY,"
        assert ask(site.port("tcp_table"), b"get 198.51.100.7\n") == b"200 RELAY\n"
        assert ask(tmp_path / "line", b"relay 198.51.100.7\n", ends=True) == b"yes"
        assert ask(tmp_path / "line", b"relay 203.0.113.1\n") == b"no"
        assert stat.S_IMODE((tmp_path / "socketmap").stat().st_mode) == 0o600
        line = (tmp_path / "line").stat()
        assert stat.S_IMODE(line.st_mode) == 0o660
        if os.geteuid() == 0:
            assert line.st_gid == 65534
        site.wait_for("relay.decide")
        assert ask(policy, b"GET / HTTP/1.1\n\n") == b""
        site.wait_for("relay.unreadable")
    assert not (tmp_path / "line").exists()


def test_the_documented_question(tmp_path: Path) -> None:
    (toml,), (command,) = (blocks("questions.md", "line", language) for language in ("toml", "sh"))
    ((service, bind, more),) = listeners_of(toml)
    assert (service, more) == ("line", {})
    with Popgate(tmp_path / "site", [(service, "")], SETTINGS) as site:
        for client, answer in (("198.51.100.9", "yes\n"), ("203.0.113.9", "no\n")):
            place = f"127.0.0.1/{site.port('line')}"
            line = command.replace(bind.replace(":", "/"), place).replace("203.0.113.9", client)
            assert place in line
            done = subprocess.run(shlex.split(line), capture_output=True, text=True, timeout=10, check=True)
            assert done.stdout == answer


def test_a_hundred_connections_of_one_server_are_taken_and_use_up_nobodys_limit(tmp_path: Path) -> None:
    popgate = Popgate(tmp_path / "site", listeners(tmp_path)[:2], SETTINGS)
    text = popgate.config.read_text()
    assert "connections_per_subnet = 100000" in text
    popgate.config.write_text(text.replace("connections_per_subnet = 100000", "connections_per_subnet = 5"))
    with popgate as site:
        askers = [socket.create_connection(("127.0.0.1", site.port("postfix_policy")), 5) for _ in range(100)]
        for asker in askers:
            asker.sendall(policy_request("198.51.100.7"))
        assert [asker.recv(100) for asker in askers] == [b"action=permit\n\n"] * 100
        with socket.create_connection(("127.0.0.1", site.port("pop3")), 5) as client:
            assert client.recv(100).startswith(b"+OK")
        for asker in askers:
            asker.close()


def test_too_many_connections_get_no_answer_and_never_a_yes(tmp_path: Path) -> None:
    with Popgate(tmp_path / "site", [("postfix_policy", "max_connections = 1")], SETTINGS) as site:
        port = site.port("postfix_policy")
        with socket.create_connection(("127.0.0.1", port), 5) as first:
            first.sendall(policy_request("198.51.100.7"))
            assert first.recv(100) == b"action=permit\n\n"
            with socket.create_connection(("127.0.0.1", port), 5) as second:
                try:
                    second.sendall(policy_request("198.51.100.7"))
                    assert second.recv(100) == b""
                except ConnectionError:
                    pass
            first.sendall(policy_request("198.51.100.7"))
            assert first.recv(100) == b"action=permit\n\n"
        site.wait_for("limit-listener")


def test_only_listed_machines_may_ask(tmp_path: Path) -> None:
    """Bound to every address, and asked from one of this machine's own that is not loopback."""
    own = _own_address()
    if own is None:
        pytest.skip("this machine has loopback addresses only")
    for callers, answer in ((["192.0.2.25"], b""), ([own], b"200 RELAY\n")):
        more = f'bind = "0.0.0.0:0"\ncallers = {callers!r}'.replace("'", '"')
        with Popgate(tmp_path / callers[0], [("tcp_table", more)], SETTINGS) as site:
            with socket.create_connection((own, site.port("tcp_table")), 5) as asker:
                try:
                    asker.sendall(b"get 198.51.100.7\n")
                    assert asker.recv(100) == answer
                except ConnectionError:
                    assert answer == b""
            assert ask(site.port("tcp_table"), b"get 198.51.100.7\n") == b"200 RELAY\n"
            if not answer:
                site.wait_for("not-a-caller")


def test_a_reload_answers_what_was_asked_and_then_closes(tmp_path: Path) -> None:
    with Popgate(tmp_path / "site", [("postfix_policy", "")], SETTINGS) as site:
        with socket.create_connection(("127.0.0.1", site.port("postfix_policy")), 5) as asker:
            asker.sendall(policy_request("198.51.100.7"))
            assert asker.recv(100) == b"action=permit\n\n"
            site.send_signal(signal.SIGHUP)
            assert asker.recv(100) == b""  # at once: nobody is in the middle of anything
        assert ask(site.port("postfix_policy"), policy_request("198.51.100.7")) == b"action=permit\n\n"


def _own_address() -> str | None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # sends nothing
        except OSError:
            return None
        address: str = probe.getsockname()[0]
    return None if address.startswith("127.") else address
