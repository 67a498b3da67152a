"""A login as relay-ctrl-allow and relay-ctrl-udp put it into the grant directory.

As long as one person uses an address, the file is byte for byte what relay-ctrl-allow writes.
Where others hold grants there, or a server of ours counts what was relayed, their records are
kept behind it, under the same lock as the server takes (the theory is with
popgate.grants.stores.directory). A file that nobody can merge is replaced, as the original does:
a login counts, whatever lay there.
"""

import fcntl
import os
import time

from popgate.commands.chain import Program, reason
from popgate.commands.place import Place
from popgate.grants.stores import spool
from popgate.values.identity import Identity, IdentityError

LOCK_SECONDS = 0.5
"""After that the login is written without the lock: another user could hold it for ever."""

MAX_AGE_SECONDS = 43200
"""How long a grant's counts are kept; the server's default, as there is no variable for it."""

_FUTURE = 2 * spool.MICRO
_NAMES_AT_MOST = 100
_LOCK_WAIT_SECONDS = 0.002
_NEXT_NAME_SECONDS = 0.000003  # a single microsecond can be lost in rounding, and the name be the same


class Login:
    """Who logged in, as the environment says: the names as they came, and what they mean."""

    __slots__ = ("domain", "identity", "user")

    def __init__(self, user: str | None, domain: str | None) -> None:
        """Raises IdentityError for names that popgate does not accept."""
        self.user = user or None
        self.domain = domain or None
        self.identity: Identity | None = None
        if self.user is not None:
            if "@" in self.user:  # some password checkers set USER to the whole name
                self.identity = Identity.parse(self.user)
                if self.domain is not None and self.domain.lower() != self.identity.domain:
                    raise IdentityError("USER and DOMAIN speak of two domains")
            else:
                self.identity = Identity(self.user, self.domain or "")
        elif self.domain is not None:
            Identity("x", self.domain)

    def content(self) -> bytes:
        """The file as relay-ctrl-allow writes it."""
        out = b""
        if self.user is not None:
            out += b"USER=%b\0" % self.user.encode("ascii")
        if self.domain is not None:
            out += b"DOMAIN=%b\0" % self.domain.encode("ascii")
        return out


def record(place: Place, name: str, login: Login, window: int, mode: int, program: Program) -> bool:
    """Record a login from the address `name`; False after a warning that says why there is no grant."""
    lock = _locked(place.descriptor)
    try:
        now_ns = time.time_ns()
        content, modified_ns = _merged(place, name, login, window, now_ns)
        return _put(place, name, content, modified_ns, mode, program)
    finally:
        if lock is not None:
            os.close(lock)


def _locked(directory: int) -> int | None:
    """A descriptor that holds the lock; None where the directory may not be read, or is locked too long.

    A descriptor of our own: the inherited one is shared with every other connection, and so
    would its lock be.
    """
    try:
        lock = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=directory)
    except OSError:
        return None
    deadline = 0.0
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return lock
        except OSError as error:
            now = time.monotonic()
            deadline = deadline or now + LOCK_SECONDS
            if not isinstance(error, BlockingIOError) or now >= deadline:
                os.close(lock)
                return None
            time.sleep(_LOCK_WAIT_SECONDS)


def _merged(place: Place, name: str, login: Login, window: int, now_ns: int) -> tuple[bytes, int]:
    """The bytes of the file after the login, and its modification time."""
    now = now_ns // 1000
    kept: list[spool.Record] = []
    before: spool.Record | None = None
    for each in _records(place, name):
        if each.identity == login.identity:
            before = each if _counts(each, now) else None
        elif each.login <= now + _FUTURE:
            if _is_live(each, window, now):
                kept.append(each)
            elif _counts(each, now):
                each.login = each.renewed = 0
                kept.append(each)
    if not kept and before is None:
        return login.content(), now_ns
    first = spool.Record(login.identity, "relay-ctrl", now, now, now)
    if before is not None:
        first.since, first.used = min(before.since, now), before.used
        first.window, first.max_age, first.quotas = before.window, before.max_age, before.quotas
        first.is_device, first.senders = before.is_device, before.senders
    kept.sort(key=_login_of, reverse=True)
    # The clock of another process may be a little ahead; the last login stands first all the same.
    first.login = max([now, *[each.login for each in kept]])
    # A record that was kept may have been renewed by a process whose clock is a little ahead.
    latest = max([each.renewed for each in (first, *kept)])
    content, _ = spool.serialise([first, *kept], by_file=latest)
    # The nanoseconds are a serial number for readers who remember files (the directory store).
    return content, latest * 1000 + time.time_ns() % 1000


def _records(place: Place, name: str) -> list[spool.Record]:
    try:
        found = spool.read(place.descriptor, name, place.allowed(name))
    except OSError:
        return []
    return (spool.parse(found[0], found[1].st_mtime_ns // 1000) or []) if found else []


def _login_of(record: spool.Record) -> int:
    return record.login


def _is_live(record: spool.Record, window: int, now: int) -> bool:
    seconds = window if record.window is None else record.window
    max_age = MAX_AGE_SECONDS if record.max_age is None else record.max_age
    # Whole seconds, as the checker counts.
    return (
        record.renewed // spool.MICRO + seconds >= now // spool.MICRO
        and record.login + max_age * spool.MICRO >= now
    )


def _counts(record: spool.Record, now: int) -> bool:
    """Was something relayed under it, in a quota period that lasts?"""
    max_age = MAX_AGE_SECONDS if record.max_age is None else record.max_age
    return record.used != (0, 0, 0) and now - max_age * spool.MICRO <= record.since <= now + _FUTURE


def _put(place: Place, name: str, content: bytes, modified_ns: int, mode: int, program: Program) -> bool:
    directory = place.descriptor
    owner = None
    if os.geteuid() == 0 and place.state.st_uid != 0:
        owner = (place.state.st_uid, place.state.st_gid)  # the server, who must be able to replace it
    stamp = time.time()
    for _ in range(_NAMES_AT_MOST):
        temporary = spool.temporary_name(stamp)
        stamp += _NEXT_NAME_SECONDS
        try:
            spool.write_temporary(directory, content, modified_ns, temporary, mode, owner)
        except FileExistsError:
            continue
        except OSError as error:
            program.warn(f"Could not open '{temporary}' for writing: {reason(error)}")
            return False
        try:
            try:
                os.rename(temporary, name, src_dir_fd=directory, dst_dir_fd=directory)
            except IsADirectoryError:
                # A directory of the name grants nothing, and may not keep a login from granting.
                aside = spool.temporary_name(stamp)
                os.rename(name, aside, src_dir_fd=directory, dst_dir_fd=directory)
                os.rename(temporary, name, src_dir_fd=directory, dst_dir_fd=directory)
            return True
        except OSError as error:
            spool.discard(directory, temporary)
            program.warn(f"Could not rename '{temporary}' to '{name}': {reason(error)}")
            return False
    program.warn("There is no free name for a temporary file.")
    return False
