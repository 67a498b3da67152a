"""One server's chain seen as a whole: where its listener, its checker and its relay-ctrl programs stand."""

from collections.abc import Iterator
from functools import cached_property

from popgate.integrations.qmail.chain import Chain, Link
from popgate.integrations.qmail.environment import Setting
from popgate.integrations.qmail.programs import (
    ASK_PASSWORD,
    LISTENERS,
    POP_SERVERS,
    PROGRAMS,
    RUNNERS,
    SMTP_SERVERS,
)
from popgate.integrations.qmail.survey import Program, Survey

SMTP_PORTS = frozenset({"25", "smtp", "465", "smtps", "587", "submission"})
POP_PORTS = frozenset({"110", "pop3", "pop-3", "995", "pop3s", "143", "imap", "imap2", "993", "imaps"})
RECORDERS = frozenset({"relay-ctrl-allow", "relay-ctrl-send", "popgate-allow"})
NO_CHECKERS = RECORDERS | {"relay-ctrl-check", "relay-ctrl-chdir"}
GRANT_PROGRAMS = frozenset({"relay-ctrl-allow", "relay-ctrl-check"})
"""Those that use the directory behind a listener."""


class ServerLine:
    """A chain of `program` in which something of ours or of qmail's is started."""

    def __init__(self, program: Program, chain: Chain) -> None:
        self.program = program
        self.chain = chain

    @property
    def file(self) -> str:
        return self.program.file

    def position(self, names: frozenset[str] | set[str], start: int = 0) -> int | None:
        """Where the first program of these names stands."""
        for at in range(start, len(self.chain)):
            if self.chain[at].step.name in names:
                return at
        return None

    def links(self, names: frozenset[str] | set[str]) -> Iterator[Link]:
        return (link for link in self.chain if link.step.name in names)

    @cached_property
    def listener(self) -> Link | None:
        at = self.position(LISTENERS)
        return None if at is None else self.chain[at]

    @cached_property
    def listener_at(self) -> int | None:
        return self.position(LISTENERS)

    @cached_property
    def asker_at(self) -> int | None:
        """The program that asks for name and password."""
        return self.position(ASK_PASSWORD)

    @cached_property
    def checker_at(self) -> int | None:
        """What the asker starts to check them: the first program that does more than set up the next."""
        if self.asker_at is None:
            return None
        for at in range(self.asker_at + 1, len(self.chain)):
            if self.chain[at].step.name not in RUNNERS:
                return at
        return None

    @cached_property
    def port(self) -> str:
        words = self.listener.step.words if self.listener is not None else ()
        return words[1].text.lower() if len(words) > 1 else ""

    @cached_property
    def is_smtp(self) -> bool:
        if self.listener is None:
            return False
        return self.port in SMTP_PORTS or self.position(SMTP_SERVERS) is not None

    @cached_property
    def is_pop(self) -> bool:
        if self.listener is None or self.is_smtp:
            return False
        return self.port in POP_PORTS or self.asker_at is not None or self.position(POP_SERVERS) is not None


def server_lines(survey: Survey) -> list[ServerLine]:
    """Chains of services that start something we know more of than how it reads its arguments."""
    return [
        ServerLine(service, chain)
        for service in survey.services
        for chain in service.chains
        if any(is_of_interest(link.step.name) for link in chain)
    ]


def cron_lines(survey: Survey) -> list[ServerLine]:
    return [
        ServerLine(program, chain)
        for program in survey.cron
        for chain in program.chains
        if any(link.step.name.startswith("relay-ctrl-") for link in chain)
    ]


def records_itself(line: "ServerLine") -> bool:
    """popgate's listener takes relay-ctrl-allow's work upon itself, with the rights it has."""
    return line.listener is not None and line.listener.step.is_popgate and line.listener.user is None


def is_of_interest(name: str) -> bool:
    if name in SMTP_SERVERS or name in POP_SERVERS or name in LISTENERS or name in ASK_PASSWORD:
        return True
    return name.startswith(("relay-ctrl-", "popgate")) or (name in PROGRAMS and name.startswith("qmail-"))


def setting(link: Link, name: str) -> Setting | None:
    """What the program of this link finds in its environment; None where it surely finds nothing."""
    return link.environment.get(name)
