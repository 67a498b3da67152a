"""relay-ctrl-send: tells other machines of a login at this one, then runs the rest.

The work is done by a process of its own, which outlives this one: a machine that does not
answer must not hold up anybody's mail. The login waits for it until all have answered, but no
longer than FIRST_SECONDS, so that the client can send through those machines as soon
as it reads that its login worked.
"""

import os

from popgate.commands.chain import NOT_NOW, EnvdirError, Program, reason
from popgate.commands.client import (
    client_address,
    is_unauthenticated_courier,
    refuse_password_protocol,
    stands_before_courier,
)
from popgate.commands.place import close_inherited

TYPE_CHECKING = False
if TYPE_CHECKING:
    from popgate.values.address import ClientAddress

FIRST_SECONDS = 0.3


def main(arguments: list[str]) -> None:
    program = Program("relay-ctrl-send", arguments)
    is_usable, flags = True, frozenset[str]()
    try:
        flags = program.take_options(("--insecure",))
    except EnvdirError as error:
        program.warn(str(error))
        is_usable = False
    if not program.arguments:
        program.fail("usage: relay-ctrl-send program [args ...]", NOT_NOW)
    refuse_password_protocol(program)
    if not (is_unauthenticated_courier() or stands_before_courier(program)):
        if is_usable:
            _send(program, is_insecure="--insecure" in flags)
        close_inherited(program)
    program.become_rest()


def _send(program: Program, *, is_insecure: bool) -> None:
    if os.environ.get("TCPREMOTEIP") is None:
        program.fail("Must be run from tcp-env or tcpserver.", NOT_NOW)
    address = client_address(program)
    if address is None:
        return
    remotes = os.environ.get("RELAY_CTRL_REMOTES")
    if remotes is None:
        program.warn("$RELAY_CTRL_REMOTES is not set.")
        return
    if not remotes.replace(",", " ").strip():
        return
    try:
        _in_background(program, address, is_insecure=is_insecure)
    except OSError as error:
        program.warn(f"Could not send: {reason(error)}")


def _in_background(program: Program, address: "ClientAddress", *, is_insecure: bool) -> None:
    """Send from a process that is nobody's child: the program behind us knows of none, and would
    leave a zombie. It keeps nothing open but standard error and the pipe by whose end we wait."""
    reading, writing = os.pipe()
    child = os.fork()
    if child:
        os.close(writing)
        os.waitpid(child, 0)
        os.read(reading, 1)
        os.close(reading)
        return
    try:
        if os.fork():
            os._exit(0)
        _let_go(writing)
        from popgate.commands.telling import tell  # what only this process needs

        tell(program, address, writing, FIRST_SECONDS, is_insecure=is_insecure)
    except BaseException as error:
        program.warn(f"Could not send: {error}")
    finally:
        os._exit(0)


def _let_go(writing: int) -> None:
    """Close the client's connection and whatever else was inherited, or the client would see no end."""
    null = os.open("/dev/null", os.O_RDWR)
    os.dup2(null, 0)
    os.dup2(null, 1)
    for low, high in ((3, writing), (writing + 1, os.sysconf("SC_OPEN_MAX"))):
        os.closerange(low, high)
    os.chdir("/")
