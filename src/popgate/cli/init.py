"""`popgate init`: everything that a first start needs, in one step."""

import os
import pwd
import socket
import sys
import time
from typing import TYPE_CHECKING

import click

from popgate.cli.output import tell
from popgate.cli.passwords import read_password
from popgate.cli.root import BadUsage, Refusal

if TYPE_CHECKING:
    from popgate.config import Config

_STANDARD = {
    "smtp": 25,
    "submission": 587,
    "submissions": 465,
    "pop3": 110,
    "pop3s": 995,
    "imap": 143,
    "imaps": 993,
}
_HIGH = {name: port + 2000 if port > 99 else 2525 for name, port in _STANDARD.items()}


@click.command(epilog="Example: popgate init --hostname mail.example.org --user alice@example.org")
@click.argument("directory", metavar="[DIR]", required=False)
@click.option("--hostname", metavar="NAME", help="The full name of this host.")
@click.option("--domain", "domains", multiple=True, metavar="DOMAIN", help="A local domain. May be repeated.")
@click.option("--user", "address", metavar="ADDRESS", help="The first account.")
@click.option("--password-stdin", is_flag=True, help="Read its password from standard input.")
@click.option("--bind", "host", metavar="IP", help="Where to listen. As root: 0.0.0.0, else 127.0.0.1.")
@click.option(
    "--ports",
    type=click.Choice(["standard", "high"]),
    help="25, 587, 465, 110, 995, 143 and 993 (as root), or 2525, 2587, 2465, 2110, 2995, 2143, 2993.",
)
@click.option(
    "--plaintext-login",
    is_flag=True,
    help="Accept passwords without TLS on ports 110 and 143, as old devices need it.",
)
@click.option("--system-user", metavar="NAME", help="Who the server becomes after binding. As root: popgate.")
def init(
    directory: str | None,
    hostname: str | None,
    domains: tuple[str, ...],
    address: str | None,
    password_stdin: bool,
    host: str | None,
    ports: str | None,
    plaintext_login: bool,
    system_user: str | None,
) -> None:
    """Write a commented popgate.toml, a self-signed certificate and the first account.

    With DIR everything goes below DIR. Without it: as root into /etc/popgate and
    /var/lib/popgate, else into the current directory. What is there already is never
    overwritten. What is not given by an option is asked for on a terminal.
    """
    is_root = os.geteuid() == 0
    home = os.path.abspath(directory or ("/etc/popgate" if is_root else "."))
    data = "/var/lib/popgate" if is_root and directory is None else os.path.join(home, "data")
    _refuse_to_overwrite(home, data)
    hostname = hostname or _ask("Full name of this host", _default_hostname(address, domains))
    domains = domains or tuple(
        _ask("Domains with mailboxes here", _default_domain(hostname, address)).replace(",", " ").split()
    )
    if not domains:
        raise BadUsage("a local domain is needed: --domain example.org")
    address = address or _ask("First account", f"postmaster@{domains[0]}")
    document = _document(home, data, hostname, domains, plaintext_login=plaintext_login)
    document["listener"] = _listeners(
        host or ("0.0.0.0" if is_root else "127.0.0.1"),  # noqa: S104
        _HIGH if ports == "high" or (ports is None and not is_root) else _STANDARD,
        plaintext_login=plaintext_login,
    )
    owner = _system_user(system_user) if is_root else None
    document["user"] = owner.pw_name if owner else ""
    config = _checked(document)
    if system_user and owner is None and is_root:
        raise BadUsage(_no_such_user(system_user))
    _check_account(address, domains)
    password, is_new = read_password(from_stdin=password_stdin, prompt=f"Password for {address}")
    _write(home, data, document, config, owner)
    _add_account(config, address, password, owner)
    _tell_next(home, config, address, is_root=is_root)
    if is_new:
        click.echo(f"password of {address}: {password}")


def _refuse_to_overwrite(home: str, data: str) -> None:
    for path in (
        os.path.join(home, "popgate.toml"),
        os.path.join(home, "tls", "cert.pem"),
        os.path.join(home, "tls", "key.pem"),
        os.path.join(data, "accounts.db"),
    ):
        if os.path.lexists(path):
            raise Refusal(f"{path} is there already; popgate init overwrites nothing")


def _ask(question: str, default: str) -> str:
    if sys.stdin.isatty() and sys.stderr.isatty():
        return str(click.prompt(question, default=default or None, err=True))
    return default


def _default_hostname(address: str | None, domains: tuple[str, ...]) -> str:
    name = socket.getfqdn().lower()
    if "." in name and not name.startswith("localhost") and not name.endswith(".arpa"):
        return name
    domain = domains[0] if domains else (address or "").rpartition("@")[2]
    return f"mail.{domain or 'example.org'}"


def _default_domain(hostname: str, address: str | None) -> str:
    if address and "@" in address:
        return address.rpartition("@")[2].lower()
    parent = hostname.partition(".")[2]
    return parent if "." in parent else hostname


def _document(
    home: str, data: str, hostname: str, domains: tuple[str, ...], *, plaintext_login: bool
) -> dict[str, object]:
    return {
        "hostname": hostname,
        "data_dir": data,
        "local_domains": list(domains),
        "tls": {
            "certificate": os.path.join(home, "tls", "cert.pem"),
            "key": os.path.join(home, "tls", "key.pem"),
        },
    }


def _listeners(host: str, ports: dict[str, int], *, plaintext_login: bool) -> list[dict[str, object]]:
    place = f"[{host}]" if ":" in host else host
    pop3: dict[str, object] = {"service": "pop3", "bind": f"{place}:{ports['pop3']}", "tls": "starttls"}
    imap: dict[str, object] = {"service": "imap", "bind": f"{place}:{ports['imap']}", "tls": "starttls"}
    if plaintext_login:
        pop3["plaintext_login"] = imap["plaintext_login"] = True
    return [
        {"service": "smtp", "bind": f"{place}:{ports['smtp']}", "tls": "starttls"},
        {"service": "submission", "bind": f"{place}:{ports['submission']}", "tls": "starttls"},
        {"service": "submission", "bind": f"{place}:{ports['submissions']}", "tls": "implicit"},
        pop3,
        {"service": "pop3", "bind": f"{place}:{ports['pop3s']}", "tls": "implicit"},
        imap,
        {"service": "imap", "bind": f"{place}:{ports['imaps']}", "tls": "implicit"},
    ]


def _system_user(name: str | None) -> pwd.struct_passwd | None:
    try:
        return pwd.getpwnam(name or "popgate")
    except KeyError:
        return None


def _no_such_user(name: str) -> str:
    return (
        f"there is no user {name} on this machine;"
        f" make it: useradd --system --home-dir /var/lib/popgate --shell /usr/sbin/nologin {name}"
    )


def _checked(document: dict[str, object]) -> "Config":
    """Nothing is written before the whole is known to be right. Raises ConfigError."""
    from popgate.config import load_text
    from popgate.config.sample import sample

    return load_text(sample(document), "popgate init").config


def _check_account(address: str, domains: tuple[str, ...]) -> None:
    from popgate.values.identity import Identity, IdentityError

    try:
        identity = Identity.parse(address)
    except IdentityError as error:
        raise BadUsage(f"{address!r}: {error}") from None
    if identity.domain not in {domain.lower() for domain in domains}:
        raise BadUsage(f"{address} is in none of the local domains {', '.join(domains)}")


def _write(
    home: str, data: str, document: dict[str, object], config: "Config", owner: pwd.struct_passwd | None
) -> None:
    from popgate.app.certificate import self_signed
    from popgate.config.sample import sample

    uid, gid = (owner.pw_uid, owner.pw_gid) if owner else (-1, -1)
    # The server reads configuration, certificate and key again when it has dropped root, on SIGHUP.
    mode = 0o640 if owner else 0o600
    certificate, key = self_signed(config.hostname, time.time())
    os.makedirs(home, 0o755, exist_ok=True)
    os.makedirs(os.path.join(home, "tls"), 0o750, exist_ok=True)
    os.makedirs(data, 0o700, exist_ok=True)
    if owner:
        os.chown(os.path.join(home, "tls"), 0, gid)
        os.chown(data, uid, gid)
    _create(config.tls.certificate, certificate, 0o644, gid)
    _create(config.tls.key, key, mode, gid)
    _create(os.path.join(home, "popgate.toml"), sample(document).encode(), mode, gid)


def _create(path: str, content: bytes, mode: int, gid: int) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    with open(fd, "wb") as file:
        file.write(content)
        if gid >= 0:
            os.fchown(fd, 0, gid)
        os.fchmod(fd, mode)


def _add_account(config: "Config", address: str, password: str, owner: pwd.struct_passwd | None) -> None:
    # imported before root is dropped: the user may not be able to read where Python is installed
    import popgate.app.backends
    import popgate.app.clock  # noqa: F401
    from popgate.app.privileges import drop_privileges
    from popgate.cli.services import account_database

    if owner:
        drop_privileges(owner.pw_name)  # so that the database belongs to the server
    with account_database(config) as database:
        database.add(address, password)


def _tell_next(home: str, config: "Config", address: str, *, is_root: bool) -> None:
    path = os.path.join(home, "popgate.toml")
    is_found = path in ("/etc/popgate/popgate.toml", os.path.abspath("popgate.toml"))
    option = "" if is_found else f" --config {path}"
    tell(f"wrote {path}, the account {address} and a self-signed certificate for {config.hostname}")
    if is_root and not config.user:
        tell(f"note: {_no_such_user('popgate')}")
        tell(f'      then write user = "popgate" into {path} and chown {config.data_dir} to it')
    tell("next:")
    tell(f"  popgate config check{option}        is all as it must be?")
    tell(f"  popgate serve{option}               start the server")
    tell(f"  popgate account add{option} ADDRESS --device    an account for a printer or scanner")
