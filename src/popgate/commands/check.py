"""relay-ctrl-check: sets RELAYCLIENT where the client of this connection has a grant, then runs the rest.

A grant that is not found, has lapsed, cannot be read or cannot be understood does not
exist. The program runs in any case, and refuses relaying itself. Nothing is ever
removed here: a login of the same instant could be hit.
"""

import os
import time

from popgate.commands.chain import EnvdirError, Program, positive_number, printable, reason
from popgate.commands.place import Place, close_inherited, find_place
from popgate.grants.stores import spool
from popgate.values.address import AddressError, ClientAddress

FUTURE_SECONDS = 2
MAX_AGE_SECONDS = 43200
_READINGS = 5
_BEING_WRITTEN_SECONDS = 0.002


def main(arguments: list[str]) -> None:
    program = Program("relay-ctrl-check", arguments)
    is_usable = True
    try:
        program.take_options()
    except EnvdirError as error:
        program.warn(str(error))
        is_usable = False
    if not program.arguments:
        program.fail("usage: relay-ctrl-check program [arguments]\n", 1)
    if is_usable and "RELAYCLIENT" not in os.environ:
        _check(program)
    close_inherited(program)
    program.become_rest("execution of program failed!\n")


def _check(program: Program) -> None:
    text = os.environ.get("TCPREMOTEIP")
    if text is None:
        program.warn("$TCPREMOTEIP not set, not checking IP")
        return
    log_ips = "RELAY_CTRL_LOG_IPS" in os.environ
    try:
        name = ClientAddress.parse(text).text
    except AddressError as error:
        if text:
            program.warn(f"'{text[:64]}' is no client's address: {error}")
        if log_ips:
            program.say(f"IP {text[:64]} not found")
        return
    place = find_place(program)
    if place is None:
        return
    for _ in range(_READINGS):
        found = _read(place, name, program)
        if found is None:
            if log_ips and not _exists(place, name):
                program.say(f"IP {name} not found")
            return
        content, state = found
        modified = state.st_mtime_ns // 1000
        records = spool.parse(content, modified)
        if spool.is_settled(content, modified, records):
            break
        time.sleep(_BEING_WRITTEN_SECONDS)  # a server is just about to date the file
    if records is None:
        program.warn(f"Ignored '{name}': it holds what is no record of a login")
        return
    record = _live(records, positive_number("RELAY_CTRL_EXPIRY", 900))
    if record is None:
        if log_ips:
            program.say(f"Expired IP {name} found")
        return
    _set("RELAYCLIENT", os.environ.get("RELAY_CTRL_RELAYCLIENT", ""), None)
    logging = program if "RELAY_CTRL_LOG_ENV" in os.environ else None
    for variable, value in _names(record, records[0], content):
        _set(variable, value, logging)


def _live(records: list[spool.Record], window: int) -> spool.Record | None:
    """The live grant of the last login. Whole seconds, and the boundary counts, as in the original."""
    now = time.time()
    for record in records:
        seconds = window if record.window is None else record.window
        max_age = MAX_AGE_SECONDS if record.max_age is None else record.max_age
        renewed, login = record.renewed / spool.MICRO, record.login / spool.MICRO
        if not (0 < renewed <= now + FUTURE_SECONDS and 0 < login <= now + FUTURE_SECONDS):
            continue
        is_young = record.protocol == "relay-ctrl" or login + max_age >= now
        if int(renewed) + seconds >= int(now) and is_young and seconds > 0:
            return record
    return None


def _names(record: spool.Record, first: spool.Record, content: bytes) -> list[tuple[str, str]]:
    """USER and DOMAIN: as the file begins, where they are the same person's, so that a name keeps the
    letters that the password checker gave it."""
    if record is first:
        pieces = [piece.decode("ascii") for piece in content.split(b"\0")[:2]]
        pairs = [piece.partition("=") for piece in pieces]
        return [(name, value) for name, _, value in pairs if name in ("USER", "DOMAIN")]
    identity = record.identity
    if identity is None:
        return []
    domain = [("DOMAIN", identity.domain)] if identity.domain else []
    return [("USER", identity.user), *domain]


def _set(variable: str, value: str, logging: Program | None) -> None:
    if logging is not None:
        logging.say(f"Setting {variable}={printable(value)}")
    os.environ[variable] = value


def _read(place: Place, name: str, program: Program) -> tuple[bytes, os.stat_result] | None:
    """The grant file, or None; with a warning where something is there that should not be."""
    try:
        found = spool.read(place.descriptor, name, place.allowed(name))
    except OSError as error:
        program.warn(f"Could not open IP file '{name}': {reason(error)}")
        return None
    if found is not None or not _exists(place, name):
        return found
    try:
        state = os.stat(name, dir_fd=place.descriptor, follow_symlinks=False)
        if not spool.is_grant_file(state, frozenset({state.st_uid})):
            program.warn(f"Ignored '{name}': a grant is a plain file with one name and up to 8192 bytes")
            return None
        if not place.counts(state.st_uid):
            program.warn(
                f"Ignored '{name}': it belongs to user {state.st_uid}, whose files do not count here"
            )
            return None
        os.close(os.open(name, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW, dir_fd=place.descriptor))
    except OSError as error:
        program.warn(f"Could not open IP file '{name}': {reason(error)}")
    return None


def _exists(place: Place, name: str) -> bool:
    try:
        os.stat(name, dir_fd=place.descriptor, follow_symlinks=False)
    except OSError:
        return False
    return True
