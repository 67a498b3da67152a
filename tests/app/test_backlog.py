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
    pids = [int(line.rpartition("pid=")[2]) for line in server.log.splitlines() if "process=worker-" in line]
    running = [pid for pid in pids if _is_running(pid)]
    assert running
    for pid in running:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in running:
            os.kill(pid, signal.SIGCONT)


def _is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
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
