"""The rule file of a listener (`-x`), read again when tcprules has replaced it."""

import os
import stat

from popgate.integrations.ucspi.cdb import Cdb, CdbError
from popgate.integrations.ucspi.rules import RuleError, Verdict, candidates, parse_instructions

_MOST_OCTETS = 256 * 1024 * 1024
_ALLOWED = Verdict(False, {})


class RulesUnavailable(Exception):
    """The rules cannot be read; the text says why. Nobody may be let in then."""


class RuleFile:
    """The rules at `path`. `may_be_missing`: without the file everybody is let in (`-X`)."""

    def __init__(self, path: str, *, may_be_missing: bool = False) -> None:
        self._path = path
        self._may_be_missing = may_be_missing
        self._state: tuple[int, int, int, int] | None = None
        self._rules: Cdb | None = None

    def decide(self, client: str, host: str | None, info: str | None) -> Verdict:
        """What the first matching rule says; without one the client is let in. Raises RulesUnavailable."""
        try:
            rules = self._current()
            if rules is None:
                return _ALLOWED
            for address in candidates(client, host, info):
                record = rules.find(address)
                if record is not None:
                    return parse_instructions(record)
        except FileNotFoundError as fault:
            if self._may_be_missing:
                return _ALLOWED
            raise RulesUnavailable(f"{self._path}: {fault.strerror}") from fault
        except OSError as fault:
            raise RulesUnavailable(f"{self._path}: {fault.strerror}") from fault
        except (CdbError, RuleError) as fault:
            raise RulesUnavailable(f"{self._path}: {fault}") from fault
        return _ALLOWED

    def _current(self) -> Cdb | None:
        found = os.stat(self._path)
        state = (found.st_dev, found.st_ino, found.st_mtime_ns, found.st_size)
        if state != self._state:
            self._state, self._rules = None, None
            # not a FIFO that somebody has put there: its open must not wait
            file = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
            with open(file, "rb") as stream:
                found = os.fstat(file)
                if not stat.S_ISREG(found.st_mode):
                    raise RulesUnavailable(f"{self._path}: not a file")
                if found.st_size > _MOST_OCTETS:
                    raise RulesUnavailable(f"{self._path}: too large")
                self._rules = Cdb(stream.read())
            self._state = (found.st_dev, found.st_ino, found.st_mtime_ns, found.st_size)
        return self._rules
