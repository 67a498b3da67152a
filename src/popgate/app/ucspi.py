"""Listeners that run programs: what the configuration says, joined with grants, limits and the log."""

import os
from collections.abc import Callable
from typing import Literal

from popgate.app.context import BoundListener
from popgate.auth.account import Account, AccountError
from popgate.config import Config
from popgate.grants import rules
from popgate.grants.grant import DEFAULT_TERMS, Terms
from popgate.grants.service import Grants
from popgate.integrations.ucspi import Program, RuleFile, UcspiListener, UcspiPolicy
from popgate.integrations.ucspi.dns_names import DnsNames
from popgate.integrations.ucspi.environment import LOGIN_NAMES, SERVER_NAMES, Ends, base_environment
from popgate.integrations.ucspi.listener import Right, exit_text
from popgate.integrations.ucspi.program import ProgramLimits
from popgate.servers.limits import ConnectionLimits, ConnectionTable
from popgate.servers.settings import ListenerSettings
from popgate.values.address import ClientAddress
from popgate.values.clock import Clock
from popgate.values.event import Event, EventSink
from popgate.values.identity import Identity

_OPEN_FILES = 1024  # what programs of every age can live with (select(2) counts no further)


def open_ucspi(
    bound: BoundListener,
    number: int,
    config: Config,
    *,
    table: ConnectionTable,
    grants: Grants,
    account: Callable[[str], Account],
    clock: Clock,
    emit: EventSink,
    token: Callable[[], str],
) -> UcspiListener:
    """Listen in this process. Raises ProgramError, OSError."""
    settings = bound.settings
    _close_for_programs()
    return UcspiListener(
        bound.socket.dup(),
        policy(settings, config.hostname),
        limits=_Limits(
            table,
            number,
            ConnectionLimits(
                settings.max_connections,
                settings.max_connections_per_address,
                config.limits.connections_per_subnet,
            ),
        ),
        grants=ProgramGrants(grants, lambda identity: account_terms(account, identity)),
        log=_EventLog(clock, emit),
        resolver=DnsNames(),
        token=token,
    )


def policy(settings: ListenerSettings, hostname: str) -> UcspiPolicy:
    """What a [[listener]] asks for. Raises ProgramError."""
    return UcspiPolicy(
        program=program(settings),
        environment=base_environment(os.environb, LOGIN_NAMES + SERVER_NAMES),
        grant=settings.grant,
        relayclient=os.fsencode(settings.relayclient),
        defer_reply=defer_reply(hostname) if settings.on_store_fault == "defer" else b"",
        rules=RuleFile(settings.rules_file) if settings.rules_file else None,
        host_lookup=settings.remote_host,
        info_seconds=float(settings.remote_info_seconds),
        local_host=hostname,
        nodelay=True,
        kills_ip_options=True,
    )


def program(settings: ListenerSettings) -> Program:
    """The program of a [[listener]]. Raises ProgramError."""
    import resource

    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    memory = settings.memory_bytes or None
    return Program(
        settings.command,
        ProgramLimits(memory, memory, settings.open_files or None),
        descriptors=None
        if settings.open_files
        else (min(_OPEN_FILES, hard) if hard >= 0 else _OPEN_FILES, hard),
    )


def defer_reply(hostname: str) -> bytes:
    """An SMTP greeting that has the client come again (RFC 5321 3.8)."""
    return f"421 4.3.0 {hostname} the right to relay cannot be checked now; try again later\r\n".encode()


class ProgramGrants:
    """The grants as a listener for programs asks them; `terms` says what a login is good for."""

    def __init__(self, grants: Grants, terms: Callable[[Identity], Terms] = lambda identity: DEFAULT_TERMS):
        self._grants = grants
        self._terms = terms

    def right(self, client: ClientAddress, session: str) -> Right:
        decision = self._grants.right(client, session)
        if decision.verdict == "permit":
            grant = decision.grant
            identity = None if grant is None or grant.identity == rules.ANONYMOUS else grant.identity
            return Right("permit", identity, decision.reason)
        verdict: Literal["refuse", "defer"] = "defer" if decision.verdict == "defer" else "refuse"
        return Right(verdict, None, decision.reason)

    def allow(self, client: ClientAddress, identity: Identity, session: str) -> bool:
        return self._grants.allow(client, identity, "ucspi", self._terms(identity), session)

    def renew(self, client: ClientAddress, identity: Identity, session: str) -> None:
        self._grants.renew(client, identity, session)

    def logout(self, client: ClientAddress, identity: Identity, session: str) -> None:
        self._grants.logout(client, identity, session)


class _Limits:
    def __init__(self, table: ConnectionTable, number: int, limits: ConnectionLimits) -> None:
        self._table = table
        self._number = number
        self._limits = limits

    def admit(self, client: ClientAddress) -> str | None:
        return self._table.admit(client, self._number, self._limits)

    def release(self, client: ClientAddress) -> None:
        self._table.release(client, self._number)


class _EventLog:
    def __init__(self, clock: Clock, emit: EventSink) -> None:
        self._clock = clock
        self._emit = emit

    def opened(self, session: str, pid: int, ends: Ends, identity: Identity | None, reason: str) -> None:
        self._event(
            "ucspi.open",
            session=session,
            client=ends.client.text,
            identity=str(identity) if identity is not None else None,
            pid=pid,
            local=ends.local_port,
            reason=reason or None,
        )

    def closed(self, session: str, pid: int, ends: Ends, identity: Identity | None, status: int) -> None:
        self._event(
            "ucspi.close",
            session=session,
            client=ends.client.text,
            identity=str(identity) if identity is not None else None,
            pid=pid,
            status=exit_text(status) or "shutdown",
        )

    def refused(self, session: str, ends: Ends, reason: str, detail: str = "") -> None:
        self._event(
            "connection.refused",
            service="ucspi",
            client=ends.client.text,
            reason=reason,
            detail=detail or None,
        )

    def fault(self, session: str, client: ClientAddress | None, detail: str) -> None:
        self._event(
            "ucspi.fault", session=session or None, client=client.text if client else None, detail=detail
        )

    def count(self, running: int) -> None:
        pass

    def _event(self, name: str, **fields: str | int | float | None) -> None:
        self._emit(Event(name, self._clock.now(), fields))


def account_terms(account: Callable[[str], Account], identity: Identity) -> Terms:
    """Those of the account of that name, where there is one here."""
    try:
        return account(str(identity)).terms
    except AccountError:
        return DEFAULT_TERMS


def _close_for_programs() -> None:
    """What this process has inherited (systemd's sockets) is not for programs."""
    for name in os.listdir("/proc/self/fd"):
        if int(name) > 2:
            try:
                os.set_inheritable(int(name), False)
            except OSError:
                pass  # it was the directory's own
