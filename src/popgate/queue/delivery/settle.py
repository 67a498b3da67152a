"""After an attempt: the next one, the end, the notifications and the events.

What an attempt changed and the notifications it calls for are one transaction. Events go
out after it, so that none tells of what a crash took back.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

from popgate.queue.backlog import Backlog, Change, Consignee, Damaged, QueuedMessage, Target
from popgate.queue.delivery import bounces
from popgate.queue.delivery.bounces import Entry, Kind, Reporter
from popgate.queue.delivery.outcome import Outcome
from popgate.queue.queue import Envelope, QueueError
from popgate.queue.schedule import Schedule
from popgate.values.event import Event

FAULT_SECONDS = 5.0
DELAY_SECONDS = 14400.0
"""After this a sender who asked for NOTIFY=DELAY is told, once."""


@dataclass(slots=True)
class Results:
    """What an attempt brought, by recipient."""

    outcomes: list[Entry] = field(default_factory=list)
    expanded: list[tuple[Consignee, list[Target]]] = field(default_factory=list)


class Settler:
    """Writes down what became of attempts."""

    def __init__(
        self,
        backlog: Backlog,
        schedule: Schedule,
        hostname: str,
        local_domains: frozenset[str],
        chance: Callable[[], float],
    ) -> None:
        self._backlog = backlog
        self._schedule = schedule
        self._reporter = Reporter(hostname, local_domains)
        self._chance = chance

    async def settle(self, message: QueuedMessage, results: Results, header: Callable[[], bytes]) -> bool:
        """Whether there is something new to deliver: a notification, or what an alias stood for.

        Does not give up while the database is at fault: a second attempt would be a second copy."""
        now = self._backlog.queue.clock.now()
        changes: list[Change] = []
        by_kind: dict[Kind, list[Entry]] = {}
        events: list[Event] = []
        for consignee, outcome in results.outcomes:
            change, kind, event = self._judge(message, consignee, outcome, now)
            changes.append(change)
            events.append(event)
            if kind is not None:
                by_kind.setdefault(kind, []).append((consignee, outcome))
        targets: list[Target] = []
        for consignee, stands_for in results.expanded:
            targets += stands_for
            changes.append(Change(consignee.number, "expanded", "", consignee.attempts))
            events.append(self._event("delivery.expanded", message, consignee, targets=len(stands_for)))
        reports, told = await self._reports(message, by_kind, header, now)
        has_warned = "delayed" in by_kind
        while True:
            try:
                ids = await self._backlog.settle(message, changes, targets, reports, has_warned)
                break
            except QueueError as error:
                self._emit("queue.fault", {"queue_id": message.queue_id, "reason": str(error)})
                await asyncio.sleep(FAULT_SECONDS)
        for event in events:
            self._backlog.queue.emit(event)
        for (kind, entries), report_id in zip(told, ids, strict=True):
            self._tell_report(message, kind, entries, report_id)
        if message.envelope.sender is None:
            # RFC 5321 6.1: nobody is told about a lost notification
            failed = {change.number for change in changes if change.state == "failed"}
            for consignee in message.recipients:
                if consignee.number in failed:
                    self._backlog.queue.emit(self._event("delivery.bounce.dropped", message, consignee))
        return bool(targets or reports)

    def _judge(
        self, message: QueuedMessage, consignee: Consignee, outcome: Outcome, now: float
    ) -> tuple[Change, Kind | None, Event]:
        """The recipient's new state, the notification due, the event."""
        attempts = consignee.attempts + 1
        recipient = consignee.recipient
        if outcome.state == "delivered":
            name = "delivery.sent" if outcome.host else "delivery.local"
            kind: Kind = "relayed" if outcome.host else "delivered"
            change = Change(consignee.number, "delivered", outcome.text, attempts)
            wanted = bounces.wants(kind, recipient) and not outcome.peer_reports
            event = self._event(name, message, consignee, outcome, seconds=round(now - message.created_at, 3))
            return change, kind if wanted else None, event
        if outcome.state == "deferred":
            again = self._schedule.next_attempt_at(attempts, message.created_at, now)
            if again is not None:
                change = Change(consignee.number, "pending", outcome.text, attempts, again)
                event = self._event(
                    "delivery.deferred",
                    message,
                    consignee,
                    outcome,
                    attempts=attempts,
                    retry=round(again - now),
                )
                is_late = now - message.created_at >= DELAY_SECONDS and not message.has_warned
                is_late = is_late and bounces.wants("delayed", recipient)
                return change, "delayed" if is_late else None, event
        change = Change(consignee.number, "failed", outcome.text, attempts)
        event = self._event("delivery.failed", message, consignee, outcome, attempts=attempts)
        return change, "failed" if bounces.wants("failed", recipient) else None, event

    async def _reports(
        self,
        message: QueuedMessage,
        by_kind: dict[Kind, list[Entry]],
        header: Callable[[], bytes],
        now: float,
    ) -> tuple[list[tuple[Envelope, bytes]], list[tuple[Kind, list[Entry]]]]:
        # RFC 5321 4.5.5: never a notification about a message with a null reverse-path
        if message.envelope.sender is None or not by_kind:
            return [], []
        try:
            head = await asyncio.to_thread(header)
        except Damaged:
            head = b""
        until = self._schedule.ends_at(message.created_at, now)
        reports, told = [], []
        for kind, entries in by_kind.items():
            nonce = f"{int(self._chance() * 1e9):09d}{int(self._chance() * 1e9):09d}"
            final = [(one, _final(outcome) if kind == "failed" else outcome) for one, outcome in entries]
            reports.append(bounces.compose(self._reporter, kind, message, final, head, now, until, nonce))
            told.append((kind, entries))
        return reports, told

    def _tell_report(self, message: QueuedMessage, kind: Kind, entries: list[Entry], report_id: str) -> None:
        name = "delivery.bounce" if kind == "failed" else "delivery.report"
        self._emit(
            name,
            {
                "queue_id": message.queue_id,
                "session": message.envelope.session or None,
                "report_id": report_id,
                "action": kind,
                "recipient": str(message.envelope.sender),
                "recipients": len(entries),
            },
        )

    def _event(
        self,
        name: str,
        message: QueuedMessage,
        consignee: Consignee,
        outcome: Outcome | None = None,
        **more: int | float,
    ) -> Event:
        fields: dict[str, str | int | float | None] = {
            "queue_id": message.queue_id,
            "session": message.envelope.session or None,
            "identity": message.envelope.identity or None,
            "sender": str(message.envelope.sender or ""),
            "recipient": consignee.mailbox or str(consignee.recipient.address),
            "via": consignee.via or None,
        }
        if outcome is not None:
            fields |= {"host": outcome.host or None, "status": outcome.code, "reason": outcome.text}
        return Event(name, self._backlog.queue.clock.now(), fields | more)

    def _emit(self, name: str, fields: dict[str, str | int | float | None]) -> None:
        self._backlog.queue.emit(Event(name, self._backlog.queue.clock.now(), fields))


def _final(outcome: Outcome) -> Outcome:
    """A temporary trouble that outlived the message is final now (RFC 3463 X.4.7: time expired)."""
    if not outcome.code.startswith("4"):
        return outcome
    return Outcome(
        "failed", "5.4.7", f"tried until its time was over; the last trouble: {outcome.text}", outcome.host
    )
