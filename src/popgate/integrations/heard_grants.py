"""The grants for logins that somebody else's server tells of: each is told with who told."""

from typing import Protocol

from popgate.grants.grant import Terms
from popgate.integrations.open_sessions import SessionGrants
from popgate.values.address import ClientAddress
from popgate.values.identity import Identity


class ViaGrants(SessionGrants, Protocol):
    """The grants that take `via`, the name for whoever reads their story; grants.service.Grants is one."""

    def allow(
        self,
        address: ClientAddress,
        identity: Identity,
        protocol: str,
        terms: Terms,
        session: str,
        *,
        at: float | None = None,
        via: str = "",
    ) -> bool: ...


class HeardGrants:
    """The grants for logins that `via` tells of."""

    def __init__(self, grants: ViaGrants, via: str) -> None:
        self._grants = grants
        self._via = via

    def allow(
        self,
        address: ClientAddress,
        identity: Identity,
        protocol: str,
        terms: Terms,
        session: str,
        *,
        at: float | None = None,
    ) -> bool:
        return self._grants.allow(address, identity, protocol, terms, session, at=at, via=self._via)

    def renew(self, address: ClientAddress, identity: Identity, session: str) -> None:
        self._grants.renew(address, identity, session)

    def logout(
        self, address: ClientAddress, identity: Identity, session: str, *, at: float | None = None
    ) -> None:
        self._grants.logout(address, identity, session, at=at)
