"""relay-ctrl-allow: records a login of the client of this connection, then runs the rest.

Stands between the password checker and the mail server. A login never fails because it
could not be recorded: there is a warning, and the program runs. Only where it would itself be
the password checker it refuses, because every password would then be right.
"""

import os

from popgate.commands import login as recording
from popgate.commands.chain import NOT_NOW, EnvdirError, Program, positive_number
from popgate.commands.client import (
    client_address,
    is_unauthenticated_courier,
    refuse_password_protocol,
    stands_before_courier,
)
from popgate.commands.place import close_inherited, find_place
from popgate.values.identity import IdentityError


def main(arguments: list[str]) -> None:
    program = Program("relay-ctrl-allow", arguments)
    is_usable = True
    try:
        program.take_options()
    except EnvdirError as error:
        program.warn(str(error))
        is_usable = False
    refuse_password_protocol(program)
    if not (is_unauthenticated_courier() or stands_before_courier(program)):
        if is_usable:
            _allow(program)
        close_inherited(program)
    if not program.arguments:
        os._exit(0)
    program.become_rest()


def _allow(program: Program) -> None:
    if os.environ.get("TCPREMOTEIP") is None:
        program.fail("Must be run from tcp-env or tcpserver.", NOT_NOW)
    address = client_address(program)
    if address is None:
        return
    if "RELAY_CTRL_DIR" not in os.environ:
        program.warn("$RELAY_CTRL_DIR is not set.")
        return
    place = find_place(program)
    if place is None:
        return
    user = os.environ.get("USER") or os.environ.get("AUTHENTICATED")
    try:
        login = recording.Login(user, os.environ.get("DOMAIN"))
    except IdentityError as error:
        program.warn(f"No grant for '{user}': {error}")
        return
    window = positive_number("RELAY_CTRL_EXPIRY", 900)
    # Through the descriptor nobody comes who should not, and the checker is another user.
    mode = 0o666 if place.was_inherited else 0o600
    recording.record(place, address.text, login, window, mode, program)
