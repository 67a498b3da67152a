"""A journal file that systemd-journal-remote writes, with the fields that journald fills in."""

import subprocess
import time
from pathlib import Path

from support import peers

LOGIN = "imap-login: Login: user=<%s>, method=PLAIN, rip=%s, lip=192.0.2.1, mpid=2, session=<%s>"


class Journal:
    """A journal file; entries have the fields that journald fills in."""

    def __init__(self, directory: Path) -> None:
        self.file = directory / "mail.journal"
        self.at = time.time() - 100
        self.directory = directory

    def write(self, message: str | bytes, **fields: str) -> None:
        self.at += 0.01
        all_fields = {
            "__REALTIME_TIMESTAMP": str(int(self.at * 1e6)),
            "__MONOTONIC_TIMESTAMP": str(int((self.at - time.time() + 1000) * 1e6)),
            "_BOOT_ID": "a" * 32,
            "_MACHINE_ID": "b" * 32,
            "_HOSTNAME": "mail",
            "_UID": "0",
            "_PID": "123",
            "_COMM": "log",
            "_SYSTEMD_UNIT": "dovecot.service",
            "SYSLOG_IDENTIFIER": "dovecot",
            **fields,
        }
        octets = message.encode() if isinstance(message, str) else message
        text = "".join(f"{name}={item}\n" for name, item in all_fields.items() if item).encode()
        # the export format's form for any octets
        text += b"MESSAGE\n" + len(octets).to_bytes(8, "little") + octets + b"\n\n"
        source = self.directory / "export"
        source.write_bytes(text)
        subprocess.run(
            [peers.require("systemd-journal-remote"), "-o", str(self.file), str(source)],
            check=True,
            capture_output=True,
        )

    def login(self, user: str, client: str = "2001:db8::9", session: str = "s", **fields: str) -> None:
        self.write(LOGIN % (user, client, session), **fields)

    @property
    def command(self) -> list[str]:
        return ["journalctl", f"--file={self.file}"]
