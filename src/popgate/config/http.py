"""Checks of listeners that speak HTTP: whoever can ask there must be somebody of the site."""

from popgate.config.lines import KeyPath
from popgate.config.networks import Findings, is_loopback, network_findings
from popgate.config.peers import says_nothing
from popgate.config.schema import Finding
from popgate.config.settings import Config
from popgate.servers.bind import Bind
from popgate.servers.settings import DOVECOT_ONLY, ListenerSettings
from popgate.values.address import ClientAddress


def http_findings(config: Config, listener: ListenerSettings, path: KeyPath, bind: Bind | None) -> Findings:
    """What such a listener must not be: open to whoever can connect."""
    yield from says_nothing(listener, path, ("plaintext_login", "max_connections_per_address"))
    if listener.tls == "starttls":
        yield True, Finding((*path, "tls"), "HTTP knows no STARTTLS", 'write tls = "implicit" or "none"')
    is_near = (
        bind is None
        or bind.kind == "unix"
        or (bind.kind == "inet" and is_loopback(ClientAddress.parse(bind.host)))
    )
    yield from network_findings(
        (*path, "callers"), listener.callers, "list the machines that may ask, or leave it to the secret"
    )
    if not is_near:
        yield from _far(listener, path, bind)
    if listener.service == "dovecot_auth_policy":
        yield from _logins(config, listener, path, bind, is_near=is_near)
    else:
        yield from says_nothing(listener, path, DOVECOT_ONLY)


def _far(listener: ListenerSettings, path: KeyPath, bind: Bind | None) -> Findings:
    if not listener.secret_file:
        what = (
            "let any address relay"
            if listener.service == "dovecot_auth_policy"
            else "learn who logged in from where"
        )
        yield (
            True,
            Finding(
                (*path, "secret_file"),
                f"is missing: whoever can connect to {bind} could {what}",
                "make a secret and name its file, or bind to 127.0.0.1 or unix:/PATH",
                shows_value=False,
            ),
        )
    if listener.tls == "none":
        yield (
            False,
            Finding(
                (*path, "tls"),
                "the secret and the names of users cross the network in clear",
                'write tls = "implicit", or bind to 127.0.0.1',
                shows_value=False,
            ),
        )


def _logins(
    config: Config, listener: ListenerSettings, path: KeyPath, bind: Bind | None, *, is_near: bool
) -> Findings:
    if is_near and not listener.secret_file and (bind is None or bind.kind != "unix"):
        yield (
            False,
            Finding(
                (*path, "secret_file"),
                "is missing: every user and program of this machine can let any address relay",
                "make a secret, and have Dovecot send it (docs/dovecot.md)",
                shows_value=False,
            ),
        )
    if bind is not None and bind.kind == "unix":
        yield False, Finding((*path, "bind"), "Dovecot sends over TCP alone", "write 127.0.0.1:22800")
    if listener.session_ends and not config.grants.renew_while_open and not config.grants.revoke_on_logout:
        yield (
            False,
            Finding((*path, "session_ends"), "changes nothing where grants.renew_while_open = false"),
        )
    if config.grants.who == "devices":
        yield (
            False,
            Finding(
                (*path, "service"),
                'grants.who = "devices": logins of names that are no device account here give no grant',
            ),
        )
