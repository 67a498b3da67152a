"""Sessions of the listeners that other mail servers ask: may this client relay, and as whom?"""

from popgate.sessions.relay.desk import RelayDesk, RelayGrants
from popgate.sessions.relay.line import LinePolicy, RelayLineSession
from popgate.sessions.relay.maps import MapPolicy, SenderOwners, SocketmapSession, TcpTableSession
from popgate.sessions.relay.policy import DelegationPolicy, PostfixPolicySession

__all__ = [
    "DelegationPolicy",
    "LinePolicy",
    "MapPolicy",
    "PostfixPolicySession",
    "RelayDesk",
    "RelayGrants",
    "RelayLineSession",
    "SenderOwners",
    "SocketmapSession",
    "TcpTableSession",
]
