"""popgate-table-opensmtpd: the program that smtpd starts for a table of the kind `popgate`.

smtpd asks it about each client that reaches the rule with the table, and waits for the answer before it
does anything else; it does not start without the program, and ends when the program does. So
nothing ends it but smtpd: without settings, without popgate, with a popgate that hangs or talks
rubbish it goes on, lets nobody relay, and says why at most once a minute, in the mail log and
on standard error. It grants nothing and counts nothing.
"""

import os
import select
import sys
import syslog
import time
from collections.abc import Callable
from typing import Final

from popgate.integrations.opensmtpd.asking import Asker, Unanswered
from popgate.integrations.opensmtpd.settings import TableConfigError, read_settings
from popgate.protocols.engine import Wait
from popgate.protocols.opensmtpd_table import Look, OpenSmtpdTable
from popgate.values.spelling import Spellings

NAME: Final = "popgate-table-opensmtpd"
COMPLAIN_AGAIN_SECONDS: Final = 60.0
READ_AGAIN_SECONDS: Final = 1.0
_BLOCK: Final = 65536

Say = Callable[[str], None]


class Table:
    """Decides what the engine asks. `say` takes a line for the log."""

    def __init__(self, path: str, say: Say, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._path = path
        self._say = say
        self._monotonic = monotonic
        self._spellings = Spellings()
        self._asker: Asker | None = None
        self._on_fault = "refuse"
        self._why = ""  # there are no settings
        self._read_at = -READ_AGAIN_SECONDS
        self._complained_at: float | None = None
        self._is_down = False  # and the log says so
        self._unanswered = 0

    def reread(self) -> bool:
        """Read the settings anew; with a file that cannot be used the ones from before stay."""
        self._read_at = self._monotonic()
        try:
            settings = read_settings(self._path)
        except TableConfigError as error:
            self._why = str(error)
            return False
        if self._asker is not None:
            self._asker.close()
        self._asker = Asker(settings, self._monotonic)
        self._on_fault = settings.on_fault
        return True

    def decide(self, engine: OpenSmtpdTable, event: object) -> None:
        if not isinstance(event, Look):
            is_done = self.reread()
            if not is_done:
                self._say(f"{self._why}; the settings from before stay")
            engine.done(is_done=is_done)
            return
        try:
            may_relay = self._may_relay(event.key)
        except Unanswered as fault:
            self._complain(str(fault))
            if self._on_fault == "defer":
                engine.fault()
            else:
                engine.not_found()
            return
        if may_relay:
            engine.found()
        else:
            engine.not_found()

    def _may_relay(self, key: str) -> bool:
        address = self._spellings.find(key)
        if address is None:
            return False  # mail of this machine comes from "local"
        if self._asker is None and self._monotonic() - self._read_at >= READ_AGAIN_SECONDS:
            self.reread()
        if self._asker is None:
            raise Unanswered(self._why)
        may_relay = self._asker.may_relay(address)
        if self._is_down:
            self._say(f"popgate answers again; {self._unanswered} questions had no answer")
            self._is_down, self._unanswered = False, 0
        return may_relay

    def _complain(self, why: str) -> None:
        self._unanswered += 1
        now = self._monotonic()
        if self._complained_at is None or now - self._complained_at >= COMPLAIN_AGAIN_SECONDS:
            self._complained_at = now
            self._is_down = True
            self._say(f"{why}; nobody relays, so far {self._unanswered} questions had no answer")


def serve(table: Table, say: Say) -> int:
    """Answer smtpd until it is done; the exit status."""
    engine = OpenSmtpdTable()
    while True:
        data = _read()
        engine.receive(data)
        while (event := engine.next_event()) is not None:
            table.decide(engine, event)
        output = engine.take_output()
        if output:
            _write(1 if engine.is_text else 0, output)
        if engine.waiting_for is Wait.CLOSE:
            break
    if engine.ended_by in ("quit", "close"):
        return 0
    say(f"what smtpd asked cannot be understood ({engine.ended_by}); smtpd will end")
    return 1


def _read() -> bytes:
    while True:
        try:
            return os.read(0, _BLOCK)
        except BlockingIOError:
            _wait_for(0, select.POLLIN)
        except OSError:
            return b""


def _write(descriptor: int, data: bytes) -> None:
    while data:
        try:
            data = data[os.write(descriptor, data) :]
        except BlockingIOError:
            _wait_for(descriptor, select.POLLOUT)
        except OSError:
            return  # nobody is there; reading tells


def _wait_for(descriptor: int, event: int) -> None:
    poll = select.poll()
    poll.register(descriptor, event)
    poll.poll()


def _log(text: str) -> None:
    line = "".join(char if char.isprintable() else "?" for char in text)[:500]
    syslog.syslog(syslog.LOG_WARNING, line)
    try:
        os.write(2, f"{NAME}: {line}\n".encode("utf-8", "replace"))
    except OSError:
        pass  # nobody listens; no reason to fail


def main() -> None:
    """smtpd gives the path behind `popgate:` as the only argument."""
    if os.isatty(0):
        os.write(
            2, f"{NAME} is started by smtpd, for: table NAME popgate:/etc/popgate/opensmtpd.toml\n".encode()
        )
        os._exit(100)
    syslog.openlog(NAME, syslog.LOG_PID, syslog.LOG_MAIL)
    table = Table(sys.argv[1] if len(sys.argv) > 1 else "", _log)
    table.reread()
    try:
        status = serve(table, _log)
    except KeyboardInterrupt:
        status = 0
    os._exit(status)
