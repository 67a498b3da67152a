"""The whole configuration as one value: what no other package owns, and the tables of those that do."""

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Annotated, Literal

from popgate.auth.settings import AuthSettings
from popgate.grants.settings import GrantSettings
from popgate.integrations.logs.settings import FollowSettings
from popgate.integrations.maps.settings import MapSettings
from popgate.queue.settings import DeliverySettings
from popgate.servers.settings import LimitSettings, ListenerSettings, TlsSettings
from popgate.values.settings import Bounds, Doc


@dataclass(slots=True)
class LogSettings:
    """The [log] table."""

    format: Annotated[
        Literal["logfmt", "json"],
        Doc("How events are written to standard error, one line each: logfmt (key=value) or json."),
    ] = "logfmt"
    history_bytes: Annotated[
        int,
        Doc(
            "How much history is kept that popgate grant explain tells from, in each of two files. It"
            " holds addresses and names of people; keep no more than you need."
        ),
        Bounds(4096, 1e10, "bytes"),
    ] = 16777216


@dataclass(slots=True)
class Config:
    """popgate.toml as `popgate.config.load` gives it: checked, defaults filled in, every path absolute."""

    hostname: Annotated[
        str,
        Doc(
            "The full name of this host, as it stands in greetings, Received: fields and Message-IDs;"
            " the address it resolves to should resolve back to it.",
            example='"mail.example.org"',
        ),
    ]
    data_dir: Annotated[
        str,
        Doc(
            "The directory of accounts, mailboxes, queue and history. A relative path is below the"
            " directory of this file; all other relative paths are below data_dir."
        ),
    ] = "/var/lib/popgate"
    local_domains: Annotated[
        list[str],
        Doc("Domains whose mail is for the mailboxes and aliases here.", example='["example.org"]'),
    ] = field(default_factory=list)
    user: Annotated[
        str,
        Doc(
            "The system user to become once the ports are bound. Empty: stay who started the server,"
            " which must not be root on a machine that strangers can reach.",
            example='"popgate"',
        ),
    ] = ""
    workers: Annotated[
        int, Doc("Server processes; 0 is one for each processor core."), Bounds(0, 1024, "processes")
    ] = 0
    postmaster: Annotated[
        str,
        Doc(
            "The account or alias that gets mail to postmaster at any local domain, which RFC 5321 asks"
            " for. Empty: only accounts and aliases named postmaster do.",
            example='"alice@example.org"',
        ),
    ] = ""
    listener: Annotated[
        list[ListenerSettings], Doc("Where the server listens, one [[listener]] for each address and port.")
    ] = field(default_factory=list)
    follow: Annotated[
        list[FollowSettings],
        Doc("Logs in which the logins of other servers are seen, one [[follow]] for each (docs/logs.md)."),
    ] = field(default_factory=list)
    map: Annotated[
        list[MapSettings],
        Doc(
            "Files of the addresses that may relay, for servers that look clients up by themselves, one"
            " [[map]] for each (docs/maps.md)."
        ),
    ] = field(default_factory=list)
    tls: Annotated[TlsSettings, Doc("The certificate.")] = field(default_factory=TlsSettings)
    grants: Annotated[GrantSettings, Doc("How a mail login lets an address relay, and how long.")] = field(
        default_factory=GrantSettings
    )
    auth: Annotated[AuthSettings, Doc("Where logins are checked.")] = field(default_factory=AuthSettings)
    delivery: Annotated[DeliverySettings, Doc("Where accepted mail goes, and how often it is tried.")] = (
        field(default_factory=DeliverySettings)
    )
    limits: Annotated[LimitSettings, Doc("What one client may ask for.")] = field(
        default_factory=LimitSettings
    )
    log: Annotated[LogSettings, Doc("What is written down.")] = field(default_factory=LogSettings)

    def path(self, text: str) -> str:
        """`text` as an absolute path; a relative one is below data_dir."""
        return os.path.normpath(os.path.join(self.data_dir, text))

    @property
    def worker_count(self) -> int:
        """How many server processes there are, with 0 resolved to the cores that we may use."""
        return self.workers or len(os.sched_getaffinity(0))

    @property
    def grant_directory(self) -> str | None:
        """The directory of the grant store, None when grants are kept in memory."""
        kind, _, rest = self.grants.store.partition(":")
        return self.path(rest) if kind == "directory" else None

    @property
    def accounts_file(self) -> str:
        return self.path("accounts.db")

    @property
    def mail_directory(self) -> str:
        return self.path("mail")

    @property
    def queue_directory(self) -> str:
        return self.path("queue")

    @property
    def history_directory(self) -> str:
        return self.path("history")

    @property
    def peer_logins_file(self) -> str:
        return self.path("peer-logins")

    @property
    def follow_directory(self) -> str:
        return self.path("follow")

    @property
    def map_lock(self) -> str:
        return self.path("map.lock")

    def auth_backends(self) -> Iterator[tuple[str, str]]:
        """[auth] backends as (kind, argument), with the path of a passwd_file absolute."""
        for text in self.auth.backends:
            kind, _, argument = text.partition(":")
            yield kind, self.path(argument) if kind == "passwd_file" else argument


def relay_by(listener: ListenerSettings) -> frozenset[str]:
    """What lets a client relay on this listener: a subset of "grant" and "auth".

    RFC 6409 4.3: submission asks for authentication, so a grant counts there only
    where the listener says so.
    """
    if listener.service not in ("smtp", "submission"):
        return frozenset()
    if listener.relay_by is not None:
        return frozenset(listener.relay_by)
    return frozenset(("grant", "auth") if listener.service == "smtp" else ("auth",))
