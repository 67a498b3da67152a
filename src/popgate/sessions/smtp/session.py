"""One SMTP connection's decisions.

The engine has read the commands; here it is decided whose mail is taken, for whom, and on
whose account. Whatever is not permitted by name is refused: a recipient is local and known,
or relayed by a login that stands behind it, or 5xx. Most answers are given at once; waiting
is needed only for password hashes, for the penalty of a failed login and for the disk.

It knows no transport: the server shell carries events here and replies back.
"""

from collections.abc import Awaitable
from typing import cast

from popgate.auth.authenticator import LookupUnavailable
from popgate.grants.grant import Decision, Grant, Usage
from popgate.grants.rules import is_bound
from popgate.protocols.engine import Engine
from popgate.protocols.smtp import (
    Aborted,
    Authenticate,
    BodyChunk,
    BodyEnd,
    Data,
    MailFrom,
    RcptTo,
    Reply,
    SmtpServer,
    StartTls,
    replies,
)
from popgate.queue.queue import Envelope, Incoming, QueueError, Recipient
from popgate.sessions.session import CloseReason, Peer, Runtime
from popgate.sessions.smtp import answers
from popgate.sessions.smtp.login import LoginDesk
from popgate.sessions.smtp.policy import SmtpPolicy
from popgate.sessions.smtp.services import SmtpServices
from popgate.sessions.smtp.telling import Telling
from popgate.sessions.smtp.trace import HeaderWatch, authority_of, received, with_protocol
from popgate.values.identity import Identity, IdentityError
from popgate.values.mail import MailAddress

_ROUTING = frozenset("%!@")
_NOTHING = Usage()


class SmtpSession:
    """The SMTP side of sessions.session.Session.

    `decide` answers BodyChunk and Aborted with None. For a BodyChunk it may give an awaitable of
    None: the caller waits for it (the disk is behind) and takes no answer from it. The awaitable
    for BodyEnd must be let run to its end even when the client has gone.
    """

    tick_seconds: float = 0

    def __init__(self, peer: Peer, policy: SmtpPolicy, runtime: Runtime, services: SmtpServices) -> None:
        self._peer = peer
        self._policy = policy
        self._runtime = runtime
        self._services = services
        self._smtp = SmtpServer(
            policy.options,
            token=runtime.token,
            is_tls=peer.is_tls,
            waits_to_greet=policy.waits_to_greet,
        )
        self.engine: Engine = cast(Engine, self._smtp)
        self._emit = Telling(peer, runtime)
        self._messages = 0
        self._total_octets = 0
        self._tls = "implicit" if peer.is_tls else ""
        self._desk = LoginDesk(peer.client, policy.failures_before_close, runtime, services, self._emit)
        self._is_closed = False
        self._forget_transaction()

    # Session

    def decide(self, event: object) -> Reply | Awaitable[Reply | None] | None:
        if isinstance(event, BodyChunk):
            return self._take_chunk(event.octets)
        if isinstance(event, RcptTo):
            return self._recipient(event)
        if isinstance(event, MailFrom):
            return self._sender(event)
        if isinstance(event, Data):
            return self._begin_body()
        if isinstance(event, BodyEnd):
            return self._end_body()
        if isinstance(event, Aborted):
            self._tell_abort(event.reason)
            self._drop_message()
            self._forget_transaction()
            return None
        if isinstance(event, Authenticate):
            return self._desk.authenticate(event.credentials)
        if isinstance(event, StartTls):
            return replies.START_TLS
        return replies.NO_DECISION

    def tls_started(self, version: str, cipher: str) -> None:
        self._drop_message()
        self._forget_transaction()
        self._desk.forget()
        self._tls = version

    def tick(self) -> None:
        pass  # grants are renewed by mail sessions only

    def timeout_reply(self) -> Reply:
        return answers.TIMEOUT

    def shutdown_reply(self) -> Reply:
        return answers.SHUTDOWN

    def closed(self, reason: CloseReason) -> None:
        if self._is_closed:
            return
        self._is_closed = True
        self._drop_message()
        self._forget_transaction()
        self._emit(
            "smtp.close",
            # For the shell every end that the engine chose is a "quit"
            reason=(self._smtp.ended_by or reason) if reason == "quit" else reason,
            commands=self._smtp.commands,
            messages=self._messages,
            octets=self._total_octets,
            tls=self._tls or None,
            identity=str(self._desk.login.identity) if self._desk.login else None,
        )
        self._desk.close()

    # The envelope

    def _forget_transaction(self) -> None:
        self._mail: MailFrom | None = None
        self._recipients: list[Recipient] = []
        self._known: set[MailAddress] = set()
        self._relayed = 0  # recipients on somebody's account
        self._decision: Decision | None = None  # the last one that permitted relaying
        self._incoming: Incoming | None = None
        self._header: HeaderWatch | None = None
        self._failure: Reply | None = None  # what BodyEnd will be answered with
        self._failure_reason = ""

    def _sender(self, command: MailFrom) -> Reply:
        policy = self._policy
        login = self._desk.login
        if login is None:
            if policy.service == "submission" and "grant" not in policy.relay_by:
                return answers.AUTH_REQUIRED  # RFC 6409 4.3
        elif policy.sender_bound and not is_bound(
            command.sender, login.identity, login.terms, self._services.local_domains
        ):
            self._refused(answers.NOT_YOUR_SENDER, "sender-not-bound", sender=_text(command.sender))
            return answers.NOT_YOUR_SENDER
        self._forget_transaction()
        self._mail = command
        return replies.SENDER_OK

    def _recipient(self, command: RcptTo) -> Reply:
        address = command.recipient
        is_local = not address.domain or address.domain in self._services.local_domains
        # The names of our own mailboxes are the same in any letters.
        key = MailAddress(address.local.lower(), address.domain) if is_local else address
        if key in self._known:
            return replies.RECIPIENT_OK
        if len(self._recipients) >= self._policy.recipients:
            return answers.TOO_MANY_RECIPIENTS
        refusal = self._local_recipient(command) if is_local else self._remote_recipient(command)
        if refusal is not None:
            return refusal
        self._known.add(key)
        return replies.RECIPIENT_OK

    def _local_recipient(self, command: RcptTo) -> Reply | None:
        written = command.recipient
        if self._policy.service == "submission" and self._desk.login is None:
            # There everything is on somebody's account, mail for our own users too.
            refusal = self._permission(written)
            if refusal is not None:
                return refusal
        try:
            address = self._resolve(written)
        except LookupUnavailable:
            self._refused(answers.LOOKUP_FAILED, "lookup-unavailable", recipient=str(written))
            return answers.LOOKUP_FAILED
        if address is None:
            self._refused(answers.NO_SUCH_USER, "no-such-user", recipient=str(written))
            return answers.NO_SUCH_USER
        self._recipients.append(Recipient(address, True, command.notify, command.orcpt))
        return None

    def _resolve(self, address: MailAddress) -> MailAddress | None:
        """The local address mail goes to, None when there is nobody. Raises LookupUnavailable."""
        try:
            # A name that could be no login is nobody's: no path, pipe, route or quoting gets on.
            Identity(address.local)
        except IdentityError:
            return None
        table = self._services.recipients
        if address.domain:
            return address if table.resolve(address) is not None else None
        for domain in sorted(self._services.local_domains):  # RFC 5321 4.5.1: <Postmaster>
            candidate = MailAddress(address.local, domain)
            if table.resolve(candidate) is not None:
                return candidate
        return None

    def _remote_recipient(self, command: RcptTo) -> Reply | None:
        address = command.recipient
        if not _ROUTING.isdisjoint(address.local):
            return self._relay_refused(answers.ROUTED_ADDRESS, "routed-address", address)
        if address.domain.startswith("["):
            return self._relay_refused(answers.LITERAL_DOMAIN, "address-literal", address)
        refusal = self._permission(address)
        if refusal is None:
            self._recipients.append(Recipient(address, False, command.notify, command.orcpt))
        return refusal

    def _permission(self, address: MailAddress) -> Reply | None:
        """None when somebody's login stands behind one more recipient, else the refusal."""
        policy = self._policy
        if self._desk.login is not None and "auth" in policy.relay_by:
            if not self._relayed:
                self._relay_permitted(str(self._desk.login.identity), "auth", address)
        elif "grant" in policy.relay_by:
            decision = self._ask_grants(self._relayed + 1)
            if decision.verdict != "permit":
                return self._relay_refused(answers.refusal_of(decision), decision.reason, address)
            if not self._relayed:
                identity = str(decision.grant.identity) if decision.grant else ""
                self._relay_permitted(identity, decision.reason, address)
            self._decision = decision
        elif policy.service == "submission":
            return self._relay_refused(answers.AUTH_REQUIRED, "no-login", address)
        else:
            text = f"relaying denied for [{self._peer.client}]: use authentication"
            return self._relay_refused(replies.reply(550, "5.7.1", text), "no-login", address)
        self._relayed += 1
        return None

    def _ask_grants(self, recipients: int) -> Decision:
        mail = self._mail
        return self._services.grants.decide(
            self._peer.client,
            mail.sender if mail else None,
            recipients,
            mail.size if mail else 0,
            self._peer.session,
        )

    # The message

    def _begin_body(self) -> Reply | Awaitable[Reply | None]:
        decision = self._decision
        if decision is not None:
            # The grant may have lapsed or been revoked since RCPT.
            decision = self._ask_grants(self._relayed)
            if decision.verdict != "permit":
                answer = self._relay_refused(answers.refusal_of(decision), decision.reason, None)
                self._forget_transaction()
                return answer
            self._decision = decision
        try:
            self._incoming = incoming = self._services.intake.receive()
            waiting = incoming.write(self._received(incoming.queue_id, decision))
        except QueueError as error:
            return self._not_taken(error)
        self._header = HeaderWatch()
        return replies.START_BODY if waiting is None else self._begin_later(waiting)

    async def _begin_later(self, waiting: Awaitable[None]) -> Reply:
        try:
            await waiting
        except QueueError as error:
            return self._not_taken(error)
        return replies.START_BODY

    def _not_taken(self, error: QueueError) -> Reply:
        answer = answers.QUEUE_FULL if error.is_full else answers.QUEUE_FAILED
        self._refused(answer, f"queue: {error}")
        self._drop_message()
        self._forget_transaction()
        return answer

    def _received(self, queue_id: str, decision: Decision | None) -> bytes:
        smtp = self._smtp
        authority = ""
        if self._desk.login is not None:
            authority = f"authenticated: {self._desk.login.identity}"
        elif decision is not None:
            authority = authority_of(decision.grant) if decision.grant else "trusted network"
        return received(
            helo=smtp.helo,
            client=self._peer.client,
            hostname=self._policy.hostname,
            protocol=with_protocol(
                is_extended=smtp.is_extended,
                is_tls=smtp.is_tls,
                is_authenticated=self._desk.login is not None,
                smtputf8=self._mail is not None and self._mail.smtputf8,
            ),
            queue_id=queue_id,
            authority=authority,
            recipients=[recipient.address for recipient in self._recipients],
            now=self._runtime.clock.now(),
        )

    def _take_chunk(self, octets: bytes) -> Awaitable[None] | None:
        incoming = self._incoming
        if incoming is None:
            return None  # refused already; the rest is read for nothing
        header = self._header
        if header is not None:
            header.feed(octets)
            if header.octets > self._policy.header_bytes:
                self._fail(answers.HEADER_TOO_LARGE, "header-too-large")
                return None
            if header.hops > self._policy.max_hops:
                self._fail(answers.LOOP, "loop")  # RFC 5321 6.3
                return None
            if header.is_complete:
                self._header = None
        try:
            waiting = incoming.write(octets)
        except QueueError as error:
            self._fail_by_queue(error)
            return None
        return None if waiting is None else self._take_later(waiting)

    async def _take_later(self, waiting: Awaitable[None]) -> None:
        try:
            await waiting
        except QueueError as error:
            self._fail_by_queue(error)

    def _fail_by_queue(self, error: QueueError) -> None:
        self._fail(answers.QUEUE_FULL if error.is_full else answers.QUEUE_FAILED, f"queue: {error}")

    def _fail(self, answer: Reply, reason: str) -> None:
        self._failure, self._failure_reason = answer, reason
        self._drop_message()

    def _tell_abort(self, reason: str) -> None:
        """A body that the engine refuses: whoever looks for the message must find it in the log."""
        if self._incoming is None:
            return
        if reason == "too-large":
            self._refused(replies.TOO_LARGE, reason)
        elif reason == "line-end":
            self._refused(replies.BAD_BODY, reason)

    def _drop_message(self) -> None:
        incoming, self._incoming = self._incoming, None
        if incoming is not None:
            incoming.abort()

    def _end_body(self) -> Reply | Awaitable[Reply | None]:
        incoming, mail = self._incoming, self._mail
        if self._failure is not None or incoming is None or mail is None:
            answer = self._failure or replies.NO_DECISION
            self._refused(answer, self._failure_reason or "no-message")
            self._drop_message()
            self._forget_transaction()
            return answer
        grant = self._decision.grant if self._decision is not None else None
        usage = _NOTHING
        if grant is not None:
            usage = Usage(1, self._relayed, incoming.octets)
            charged = self._services.grants.charge(grant, usage, self._peer.session)
            if charged.verdict != "permit":
                answer = self._relay_refused(answers.refusal_of(charged), charged.reason, None)
                self._drop_message()
                self._forget_transaction()
                return answer
            grant = charged.grant or grant
        envelope = self._envelope(mail, grant)
        self._forget_transaction()  # from here on the message belongs to the queue
        return incoming.commit(
            envelope, lambda error: self._conclude(incoming, envelope, grant, usage, error)
        )

    def _envelope(self, mail: MailFrom, grant: Grant | None) -> Envelope:
        identity = ""
        if self._desk.login is not None:
            identity = str(self._desk.login.identity)
        elif grant is not None:
            identity = str(grant.identity)
        return Envelope(
            sender=mail.sender,
            recipients=tuple(self._recipients),
            client=self._peer.client,
            identity=identity,
            session=self._peer.session,
            helo=self._smtp.helo,
            envid=mail.envid,
            ret=mail.ret,
            needs_smtputf8=mail.smtputf8,
            is_8bit=mail.is_8bit,
        )

    def _conclude(
        self,
        incoming: Incoming,
        envelope: Envelope,
        grant: Grant | None,
        usage: Usage,
        error: QueueError | None,
    ) -> Reply:
        """The message is on disk, or `error` says why not."""
        if error is not None:
            if grant is not None:
                self._services.grants.refund(grant, usage)
            answer = answers.QUEUE_FULL if error.is_full else answers.QUEUE_FAILED
            self._refused(answer, f"queue: {error}", sender=_text(envelope.sender))
            return answer
        self._messages += 1
        self._total_octets += incoming.octets
        self._emit(
            "smtp.accept",
            queue_id=incoming.queue_id,
            sender=_text(envelope.sender),
            recipients=len(envelope.recipients),
            recipient=str(envelope.recipients[0].address),
            octets=incoming.octets,
            identity=envelope.identity or None,
        )
        return Reply(250, b"250 2.6.0 queued as " + incoming.queue_id.encode("ascii", "replace") + b"\r\n")

    # Events

    def _refused(
        self, answer: Reply, reason: str, *, sender: str | None = None, recipient: str | None = None
    ) -> None:
        if sender is None and self._mail is not None:
            sender = _text(self._mail.sender)
        self._emit("smtp.refuse", code=answer.code, reason=reason, sender=sender, recipient=recipient)

    def _relay_refused(self, answer: Reply, reason: str, address: MailAddress | None) -> Reply:
        self._emit(
            "smtp.relay.refused",
            code=answer.code,
            reason=reason,
            sender=_text(self._mail.sender) if self._mail else None,
            recipient=str(address) if address else None,
        )
        return answer

    def _relay_permitted(self, identity: str, reason: str, address: MailAddress) -> None:
        self._emit(
            "smtp.relay.permitted",
            reason=reason,
            identity=identity or None,
            sender=_text(self._mail.sender) if self._mail else None,
            recipient=str(address),
        )


def _text(sender: MailAddress | None) -> str:
    return "<>" if sender is None else str(sender)
