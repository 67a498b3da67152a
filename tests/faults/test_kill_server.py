"""kill -9 of all processes under load: every acknowledged message arrives, whole, at least once."""

import hashlib
import random
import smtplib
import threading
import time
from pathlib import Path

import pytest

from support.popgate import Popgate
from support.soak import rounds

USERS = ("alice@example.org", "bob@example.org")
CLIENTS = 8
_SIZES = (200, 4096, 20_000, 150_000)  # the last goes through a body file


class Load:
    """Clients that send until the server dies, and remember what was acknowledged."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.sent: dict[str, str] = {}  # message id to digest, for each 250 that was read
        self._lock = threading.Lock()
        self._counter = 0

    def body(self, size: int) -> tuple[str, str, str]:
        with self._lock:
            self._counter += 1
            name = f"{self.seed}-{self._counter}"
            filler = random.Random(f"{self.seed} {self._counter}").randbytes(size // 2).hex()
        lines = "\r\n".join(filler[at : at + 76] for at in range(0, len(filler), 76))
        return name, hashlib.sha256(lines.encode()).hexdigest(), lines

    def run(self, port: int) -> None:
        """One client, until its connection breaks."""
        chooser = random.Random()
        try:
            with smtplib.SMTP("127.0.0.1", port, timeout=10) as client:
                while True:
                    name, digest, lines = self.body(chooser.choice(_SIZES))
                    head = f"Subject: load\r\nX-Load: {name}\r\nX-Digest: {digest}\r\n\r\n"
                    client.sendmail("sender@example.net", chooser.sample(USERS, 1), head + lines + "\r\n")
                    with self._lock:
                        self.sent[name] = digest
        except (OSError, smtplib.SMTPException):
            pass


def arrived(root: Path) -> dict[str, set[str]]:
    """Message id to the digests of what lies in the mailboxes under it, recomputed from the bodies."""
    found: dict[str, set[str]] = {}
    for path in root.glob("*/*/*/*"):
        if path.parent.name not in ("new", "cur"):
            continue
        head, _, body = path.read_text().partition("\n\n")
        fields = dict(line.split(": ", 1) for line in head.split("\n") if line.startswith("X-"))
        digest = hashlib.sha256(body.rstrip("\n").replace("\n", "\r\n").encode()).hexdigest()
        assert digest == fields["X-Digest"], f"{path} is not whole"
        found.setdefault(fields["X-Load"], set()).add(digest)
    return found


@pytest.mark.slow
@pytest.mark.timeout(3000)
def test_every_acknowledged_message_arrives_after_kill_minus_nine(tmp_path: Path) -> None:
    server = Popgate(tmp_path / "site", workers=2)
    for user in USERS:
        server.add_account(user, "secret-enough")
    load = Load(random.randrange(1 << 30))
    for _ in range(rounds(3)):
        server.start()
        clients = [threading.Thread(target=load.run, args=(server.port("smtp"),)) for _ in range(CLIENTS)]
        for client in clients:
            client.start()
        time.sleep(random.uniform(0.05, 0.8))
        server.kill()
        for client in clients:
            client.join()
    assert load.sent, "nothing was acknowledged, so nothing was tested"
    with server:
        deadline = time.monotonic() + 120
        missing = set(load.sent)
        while missing and time.monotonic() < deadline:
            time.sleep(0.5)
            missing = set(load.sent) - set(arrived(server.directory / "data" / "mail"))
        assert not missing, (
            f"{len(missing)} of {len(load.sent)} acknowledged messages are lost: {sorted(missing)[:5]}"
        )
    print(f"{len(load.sent)} acknowledged messages, all arrived")
