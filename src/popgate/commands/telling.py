"""The sending half of relay-ctrl-send: datagrams, and their answers.

A datagram may be lost, and so may its answer: each is sent again, RELAY_CTRL_TRIES times
(5), RELAY_CTRL_TIMEOUT seconds apart (1). A machine that answered is left alone.
"""

import os
import socket
import time

from popgate.commands import peers
from popgate.commands.chain import Program, positive_number, reason
from popgate.protocols import relay_ctrl_udp
from popgate.values.address import AddressError, ClientAddress, Network

_LOOPBACK = (Network.parse("127.0.0.0/8"), Network.parse("::1"))


class _Remote:
    """A machine that has not answered: its name as it was given, where it is, what it is told."""

    def __init__(self, name: str, address: ClientAddress, port: int, data: bytes) -> None:
        self.name = name
        self.address = address
        self.end = (address.text, port)
        self.family = socket.AF_INET6 if address.is_ipv6 else socket.AF_INET
        self.data = data


def tell(
    program: Program, address: ClientAddress, writing: int, first_seconds: float, *, is_insecure: bool
) -> None:
    """Tell everybody in RELAY_CTRL_REMOTES; close `writing` once all have answered, at the latest
    after `first_seconds`. Warns of those that do not answer."""
    try:
        key = peers.read_key()
    except peers.KeyFileError as error:
        program.warn(str(error))
        return
    nonce = os.urandom(16).hex()
    try:
        data = _datagram(address, nonce, key)
    except relay_ctrl_udp.PacketError as error:
        program.warn(f"No grant elsewhere: {error}")
        return
    waiting = _remotes(program, data, is_signed=key is not None, is_insecure=is_insecure)
    sockets: dict[int, socket.socket] = {}
    for family in {remote.family for remote in waiting}:
        sockets[family] = socket.socket(family, socket.SOCK_DGRAM)
    interval = float(positive_number("RELAY_CTRL_TIMEOUT", 1))
    let_go_at = time.monotonic() + first_seconds
    for _ in range(min(positive_number("RELAY_CTRL_TRIES", 5), 100)):
        if not waiting:
            break
        for remote in waiting:
            try:
                sockets[remote.family].sendto(remote.data, remote.end)
            except OSError as error:
                program.warn(f"Could not send to '{remote.name}': {reason(error)}")
        end = time.monotonic() + interval
        while waiting and (now := time.monotonic()) < end:
            if writing >= 0 and now >= let_go_at:
                os.close(writing)
                writing = -1
            until = min(end, let_go_at) if writing >= 0 else end
            waiting = _await_answer(program, waiting, sockets, max(0.001, until - now), nonce, key)
    for remote in waiting:
        program.warn(f"Timed out waiting for response from '{remote.name}'.")


def _datagram(address: ClientAddress, nonce: str, key: bytes | None) -> bytes:
    if key is None:
        return address.text.encode("ascii")
    user = os.environ.get("USER") or os.environ.get("AUTHENTICATED", "")
    login = relay_ctrl_udp.PeerLogin(address, user, os.environ.get("DOMAIN", ""), time.time(), nonce)
    return relay_ctrl_udp.signed_login(login, key)


def _remotes(program: Program, data: bytes, *, is_signed: bool, is_insecure: bool) -> list[_Remote]:
    """From the last to the first of the list, as the original."""
    remotes = []
    port = peers.port()
    for name in reversed(peers.listed("RELAY_CTRL_REMOTES")):
        try:
            address, its_port = peers.end_point(name, port)
        except (AddressError, ValueError):
            program.warn(f"Could not parse IP '{name}'.")
            continue
        if not (is_signed or is_insecure or any(address in network for network in _LOOPBACK)):
            program.warn(
                f"Nothing sent to '{name}': RELAY_CTRL_KEY is not set (--insecure sends it unsigned)."
            )
            continue
        remotes.append(_Remote(name, address, its_port, data))
    return remotes


def _await_answer(
    program: Program,
    waiting: list[_Remote],
    sockets: dict[int, socket.socket],
    seconds: float,
    nonce: str,
    key: bytes | None,
) -> list[_Remote]:
    """Who has not answered after the next datagram, or after `seconds`."""
    import select

    poll = select.poll()
    by_number = {each.fileno(): each for each in sockets.values()}
    for number in by_number:
        poll.register(number, select.POLLIN)
    for number, _ in poll.poll(seconds * 1000):
        try:
            data, source = by_number[number].recvfrom(relay_ctrl_udp.MAX_OCTETS + 1)
            there = (ClientAddress.parse(source[0]), source[1])
        except (OSError, AddressError):
            continue
        for remote in waiting:
            # An answer comes from where the login went to; nonce and signature say that it is one.
            if (remote.address, remote.end[1]) != there:
                continue
            if key is None:
                is_done = True if data == relay_ctrl_udp.ANSWER else None
            else:
                is_done = relay_ctrl_udp.is_answer(data, nonce, key)
            if is_done is None:
                continue
            if not is_done:
                program.warn(f"'{remote.name}' could not record the login.")
            return [each for each in waiting if each is not remote]
    return waiting
