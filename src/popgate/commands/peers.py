"""What relay-ctrl-send and relay-ctrl-udp read from the environment: the key, the port, the peers."""

import os
import stat

from popgate.commands.chain import positive_number, reason
from popgate.protocols import relay_ctrl_udp
from popgate.values.address import ClientAddress

_KEY_BYTES = 4096


class KeyFileError(Exception):
    """The file that RELAY_CTRL_KEY names cannot be used."""


def read_key() -> bytes | None:
    """The key in the file RELAY_CTRL_KEY, without a line end; None where the variable is not set.

    Raises KeyFileError: a key that others can read is no key.
    """
    path = os.environ.get("RELAY_CTRL_KEY")
    if path is None:
        return None
    try:
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            state = os.fstat(file)
            key = os.read(file, _KEY_BYTES).strip()
        finally:
            os.close(file)
    except (OSError, ValueError) as error:
        raise KeyFileError(
            f"Could not read the key '{path}': {reason(error) if isinstance(error, OSError) else error}"
        ) from None
    if not stat.S_ISREG(state.st_mode):
        raise KeyFileError(f"The key '{path}' is not a file")
    if state.st_mode & 0o006:
        raise KeyFileError(f"Everybody can read or change the key '{path}': chmod o= it")
    if len(key) < relay_ctrl_udp.MIN_KEY_OCTETS:
        raise KeyFileError(
            f"The key '{path}' has {len(key)} octets, and needs {relay_ctrl_udp.MIN_KEY_OCTETS} or more"
        )
    return key


def port() -> int:
    number = positive_number("RELAY_CTRL_PORT", relay_ctrl_udp.PORT)
    return number if number < 65536 else relay_ctrl_udp.PORT


def listed(variable: str) -> list[str]:
    """The words of a variable, between commas and blanks."""
    return os.environ.get(variable, "").replace(",", " ").split()


def end_point(text: str, default_port: int) -> tuple[ClientAddress, int]:
    """`ADDRESS`, `ADDRESS:PORT` or `[ADDRESS]:PORT`. Raises ValueError."""
    address, port_text = text, ""
    if text.startswith("["):
        address, bracket, rest = text[1:].partition("]")
        if not bracket or (rest and not rest.startswith(":")):
            raise ValueError
        port_text = rest[1:]
    elif text.count(":") == 1:
        address, _, port_text = text.partition(":")
    if not port_text:
        return ClientAddress.parse(address), default_port
    if not port_text.isascii() or not port_text.isdigit() or not 0 < int(port_text[:6]) < 65536:
        raise ValueError
    return ClientAddress.parse(address), int(port_text)
