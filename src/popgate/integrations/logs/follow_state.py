"""What a follower remembers over a restart: how far it has read, and which sessions are open.

One file a source, replaced by renaming, so that it is whole or the one before. It is not synced: after
a power cut some lines are read again, and they grant what they would have granted. Lines older than
REMEMBERED_SECONDS cannot grant anything, so a state of that age says nothing.
"""

import hashlib
import json
import os
import re
from collections.abc import Iterable, Mapping
from contextlib import suppress

from popgate.integrations.open_sessions import OpenSession
from popgate.values.address import AddressError, ClientAddress
from popgate.values.identity import Identity, IdentityError
from popgate.values.value import value

REMEMBERED_SECONDS = 86400.0
_OCTETS_AT_MOST = 1 << 26
_FORMAT = 1


@value
class State:
    """`place` is what the source itself made of it; JSON."""

    place: Mapping[str, object]
    sessions: tuple[OpenSession, ...]


class StateFile:
    """The file for the source of that name, in `directory`."""

    def __init__(self, directory: str, source: str) -> None:
        readable = re.sub(r"[^A-Za-z0-9.-]+", "_", source).strip("_")[-60:]
        self._source = source
        self._path = os.path.join(
            directory, f"{readable}-{hashlib.blake2b(source.encode(), digest_size=6).hexdigest()}.json"
        )

    def read(self, now: float) -> State | None:
        """What was remembered; None where there is nothing, or nothing that can be used."""
        try:
            with open(self._path, "rb") as file:
                document = json.loads(file.read(_OCTETS_AT_MOST))
        except (OSError, ValueError, RecursionError):
            return None
        if not isinstance(document, dict) or document.get("format") != _FORMAT:
            return None
        saved_at, place, sessions = (document.get(name) for name in ("saved_at", "place", "sessions"))
        if document.get("source") != self._source or not isinstance(saved_at, int | float):
            return None
        if not now - REMEMBERED_SECONDS <= saved_at or not isinstance(place, dict):
            return None
        return State(place, tuple(_sessions(sessions if isinstance(sessions, list) else ())))

    def write(self, state: State, now: float) -> None:
        """Raises OSError."""
        document = {
            "format": _FORMAT,
            "source": self._source,
            "saved_at": now,
            "place": state.place,
            "sessions": [
                [one.key, one.address.text, str(one.identity), one.protocol, one.since, one.until]
                for one in state.sessions
            ],
        }
        temporary = f"{self._path}.{os.getpid()}"
        try:
            descriptor = os.open(
                temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600
            )
            with open(descriptor, "w", encoding="utf-8") as file:
                json.dump(document, file, separators=(",", ":"))
            os.rename(temporary, self._path)
        except BaseException:
            with suppress(OSError):
                os.unlink(temporary)
            raise


def _sessions(rows: Iterable[object]) -> Iterable[OpenSession]:
    for row in rows:
        try:
            key, address, identity, protocol, since, until = row  # type: ignore[misc]
            yield OpenSession(
                str(key),  # type: ignore[has-type]
                ClientAddress.parse(str(address)),  # type: ignore[has-type]
                Identity.parse(str(identity)),  # type: ignore[has-type]
                str(protocol),  # type: ignore[has-type]
                float(since),  # type: ignore[has-type]
                float(until),  # type: ignore[has-type]
            )
        except (TypeError, ValueError, AddressError, IdentityError):
            continue
