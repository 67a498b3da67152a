"""The client of this connection, as tcpserver's and Courier's environment describe it."""

import fcntl
import os
import stat
import time

from popgate.commands.chain import NOT_NOW, Program
from popgate.values.address import AddressError, ClientAddress

_PASSWORD = 3
"""The descriptor on which a password checker reads names and passwords."""

_COURIER_LOGINS = ("courierpop3login", "pop3login", "imaplogin", "couriertls")

_FIONREAD = 0x541B
_POLLS, _POLL_SECONDS = 20, 0.005


def client_address(program: Program) -> ClientAddress | None:
    """TCPREMOTEIP in its one canonical form; None after a warning that it is no address."""
    text = os.environ.get("TCPREMOTEIP", "")
    try:
        return ClientAddress.parse(text)
    except AddressError as error:
        program.warn(f"No grant for the client '{text[:64]}': {error}")
        return None


def is_unauthenticated_courier() -> bool:
    """Courier runs its chain once before the password too, and says so by AUTHENTICATED."""
    environment = os.environ
    return "AUTHUSER" in environment and "AUTHARGV0" in environment and not environment.get("AUTHENTICATED")


def stands_before_courier(program: Program) -> bool:
    """Is the next program Courier's own login? Warns: today's Courier has no other sign for it.

    Whoever connects would be granted, with no password at all.
    """
    name = program.arguments[0].rpartition("/")[2] if program.arguments else ""
    if name not in _COURIER_LOGINS or os.environ.get("AUTHENTICATED"):
        return False
    program.warn(f"stands before {name}, where nobody has logged in yet: no grant. Put it behind the login.")
    return True


def refuse_password_protocol(program: Program) -> None:
    """End with status 111 where a password checker belongs.

    A run script in which a name before it is empty (`qmail-popup $HOST checkpassword
    relay-ctrl-allow ...`) makes this program the checker. It would take every password,
    and grant relaying for each. A checker that did its work has read descriptor 3 to its end.
    """
    try:
        mode = os.fstat(_PASSWORD).st_mode
    except OSError:
        return
    if not (stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode)):
        return
    if stat.S_ISSOCK(mode) or os.environ.get("USER") or os.environ.get("AUTHENTICATED"):
        # USER may be a leftover of a login shell, and a socket may be a service manager's. What
        # tells is an unread password; it is written at the same time as this process starts.
        for _ in range(_POLLS):
            if _unread():
                break
            time.sleep(_POLL_SECONDS)
        else:
            return
    program.fail(
        "stands where a password checker belongs (descriptor 3 carries the password protocol):"
        " every password would be right. Refused. Look at what comes before it in the run script;"
        " most likely $HOST is empty.",
        NOT_NOW,
    )


def _unread() -> bool:
    count = bytearray(8)
    try:
        fcntl.ioctl(_PASSWORD, _FIONREAD, count)
    except OSError:
        return False
    return any(count)
