"""`popgate grant`: which addresses may relay now, and why."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from popgate.cli.options import config_options, json_option, site_config
from popgate.cli.output import how_long, print_json, print_table, printable, tell, when
from popgate.cli.root import NO, BadUsage, CommandGroup, Refusal, TemporaryFailure
from popgate.cli.services import account_database, grants_service

if TYPE_CHECKING:
    from popgate.config import Config
    from popgate.grants.grant import Grant, Terms
    from popgate.grants.history import Explained
    from popgate.values.address import ClientAddress
    from popgate.values.event import Event
    from popgate.values.identity import Identity
    from popgate.values.mail import MailAddress


@click.group(cls=CommandGroup)
def grant() -> None:
    """See, give and end the right of addresses to send mail."""


@grant.command("list", epilog="Example: popgate grant list --json")
@config_options
@json_option
def list_(config_file: str | None, overrides: tuple[str, ...], as_json: bool) -> None:
    """List the grants that are live now."""
    config = _shared_config(config_file, overrides)
    with grants_service(config) as grants:
        live = grants.list()
    if as_json:
        print_json([_as_json(config, one) for one in live])
        return
    if not live:
        tell("no address has a grant now")
        return
    now = _now()
    print_table(
        ("address", "identity", "by", "login", "lapses in", "messages", "recipients"),
        [
            (
                one.address,
                one.identity,
                one.protocol,
                when(one.login_at),
                how_long(_ends_at(config, one) - now),
                one.used.messages,
                one.used.recipients,
            )
            for one in live
        ],
    )


@grant.command(epilog="Example: popgate grant allow 203.0.113.9 scanner@example.org")
@click.argument("address")
@click.argument("identity")
@click.option(
    "--window",
    "window_seconds",
    type=click.IntRange(1, 86400),
    metavar="SECONDS",
    help="How long, instead of what the account or the site says.",
)
@config_options
def allow(
    address: str,
    identity: str,
    window_seconds: int | None,
    config_file: str | None,
    overrides: tuple[str, ...],
) -> None:
    """Let ADDRESS send mail in the name of IDENTITY, as if it had logged in just now.

    Exit status 1 when the address may have no grant.
    """
    from dataclasses import replace

    client, who = _client(address), _identity(identity)
    config = _shared_config(config_file, overrides)
    terms = _terms(config, who)
    if window_seconds is not None:
        terms = replace(terms, window_seconds=window_seconds)
    events: list[Event] = []
    with grants_service(config, events) as grants:
        is_allowed = grants.allow(client, who, "cli", terms, "")
    if not is_allowed:
        reason = next((str(event.fields["reason"]) for event in events if event.name == "grant.refuse"), "")
        if reason == "store-unavailable":
            raise TemporaryFailure("the grants cannot be written now")
        raise Refusal(f"{client} gets no grant: {_WHY_NOT.get(reason, reason)}")
    tell(f"{client} may send in the name of {who}")


_WHY_NOT = {
    "never": "it is one of the addresses that never get one (grants.never, and the server's own)",
    "not-a-device": 'grants.who = "devices", and the account is not marked as a device',
    "too-many-identities": "too many people hold grants there already (grants.max_identities_per_address)",
    "no-window": "its window has no length",
    "late": "its window was over when it was heard of",
}


@grant.command(epilog="Example: popgate grant revoke 203.0.113.9 --identity alice@example.org")
@click.argument("address", required=False)
@click.option("--identity", metavar="IDENTITY", help="Only this identity's; without ADDRESS everywhere.")
@config_options
@json_option
def revoke(
    address: str | None,
    identity: str | None,
    config_file: str | None,
    overrides: tuple[str, ...],
    as_json: bool,
) -> None:
    """End grants at once: those of ADDRESS, of an identity, or of an identity on ADDRESS.

    Exit status 1 when there was none.
    """
    if address is None and identity is None:
        raise click.UsageError("give an ADDRESS, or --identity, or both")
    client = None if address is None else _client(address)
    who = None if identity is None else _identity(identity)
    config = _shared_config(config_file, overrides)
    with grants_service(config) as grants:
        if client is not None:
            ended = grants.revoke(client, who, "administrator")
        else:
            assert who is not None
            ended = grants.revoke_identity(who, "administrator")
    if as_json:
        print_json([_as_json(config, one) for one in ended])
    for one in ended:
        tell(f"ended the grant of {one.identity} on {one.address}")
    if not ended:
        raise Refusal("there is no such grant")


@grant.command(epilog="Example: popgate grant explain 203.0.113.9 --sender scanner@example.org")
@click.argument("address")
@click.option("--sender", metavar="ADDRESS", help="Would a message from this sender be relayed?")
@click.option("--last", default=50, metavar="N", show_default=True, help="How much of the story.")
@config_options
@json_option
def explain(
    address: str,
    sender: str | None,
    last: int,
    config_file: str | None,
    overrides: tuple[str, ...],
    as_json: bool,
) -> None:
    """Tell whether ADDRESS may send mail now, why, and what happened there.

    Exit status 1 when it may not.
    """
    client = _client(address)
    from_address = None if sender is None else _mail_address(sender)
    config = _shared_config(config_file, overrides)
    verdict, *rest = _explanation(config, client)
    may_relay, answer = verdict.reason in ("trusted", "granted"), ""
    if from_address is not None:
        with grants_service(config) as grants:
            decision = grants.decide(client, from_address, 1, 0, "")
        may_relay = decision.verdict == "permit"
        answer = decision.text or "would be relayed"
    states = [line for line in rest if line.kind == "state"]
    states += _map_lines(config, client)
    story = [line for line in rest if line.kind == "story"][-last:] if last > 0 else []
    if as_json:
        lines = [verdict, *states, *story]
        document = {"address": client.text, "may_relay": may_relay, "lines": [asdict(one) for one in lines]}
        if from_address is not None:
            document |= {"sender": str(from_address), "answer": answer}
        print_json(document)
    else:
        _print_explanation(client, verdict, states, story)
        if from_address is not None:
            click.echo(printable(f"mail from {from_address}: {answer}"))
    if not may_relay:
        raise click.exceptions.Exit(NO)


def _explanation(config: "Config", client: "ClientAddress") -> "list[Explained]":
    from contextlib import closing

    from popgate.app.backends import grant_store
    from popgate.app.own_addresses import own_addresses
    from popgate.grants.history import explain as explained

    with closing(grant_store(config)) as store:
        return explained(config.history_directory, store, config.grants, client, _now(), own_addresses())


def _map_lines(config: "Config", client: "ClientAddress") -> "list[Explained]":
    from popgate.app.maps import maps_that_hold
    from popgate.grants.history import Explained

    lines = []
    for settings, held in maps_that_hold(config, client) if config.map else ():
        is_known = isinstance(held, bool)
        reason = ("in-map" if held else "not-in-map") if is_known else "map-unreadable"
        said = ("has it" if held else "has it not") if is_known else str(held)
        lines.append(Explained("state", None, reason, f"the map {settings.path} {said}"))
    return lines


def _print_explanation(
    client: "ClientAddress",
    verdict: "Explained",
    states: "Sequence[Explained]",
    story: "Sequence[Explained]",
) -> None:
    until = f" (until {when(verdict.at)})" if verdict.at is not None else ""
    colour = "green" if verdict.reason in ("trusted", "granted") else "red"
    click.secho(printable(f"{client} {verdict.text}{until}"), fg=colour, bold=True)
    for line in states:
        click.echo(f"  {printable(line.text)}")
    if story:
        click.echo()
    for line in story:
        click.echo(f"{when(line.at or 0)}  {printable(line.text)}")


@grant.command(epilog="Example: popgate grant watch --address 203.0.113.9")
@click.option("--address", metavar="ADDRESS", help="Only what happens on this address.")
@click.option("--json", "as_json", is_flag=True, help="Print each event as a JSON document on its line.")
@config_options
def watch(address: str | None, as_json: bool, config_file: str | None, overrides: tuple[str, ...]) -> None:
    """Show logins, grants and decisions as they happen, until Ctrl-C."""
    import json

    from popgate.cli.follow import follow
    from popgate.grants.history import CURRENT, read_event, story

    client = None if address is None else _client(address)
    config = _shared_config(config_file, overrides)
    lines = follow(f"{config.history_directory}/{CURRENT}")
    try:
        tell("watching; Ctrl-C ends it")
        for line in lines:
            event = read_event(line)
            if event is None or (client is not None and event.fields.get("client") != client.text):
                continue
            if as_json:
                click.echo(json.dumps({"event": event.name, "at": event.at, **event.fields}))
                continue
            told = story(event)
            where = str(event.fields.get("client", ""))
            click.echo(f"{when(told.at or 0)}  {printable(where):15}  {printable(told.text)}")
    except KeyboardInterrupt:
        return


def _shared_config(config_file: str | None, overrides: tuple[str, ...]) -> "Config":
    config = site_config(config_file, overrides)
    if config.grant_directory is None:
        raise BadUsage(
            f'grants.store = "{config.grants.store}": the grants are in the memory of the server,'
            " where no other program sees them; keep them in directory:PATH"
        )
    return config


def _client(text: str) -> "ClientAddress":
    from popgate.values.address import AddressError, ClientAddress

    try:
        return ClientAddress.parse(text)
    except AddressError as error:
        raise BadUsage(str(error)) from None


def _identity(text: str) -> "Identity":
    from popgate.values.identity import Identity, IdentityError

    try:
        return Identity.parse(text)
    except IdentityError as error:
        raise BadUsage(f"{text!r}: {error}") from None


def _terms(config: "Config", identity: "Identity") -> "Terms":
    """What the account's own logins are good for. A grant may also go to a name without account."""
    from popgate.app.backends import AccountUnknown
    from popgate.grants.grant import DEFAULT_TERMS

    with account_database(config) as database:
        try:
            found = database.get(str(identity))
        except AccountUnknown:
            tell(f"note: there is no account {identity}")
            return DEFAULT_TERMS
    if not found.is_enabled:
        raise Refusal(f"the account {identity} is disabled")
    return found.terms


def _mail_address(text: str) -> "MailAddress":
    from popgate.values.mail import MailAddress

    local, at, domain = text.rpartition("@")
    if not at or not local or not domain:
        raise BadUsage(f"{text!r} is not a mail address, such as scanner@example.org")
    return MailAddress(local, domain.lower())


def _now() -> float:
    import time

    return time.time()


def _ends_at(config: "Config", one: "Grant") -> float:
    from popgate.grants import rules

    return rules.ends_at(one, config.grants)


def _as_json(config: "Config", one: "Grant") -> dict[str, object]:
    return {
        "address": one.address.text,
        "identity": str(one.identity),
        "protocol": one.protocol,
        "login_at": one.login_at,
        "renewed_at": one.renewed_at,
        "ends_at": _ends_at(config, one),
        "device": one.terms.is_device,
        "messages": one.used.messages,
        "recipients": one.used.recipients,
        "bytes": one.used.bytes,
    }
