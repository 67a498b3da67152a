"""Checks of listeners for whoson, a protocol in which nothing proves who sends a login."""

from popgate.config.lines import KeyPath
from popgate.config.names import domain_fault
from popgate.config.networks import Findings, is_loopback
from popgate.config.peers import says_nothing
from popgate.config.schema import Finding
from popgate.config.settings import Config
from popgate.servers.bind import Bind
from popgate.servers.settings import WHOSON_SERVICES, ListenerSettings
from popgate.values.address import ClientAddress


def whoson_findings(config: Config, listener: ListenerSettings, path: KeyPath, bind: Bind | None) -> Findings:
    """What such a listener must not be, and what says nothing elsewhere."""
    if listener.service not in (*WHOSON_SERVICES, "dovecot_auth_policy"):
        yield from says_nothing(listener, path, ("default_domain",))
    elif listener.default_domain and (fault := domain_fault(listener.default_domain)):
        yield True, Finding((*path, "default_domain"), fault, "such as example.org")
    if listener.service not in WHOSON_SERVICES:
        return
    yield from says_nothing(listener, path, ("tls_profile", "plaintext_login", "max_connections_per_address"))
    if listener.tls != "none":
        yield True, Finding((*path, "tls"), "whoson knows no TLS", 'write tls = "none"')
    if listener.proxy_from:
        yield True, Finding((*path, "proxy_from"), "whoson knows no PROXY header", "remove it")
    if listener.service == "whoson_udp" and bind is not None and bind.kind == "unix":
        yield True, Finding((*path, "bind"), "datagrams come over IP here", "write 127.0.0.1:9876")
    is_here = bind is None or bind.kind != "inet" or is_loopback(ClientAddress.parse(bind.host))
    if not is_here:
        yield (
            True,
            Finding(
                (*path, "bind"),
                "whoson proves nothing: whoever reaches it could let any address relay",
                "bind to 127.0.0.1 or unix:/PATH; for logins at other machines use relay_ctrl_udp with a key",
            ),
        )
    elif bind is not None and bind.kind != "unix":
        yield (
            False,
            Finding(
                (*path, "service"),
                "whoson proves nothing: every user and program of this machine can let any address relay",
                "a unix socket with socket_group keeps others off, where the program can use one",
            ),
        )
    if config.grants.who == "devices":
        yield (
            False,
            Finding(
                (*path, "service"),
                'grants.who = "devices": logins of names that are no device account here give no grant',
            ),
        )
    if config.grants.sender == "bound":
        yield (
            False,
            Finding(
                (*path, "service"),
                'grants.sender = "bound" cannot be held for whoson\'s queries: they name no sender, and any'
                " live grant serves",
            ),
        )
