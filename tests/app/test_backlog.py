"""`backlog` of a listener: so many connections and no more wait while nobody takes them."""

import os
import select
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from support.popgate import Popgate


@contextmanager
def nobody_accepts(server: Popgate) -> Iterator[None]:
    pids = [
        int(line.rpartition("pid=")[2])
        for line in server.log.splitlines()
        if "process.start" in line and "process=worker-" in line
    ]
    stopped = [pid for pid in pids if _stop(pid)]
    assert stopped
    try:
        yield
    finally:
        for pid in stopped:
            os.kill(pid, signal.SIGCONT)
    for port in server.ports:
        _wait_for_turn(port)


def _wait_for_turn(port: int) -> None:
    """Those who wait are taken in their order, so whoever is served now has nobody before him."""
    with socket.create_connection(("127.0.0.1", port), 10) as client:
        client.sendall(b"NOOP\r\n")
        assert client.recv(10)


def _stop(pid: int) -> bool:
    try:
        os.kill(pid, signal.SIGSTOP)
    except ProcessLookupError:  # of the generation before a reload
        return False
    return True


def taken_by_the_kernel(port: int, tries: int) -> int:
    with ExitStack() as stack:
        clients = []
        for _ in range(tries):
            client = stack.enter_context(socket.socket())
            client.setblocking(False)
            client.connect_ex(("127.0.0.1", port))
            clients.append(client)
        time.sleep(0.3)  # a connection that is not taken is tried again after a second
        _, writable, _ = select.select([], clients, [], 0)
        return sum(client.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0 for client in writable)


def test_a_listener_lets_as_many_wait_as_its_backlog_and_a_reload_changes_it(tmp_path: Path) -> None:
    listeners = (("ucspi", 'command = ["cat"]\nbacklog = 2\n'), ("pop3", "backlog = 5\n"))
    with Popgate(tmp_path / "site", listeners) as server:
        ports = server.port("ucspi"), server.port("pop3")
        with nobody_accepts(server):
            # Linux lets one more wait than it was asked for
            assert [taken_by_the_kernel(port, 12) for port in ports] == [3, 6]
        server.config.write_text(server.config.read_text().replace("backlog = 2", "backlog = 7"))
        server.send_signal(signal.SIGHUP)
        server.wait_for("server.reload ")
        with nobody_accepts(server):
            assert [taken_by_the_kernel(port, 12) for port in ports] == [8, 6]
        text = server.config.read_text().replace("backlog = 7", "backlog = 3")
        server.config.write_text(text.replace('["cat"]', '["/nonexistent/qmail-smtpd"]'))
        server.send_signal(signal.SIGHUP)
        server.wait_for("reload refused")
        with nobody_accepts(server):
            assert [taken_by_the_kernel(port, 12) for port in ports] == [8, 6]
