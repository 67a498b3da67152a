"""The file that remembers which logins of other machines were received, and who receives them.

Each worker could read the datagrams; one at a time does: the one that holds the lock on this
file. What it has received stands in the file before the grant is given, so that the next one
(the holder died, the configuration was reloaded, the server was restarted) takes a repetition
for one. Nothing is synced: after the machine itself has restarted the file may lack its last
seconds, and then only what is sent from now on counts.

    header = magic (16 octets), boot id (36 octets), zeros up to 64
    slot   = mark (16 octets), sent (milliseconds, 8 octets), state (1 octet), zeros up to 32
"""

import os
import stat
import struct
from collections.abc import Iterator

from popgate.files.held import HeldFile
from popgate.protocols.relay_ctrl_udp import (
    MARK_OCTETS,
    REMEMBERED_AT_MOST,
    SKEW_SECONDS,
    UNANSWERED,
    PacketError,
    ReceivedLogins,
)

_MAGIC = b"popgate-logins-1"
_HEADER = 64
_SLOT = struct.Struct(f"<{MARK_OCTETS}sQB7x")
_BOOT_ID = "/proc/sys/kernel/random/boot_id"


class LoginFileError(Exception):
    """The file cannot be used; the text says which and why."""


class LoginFile:
    """One process's way to the file at `path`, in a directory that belongs to the server alone.

    `take` until it gives the memory; then `is_held` now and then, and `give_up` at the end.
    """

    def __init__(self, path: str, boot_id: bytes | None = None) -> None:
        """`boot_id` is for tests: which start of the machine this is."""
        self._path = path
        self._boot_id = (_read_boot_id() if boot_id is None else boot_id)[:36]
        self._held = HeldFile(path)

    def take(self, now: float) -> "tuple[ReceivedLogins, float] | None":
        """The memory and since when it is complete, or None while another process has it.
        Raises LoginFileError."""
        try:
            if not self._held.take():
                return None
            try:
                return self._load(now)
            except BaseException:
                self._held.give_up()
                raise
        except OSError as fault:
            raise LoginFileError(f"{self._path}: {fault.strerror}") from fault

    def is_held(self) -> bool:
        """Is it still the file that others would open? Somebody may have removed it."""
        return self._held.is_held()

    def give_up(self) -> None:
        self._held.give_up()

    def _load(self, now: float) -> tuple[ReceivedLogins, float]:
        file = self._held.descriptor
        if not stat.S_ISREG(os.fstat(file).st_mode):
            raise LoginFileError(f"{self._path} is not a file")
        header = _MAGIC + self._boot_id
        data = os.pread(file, _HEADER + REMEMBERED_AT_MOST * _SLOT.size, 0)
        if data[:_HEADER] != header.ljust(_HEADER, b"\0"):
            os.ftruncate(file, 0)
            os.pwrite(file, header.ljust(_HEADER, b"\0"), 0)
            return ReceivedLogins(self._write), now
        return ReceivedLogins(self._write, _live(data, now)), 0.0

    def _write(self, slot: int, mark: bytes, sent: float, state: int) -> None:
        octets = _SLOT.pack(mark, round(sent * 1000), state)
        try:
            written = os.pwrite(self._held.descriptor, octets, _HEADER + slot * _SLOT.size)
        except OSError as fault:
            raise PacketError(f"cannot be remembered: {self._path}: {fault.strerror}", "memory") from fault
        if written != len(octets):
            raise PacketError(f"cannot be remembered: {self._path} is full", "memory")


def _live(data: bytes, now: float) -> Iterator[tuple[int, bytes, float, int]]:
    """The slots whose time is not over. A login that was not answered may not have been recorded
    (the process died over it), so its repetition is to count."""
    end = len(data) - (len(data) - _HEADER) % _SLOT.size
    oldest = (now - SKEW_SECONDS) * 1000
    for slot, (mark, sent, state) in enumerate(_SLOT.iter_unpack(data[_HEADER:end])):
        if sent >= oldest and state != UNANSWERED:
            yield slot, mark, sent / 1000, state


def _read_boot_id() -> bytes:
    """Something new where the system tells none: then no file of another process is believed."""
    try:
        with open(_BOOT_ID, "rb") as file:
            return file.read().strip()
    except OSError:
        return os.urandom(18).hex().encode()
