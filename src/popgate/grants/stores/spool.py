"""One file of the grant directory: its bytes, read and written.

The directory is shared with relay-ctrl's programs, so a file begins as theirs do
(`USER=`, `DOMAIN=`, each ended by NUL) and its modification time is the last login or
renewal. What follows is ours:

    file    = [ "USER=" user NUL ] [ "DOMAIN=" domain NUL ] [ ours ]
    ours    = "POPGATE_VERSION=2" NUL 1*( "POPGATE_GRANT=" record NUL )
    record  = identity SP protocol SP since SP login SP renewed    ; microseconds, Unix time, 16 digits
              SP window SP max-age                                 ; seconds, or "-"
              SP 3( quota SP )                                     ; messages, recipients, bytes, or "-"
              3( used SP )                                         ; 10, 10 and 15 digits or more
              device SP senders                                    ; "0" or "1"; a,b,c or "-"

`login` and `renewed` may also be 16 times "=": the file's modification time. A login that changes
nothing else is then a new time of the file, as with relay-ctrl, and no octet is written. Numbers have
their width so that a file can be written in place (see `rewrite`).

Records stand in the order of their logins, the last one first; USER and DOMAIN repeat
the first one's identity. A file that is not exactly so is not a grant: relay-ctrl's own
checker exports whatever a file says (`LD_PRELOAD=...`) and grants for it.

This module imports os and values that import nothing, because the relay-ctrl commands
use it and run once a connection. It knows no rules, and no clock.
"""

import os
import stat

from popgate.values.identity import Identity, IdentityError

MAX_BYTES = 8192
"""relay-ctrl-check reads no more either."""
MAX_SENDERS_BYTES = 2048
"""What the senders of one record may take; those beyond are left out, which only refuses."""
MICRO = 1_000_000

_VERSION = b"POPGATE_VERSION=2"
_BY_FILE = "=" * 16
_GRANT = b"POPGATE_GRANT="
_OPEN = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY
_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_REWRITE = os.O_WRONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY
_PROTOCOL = frozenset("abcdefghijklmnopqrstuvwxyz0123456789-")
_SENDER = frozenset("abcdefghijklmnopqrstuvwxyz0123456789!#$&'*+-/=?^_`{|}~.@")  # neither % nor ,
_DIGITS = frozenset("0123456789")


class Record:
    """One grant as the file holds it: times in microseconds, None for "the site's setting".

    `identity` is None where relay-ctrl's programs recorded no USER.
    """

    __slots__ = (
        "identity",
        "is_device",
        "login",
        "max_age",
        "protocol",
        "quotas",
        "renewed",
        "senders",
        "since",
        "used",
        "window",
    )

    def __init__(
        self,
        identity: Identity | None,
        protocol: str,
        since: int,
        login: int,
        renewed: int,
        window: int | None = None,
        max_age: int | None = None,
        quotas: tuple[int, int, int] = (-1, -1, -1),
        used: tuple[int, int, int] = (0, 0, 0),
        is_device: bool = False,
        senders: tuple[str, ...] = (),
    ) -> None:
        self.identity = identity
        self.protocol = protocol
        self.since = since
        self.login = login
        self.renewed = renewed
        self.window = window
        self.max_age = max_age
        self.quotas = quotas
        self.used = used
        self.is_device = is_device
        self.senders = senders


def parse(content: bytes, modified: int) -> list[Record] | None:
    """The records of a file last modified at `modified` (microseconds); None: not a grant file."""
    if not content:  # relay-ctrl-udp, or relay-ctrl-allow without USER
        return [Record(None, "relay-ctrl", modified, modified, modified)]
    if len(content) > MAX_BYTES or content[-1] or not content.isascii():
        return None
    pieces = content[:-1].split(b"\0")
    index = 0
    user = domain = None
    if pieces[0].startswith(b"USER="):
        user, index = pieces[0][5:].decode("ascii"), 1
    if index < len(pieces) and pieces[index].startswith(b"DOMAIN="):
        domain = pieces[index][7:].decode("ascii")
        index += 1
    try:
        if index == len(pieces):
            return [Record(_relay_ctrl_identity(user, domain), "relay-ctrl", modified, modified, modified)]
        if pieces[index] != _VERSION or index + 1 == len(pieces):
            return None
        records = [_parse_record(piece, modified) for piece in pieces[index + 1 :]]
    except (IdentityError, ValueError):
        return None
    first = records[0].identity
    if first is None:
        if user is not None or domain is not None:
            return None
    elif user != first.user or (domain or "") != first.domain or domain == "":
        return None
    return _dated(records, modified)


def is_settled(content: bytes, modified: int, records: list[Record] | None) -> bool:
    """Do the octets and the modification time belong together? Otherwise somebody may be writing the
    file this very moment, and it is worth reading again, best under the lock."""
    if not records:
        return _VERSION not in content  # no file of ours, and none of ours torn
    return max([record.renewed for record in records]) == modified or _VERSION not in content


def serialise(records: list[Record], *, by_file: int = -1) -> tuple[bytes, int]:
    """The bytes of a file, and how many records are in it: `records` in order, the oldest ones
    left out where it would grow too long.

    `by_file`: a time that is not written, for it will be the file's own.
    Raises ValueError for a record that could not be read again.
    """
    head = b""
    identity = records[0].identity
    if identity is not None:
        head = b"USER=%b\0" % identity.user.encode("ascii")
        if identity.domain:
            head += b"DOMAIN=%b\0" % identity.domain.encode("ascii")
    content = head + _VERSION + b"\0"
    count = 0
    for record in records:
        piece = b"%b%b\0" % (_GRANT, _format_record(record, by_file).encode("ascii"))
        if len(content) + len(piece) > MAX_BYTES:
            break
        content += piece
        count += 1
    return content, count


def read(directory: int, name: str, allowed_uids: frozenset[int]) -> tuple[bytes, os.stat_result] | None:
    """The content and the state of the grant file `name`, or None where it is none.

    `directory` is a descriptor. A grant file is a regular file with one name, not too
    long, that belongs to an allowed user. Raises OSError where the directory or the machine
    is at fault.
    """
    for _ in range(_READINGS):
        try:
            file = os.open(name, _OPEN, dir_fd=directory)
        except OSError as error:
            if is_absence(error):
                return None
            raise
        try:
            state = os.fstat(file)
            if not is_grant_file(state, allowed_uids):
                return None
            content = os.read(file, MAX_BYTES + 1)
        finally:
            os.close(file)
        if _is_still(state, name, directory):
            return (content, state) if len(content) <= MAX_BYTES else None
    raise OSError(11, "it is being replaced all the time")  # EAGAIN


def _is_still(state: os.stat_result, name: str, directory: int) -> bool:
    """Is the file of that name unchanged? One that was replaced may be written for another
    address while somebody reads it (see spares)."""
    try:
        now = os.stat(name, dir_fd=directory, follow_symlinks=False)
    except OSError as error:
        if is_absence(error):
            return False
        raise
    return now.st_ino == state.st_ino and now.st_mtime_ns == state.st_mtime_ns


_READINGS = 20


class _Everybody(frozenset[int]):
    def __contains__(self, uid: object) -> bool:
        return True


EVERYBODY = _Everybody()
"""As allowed_uids: whoever owns the file."""
_ABOVE_AT_MOST = 64


def is_closed(directory: int) -> bool:
    """Can other users not come into the open `directory`, because it or one above it may not be
    searched by them? Then whoever wrote into it was let in, and his files count (relay-ctrl's
    recipe, where a login is recorded with the rights of whoever logged in)."""
    try:
        state, above = os.fstat(directory), ".."
        for _ in range(_ABOVE_AT_MOST):
            if not state.st_mode & 0o001:
                return True
            parent = os.stat(above, dir_fd=directory)
            if (parent.st_dev, parent.st_ino) == (state.st_dev, state.st_ino):
                return False
            state, above = parent, above + "/.."
    except PermissionError:
        return True  # not even this process can come from there
    except OSError:
        pass
    return False


def is_grant_file(state: os.stat_result, allowed_uids: frozenset[int]) -> bool:
    return (
        stat.S_ISREG(state.st_mode)
        and state.st_nlink == 1
        and state.st_size <= MAX_BYTES
        and state.st_uid in allowed_uids
    )


def is_absence(error: OSError) -> bool:
    """Does the error say that there is no grant file of the name, rather than that something is broken?

    ELOOP: a symbolic link; ENXIO: a socket; EACCES: somebody else's file that we may not read.
    """
    return error.errno in _ABSENT


_ABSENT = frozenset({2, 6, 13, 20, 40})  # ENOENT ENXIO EACCES ENOTDIR ELOOP; errno is one import more


def write_temporary(
    directory: int,
    content: bytes,
    modified_ns: int,
    temporary: str,
    mode: int,
    owner: tuple[int, int] | None = None,
) -> None:
    """A file of that content and time under a name of the form that `temporary_name` gives, given to
    `owner` (user and group) where there is one; the caller renames it. Not synced: a grant lost in a
    power cut costs one more login. Raises OSError."""
    file = os.open(temporary, _CREATE, mode, dir_fd=directory)
    try:
        try:
            if os.write(file, content) != len(content):
                raise OSError(28, "short write to a grant file")  # ENOSPC
            os.utime(file, ns=(modified_ns, modified_ns))
            if owner is not None:
                os.fchown(file, *owner)
            if mode & 0o077:
                os.fchmod(file, mode)  # whatever the umask
        finally:
            os.close(file)
    except BaseException:
        discard(directory, temporary)
        raise


def rewrite_temporary(
    directory: int, content: bytes, modified_ns: int, temporary: str, spare: os.stat_result
) -> bool:
    """As write_temporary, into a file that is there already; False where `temporary` is no longer
    the file of which `spare` is the state, but for its times and size. Raises OSError."""
    try:
        file = os.open(temporary, _REWRITE, dir_fd=directory)
    except OSError:
        return False
    try:
        state = os.fstat(file)
        if state.st_ino != spare.st_ino or not is_like(state, spare):
            return False
        if os.write(file, content) != len(content):
            raise OSError(28, "short write to a grant file")  # ENOSPC
        if state.st_size > len(content):
            os.ftruncate(file, len(content))
        os.utime(file, ns=(modified_ns, modified_ns))
        return True
    finally:
        os.close(file)


def rewrite(directory: int, name: str, content: bytes, modified_ns: int, before: os.stat_result) -> bool:
    """Write `content` over the grant file `name` of the same length, and date it; False where the file
    is no longer the one of which `before` is the state. Raises OSError.

    Under the lock, and for readers who look whether what they read `is_settled`. Until the file is
    dated again it has the time of the writing: whoever is killed in between leaves a file whose octets
    name an older time, and that is no grant. relay-ctrl's programs read the file's beginning and its
    time only, so the beginning must stay as it is.
    """
    try:
        file = os.open(name, _REWRITE, dir_fd=directory)
    except OSError:
        return False
    try:
        state = os.fstat(file)
        if (state.st_ino, state.st_ctime_ns, state.st_size) != (
            before.st_ino,
            before.st_ctime_ns,
            len(content),
        ):
            return False
        if os.pwrite(file, content, 0) != len(content):
            raise OSError(28, "short write to a grant file")  # ENOSPC
        os.utime(file, ns=(modified_ns, modified_ns))
        return True
    finally:
        os.close(file)


def is_by_file(content: bytes) -> bool:
    """Does a file of ours leave one of its times to its modification time?"""
    return b" ================" in content


def has_same_head(content: bytes, other: bytes) -> bool:
    """Do both begin with the same USER and DOMAIN?"""
    head = content.find(_VERSION)
    return head >= 0 and content[:head] == other[:head] and other.startswith(_VERSION, head)


def is_like(state: os.stat_result, other: os.stat_result) -> bool:
    """A regular file with one name, and with the other's owner, group and mode?"""
    return (
        state.st_mode == other.st_mode
        and stat.S_ISREG(state.st_mode)
        and state.st_nlink == 1
        and state.st_uid == other.st_uid
        and state.st_gid == other.st_gid
    )


def discard(directory: int, name: str) -> None:
    """Unlink what is ours and may be gone already."""
    try:
        os.unlink(name, dir_fd=directory)
    except OSError:
        pass


def temporary_name(seconds: float) -> str:
    """`.SECONDS.MICROSECONDS:PID`, as relay-ctrl-allow names its temporary files."""
    whole = int(seconds * MICRO)
    return ".%d.%06d:%d" % (whole // MICRO, whole % MICRO, os.getpid())


def is_temporary(name: str) -> bool:
    seconds, dot, rest = name[1:].partition(".")
    micros, colon, pid = rest.partition(":")
    return (
        name.startswith(".")
        and bool(dot and colon and seconds and micros and pid)
        and _DIGITS.issuperset(seconds + micros + pid)
    )


def _relay_ctrl_identity(user: str | None, domain: str | None) -> Identity | None:
    if user is None or user == "":
        return None
    if "@" not in user:
        return Identity(user, domain or "")
    identity = Identity.parse(user)  # some checkpassword programs set USER to the whole name
    if domain and domain.lower() != identity.domain:
        raise IdentityError("USER and DOMAIN speak of two domains")
    return identity


def _dated(records: list[Record], modified: int) -> list[Record] | None:
    """Hold the records against the file's time, their order and each other."""
    latest = max(record.renewed for record in records)
    if modified > latest + 2 * MICRO:
        return None  # somebody touched it, and nobody logged in
    seen = set()
    login = records[0].login
    for record in records:
        if record.login > login or record.identity in seen:
            return None
        login = record.login
        seen.add(record.identity)
        if record.renewed > modified:
            record.renewed = modified  # set back by hand: it lapses sooner
    return records


def _parse_record(piece: bytes, modified: int) -> Record:
    if not piece.startswith(_GRANT):
        raise ValueError
    fields = piece[len(_GRANT) :].decode("ascii").split(" ")
    name, protocol, since, login, renewed, window, max_age, qm, qr, qb, um, ur, ub, device, senders = fields
    if not 0 < len(protocol) <= 16 or not _PROTOCOL.issuperset(protocol):
        raise ValueError
    if device not in ("0", "1"):
        raise ValueError
    identity = None
    if name != "-":
        identity = Identity.parse(name)
        if str(identity) != name:
            raise ValueError
    return Record(
        identity,
        protocol,
        _number(since),
        modified if login == _BY_FILE else _number(login),
        modified if renewed == _BY_FILE else _number(renewed),
        None if window == "-" else _number(window),
        None if max_age == "-" else _number(max_age),
        (
            -1 if qm == "-" else _number(qm),
            -1 if qr == "-" else _number(qr),
            -1 if qb == "-" else _number(qb),
        ),
        (_number(um), _number(ur), _number(ub)),
        device == "1",
        () if senders == "-" else tuple(map(_parse_sender, senders.split(","))),
    )


def _format_record(record: Record, by_file: int) -> str:
    if not 0 < len(record.protocol) <= 16 or not _PROTOCOL.issuperset(record.protocol):
        raise ValueError(f"not a login protocol: {record.protocol!r}")
    numbers = (record.since, record.login, record.renewed, *record.used)
    if min(numbers) < 0 or max(numbers) >= 10**17:
        raise ValueError("a time or count of the grant is out of range")
    quotas = (
        "- - -"
        if record.quotas == _NO_QUOTAS
        else " ".join([_optional_quota(each) for each in record.quotas])
    )
    um, ur, ub = record.used
    senders = _format_senders(record.senders) if record.senders else "-"
    login = _BY_FILE if record.login == by_file else f"{record.login:016}"
    renewed = _BY_FILE if record.renewed == by_file else f"{record.renewed:016}"
    return (
        f"{record.identity or '-'} {record.protocol} {record.since:016} {login} {renewed}"
        f" {_optional(record.window)} {_optional(record.max_age)} {quotas}"
        f" {um:010} {ur:010} {ub:015} {int(record.is_device)} {senders}"
    )


_NO_QUOTAS = (-1, -1, -1)


def _optional_quota(quota: int) -> str:
    return "-" if quota < 0 else "%d" % quota


def _optional(seconds: int | None) -> str:
    return "-" if seconds is None else "%d" % max(0, seconds)


def _number(text: str) -> int:
    # The piece is ASCII, so isdigit() means 0 to 9.
    if not text.isdigit() or len(text) > 17:
        raise ValueError
    return int(text)


def fitting_senders(senders: tuple[str, ...]) -> tuple[str, ...]:
    """As many of `senders` as one record may hold; empty ones and repetitions are left out."""
    size = 0
    out: list[str] = []
    for sender in senders:
        if not sender or sender in out:
            continue
        size += len(_escaped(sender)) + 1
        if size > MAX_SENDERS_BYTES:
            break
        out.append(sender)
    return tuple(out)


def _format_senders(senders: tuple[str, ...]) -> str:
    return ",".join(map(_escaped, fitting_senders(senders))) or "-"


def _escaped(sender: str) -> str:
    if _SENDER.issuperset(sender) and sender != "-":
        return sender
    return "".join(char if char in _SENDER and sender != "-" else _percent(char) for char in sender)


def _percent(char: str) -> str:
    return "".join("%%%02X" % byte for byte in char.encode("utf-8"))


def _parse_sender(text: str) -> str:
    if not text:
        raise ValueError
    if _SENDER.issuperset(text):
        return text
    head, *escaped = text.split("%")
    raw = bytearray(head.encode("ascii"))
    for piece in escaped:
        if len(piece) < 2 or not frozenset("0123456789ABCDEF").issuperset(piece[:2]):
            raise ValueError
        raw.append(int(piece[:2], 16))
        raw += piece[2:].encode("ascii")
    if not _SENDER.issuperset(head + "".join(piece[2:] for piece in escaped)):
        raise ValueError
    return raw.decode("utf-8")
