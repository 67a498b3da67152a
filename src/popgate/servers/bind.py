"""Reads the `bind` of a listener. Opens nothing."""

import re
from typing import Literal

from popgate.values.address import AddressError, ClientAddress
from popgate.values.value import value

# struct sockaddr_un holds 108 bytes with the final NUL
_LONGEST_UNIX_PATH = 107
# what systemd accepts as FileDescriptorName=
_DESCRIPTOR_NAME = re.compile(r"[A-Za-z0-9._+-]{1,255}\Z")


class BindError(ValueError):
    """Text that names no place to listen; says what would."""


@value
class Bind:
    """Where to listen. inet: `host` (canonical, no brackets) and `port`, 0 for any free one.
    unix: `name` is an absolute path. fd: `name` is the descriptor's name (LISTEN_FDNAMES)."""

    kind: Literal["inet", "unix", "fd"]
    host: str = ""
    port: int = 0
    name: str = ""

    @property
    def is_wildcard(self) -> bool:
        return self.host in ("0.0.0.0", "::")  # noqa: S104

    @property
    def is_ipv6(self) -> bool:
        return ":" in self.host

    def __str__(self) -> str:
        if self.kind == "inet":
            return f"[{self.host}]:{self.port}" if self.is_ipv6 else f"{self.host}:{self.port}"
        return f"{self.kind}:{self.name}"


def parse_bind(text: str) -> Bind:
    """Read `HOST:PORT`, `[V6]:PORT`, `unix:/PATH` or `fd:NAME`; raises BindError."""
    if text.startswith("unix:"):
        path = text[5:]
        if not path.startswith("/") or "\0" in path:
            raise BindError("unix: wants an absolute path, such as unix:/run/popgate/smtp.sock")
        if len(path.encode("utf-8", "surrogateescape")) > _LONGEST_UNIX_PATH:
            raise BindError(f"the path of a socket has at most {_LONGEST_UNIX_PATH} bytes")
        return Bind("unix", name=path)
    if text.startswith("fd:"):
        if not _DESCRIPTOR_NAME.match(text[3:]):
            raise BindError("fd: wants the FileDescriptorName= of a systemd socket, such as fd:smtp")
        return Bind("fd", name=text[3:])
    return _parse_inet(text)


def _parse_inet(text: str) -> Bind:
    host, colon, port_text = text.rpartition(":")
    if text.isascii() and text.isdigit():
        raise BindError(f"an address is missing before the port, such as 0.0.0.0:{text}")
    if not colon or text.endswith("]"):
        raise BindError(f"a port is missing, such as {text}:25")
    if not (port_text.isascii() and port_text.isdigit()) or len(port_text) > 5 or int(port_text) > 65535:
        raise BindError(f"{port_text!r} is no port: a number from 0 to 65535 is needed after the last colon")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
        if ":" not in host:
            raise BindError("only IPv6 addresses stand in [brackets]")
    elif ":" in host:
        raise BindError(f"an IPv6 address stands in brackets: [{host}]:{port_text}")
    if host in ("", "*"):
        raise BindError(
            f"write 0.0.0.0:{port_text} for every IPv4 address, [::]:{port_text} for every IPv6 one"
        )
    if host == "localhost":
        raise BindError(f"write 127.0.0.1:{port_text}; names have no one address")
    try:
        address = ClientAddress.parse(host)
    except AddressError as error:
        raise BindError(f"an address of this machine is needed before the port: {error}") from None
    return Bind("inet", host=address.text, port=int(port_text))
