"""Listeners for other machines' logins: what the configuration says, joined with the grants."""

from collections.abc import Callable, Sequence

from popgate.app.context import BoundListener
from popgate.app.ucspi import account_terms
from popgate.auth.account import Account
from popgate.config import Config
from popgate.grants.rules import ANONYMOUS
from popgate.grants.service import Grants
from popgate.servers.login_file import LoginFile
from popgate.servers.peer_logins import PeerEndpoint, PeerListener
from popgate.values.address import ClientAddress, Network
from popgate.values.clock import Clock
from popgate.values.event import EventSink
from popgate.values.identity import Identity


def open_peers(
    listeners: Sequence[BoundListener],
    config: Config,
    *,
    grants: Grants,
    account: Callable[[str], Account],
    clock: Clock,
    emit: EventSink,
    token: Callable[[], str],
) -> PeerListener | None:
    """Listen in this process at all of `listeners` that are for it; None where none is."""
    endpoints = [
        PeerEndpoint(
            bound.socket.dup(),
            bound.name,
            bound.key,
            tuple(Network.parse(text) for text in bound.settings.callers),
            bound.settings.insecure,
        )
        for bound in listeners
        if bound.settings.service == "relay_ctrl_udp"
    ]
    if not endpoints:
        return None

    def record(address: ClientAddress, identity: Identity | None, session: str) -> bool:
        who = ANONYMOUS if identity is None else identity
        return grants.allow(address, who, "peer", account_terms(account, who), session)

    return PeerListener(
        endpoints, LoginFile(config.peer_logins_file), record=record, clock=clock, emit=emit, token=token
    )
