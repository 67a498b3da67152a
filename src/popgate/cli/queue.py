"""`popgate queue`: the messages that wait, and what an administrator may do to them."""

import contextlib
import sys
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import click

from popgate.cli.options import config_options, json_option, site_config
from popgate.cli.output import (
    how_long,
    print_fields,
    print_json,
    print_table,
    printable,
    tell,
    when,
)
from popgate.cli.root import BadUsage, CommandGroup, Refusal

if TYPE_CHECKING:
    from popgate.queue.admin import ListedMessage, ListedRecipient, QueueAdmin


@click.group(cls=CommandGroup)
def queue() -> None:
    """See the messages that wait for delivery, and retry, hold or remove them."""


@queue.command("list", epilog="Example: popgate queue list --domain example.net --json")
@click.option("--held", "only_held", is_flag=True, help="Only messages that are held.")
@click.option("--domain", default="", metavar="DOMAIN", help="Only those with a recipient at DOMAIN.")
@click.option(
    "--sender", metavar="ADDRESS", help='Only those from ADDRESS; "" is the null sender of bounces.'
)
@click.option("--after", default="", metavar="ID", help="Go on behind the message ID.")
@click.option(
    "--most", type=click.IntRange(1, 1_000_000), default=1000, show_default=True, help="How many at most."
)
@config_options
@json_option
def list_(
    only_held: bool,
    domain: str,
    sender: str | None,
    after: str,
    most: int,
    config_file: str | None,
    overrides: tuple[str, ...],
    as_json: bool,
) -> None:
    """List the messages in the queue, the oldest first."""
    from popgate.queue import queue_id

    if after and queue_id.to_number(after) is None:
        raise BadUsage(f"--after {printable(after)}: that is no id of a message")
    with _admin(config_file, overrides) as admin:
        found = (
            admin.list(
                states=("held",) if only_held else (), domain=domain, sender=sender, after=after, most=most
            )
            if admin
            else []
        )
    if as_json:
        print_json([_as_json(message) for message in found])
        return
    if not found:
        tell("no message waits")
        return
    now = _now()
    print_table(
        ("id", "age", "bytes", "sender", "to", "state", "last answer"),
        [
            (
                message.queue_id,
                how_long(now - message.created_at),
                message.octets,
                _sender(message),
                _to(message),
                _state(message, now),
                next((one.status for one in message.recipients if one.status), message.held),
            )
            for message in found
        ],
    )
    if len(found) == most:
        tell(f"there may be more: popgate queue list --after {found[-1].queue_id}")


@queue.command(epilog="Example: popgate queue show ID --header")
@click.argument("queue_id", metavar="ID")
@click.option("--header", "wants_header", is_flag=True, help="Print the message's header too.")
@click.option("--content", "wants_content", is_flag=True, help="Print the message itself and nothing else.")
@config_options
@json_option
def show(
    queue_id: str,
    wants_header: bool,
    wants_content: bool,
    config_file: str | None,
    overrides: tuple[str, ...],
    as_json: bool,
) -> None:
    """Show a message and what became of each recipient. Exit status 1 when there is none."""
    with _admin(config_file, overrides) as admin:
        message = admin.show(queue_id) if admin else None
        if admin is None or message is None:
            raise Refusal(f"there is no message {printable(queue_id)} in the queue")
        if wants_content:
            _print_content(admin.content(queue_id))
            return
        header = admin.header(queue_id).decode("utf-8", "replace") if wants_header else ""
    if as_json:
        print_json(_as_json(message) | ({"header": header} if wants_header else {}))
        return
    envelope = message.envelope
    print_fields(
        (
            ("id", message.queue_id),
            ("accepted", when(message.created_at)),
            ("bytes", message.octets),
            ("sender", _sender(message)),
            ("relayed for", envelope.identity or "nobody: mail from outside"),
            ("client", f"{envelope.client or 'this host'} ({envelope.helo or 'no name'})"),
            ("session", envelope.session),
            ("held", message.held or "no"),
        )
    )
    click.echo()
    print_table(
        ("recipient", "state", "tries", "next try", "last answer"),
        [
            (_recipient(one), one.state, one.attempts, _next_try(one), one.status)
            for one in message.recipients
        ],
    )
    if wants_header:
        click.echo()
        for line in header.splitlines():
            click.echo(printable(line))


@queue.command(epilog="Example: popgate queue retry --all")
@click.argument("queue_ids", metavar="[ID]...", nargs=-1)
@click.option("--all", "is_for_all", is_flag=True, help="Every message that waits.")
@config_options
def retry(
    queue_ids: tuple[str, ...], is_for_all: bool, config_file: str | None, overrides: tuple[str, ...]
) -> None:
    """Try delivery now instead of at the next time of the schedule."""
    names = _names(queue_ids, is_for_all)
    with _admin(config_file, overrides) as admin:
        done = admin.retry(names) if admin else ()
    _tell_done("will be tried now", names, done)


@queue.command(epilog="Example: popgate queue hold ID")
@click.argument("queue_ids", metavar="ID...", nargs=-1, required=True)
@config_options
def hold(queue_ids: tuple[str, ...], config_file: str | None, overrides: tuple[str, ...]) -> None:
    """Deliver no more of these messages until they are released."""
    with _admin(config_file, overrides) as admin:
        done = admin.hold(queue_ids) if admin else ()
    _tell_done("is held", queue_ids, done)


@queue.command(epilog="Example: popgate queue release ID")
@click.argument("queue_ids", metavar="[ID]...", nargs=-1)
@click.option("--all", "is_for_all", is_flag=True, help="Every message that is held.")
@config_options
def release(
    queue_ids: tuple[str, ...], is_for_all: bool, config_file: str | None, overrides: tuple[str, ...]
) -> None:
    """Go on delivering messages that are held."""
    names = _names(queue_ids, is_for_all)
    with _admin(config_file, overrides) as admin:
        done = admin.release(names) if admin else ()
    _tell_done("is released", names, done)


@queue.command(epilog="Example: popgate queue remove ID")
@click.argument("queue_ids", metavar="ID...", nargs=-1, required=True)
@config_options
def remove(queue_ids: tuple[str, ...], config_file: str | None, overrides: tuple[str, ...]) -> None:
    """Delete messages for good. Neither sender nor recipients are told."""
    with _admin(config_file, overrides) as admin:
        done = admin.remove(queue_ids) if admin else ()
    _tell_done("is removed", queue_ids, done)


@contextlib.contextmanager
def _admin(config_file: str | None, overrides: tuple[str, ...]) -> "Iterator[QueueAdmin | None]":
    """The queue; None when nothing was ever accepted."""
    from popgate.app.backends import queue_admin
    from popgate.app.clock import SystemClock

    admin = queue_admin(site_config(config_file, overrides), SystemClock())
    if admin is None:
        yield None
        return
    with contextlib.closing(admin):
        yield admin


def _names(queue_ids: tuple[str, ...], is_for_all: bool) -> tuple[str, ...] | None:
    if is_for_all == bool(queue_ids):
        raise click.UsageError("give the ids of messages, or --all")
    return None if is_for_all else queue_ids


def _tell_done(what: str, names: Sequence[str] | None, done: Sequence[str]) -> None:
    for name in done:
        tell(f"{name} {what}")
    if names is None:
        if not done:
            tell("there is none")
        return
    # An id may be typed in small letters; it is told in the form that the queue gives it.
    missing = [name for name in dict.fromkeys(names) if name.upper() not in {one.upper() for one in done}]
    if missing:
        raise Refusal(f"nothing to do for {', '.join(map(printable, missing))}")


def _print_content(blocks: Iterator[bytes]) -> None:
    if sys.stdout.isatty():
        text = b"".join(blocks).decode("utf-8", "replace")
        for line in text.splitlines():
            click.echo(printable(line))
        return
    for block in blocks:
        click.echo(block, nl=False)


def _sender(message: "ListedMessage") -> str:
    return "<>" if message.envelope.sender is None else str(message.envelope.sender)


def _to(message: "ListedMessage") -> str:
    waiting = [one for one in message.recipients if one.state in ("pending", "held")] or message.recipients
    more = f" and {len(waiting) - 1} more" if len(waiting) > 1 else ""
    return (waiting[0].address if waiting else "") + more


def _state(message: "ListedMessage", now: float) -> str:
    if message.held:
        return "held"
    times = [one.next_attempt_at for one in message.recipients if one.state == "pending"]
    if not times:
        return ""
    return "due" if min(times) <= now else f"next try in {how_long(min(times) - now)}"


def _recipient(one: "ListedRecipient") -> str:
    parts = [one.address]
    if one.mailbox:
        parts.append(f"mailbox {one.mailbox}")
    if one.via:
        parts.append(f"by alias {one.via}")
    return ", ".join(parts)


def _next_try(one: "ListedRecipient") -> str:
    if one.state != "pending":
        return ""
    return when(one.next_attempt_at) if one.next_attempt_at > _now() else "now"


def _now() -> float:
    import time

    return time.time()


def _as_json(message: "ListedMessage") -> dict[str, object]:
    envelope = message.envelope
    return {
        "id": message.queue_id,
        "created_at": message.created_at,
        "bytes": message.octets,
        "sender": None if envelope.sender is None else str(envelope.sender),
        "identity": envelope.identity,
        "client": None if envelope.client is None else envelope.client.text,
        "session": envelope.session,
        "held": message.held,
        "recipients": [
            {
                "address": one.address,
                "local": one.is_local,
                "state": one.state,
                "attempts": one.attempts,
                "next_attempt_at": one.next_attempt_at,
                "status": one.status,
                "mailbox": one.mailbox,
                "via": one.via,
            }
            for one in message.recipients
        ],
    }
