"""Reading an old mail log, in processor time a megabyte. Row `log-replay` of bench/run.py.

The log is made up in proportions of a busy server's: most lines are of mail taken in or refused, one
in fifty of a login or its end. The goal is 1 GB in a minute on one core, whatever the patterns.
"""

import random
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from zoneinfo import ZoneInfo

from bench.load import Trial
from popgate.integrations.logs import Pattern, Recogniser, shipped
from popgate.integrations.logs.log_files import blocks

MEGABYTE = 1_000_000
_ENDED_AT = 1795521600.0


def write_log(path: Path, megabytes: int) -> None:
    chance = random.Random(7)
    at = 1793000000.0
    size = 0
    with path.open("w", encoding="ascii") as log:
        while size < megabytes * MEGABYTE:
            at += chance.expovariate(4.0)
            stamp = time.strftime("%b %e %H:%M:%S", time.gmtime(at))
            for text in _happens(chance):
                size += log.write(f"{stamp} mail {text}\n")


def _happens(chance: random.Random) -> Iterator[str]:
    kind, pid = chance.random(), chance.randrange(1000, 60000)
    address = f"203.0.113.{chance.randrange(1, 255)}"
    if kind < 0.04:
        user, session = f"user{chance.randrange(5000)}@example.org", f"{chance.getrandbits(64):x}"
        yield (
            f"dovecot: imap-login: Login: user=<{user}>, method=PLAIN, rip={address}, lip=192.0.2.1,"
            f" mpid={pid}, TLS, session=<{session}>"
        )
        yield f"dovecot: imap({user})<{pid}><{session}>: Disconnected: Logged out in=120 out=757 deleted=0"
    elif kind < 0.08:
        yield (
            "dovecot: pop3-login: Disconnected: Connection closed (auth failed, 1 attempts in 2 secs):"
            f" user=<info>, method=PLAIN, rip={address}, lip=192.0.2.1, session=<{chance.getrandbits(64):x}>"
        )
    elif kind < 0.3:
        yield f"postfix/smtpd[{pid}]: connect from unknown[{address}]"
        yield (
            f"postfix/smtpd[{pid}]: NOQUEUE: reject: RCPT from unknown[{address}]: 554 5.7.1 Service refused;"
            f" from=<x@spam.example> to=<user@example.org> proto=ESMTP helo=<host{pid}>"
        )
        yield f"postfix/smtpd[{pid}]: disconnect from unknown[{address}] ehlo=1 mail=1 rcpt=0/1 quit=1"
    else:
        queue_id = f"{chance.getrandbits(40):010X}"
        yield f"postfix/smtpd[{pid}]: connect from mx.example.net[{address}]"
        yield f"postfix/smtpd[{pid}]: {queue_id}: client=mx.example.net[{address}]"
        yield f"postfix/cleanup[{pid}]: {queue_id}: message-id=<{queue_id}@example.net>"
        yield f"postfix/qmgr[777]: {queue_id}: from=<a@example.net>, size={pid}, nrcpt=1 (queue active)"
        yield (
            f"postfix/lmtp[{pid}]: {queue_id}: to=<user@example.org>, relay=mail[private/lmtp], delay=0.3,"
            " delays=0.2/0/0/0.1, dsn=2.0.0, status=sent (250 2.0.0 Saved)"
        )
        yield f"postfix/qmgr[777]: {queue_id}: removed"


def replays(directory: str, megabytes: int) -> dict[str, Callable[[], Trial]]:
    """Contenders: every pattern that is shipped, and one."""
    path = Path(tempfile.mkstemp(suffix=".log", dir=directory)[1])
    write_log(path, megabytes)
    return {
        "all patterns": lambda: _read(path, list(shipped().values())),
        "Dovecot's": lambda: _read(path, [shipped()["dovecot"]]),
    }


def _read(path: Path, patterns: list[Pattern]) -> Trial:
    recogniser = Recogniser(patterns, ZoneInfo("UTC"), replays=True)
    seen = 0
    start, used = time.perf_counter(), time.process_time()
    with path.open("rb") as log:
        for block in blocks(log):
            seen += len(recogniser.feed_block(block, _ENDED_AT))
    seconds, used = time.perf_counter() - start, time.process_time() - used
    assert seen, "no login was seen"
    megabytes = path.stat().st_size / MEGABYTE
    return Trial(megabytes / seconds, used / megabytes * 1e6)
