"""`popgate account`: who may log in, and which addresses lead to them."""

from typing import TYPE_CHECKING, Any

import click

from popgate.cli.options import config_options, json_option, site_config
from popgate.cli.output import print_fields, print_json, print_table, tell, when
from popgate.cli.passwords import read_password
from popgate.cli.root import CommandGroup
from popgate.cli.services import account_database, grants_service

if TYPE_CHECKING:
    from popgate.app.backends import Account
    from popgate.config import Config


@click.group(cls=CommandGroup)
def account() -> None:
    """Manage accounts: people with a mailbox, devices without one, and aliases."""


_password_option = click.option(
    "--password-stdin", is_flag=True, help="Read the password from the first line of standard input."
)


def _terms_options(function: Any) -> Any:
    for option in reversed(
        (
            click.option(
                "--device",
                is_flag=True,
                help="A printer, scanner or program: it may log in and send, and has no mailbox.",
            ),
            click.option(
                "--window",
                "window_seconds",
                type=click.IntRange(1, 86400),
                metavar="SECONDS",
                help="How long its address may send after a login, instead of grants.window_seconds.",
            ),
            click.option(
                "--quota-messages",
                type=click.IntRange(0, 10**9),
                metavar="N",
                help="Messages a grant, instead of grants.quota_messages; 0 is no limit.",
            ),
            click.option(
                "--sender",
                "senders",
                multiple=True,
                metavar="ADDRESS",
                help="A further sender address it may use, or @DOMAIN for all of a domain. May be repeated.",
            ),
        )
    ):
        function = option(function)
    return function


@account.command(
    epilog="Example: popgate account add scanner@example.org --device --sender office@example.org"
)
@click.argument("address")
@_terms_options
@click.option(
    "--recoverable",
    is_flag=True,
    help="Also keep the password readable, as APOP and CRAM-MD5 need it (see auth.apop).",
)
@_password_option
@config_options
@json_option
def add(
    address: str,
    device: bool,
    window_seconds: int | None,
    quota_messages: int | None,
    senders: tuple[str, ...],
    recoverable: bool,
    password_stdin: bool,
    config_file: str | None,
    overrides: tuple[str, ...],
    as_json: bool,
) -> None:
    """Make an account for ADDRESS.

    The password is asked for on a terminal. Without a terminal and --password-stdin one is made
    up and printed, this once.
    """
    from popgate.grants.grant import Terms

    terms = Terms(
        window_seconds=window_seconds,
        quota_messages=-1 if quota_messages is None else quota_messages,
        senders=senders,
        is_device=device,
    )
    config = site_config(config_file, overrides)
    _warn_of_foreign_domain(config, address)
    password, is_new = read_password(from_stdin=password_stdin, prompt=f"Password for {address}")
    with account_database(config) as database:
        made = database.add(address, password, terms=terms, is_recoverable=recoverable)
    tell(f"account {made.identity} is ready")
    if as_json:
        print_json(_as_json(made) | ({"password": password} if is_new else {}))
    elif is_new:
        click.echo(f"password: {password}")


def _warn_of_foreign_domain(config: "Config", address: str) -> None:
    domain = address.rpartition("@")[2].lower() if "@" in address else ""
    if domain and domain not in config.local_domains:
        tell(f"note: {domain} is not one of local_domains, so mail to {address} does not come here")


@account.command("list", epilog="Example: popgate account list --json")
@config_options
@json_option
def list_(config_file: str | None, overrides: tuple[str, ...], as_json: bool) -> None:
    """List accounts and aliases."""
    with account_database(site_config(config_file, overrides)) as database:
        accounts, aliases = database.list(), database.list_aliases()
    if as_json:
        print_json(
            {
                "accounts": [_as_json(one) for one in accounts],
                "aliases": [
                    {"address": str(one.address), "targets": [str(target) for target in one.targets]}
                    for one in aliases
                ],
            }
        )
        return
    rows = [
        (one.identity, "device" if one.is_device else "mailbox", "" if one.is_enabled else "disabled", "")
        for one in accounts
    ]
    rows += [(one.address, "alias", "", ", ".join(map(str, one.targets))) for one in aliases]
    if rows:
        print_table(("address", "kind", "state", "leads to"), rows)
    else:
        tell("there are no accounts yet; make one: popgate account add ADDRESS")


@account.command(epilog="Example: popgate account show alice@example.org")
@click.argument("address")
@config_options
@json_option
def show(address: str, config_file: str | None, overrides: tuple[str, ...], as_json: bool) -> None:
    """Show what an account may do. Exit status 1 when there is none."""
    config = site_config(config_file, overrides)
    with account_database(config) as database:
        found = database.get(address)
    if as_json:
        print_json(_as_json(found))
        return
    terms = found.terms
    window = terms.window_seconds or config.grants.window_seconds
    quota = config.grants.quota_messages if terms.quota_messages < 0 else terms.quota_messages
    print_fields(
        (
            ("address", found.identity),
            ("kind", "device, no mailbox" if found.is_device else "mailbox"),
            ("state", "enabled" if found.is_enabled else "disabled"),
            ("senders", ", ".join((str(found.identity), *terms.senders))),
            ("window", f"{window} s" + ("" if terms.window_seconds else " (the site's)")),
            (
                "messages a grant",
                f"{quota or 'no limit'}" + (" (the site's)" if terms.quota_messages < 0 else ""),
            ),
            ("APOP, CRAM-MD5", "possible" if found.is_recoverable else "no"),
            ("made", when(found.created_at)),
            ("changed", when(found.changed_at)),
        )
    )


@account.command(epilog="Example: popgate account passwd alice@example.org")
@click.argument("address")
@click.option(
    "--recoverable/--no-recoverable",
    default=None,
    help="Begin or cease to keep the password readable for APOP and CRAM-MD5.",
)
@_password_option
@config_options
def passwd(
    address: str,
    recoverable: bool | None,
    password_stdin: bool,
    config_file: str | None,
    overrides: tuple[str, ...],
) -> None:
    """Change the password, and end the grants that the old one gave."""
    config = site_config(config_file, overrides)
    with account_database(config) as database:
        database.get(address)
        password, is_new = read_password(from_stdin=password_stdin, prompt=f"New password for {address}")
        database.set_password(address, password, is_recoverable=recoverable)
        _end_grants(config, database.get(address), "password-changed")
    if is_new:
        click.echo(f"password: {password}")


@account.command(epilog="Example: popgate account disable scanner@example.org")
@click.argument("address")
@config_options
def disable(address: str, config_file: str | None, overrides: tuple[str, ...]) -> None:
    """Let nobody log in as ADDRESS, and end its grants. Mail to it is still kept."""
    config = site_config(config_file, overrides)
    with account_database(config) as database:
        database.disable(address)
        _end_grants(config, database.get(address), "account-disabled")


@account.command(epilog="Example: popgate account enable scanner@example.org")
@click.argument("address")
@config_options
def enable(address: str, config_file: str | None, overrides: tuple[str, ...]) -> None:
    """Let ADDRESS log in again."""
    with account_database(site_config(config_file, overrides)) as database:
        database.enable(address)


@account.command(epilog="Example: popgate account remove old@example.org")
@click.argument("address")
@config_options
def remove(address: str, config_file: str | None, overrides: tuple[str, ...]) -> None:
    """Remove the account and end its grants. Its mail stays on the disk."""
    config = site_config(config_file, overrides)
    with account_database(config) as database:
        found = database.get(address)
        database.remove(address)
        _end_grants(config, found, "account-removed")


@account.command(epilog="Example: popgate account alias sales@example.org alice@example.org bob@example.net")
@click.argument("address")
@click.argument("targets", nargs=-1)
@click.option("--remove", "is_removal", is_flag=True, help="Remove the alias instead.")
@config_options
def alias(
    address: str,
    targets: tuple[str, ...],
    is_removal: bool,
    config_file: str | None,
    overrides: tuple[str, ...],
) -> None:
    """Let mail to ADDRESS go to TARGETS, here or elsewhere."""
    if is_removal == bool(targets):
        raise click.UsageError("give the targets of the alias, or --remove without any")
    config = site_config(config_file, overrides)
    with account_database(config) as database:
        if is_removal:
            database.remove_alias(address)
            return
        _warn_of_foreign_domain(config, address)
        made = database.add_alias(address, targets)
    tell(f"{made.address} leads to {', '.join(map(str, made.targets))}")


def _end_grants(config: "Config", ended: "Account", reason: str) -> None:
    """Whoever may no longer log in must not go on sending on the login of before."""
    if config.grant_directory is None:
        tell("note: the grants are in the server's memory; those of this account lapse by themselves")
        return
    with grants_service(config) as grants:
        revoked = grants.revoke_identity(ended.identity, reason)
    for grant in revoked:
        tell(f"ended the grant of {grant.identity} on {grant.address}")


def _as_json(one: "Account") -> dict[str, object]:
    terms = one.terms
    return {
        "address": str(one.identity),
        "device": one.is_device,
        "enabled": one.is_enabled,
        "recoverable": one.is_recoverable,
        "senders": list(terms.senders),
        "window_seconds": terms.window_seconds,
        "quota_messages": None if terms.quota_messages < 0 else terms.quota_messages,
        "created_at": one.created_at,
        "changed_at": one.changed_at,
    }
