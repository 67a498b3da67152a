"""Checks of a listener for the logins of other machines: it must not hear whoever can send a datagram."""

from popgate.config.lines import KeyPath
from popgate.config.networks import Findings, is_loopback, network_findings
from popgate.config.schema import Finding
from popgate.config.settings import Config
from popgate.servers.bind import Bind
from popgate.servers.settings import ListenerSettings
from popgate.values.address import ClientAddress

_CONNECTIONS_ONLY = (
    "tls_profile",
    "plaintext_login",
    "max_connections",
    "max_connections_per_address",
    "backlog",
)


def peer_findings(config: Config, listener: ListenerSettings, path: KeyPath, bind: Bind | None) -> Findings:
    """What a listener for other machines' logins must not be: open to whoever can send a datagram."""
    yield from says_nothing(listener, path, _CONNECTIONS_ONLY)
    if listener.tls != "none":
        yield True, Finding((*path, "tls"), "datagrams have no TLS; a key signs them", 'write tls = "none"')
    if listener.proxy_from:
        yield True, Finding((*path, "proxy_from"), "datagrams carry no PROXY header", "remove it")
    if bind is not None and bind.kind == "unix":
        yield True, Finding((*path, "bind"), "logins come in datagrams over IP", "write HOST:PORT")
        return
    is_local = bind is not None and bind.kind == "inet" and is_loopback(ClientAddress.parse(bind.host))
    if bind is not None and not (is_local or listener.key_file or listener.insecure):
        yield (
            True,
            Finding(
                (*path, "key_file"),
                f"is missing: whoever can send a datagram to {bind} could let any address relay",
                "make a key and name it (docs/relay-ctrl.md), or bind to 127.0.0.1; insecure = true takes"
                " logins that nobody has signed",
                shows_value=False,
            ),
        )
    if listener.insecure:
        yield (
            False,
            Finding(
                (*path, "insecure"),
                "whoever can send a datagram in a caller's name lets any address relay",
                "let a firewall keep such datagrams off, and change to signed ones: relay-ctrl-send with"
                " RELAY_CTRL_KEY",
            ),
        )
    if not listener.callers and not is_local:
        yield (
            False,
            Finding(
                (*path, "callers"),
                "only this machine may tell of logins",
                'list the POP3 machines: callers = ["192.0.2.110"]',
                shows_value=False,
            ),
        )
    yield from network_findings(
        (*path, "callers"), listener.callers, "a caller lets addresses relay; list the POP3 machines"
    )
    if config.grants.who == "devices":
        yield (
            False,
            Finding(
                (*path, "service"),
                'grants.who = "devices": logins of names that are no device account here give no grant',
            ),
        )
    is_plain = listener.insecure or not listener.key_file
    if is_plain and config.grants.sender == "bound":
        yield (
            False,
            Finding(
                (*path, "service"),
                'unsigned logins name nobody, and with grants.sender = "bound" no sender belongs to them',
                'use a key, or write sender = "any"',
            ),
        )


def says_nothing(listener: ListenerSettings, path: KeyPath, names: tuple[str, ...]) -> Findings:
    defaults = ListenerSettings(listener.service, listener.bind)
    for name in names:
        if getattr(listener, name) != getattr(defaults, name):
            yield False, Finding((*path, name), f'says nothing for service = "{listener.service}"')
