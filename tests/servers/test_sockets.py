"""Listening sockets from `bind`."""

import grp
import os
import socket
import stat
import struct
from pathlib import Path

import pytest

from popgate.servers.sockets import ListenError, SocketAccess, bound_name, notice_vanished, open_listener


def test_inet_and_inet6_take_a_free_port_and_tell_it() -> None:
    with open_listener("127.0.0.1:0", 128) as listener:
        host, _, port = bound_name(listener).rpartition(":")
        assert host == "127.0.0.1"
        assert int(port) == listener.getsockname()[1] > 0
        with socket.create_connection((host, int(port))):
            pass
    with open_listener("[::1]:0", 128) as listener:
        assert bound_name(listener).startswith("[::1]:")
        assert listener.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY) == 1


@pytest.mark.parametrize("backlog", [1, 7, 60])
def test_as_many_connections_wait_as_are_asked_for(backlog: int) -> None:
    with open_listener("127.0.0.1:0", backlog) as listener:
        assert waiting_at_most(listener) == backlog


def waiting_at_most(listener: socket.socket) -> int:
    """tcpi_sacked of a listening socket in struct tcp_info (tcp(7))."""
    info = listener.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 104)
    (most,) = struct.unpack_from("I", info, 28)
    return int(most)


def test_a_port_in_use_is_named_with_a_remedy() -> None:
    with open_listener("127.0.0.1:0", 128) as listener, pytest.raises(ListenError) as caught:
        open_listener(bound_name(listener), 128)
    assert "cannot listen on 127.0.0.1:" in str(caught.value)
    assert "Address already in use" in str(caught.value)
    assert "ss -ltnp" in str(caught.value)


def test_unix_replaces_the_socket_of_a_killed_server_but_no_file(tmp_path: Path) -> None:
    path = tmp_path / "smtp"
    first = open_listener(f"unix:{path}", 128)
    first.close()
    with open_listener(f"unix:{path}", 128) as listener:
        assert bound_name(listener) == f"unix:{path}"
        assert path.stat().st_mode & 0o007 == 0, "strangers can connect"
    path.unlink()
    path.write_text("precious")
    with pytest.raises(ListenError):
        open_listener(f"unix:{path}", 128)
    assert path.read_text() == "precious"


def test_fd_takes_the_socket_that_systemd_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ListenError, match=r"is there a \.socket unit"):
        open_listener("fd:smtp", 128)
    pid = os.fork()
    if pid == 0:  # descriptors 3 and up have to be exactly those that were passed
        status = 1
        try:
            os.closerange(3, 64)
            for _ in range(2):
                inherited = socket.create_server(("127.0.0.1", 0))
                inherited.detach()
            names = {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "2", "LISTEN_FDNAMES": "pop3:smtp"}
            os.environ.update(names)
            with open_listener("fd:smtp", 128) as listener, socket.socket(fileno=os.dup(4)) as wanted:
                assert listener.getsockname() == wanted.getsockname()
            try:
                open_listener("fd:imap", 128)
            except ListenError as fault:
                assert "pop3, smtp" in str(fault)
                status = 0
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


@pytest.mark.parametrize("mode", [0o600, 0o660, 0o666, 0o200])
def test_a_unix_socket_has_the_mode_that_is_asked_for_from_the_start(tmp_path: Path, mode: int) -> None:
    with open_listener(f"unix:{tmp_path}/s", 128, SocketAccess(mode)):
        assert stat.S_IMODE((tmp_path / "s").stat().st_mode) == mode
    assert os.umask(os.umask(0)) == os.umask(os.umask(0)), "the umask is as it was"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files to any group")
def test_a_unix_socket_has_the_group_that_is_asked_for(tmp_path: Path) -> None:
    own = os.getegid()
    with open_listener(f"unix:{tmp_path}/s", 128, SocketAccess(0o660, "nogroup")):
        assert (tmp_path / "s").stat().st_gid == grp.getgrnam("nogroup").gr_gid
    assert os.getegid() == own


def test_a_group_that_there_is_not_is_named(tmp_path: Path) -> None:
    with pytest.raises(ListenError, match="there is no group no-such-group"):
        open_listener(f"unix:{tmp_path}/s", 128, SocketAccess(0o660, "no-such-group"))
    assert not (tmp_path / "s").exists()


def test_a_client_that_vanished_is_noticed_within_minutes() -> None:
    with open_listener("127.0.0.1:0", 128) as listener:
        notice_vanished(listener)
        with socket.create_connection(listener.getsockname()):
            accepted, _ = listener.accept()
            with accepted:
                assert accepted.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
                idle, interval, probes, unacknowledged_ms = (
                    accepted.getsockopt(socket.IPPROTO_TCP, option)
                    for option in (
                        socket.TCP_KEEPIDLE,
                        socket.TCP_KEEPINTVL,
                        socket.TCP_KEEPCNT,
                        socket.TCP_USER_TIMEOUT,
                    )
                )
                assert 60 <= idle < idle + probes * interval <= 300
                # tcp(7): it overrides the probes' own end, so it must leave room for them
                assert unacknowledged_ms == (idle + probes * interval) * 1000


def test_unix_sockets_need_no_probes(tmp_path: Path) -> None:
    with open_listener(f"unix:{tmp_path}/s", 128) as listener:
        notice_vanished(listener)
