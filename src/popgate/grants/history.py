"""The kept history of grants: why an address may relay, or may not, and what happened there.

Events about grants and relay decisions are appended as JSON lines to one file in the data
directory, by every process, without a lock: each write is whole lines to a file opened for
appending. The file is renamed away at a bound, under a lock, and one older file is kept.
It is a help for people and never asked by a decision; losing it costs nothing else.

`explain` puts the present state, as the rules see it, before the story. It returns values;
how they are printed is the command's business.
"""

import errno
import fcntl
import json
import os
import stat
from collections.abc import Iterator, Mapping, Sequence
from typing import Final, Literal
from weakref import WeakSet

from popgate.grants import rules, words
from popgate.grants.grant import Grant, Usage
from popgate.grants.networks import BUILT_IN_NEVER, NetworkSet
from popgate.grants.ownership import make_directory, owner_for
from popgate.grants.settings import GrantSettings
from popgate.grants.store import GrantStore, StoreError
from popgate.values.address import AddressError, ClientAddress
from popgate.values.event import Event
from popgate.values.event_json import json_members
from popgate.values.value import value

FLUSH_SECONDS: Final = 1.0
"""How often the caller's timer calls `flush`."""
FLUSH_LINES: Final = 64
MAX_FILE_BYTES: Final = 16 * 1024 * 1024
CURRENT: Final = "grants.jsonl"
OLDER: Final = "grants.1.jsonl"

_KEPT: Final = ("grant.", "smtp.relay.", "relay.")
_MAX_TEXT: Final = 512
_APPEND = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class History:
    """An event sink that keeps grant and relay events in `directory` (made when missing).

    Lines gather until `flush` or until there are 64 of them. What cannot be written is
    counted in `lost_lines` and forgotten: a full disk must not stop mail for a log's sake.
    """

    def __init__(self, directory: str, *, max_file_bytes: int = MAX_FILE_BYTES) -> None:
        self._path = directory
        self._max_file_bytes = max_file_bytes
        self._lines: list[bytes] = []
        self._directory = -1
        self._file = -1
        self.lost_lines = 0
        _HISTORIES.add(self)

    def __call__(self, event: Event) -> None:
        if not event.name.startswith(_KEPT):
            return
        self._lines.append(_line(event))
        if len(self._lines) >= FLUSH_LINES:
            self.flush()

    def flush(self) -> None:
        """Write what has gathered. Never raises."""
        if not self._lines:
            return
        lines, self._lines = self._lines, []
        block = b"".join(lines)
        try:
            self._open_current(len(block))
            if os.write(self._file, block) != len(block):
                os.write(self._file, b"\n")  # the next line shall not hang on half a line
                self.lost_lines += 1
        except OSError:
            self.lost_lines += len(lines)
            self._close_file()

    def close(self) -> None:
        """Flush, and release the files. Never raises."""
        self.flush()
        self._close_file()
        if self._directory >= 0:
            os.close(self._directory)
            self._directory = -1

    def forget(self) -> None:
        """After a fork: what has gathered is the parent's to write."""
        self._lines.clear()

    def _open_current(self, more: int) -> None:
        """Have the current file open, rotated where `more` bytes would be too many for it."""
        if self._directory < 0:
            make_directory(self._path)
            self._directory = os.open(self._path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        if self._file >= 0 and not self._is_current():
            self._close_file()
        if self._file < 0:
            self._file = self._open_file()
        if os.fstat(self._file).st_size + more > self._max_file_bytes:
            self._rotate()

    def _rotate(self) -> None:
        lock = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=self._directory)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if self._is_current() and os.fstat(self._file).st_size:  # else another process did it
                os.rename(CURRENT, OLDER, src_dir_fd=self._directory, dst_dir_fd=self._directory)
            self._close_file()
            self._file = self._open_file()
        finally:
            os.close(lock)

    def _open_file(self) -> int:
        file = os.open(CURRENT, _APPEND, 0o600, dir_fd=self._directory)
        try:
            _check_is_ours(file)
            owner = owner_for(self._directory)
            if owner is not None:
                os.fchown(file, *owner)
        except OSError:
            os.close(file)
            raise
        return file

    def _is_current(self) -> bool:
        try:
            there = os.stat(CURRENT, dir_fd=self._directory, follow_symlinks=False)
        except FileNotFoundError:
            return False
        return there.st_ino == os.fstat(self._file).st_ino

    def _close_file(self) -> None:
        if self._file >= 0:
            os.close(self._file)
            self._file = -1


_HISTORIES: Final = WeakSet[History]()


def _forget_in_child() -> None:
    for history in _HISTORIES:
        history.forget()


os.register_at_fork(after_in_child=_forget_in_child)


def _check_is_ours(file: int) -> None:
    """Root must not write into, or give away, what was linked here under the history's name."""
    state = os.fstat(file)
    if not stat.S_ISREG(state.st_mode) or state.st_nlink > 1:
        raise OSError(errno.EINVAL, "the history is not a regular file with one name")


def _line(event: Event) -> bytes:
    return f'{{"at":{event.at!r},{json_members(event, _MAX_TEXT)}}}\n'.encode("ascii")


def events_of(directory: str, address: ClientAddress, settings: GrantSettings) -> list[Event]:
    """What happened on `address` (or in its prefix, where the settings speak of one), in order.

    Lines that cannot be read are passed over. Empty where there is no history.
    """
    key = rules.key_address(address, settings)
    by_prefix = address.is_ipv6 and settings.ipv6_prefix < 128
    needle = b"" if by_prefix else b'"client":"%b"' % address.text.encode()
    found: list[Event] = []
    for line in _lines(directory):
        if needle in line:
            event = read_event(line)
            if event is not None and _key_of(event, settings) == key:
                found.append(event)
    found.sort(key=lambda event: event.at)
    return found


def _lines(directory: str) -> Iterator[bytes]:
    for name in (OLDER, CURRENT):
        try:
            file = os.open(os.path.join(directory, name), _READ)
        except OSError:
            continue
        with open(file, "rb") as lines:
            yield from lines


def read_event(line: bytes) -> Event | None:
    """The event that one line of the history holds; None for a line that is no event."""
    try:
        fields = json.loads(line)
        name, at = fields.pop("event"), float(fields.pop("at"))
    except (ValueError, KeyError, TypeError, AttributeError):
        return None
    return Event(name, at, fields) if isinstance(name, str) else None


def _key_of(event: Event, settings: GrantSettings) -> ClientAddress | None:
    try:
        return rules.key_address(ClientAddress.parse(str(event.fields.get("client"))), settings)
    except AddressError:
        return None


@value
class Explained:
    """One line of an explanation.

    `kind`: "verdict" (may the address relay now), "state" (what the rules say of it and of each
    grant) or "story" (what happened). `reason` is a short constant: an event's name, or
    `granted`, `trusted`, `never`, `live`, `lapsed`, `revoked`, `over-quota`, `no-grant`, ...
    `at`: when it happened, or until when it holds; Unix time, None where there is no such time.
    """

    kind: Literal["verdict", "state", "story"]
    at: float | None
    reason: str
    text: str
    identity: str = ""


def explain(
    directory: str,
    store: GrantStore,
    settings: GrantSettings,
    address: ClientAddress,
    now: float,
    own_addresses: frozenset[ClientAddress] = frozenset(),
) -> list[Explained]:
    """Why `address` may relay or not at `now`, and how it came to that. Never raises for a store
    at fault: that is then the explanation."""
    states: list[Explained] = []
    trusted = address in NetworkSet.parse(settings.trusted)
    never = _never_because(address, settings, own_addresses)
    if trusted:
        states.append(Explained("state", None, "trusted", "a trusted network holds it: no login is needed"))
    if never:
        states.append(Explained("state", None, "never", never))
    grants: Sequence[Grant] = ()
    try:
        grants = store.find(rules.key_address(address, settings))
    except StoreError as error:
        states.append(Explained("state", None, "store-unavailable", str(error)))
    else:
        states += [_state(grant, settings, now) for grant in grants]
        if not grants:
            states.append(Explained("state", None, "no-grant", "no mail login from it is recorded"))
    verdict = _verdict(states, trusted, bool(never), settings)
    told = [story(event) for event in events_of(directory, address, settings)]
    return [verdict, *states, *told]


def _never_because(
    address: ClientAddress, settings: GrantSettings, own_addresses: frozenset[ClientAddress]
) -> str:
    if address in own_addresses:
        return "it is an address of the server itself: logins from it give no grant"
    if address in NetworkSet.parse(settings.never):
        return "the setting `never` lists it: logins from it give no grant"
    if address in BUILT_IN_NEVER:
        return "no client can have it (unspecified, link-local, multicast or reserved)"
    return ""


def _verdict(states: list[Explained], trusted: bool, never: bool, settings: GrantSettings) -> Explained:
    reasons = {state.reason for state in states}
    if trusted:
        return Explained("verdict", None, "trusted", "may relay: any sender, without a login")
    if never:
        return Explained("verdict", None, "never", "may not relay: it never gets a grant")
    if "store-unavailable" in reasons:
        return Explained(
            "verdict", None, "store-unavailable", "is told to try later: the grants cannot be read"
        )
    if "live" in reasons:
        until = max(state.at or 0.0 for state in states if state.reason == "live")
        whose = "senders of who logged in" if settings.sender == "bound" else "any sender"
        return Explained("verdict", until, "granted", f"may relay: {whose}")
    if "over-quota" in reasons:
        return Explained("verdict", None, "over-quota", "may not relay now: a quota is used up")
    reason = "lapsed" if "lapsed" in reasons else "no-grant"
    return Explained(
        "verdict",
        None,
        reason,
        f"may not relay: no mail login from it in the last {words.duration(settings.window_seconds)}",
    )


_ONE = Usage(1, 1, 1)


def _state(grant: Grant, settings: GrantSettings, now: float) -> Explained:
    who = str(grant.identity)
    limit, used = rules.quota(grant.terms, settings), grant.used
    counts = (
        f"relayed {_of(used.messages, limit.messages)} messages, {_of(used.recipients, limit.recipients)}"
        f" recipients, {_of(used.bytes, limit.bytes)} bytes"
    )
    ends_at = rules.ends_at(grant, settings)
    if rules.is_retired(grant):
        text = f"{who}: ended; {counts}, which the next login goes on counting"
        return Explained("state", grant.since, "ended", text, who)
    if not rules.is_live(grant, settings, now):
        if grant.renewed_at > now + rules.FUTURE_SECONDS or grant.login_at > now + rules.FUTURE_SECONDS:
            text = f"{who}: dated in the future, so it is not believed"
            return Explained("state", grant.login_at, "future", text, who)
        return Explained("state", ends_at, "lapsed", f"{who}: the grant by {grant.protocol} has lapsed", who)
    if reason := rules.over_quota(grant, _ONE, settings):
        text = (
            f"{who}: the grant by {grant.protocol} has used up its {reason.removeprefix('quota-')}; {counts}"
        )
        return Explained("state", ends_at, "over-quota", text, who)
    return Explained("state", ends_at, "live", f"{who}: a live grant by {grant.protocol}; {counts}", who)


def _of(used: int, limit: int) -> str:
    return f"{used} of {limit}" if limit else f"{used}"


_SENTENCES: Final = {
    "grant.allow": "{identity} logged in by {protocol}{told}: may relay",
    "grant.renew": "{identity}: renewed ({reason})",
    "grant.revoke": "{identity}: the grant was ended early ({reason})",
    "grant.lapse": "{identity}: the grant lapsed ({reason})",
    "grant.refuse": "{identity} logged in by {protocol}{told}, which gave no grant ({reason})",
    "grant.quota": "{identity}: a limit was reached ({reason})",
    "grant.alarm": "alarm: {reason}",
    "smtp.relay.permitted": "mail from {sender} to {recipient}: relayed for {identity} ({reason})",
    "smtp.relay.refused": "mail from {sender} to {recipient}: refused with {code} ({reason})",
}


def _decided(fields: Mapping[str, object]) -> str:
    """What another mail server was answered; a look-up in a map names no sender."""
    sender, recipient, identity = fields.get("sender"), fields.get("recipient"), fields.get("identity")
    text = f"asked by {fields.get('service')}: {fields.get('verdict')} ({fields.get('reason')})"
    if sender is not None:
        text += f", mail from {sender or '<>'}" + (f" to {recipient}" if recipient else "")
    return text + (f", for {identity}" if identity else "")


class _Fields(dict[str, object]):
    """Event fields for a sentence; what is missing is a question mark."""

    def __missing__(self, name: str) -> str:
        return "?"


def story(event: Event) -> Explained:
    """What an event of the history says, in words."""
    sentence = _SENTENCES.get(event.name)
    if event.name == "relay.decide":
        text = _decided(event.fields)
    elif sentence is not None:
        via = event.fields.get("via")
        text = sentence.format_map(_Fields(event.fields, told=f" (told by {via})" if via else ""))
    else:
        told = [
            f"{name}={field}" for name, field in event.fields.items() if name not in ("client", "session")
        ]
        text = " ".join([event.name, *told])
    at = event.at
    if event.name == "grant.lapse":
        ended_at = event.fields.get("ended_at")
        at = float(ended_at) if isinstance(ended_at, int | float) else at
    return Explained("story", at, event.name, text, str(event.fields.get("identity") or ""))
