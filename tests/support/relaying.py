"""A Postfix that asks popgate, both configured as docs/postfix.md says, and clients from any address.

Clients log in at popgate's POP3 server behind a PROXY header and talk to Postfix behind XCLIENT, so that
they come from addresses of documentation networks, IPv6 among them, over loopback alone.
"""

import contextlib
import os
import shlex
import signal
import smtplib
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from support import documents, ports
from support.popgate import Popgate
from support.postfix import Postfix

PASSWORD = "correct horse"
ALICE, BOB, BRIEF = "alice@example.org", "bob@example.org", "brief@example.org"
FRIEND = "friend@elsewhere.example"
HERE = "user@here.example"
BRIEF_SECONDS = 2
_WINDOWS = {BRIEF: ("--window", str(BRIEF_SECONDS))}


class RelaySite:
    """popgate below `directory` with the services of `toml`, each documented port or socket elsewhere."""

    def __init__(
        self, directory: Path, toml: str, settings: str = "", people: Sequence[str] = (ALICE,)
    ) -> None:
        self.places: dict[str, str] = {}
        """What stands in the documents, and what it is here; Postfix's lines are changed alike."""
        listeners = [("pop3", 'plaintext_login = true\nproxy_from = ["127.0.0.1"]')]
        for service, bind, more in documents.listeners(toml):
            lines = documents.toml_lines(more)
            if bind.startswith("unix:/var/spool/postfix/"):
                lines += f'\nbind = "unix:{directory}/SPOOL/{bind.removeprefix("unix:/var/spool/postfix/")}"'
            elif bind.startswith("unix:"):
                lines += f'\nbind = "{bind}"'
            elif bind.startswith("127.0.0.1:"):
                if bind not in self.places:
                    self.places[bind] = f"127.0.0.1:{ports.free_port()}"
                lines += f'\nbind = "{self.places[bind]}"'
            listeners.append((service, lines))
        grants = settings or '[grants]\nnever = ["127.0.0.1"]\n'
        self.popgate = Popgate(directory, listeners, grants)
        for name in people:
            self.popgate.add_account(name, PASSWORD, *_WINDOWS.get(name, ()))

    def put_sockets_below(self, queue: Path) -> None:
        """Unix sockets go below Postfix's queue directory, which is known once it runs."""
        text = self.popgate.config.read_text()
        self.popgate.config.write_text(text.replace(f"{self.popgate.directory}/SPOOL", str(queue)))

    def postfix_options(self, main_cf: str) -> dict[str, str]:
        """Documented lines of main.cf, and what lets tests come from anywhere."""
        for place, here in self.places.items():
            main_cf = main_cf.replace(place, here)
        return {
            "smtpd_recipient_restrictions": "",
            "mynetworks": "192.0.2.0/28",
            "mydestination": "here.example",
            "inet_protocols": "all",
            "inet_interfaces": "127.0.0.1",
            "smtpd_authorized_xclient_hosts": "127.0.0.0/8",
            **documents.main_cf(main_cf),
        }

    def log_in(self, address: str, user: str = ALICE) -> None:
        """A POP3 session from `address`: log in and quit."""
        family, own = ("TCP6", "::1") if ":" in address else ("TCP4", "127.0.0.1")
        with socket.create_connection(("127.0.0.1", self.popgate.port("pop3")), 10) as connection:
            talk = connection.makefile("rwb")
            talk.write(f"PROXY {family} {address} {own} 1000 110\r\n".encode())
            talk.flush()
            assert talk.readline().startswith(b"+OK")
            for command in (f"USER {user}", f"PASS {PASSWORD}", "QUIT"):
                talk.write(command.encode() + b"\r\n")
                talk.flush()
                assert talk.readline().startswith(b"+OK"), command

    def type_commands(self, commands: str, port: int, pause_seconds: float = 0.0) -> list[str]:
        """What the documents' commands say, each line typed by a client at 127.0.0.9: `port` is the mail
        server's, and it rests for a while after each."""
        places = {
            "--server mail.example.org": f"--server 127.0.0.1:{port} --local-interface 127.0.0.9",
            "curl ": "curl --interface 127.0.0.9 ",
            ":secret": f":{PASSWORD}",
            "pop3://mail.example.org/": f"pop3://127.0.0.1:{self.popgate.port('pop3', 1)}/",
        }
        said = []
        for line in commands.splitlines():
            for documented, here in places.items():
                line = line.replace(documented, here)
            done = subprocess.run(shlex.split(line), capture_output=True, text=True, timeout=30, check=False)
            said.append(done.stdout + done.stderr)
            time.sleep(pause_seconds)
        return said

    def lose_grants(self) -> None:
        """Take the directory of the grants away from the server that runs."""
        grants = self.popgate.directory / "data/allow"
        gone = grants.rename(grants.with_name("gone"))
        for each in gone.iterdir():
            each.unlink()
        gone.rmdir()

    def workers(self) -> list[int]:
        """The processes of the server that is running, the parent first."""
        pid = self.popgate.pid
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        return [pid, *map(int, children)]

    @contextlib.contextmanager
    def hanging(self) -> Iterator[None]:
        """popgate takes connections and answers nothing."""
        stopped = self.workers()
        for pid in stopped:
            os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            for pid in stopped:
                os.kill(pid, signal.SIGCONT)

    def kill_workers(self) -> None:
        """SIGKILL to all at once; nothing is started again."""
        self.popgate.kill()


class Client:
    """An SMTP client of `postfix` from `address`, which has said EHLO."""

    def __init__(self, postfix: Postfix, address: str) -> None:
        try:
            self.smtp = smtplib.SMTP("127.0.0.1", postfix.port, timeout=60)
        except (OSError, smtplib.SMTPException) as fault:
            raise AssertionError(
                f"Postfix does not greet ({fault}); its log:\n{postfix.log[-3000:]}"
            ) from fault
        self.smtp.ehlo("printer.example.org")
        claim = f"IPV6:{address}" if ":" in address else address
        code, text = self.smtp.docmd(f"XCLIENT ADDR={claim}")
        assert code == 220, text
        self.smtp.ehlo("printer.example.org")
        self.seconds = 0.0

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *_: object) -> None:
        self.smtp.close()

    def ask(self, recipient: str = FRIEND, sender: str = ALICE) -> tuple[int, str]:
        """The answer to RCPT in a transaction of its own, and how long it took in `seconds`."""
        self.smtp.docmd("RSET")
        assert self.smtp.mail(sender)[0] == 250
        return self.add(recipient)

    def add(self, recipient: str) -> tuple[int, str]:
        """One more recipient."""
        began = time.monotonic()
        code, text = self.smtp.rcpt(recipient)
        self.seconds = time.monotonic() - began
        return code, text.decode()

    def data(self, content: str) -> tuple[int, str]:
        code, text = self.smtp.data(content)
        return code, text.decode()


def may_relay(postfix: Postfix, address: str, sender: str = ALICE) -> int:
    """The code of the answer to a recipient elsewhere."""
    with Client(postfix, address) as client:
        return client.ask(sender=sender)[0]


@contextlib.contextmanager
def running(
    directory: Path, toml: str, main_cf: str, settings: str = "", people: Sequence[str] = (ALICE,)
) -> Iterator[tuple[RelaySite, Postfix]]:
    """Both servers, started."""
    site = RelaySite(directory, toml, settings, people)
    with Postfix(site.postfix_options(main_cf)) as postfix, site.popgate:
        yield site, postfix
