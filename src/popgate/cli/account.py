"""`popgate account`: who may log in, and which addresses lead to them."""

from typing import TYPE_CHECKING, Any

import click

from popgate.cli.options import config_options, json_option, site_config
from popgate.cli.output import print_fields, print_json, print_table, tell, when
from popgate.cli.passwords import read_password
from popgate.cli.root import CommandGroup
from popgate.cli.services import account_database, grants_service
from popgate.grants.grant import Terms

if TYPE_CHECKING:
    from popgate.app.backends import Account
    from popgate.config import Config


@click.group(cls=CommandGroup)
def account() -> None:
    """Manage accounts: people with a mailbox, devices without one, and aliases."""


_password_option = click.option(
    "--password-stdin", is_flag=True, help="Read the password from the first line of standard input."
)


class _OrSite(click.IntRange):
    """A whole number, or the word `site`: the site's setting, which later changes with it."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        return value if value == SITE else super().convert(value, param, ctx)


SITE = "site"
_AMOUNTS = (
    ("--window", "window_seconds", "SECONDS", 1, 86400, "How long its address may send after a login"),
    ("--max-age", "max_age_seconds", "SECONDS", 1, 2592000, "The longest that one login can count"),
    ("--quota-messages", "quota_messages", "N", 0, 10**9, "Messages a grant; 0 is no limit"),
    ("--quota-recipients", "quota_recipients", "N", 0, 10**9, "Recipients a grant; 0 is no limit"),
    ("--quota-bytes", "quota_bytes", "N", 0, 10**15, "Bytes a grant; 0 is no limit"),
)
"""Options of `add` and `set`, each named like its field of Terms and its setting in [grants]."""


def _amount_options(function: Any) -> Any:
    for option, name, metavar, least, most, text in reversed(_AMOUNTS):
        function = click.option(
            option,
            name,
            type=_OrSite(least, most),
            metavar=metavar,
            help=f'{text}. "{SITE}" follows grants.{name}, which is so from the start.',
        )(function)
    return function


def _changed(terms: "Terms", changes: dict[str, object]) -> "Terms":
    """`terms` with the fields in `changes` that are not None; SITE becomes the site's setting."""
    fields: dict[str, Any] = {name: getattr(terms, name) for name in Terms.__dataclass_fields__}
    for name, new in changes.items():
        if new == SITE:
            new = None if name.endswith("_seconds") else -1
        elif new is None:
            continue
        fields[name] = new
    return Terms(**fields)


@account.command(
    epilog="Example: popgate account add scanner@example.org --device --sender office@example.org"
)
@click.argument("address")
@click.option(
    "--device",
    is_flag=True,
    help="A printer, scanner or program: it may log in and send, and has no mailbox.",
)
@_amount_options
@click.option(
    "--sender",
    "senders",
    multiple=True,
    metavar="ADDRESS",
    help="A further sender address it may use, or @DOMAIN for all of a domain. May be repeated.",
)
@click.option(
    "--recoverable",
    is_flag=True,
    help="Also keep the password readable, as APOP, CRAM-MD5 and SCRAM need it (see auth.apop).",
)
@_password_option
@config_options
@json_option
def add(
    address: str,
    device: bool,
    senders: tuple[str, ...],
    recoverable: bool,
    password_stdin: bool,
    config_file: str | None,
    overrides: tuple[str, ...],
    as_json: bool,
    **amounts: object,
) -> None:
    """Make an account for ADDRESS.

    The password is asked for on a terminal. Without a terminal and --password-stdin one is made
    up and printed, this once.
    """
    terms = _changed(Terms(senders=senders, is_device=device), amounts)
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
    terms, site = found.terms, config.grants
    print_fields(
        (
            ("address", found.identity),
            ("kind", "device, no mailbox" if found.is_device else "mailbox"),
            ("state", "enabled" if found.is_enabled else "disabled"),
            ("senders", ", ".join((str(found.identity), *terms.senders))),
            ("window", _seconds(terms.window_seconds, site.window_seconds)),
            ("greatest age", _seconds(terms.max_age_seconds, site.max_age_seconds)),
            ("messages a grant", _quota(terms.quota_messages, site.quota_messages)),
            ("recipients a grant", _quota(terms.quota_recipients, site.quota_recipients)),
            ("bytes a grant", _quota(terms.quota_bytes, site.quota_bytes)),
            ("APOP, CRAM-MD5", "possible" if found.is_recoverable else "no"),
            ("made", when(found.created_at)),
            ("changed", when(found.changed_at)),
        )
    )


def _seconds(own: int | None, site: int) -> str:
    return f"{site} s (the site's)" if own is None else f"{own} s"


def _quota(own: int, site: int) -> str:
    return f"{site or 'no limit'} (the site's)" if own < 0 else f"{own or 'no limit'}"


@account.command(
    "set",
    epilog="Example: popgate account set scanner@example.org --window 120 --add-sender office@example.org",
)
@click.argument("address")
@click.option(
    "--device/--mailbox",
    default=None,
    help="Make it a device, which has no mailbox, or an account with a mailbox.",
)
@_amount_options
@click.option(
    "--add-sender",
    "added",
    multiple=True,
    metavar="ADDRESS",
    help="A further sender address it may use, or @DOMAIN for all of a domain. May be repeated.",
)
@click.option(
    "--remove-sender",
    "removed",
    multiple=True,
    metavar="ADDRESS",
    help="A sender address that it may use no longer. May be repeated.",
)
@config_options
@json_option
def set_(
    address: str,
    device: bool | None,
    added: tuple[str, ...],
    removed: tuple[str, ...],
    config_file: str | None,
    overrides: tuple[str, ...],
    as_json: bool,
    **amounts: object,
) -> None:
    """Change what the logins of ADDRESS are good for.

    What is not named stays as it is. The grants that it holds were given for the old terms, so
    they end; its next login gets the new ones.
    """
    if device is None and not added and not removed and all(new is None for new in amounts.values()):
        raise click.UsageError("nothing to change; `popgate account show` tells what there is")
    config = site_config(config_file, overrides)
    with account_database(config) as database:
        old = database.get(address).terms
        gone = {sender.lower() for sender in removed}
        if unknown := gone.difference(old.senders):
            raise click.UsageError(f"{', '.join(sorted(unknown))}: not a further sender of {address}")
        senders = tuple(sender for sender in old.senders if sender not in gone)
        changes = {"is_device": device, "senders": (*senders, *added)}
        database.set_terms(address, _changed(old, changes | amounts))
        now = database.get(address)
        if now.terms != old:
            _end_grants(config, now, "terms-changed")
    if as_json:
        print_json(_as_json(now))


@account.command(epilog="Example: popgate account passwd alice@example.org")
@click.argument("address")
@click.option(
    "--recoverable/--no-recoverable",
    default=None,
    help="Begin or cease to keep the password readable for APOP, CRAM-MD5 and SCRAM.",
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
        "max_age_seconds": terms.max_age_seconds,
        "quota_messages": None if terms.quota_messages < 0 else terms.quota_messages,
        "quota_recipients": None if terms.quota_recipients < 0 else terms.quota_recipients,
        "quota_bytes": None if terms.quota_bytes < 0 else terms.quota_bytes,
        "created_at": one.created_at,
        "changed_at": one.changed_at,
    }
