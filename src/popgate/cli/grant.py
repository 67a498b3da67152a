"""`popgate grant`: which addresses may relay now, and why."""

from typing import TYPE_CHECKING

import click

from popgate.cli.options import config_options, json_option, site_config
from popgate.cli.output import how_long, print_json, print_table, tell, when
from popgate.cli.root import BadUsage, CommandGroup, Refusal, TemporaryFailure
from popgate.cli.services import account_database, grants_service

if TYPE_CHECKING:
    from popgate.config import Config
    from popgate.grants.grant import Grant, Terms
    from popgate.values.address import ClientAddress
    from popgate.values.event import Event
    from popgate.values.identity import Identity


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
