"""What the sessions of one worker share, and how a session is made for each listener."""

from collections.abc import Callable
from dataclasses import dataclass

from popgate.app import backends
from popgate.app.context import ServerContext
from popgate.app.own_addresses import own_addresses
from popgate.app.ucspi import account_terms
from popgate.auth.authenticator import Authenticator, RecipientTable, ScramAuthenticator
from popgate.auth.senders import AccountSenders
from popgate.auth.throttle import Throttle
from popgate.config import Config, relay_by
from popgate.grants.service import Grants
from popgate.mailbox.folders import Accounts
from popgate.mailbox.mailbox import Mailboxes
from popgate.protocols.sasl import PLAINTEXT_MECHANISMS
from popgate.queue.store import SqliteQueue
from popgate.servers.change_notices import DirectoryNotices
from popgate.servers.settings import QUESTION_SERVICES, ListenerSettings
from popgate.sessions.imap import ImapPolicy, ImapServices, ImapSession
from popgate.sessions.pop3 import Pop3Policy, Pop3Services, Pop3Session
from popgate.sessions.relay import (
    DelegationPolicy,
    LinePolicy,
    MapPolicy,
    PostfixPolicySession,
    RelayDesk,
    RelayLineSession,
    SocketmapSession,
    TcpTableSession,
)
from popgate.sessions.session import Peer, Runtime, Session, UserSessions
from popgate.sessions.smtp import SmtpPolicy, SmtpServices, SmtpSession
from popgate.sessions.whoson import WhosonDesk, WhosonSession


@dataclass(slots=True)
class Services:
    """The back ends as one process holds them open."""

    accounts: backends.AccountDatabase
    authenticator: Authenticator
    recipients: RecipientTable
    grants: Grants
    mailboxes: Mailboxes
    folders: Accounts
    notices: DirectoryNotices
    queue: SqliteQueue
    throttle: Throttle

    def close(self) -> None:
        self.notices.close()
        self.authenticator.close()
        self.queue.close()
        self.accounts.close()


def open_services(context: ServerContext, runtime: Runtime, wake: Callable[[], None]) -> Services:
    """Open everything that sessions ask. Call it in the process that uses it, on the thread of its event
    loop, never before a fork."""
    config = context.config
    accounts = backends.account_database(config)
    notices = DirectoryNotices(runtime.clock, runtime.emit)
    return Services(
        accounts=accounts,
        authenticator=backends.authenticator(config, accounts, runtime.clock, runtime.emit),
        recipients=backends.recipients(config, accounts, runtime.clock),
        grants=backends.grants(config, runtime.clock, runtime.emit, own_addresses=own_addresses()),
        mailboxes=backends.mailboxes(
            config, runtime.clock, runtime.emit, most_kept=backends.most_kept_maildirs()
        ),
        folders=backends.folders(config, runtime.clock, runtime.emit, notices),
        notices=notices,
        queue=backends.queue(config, runtime.clock, runtime.emit, accepted=wake),
        throttle=Throttle(config.auth, runtime.clock, context.throttle_counts, context.throttle_key),
    )


class SessionMaker:
    """Makes the sessions of each listener of one worker."""

    def __init__(self, config: Config, runtime: Runtime, services: Services, users: UserSessions) -> None:
        self._config = config
        self._runtime = runtime
        self._grants = services.grants
        self._accounts = services.accounts
        chosen = services.authenticator
        self._scram_keys = chosen.scram_keys if isinstance(chosen, ScramAuthenticator) else None
        self._owners = AccountSenders(services.accounts)
        self._smtp = SmtpServices(
            authenticator=services.authenticator,
            recipients=services.recipients,
            grants=services.grants,
            intake=services.queue,
            throttle=services.throttle,
            local_domains=frozenset(domain.lower() for domain in config.local_domains),
            users=users,
        )
        self._pop3 = Pop3Services(
            authenticator=services.authenticator,
            mailboxes=services.mailboxes,
            grants=services.grants,
            throttle=services.throttle,
            users=users,
        )

        self._imap = ImapServices(
            authenticator=services.authenticator,
            accounts=services.folders,
            grants=services.grants,
            throttle=services.throttle,
            users=users,
        )

    def for_listener(self, settings: ListenerSettings) -> Callable[[Peer], Session]:
        """The function that makes a session for a connection to this listener."""
        runtime = self._runtime
        if settings.service == "pop3":
            pop3_policy, pop3_services = self._pop3_policy(settings), self._pop3
            return lambda peer: Pop3Session(peer, pop3_policy, runtime, pop3_services)
        if settings.service == "imap":
            imap_policy, imap_services = self._imap_policy(settings), self._imap
            return lambda peer: ImapSession(peer, imap_policy, runtime, imap_services)
        if settings.service in QUESTION_SERVICES:
            return self._for_questions(settings)
        if settings.service == "whoson":
            desk = self.whoson_desk(settings)
            return lambda peer: WhosonSession(peer, desk)
        smtp_policy, smtp_services = self._smtp_policy(settings), self._smtp
        return lambda peer: SmtpSession(peer, smtp_policy, runtime, smtp_services)

    def whoson_desk(self, settings: ListenerSettings) -> WhosonDesk:
        """What answers the whoson commands of a listener."""
        local = self._config.local_domains
        return WhosonDesk(
            self._grants,
            RelayDesk(settings.service, self._grants, self._runtime),
            lambda identity: account_terms(self._accounts.get, identity),
            settings.default_domain or (local[0] if local else ""),
        )

    def _for_questions(self, settings: ListenerSettings) -> Callable[[Peer], Session]:
        """For a listener that other mail servers ask."""
        desk = RelayDesk(settings.service, self._grants, self._runtime)
        if settings.service == "postfix_policy":
            delegation = DelegationPolicy(
                refusal=settings.refusal,
                on_store_fault="defer_if_permit" if settings.on_store_fault == "defer_if_permit" else "defer",
                identity_header=settings.identity_header,
                permit_authenticated=settings.permit_authenticated,
                charge=settings.charge,
            )
            return lambda peer: PostfixPolicySession(peer, delegation, desk)
        if settings.service == "line":
            line = LinePolicy(line_end=settings.line_end == "lf")
            return lambda peer: RelayLineSession(peer, line, desk)
        maps = MapPolicy(found=settings.map_value)
        if settings.service == "tcp_table":
            return lambda peer: TcpTableSession(peer, maps, desk)
        return lambda peer: SocketmapSession(peer, maps, desk, self._owners)

    def busy_reply(self, settings: ListenerSettings) -> bytes:
        """What is said to a connection over a limit."""
        if settings.service in (*QUESTION_SERVICES, "whoson"):
            return b""  # the close alone says "try again" in each of these protocols
        if settings.service == "pop3":
            return b"-ERR [SYS/TEMP] too many connections, try again later\r\n"
        if settings.service == "imap":
            return b"* BYE [UNAVAILABLE] too many connections, try again later\r\n"  # RFC 5530 3
        return f"421 4.7.0 {self._config.hostname} too many connections, try again later\r\n".encode("ascii")

    def _pop3_policy(self, settings: ListenerSettings) -> Pop3Policy:
        config = self._config
        return Pop3Policy(
            hostname=config.hostname,
            offers_tls=settings.tls == "starttls",
            plaintext_login=settings.plaintext_login,
            apop=config.auth.apop,
            errors=config.limits.errors,
            junk=config.limits.junk,
            failures_before_close=config.auth.failures_before_close,
            tick_seconds=self._tick_seconds,
        )

    def _imap_policy(self, settings: ListenerSettings) -> ImapPolicy:
        config = self._config
        scram = ("SCRAM-SHA-256",) if config.auth.apop and self._scram_keys is not None else ()
        return ImapPolicy(
            hostname=config.hostname,
            offers_tls=settings.tls == "starttls",
            plaintext_login=settings.plaintext_login,
            cram_md5=config.auth.apop,
            mechanisms=(*PLAINTEXT_MECHANISMS, *scram),
            errors=config.limits.errors,
            junk=config.limits.junk,
            append_limit=config.limits.message_bytes,
            failures_before_close=config.auth.failures_before_close,
            tick_seconds=self._tick_seconds,
        )

    @property
    def _tick_seconds(self) -> float:
        # renewals must come well within the window, and need not come more often than a few a minute
        return max(1.0, min(20.0, self._config.grants.window_seconds / 4))

    def _smtp_policy(self, settings: ListenerSettings) -> SmtpPolicy:
        config = self._config
        rights = relay_by(settings)
        return SmtpPolicy(
            hostname=config.hostname,
            service="submission" if settings.service == "submission" else "smtp",
            relay_by=rights,
            offers_tls=settings.tls == "starttls",
            plaintext_login=settings.plaintext_login,
            offers_auth="auth" in rights,
            cram_md5=config.auth.apop,
            scram_keys=self._scram_keys,
            tolerant_helo="grant" in rights,
            sender_bound=config.grants.sender == "bound",
            message_bytes=config.limits.message_bytes,
            recipients=config.limits.recipients,
            max_hops=config.delivery.max_hops,
            errors=config.limits.errors,
            junk=config.limits.junk,
            failures_before_close=config.auth.failures_before_close,
        )
