"""Listening sockets from what a listener's `bind` says."""

import grp
import os
import socket
import stat

from popgate.servers.bind import parse_bind
from popgate.values.value import value


class ListenError(Exception):
    """The address cannot be listened on; the text says which and what to do."""


@value
class SocketAccess:
    """Who may connect to a unix socket: its permissions, and its group ("" leaves it)."""

    mode: int = 0o660
    group: str = ""


def open_listener(bind: str, backlog: int, access: SocketAccess = SocketAccess()) -> socket.socket:  # noqa: B008
    """Bind and listen; `backlog` connections may wait to be accepted. Raises ListenError, or
    bind.BindError for a `bind` that cannot be read."""
    place = parse_bind(bind)
    try:
        if place.kind == "fd":
            return inherited(place.name)
        if place.kind == "unix":
            return _open_unix(place.name, backlog, access)
        family = socket.AF_INET6 if place.is_ipv6 else socket.AF_INET
        listener = socket.socket(family, socket.SOCK_STREAM)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if place.is_ipv6:
                listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            listener.bind((place.host, place.port))
            listener.listen(backlog)
            listener.setblocking(False)
        except OSError:
            listener.close()
            raise
        return listener
    except PermissionError as fault:
        raise ListenError(
            f"cannot listen on {bind}: {fault.strerror}; ports below 1024 need root"
            " (popgate drops to `user` afterwards) or systemd socket activation"
        ) from fault
    except OSError as fault:
        raise ListenError(
            f"cannot listen on {bind}: {fault.strerror}; `ss -ltnp` shows who holds it"
        ) from fault


def _open_unix(path: str, backlog: int, access: SocketAccess) -> socket.socket:
    try:
        group = grp.getgrnam(access.group).gr_gid if access.group else -1
    except KeyError:
        raise ListenError(f"unix:{path}: there is no group {access.group} on this machine") from None
    try:
        if stat.S_ISSOCK(os.lstat(path).st_mode):
            os.unlink(path)  # left by a server that was killed
    except FileNotFoundError:
        pass
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        _bind_unix(listener, path, access.mode, group)
        listener.listen(backlog)
        listener.setblocking(False)
    except OSError:
        listener.close()
        raise
    return listener


def _bind_unix(listener: socket.socket, path: str, mode: int, group: int) -> None:
    """The socket gets its mode and group as it is made: another user may write to its directory, and
    could put something else in its place before they are changed."""
    own_group, mask = os.getegid(), os.umask(0o777 & ~mode)
    try:
        if group >= 0 and os.geteuid() == 0:
            os.setegid(group)
        listener.bind(path)
    finally:
        os.umask(mask)
        if os.getegid() != own_group:
            os.setegid(own_group)
    if group >= 0 and os.geteuid() != 0:
        os.chown(path, -1, group, follow_symlinks=False)


def inherited(name: str) -> socket.socket:
    """A socket that systemd passed (sd_listen_fds(3): LISTEN_PID, LISTEN_FDS, LISTEN_FDNAMES)."""
    if os.environ.get("LISTEN_PID") != str(os.getpid()):
        raise ListenError(f"fd:{name}: no sockets were passed to this process; is there a .socket unit?")
    names = os.environ.get("LISTEN_FDNAMES", "").split(":")
    if name not in names:
        raise ListenError(
            f"fd:{name}: the sockets passed are {', '.join(names)}; set FileDescriptorName={name}"
        )
    listener = socket.socket(fileno=os.dup(3 + names.index(name)))
    listener.setblocking(False)
    return listener


_IDLE_SECONDS, _PROBE_SECONDS, _PROBES = 180, 30, 4


def notice_vanished(listener: socket.socket) -> None:
    """Have the kernel ask the clients of idle connections whether they are there, and give up what they do
    not acknowledge: one that went out of reach, or lost power, is gone within five minutes. Connections
    take this over from the socket that they are accepted on."""
    if listener.family not in (socket.AF_INET, socket.AF_INET6):
        return
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, _IDLE_SECONDS)
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, _PROBE_SECONDS)
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, _PROBES)
    # tcp(7): with it the probes end after this time whatever their number, so it is the sum of them
    milliseconds = (_IDLE_SECONDS + _PROBES * _PROBE_SECONDS) * 1000
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, milliseconds)


def bound_name(listener: socket.socket) -> str:
    """`ADDRESS:PORT`, `[V6]:PORT` or `unix:/PATH` of a listening socket."""
    name = listener.getsockname()
    if listener.family == socket.AF_INET6:
        return f"[{name[0]}]:{name[1]}"
    return f"{name[0]}:{name[1]}" if listener.family == socket.AF_INET else f"unix:{name}"
