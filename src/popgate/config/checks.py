"""Checks of a configuration that no single field can make.

Each check is a generator of (is it an error, what was found). They look at values only;
what lies on the disk is for `popgate.config.files`, because most commands must work where
the server's files cannot be read.
"""

from collections.abc import Callable

from popgate.config.follow import follow_findings
from popgate.config.http import http_findings
from popgate.config.lines import KeyPath
from popgate.config.maps import map_findings
from popgate.config.names import domain_fault
from popgate.config.networks import PRIVATE, SHORTEST_PREFIX, Findings, network_findings
from popgate.config.peers import peer_findings, says_nothing
from popgate.config.questions import question_findings, socket_findings
from popgate.config.schema import Finding
from popgate.config.settings import Config, relay_by
from popgate.config.whoson import whoson_findings
from popgate.queue.routes import RouteError, parse_route
from popgate.servers.bind import Bind, BindError, parse_bind
from popgate.servers.settings import (
    DATAGRAM_SERVICES,
    DOVECOT_ONLY,
    HTTP_SERVICES,
    PEERS_ONLY,
    QUESTION_SERVICES,
    UCSPI_ONLY,
    ListenerSettings,
)
from popgate.values.address import AddressError, ClientAddress, Network
from popgate.values.identity import Identity, IdentityError


def value_findings(config: Config) -> Findings:
    """Run every check."""
    for check in _CHECKS:
        yield from check(config)


def _names(config: Config) -> Findings:
    if fault := domain_fault(config.hostname):
        yield True, Finding(("hostname",), fault, "give the full name of this host, such as mail.example.org")
    elif "." not in config.hostname:
        yield (
            False,
            Finding(
                ("hostname",),
                "is not a full name: other servers may refuse mail from it",
                "such as mail.example.org",
            ),
        )
    seen: set[str] = set()
    for index, domain in enumerate(config.local_domains):
        path = ("local_domains", index)
        if fault := domain_fault(domain):
            yield True, Finding(path, fault, "such as example.org")
        elif domain.lower() in seen:
            yield False, Finding(path, "stands here twice")
        seen.add(domain.lower())
    if config.postmaster:
        try:
            identity = Identity.parse(config.postmaster)
        except IdentityError as error:
            yield True, Finding(("postmaster",), f"is not a mail address: {error}", "user@example.org")
        else:
            if not identity.domain:
                yield True, Finding(("postmaster",), "must be a whole address", f"{identity}@example.org")
            elif identity.domain not in seen:
                yield (
                    True,
                    Finding(
                        ("postmaster",),
                        f"{identity.domain} is not one of local_domains",
                        "for an address elsewhere, make an alias: popgate account alias",
                    ),
                )


def nul_findings(config: Config) -> Findings:
    """Names that no system call takes; without these the files can be looked at."""
    paths: list[tuple[KeyPath, str]] = [
        (("data_dir",), config.data_dir),
        (("tls", "certificate"), config.tls.certificate),
        (("tls", "key"), config.tls.key),
        (("grants", "store"), config.grants.store),
        (("delivery", "password_file"), config.delivery.password_file),
        (("delivery", "ca_file"), config.delivery.ca_file),
    ]
    paths += [(("auth", "backends", index), text) for index, text in enumerate(config.auth.backends)]
    for index, each in enumerate(config.listener):
        paths += [(("listener", index, "key_file"), each.key_file)]
        paths += [(("listener", index, "secret_file"), each.secret_file)]
    paths += [(("map", index, "path"), each.path) for index, each in enumerate(config.map)]
    for path, text in paths:
        if "\0" in text:
            yield True, Finding(path, "holds a NUL, which no path can")
    if "\0" in config.user:
        yield True, Finding(("user",), "holds a NUL, which no name can")


def _listeners(config: Config) -> Findings:
    binds: list[tuple[int, Bind, bool]] = []
    for index, listener in enumerate(config.listener):
        path: KeyPath = ("listener", index)
        try:
            bind = parse_bind(listener.bind)
        except BindError as error:
            yield True, Finding((*path, "bind"), "is no place to listen", str(error))
            bind = None
        if bind is not None:
            takes_datagrams = listener.service in DATAGRAM_SERVICES
            for other_index, other, is_same_kind in binds:
                # a TCP port and a UDP port of one number are two ports
                if (bind.kind == "fd" or is_same_kind == takes_datagrams) and _collide(bind, other):
                    yield (
                        True,
                        Finding(
                            (*path, "bind"),
                            f"is taken: listener {other_index} has {other}",
                            "give each listener its own address and port",
                        ),
                    )
            binds.append((index, bind, takes_datagrams))
        yield from _one_listener(config, listener, path, bind)


def _collide(one: Bind, other: Bind) -> bool:
    if one.kind != other.kind:
        return False
    if one.kind != "inet":
        return one.name == other.name
    if one.port != other.port or one.port == 0 or one.is_ipv6 != other.is_ipv6:
        return False
    return one.host == other.host or one.is_wildcard or other.is_wildcard


def _one_listener(config: Config, listener: ListenerSettings, path: KeyPath, bind: Bind | None) -> Findings:
    if listener.tls != "none":
        for name in ("certificate", "key"):
            if not getattr(config.tls, name):
                yield (
                    True,
                    Finding(
                        (*path, "tls"),
                        f"needs a {name}, and [tls] {name} is not set",
                        'set it, let popgate init make a self-signed one, or write tls = "none"',
                    ),
                )
    elif listener.tls_profile == "legacy":
        yield False, Finding((*path, "tls_profile"), 'says nothing where tls = "none"')
    can_log_in = listener.tls != "none" or listener.plaintext_login
    if listener.service in ("submission", "pop3", "imap") and not can_log_in:
        yield (
            False,
            Finding(
                (*path, "service"),
                "nobody can log in here: there is no TLS, and plaintext_login is false",
                'write tls = "starttls", or plaintext_login = true for old devices',
            ),
        )
    if listener.plaintext_login and listener.tls != "implicit" and bind is not None and _is_open(bind):
        yield (
            False,
            Finding(
                (*path, "plaintext_login"),
                f"passwords may cross the Internet in clear, because {bind} can be reached from there",
                "bind it to the address of the network of the devices, or let a firewall keep others off",
            ),
        )
    yield from _relaying(listener, path, can_log_in=can_log_in)
    if listener.service == "ucspi":
        yield from _program(config, listener, path, bind)
    else:
        yield from says_nothing(listener, path, UCSPI_ONLY)
    if listener.service == "relay_ctrl_udp":
        yield from peer_findings(config, listener, path, bind)
    else:
        yield from says_nothing(listener, path, PEERS_ONLY)
        if listener.service not in (*QUESTION_SERVICES, *HTTP_SERVICES):
            yield from says_nothing(listener, path, ("callers",))
    if listener.service in HTTP_SERVICES:
        yield from http_findings(config, listener, path, bind)
    else:
        yield from says_nothing(listener, path, ("secret_file", *DOVECOT_ONLY))
    yield from whoson_findings(config, listener, path, bind)
    yield from question_findings(config, listener, path, bind)
    yield from socket_findings(listener, path, bind)
    counts_addresses = listener.service not in (
        *DATAGRAM_SERVICES,
        "whoson",
        *QUESTION_SERVICES,
        *HTTP_SERVICES,
    )
    if counts_addresses and listener.max_connections_per_address > listener.max_connections:
        yield (
            False,
            Finding(
                (*path, "max_connections_per_address"),
                f"is more than max_connections = {listener.max_connections}: one client can take all",
            ),
        )
    yield from network_findings(
        (*path, "proxy_from"),
        listener.proxy_from,
        "then anybody could claim any client address, and with it any grant; list the load balancers",
    )
    yield from _proxies(config, listener, path)


def _proxies(config: Config, listener: ListenerSettings, path: KeyPath) -> Findings:
    """A connection for which a load balancer names no client (PROXY UNKNOWN, LOCAL) comes from the
    balancer's own address: a right to relay there is a right of everybody behind it."""
    never = [network for _, network in _parsed(config.grants.never)]
    trusted = [network for _, network in _parsed(config.grants.trusted)]
    for index, proxy in _parsed(listener.proxy_from):
        if proxy.prefix_bits < SHORTEST_PREFIX:
            continue
        here = (*path, "proxy_from", index)
        if any(_overlap(network, proxy) for network in trusted):
            yield (
                False,
                Finding(
                    here,
                    "is trusted too: whoever it names no client for (PROXY UNKNOWN) relays",
                    "take the load balancer out of grants.trusted",
                ),
            )
        if not any(_covers(network, proxy) for network in never):
            yield (
                False,
                Finding(
                    here,
                    "a login for which it names no client (PROXY UNKNOWN) would let all behind it relay",
                    f'add "{proxy}" to grants.never',
                ),
            )


def _covers(one: Network, other: Network) -> bool:
    return one.prefix_bits <= other.prefix_bits and _base(other) in one


def _relaying(listener: ListenerSettings, path: KeyPath, *, can_log_in: bool) -> Findings:
    path = (*path, "relay_by")
    if listener.relay_by is None or (
        listener.service not in ("smtp", "submission") and not listener.relay_by
    ):
        return
    if listener.service == "ucspi":
        yield True, Finding(path, "here the program decides", 'remove it; grant = "check" tells the program')
    elif listener.service not in ("smtp", "submission"):
        what = {"pop3": "POP3 relays", "imap": "IMAP relays", "relay_ctrl_udp": "datagrams relay"}
        says = what.get(listener.service, "this service relays")
        yield True, Finding(path, f"{says} nothing", "remove it, or put it on an smtp listener")
    elif "auth" in listener.relay_by and not can_log_in:
        yield (
            False,
            Finding(path, "nobody can authenticate here without TLS", 'write tls = "starttls"'),
        )
    if listener.service == "submission" and not relay_by(listener):
        yield False, Finding(path, "nobody can send mail through this listener")


def _program(config: Config, listener: ListenerSettings, path: KeyPath, bind: Bind | None) -> Findings:
    """What a listener that runs programs needs, and cannot have."""
    if not listener.command or not listener.command[0]:
        yield (
            True,
            Finding(
                (*path, "command"), "names no program to run", 'command = ["/var/qmail/bin/qmail-smtpd"]',
                shows_value=False,
            ),
        )  # fmt: skip
    for index, word in enumerate(listener.command):
        if "\0" in word:
            yield True, Finding((*path, "command", index), "holds a NUL, which no argument can")
    for name in ("relayclient", "rules_file"):
        if "\0" in getattr(listener, name):
            yield True, Finding((*path, name), "holds a NUL, which no program can be given")
    if listener.tls != "none":
        yield True, Finding((*path, "tls"), "the program has the bare connection", 'write tls = "none"')
    if listener.proxy_from:
        yield True, Finding((*path, "proxy_from"), "the program has the bare connection: no header is read")
    if bind is not None and bind.kind == "unix":
        yield True, Finding((*path, "bind"), "programs are told TCP addresses", "write HOST:PORT")
    if listener.grant == "check" and config.grants.sender == "bound":
        yield (
            False,
            Finding(
                (*path, "grant"),
                'grants.sender = "bound" cannot be held here: the program alone sees the sender, and it'
                " gets USER and DOMAIN to compare",
            ),
        )
    if listener.grant == "allow" and config.user:
        yield (
            False,
            Finding(
                (*path, "grant"),
                "a password checker that becomes the user who logs in needs root, and programs run as"
                f" {config.user}",
                "run such a chain under `popgate tcpserver`, or have one user own all mailboxes",
            ),
        )
    if listener.grant == "allow" and config.grants.who == "devices":
        yield (
            False,
            Finding(
                (*path, "grant"),
                'grants.who = "devices": logins of names that are no device account here give none',
            ),
        )


def _is_open(bind: Bind) -> bool:
    """Can strangers on the Internet reach it, as far as the address tells?"""
    if bind.kind != "inet":
        return False
    if bind.is_wildcard:
        return True
    address = ClientAddress.parse(bind.host)
    return not any(address in network for network in PRIVATE)


def _parsed(texts: list[str]) -> list[tuple[int, Network]]:
    networks = []
    for index, text in enumerate(texts):
        try:
            networks.append((index, Network.parse(text)))
        except AddressError:
            continue
    return networks


def _grants(config: Config) -> Findings:
    grants = config.grants
    kind, colon, rest = grants.store.partition(":")
    path: KeyPath = ("grants", "store")
    if not colon or kind not in ("directory", "memory"):
        yield (
            True,
            Finding(
                path,
                "is no kind of store",
                f"write directory:{grants.store}"
                if grants.store.startswith("/")
                else "directory:PATH or memory:",
            ),
        )
    elif kind == "directory" and not rest:
        yield True, Finding(path, "names no directory", "such as directory:/var/spool/popgate/allow")
    elif kind == "memory" and rest:
        yield True, Finding(path, "memory: takes nothing after the colon", 'write "memory:"')
    elif kind == "memory" and config.worker_count != 1:
        yield (
            True,
            Finding(
                path,
                f"{config.worker_count} workers would each keep grants that the others do not see",
                "write workers = 1, or keep grants in directory:PATH",
            ),
        )
    if grants.max_age_seconds < grants.window_seconds:
        yield (
            False,
            Finding(
                ("grants", "max_age_seconds"),
                f"ends every grant before window_seconds = {grants.window_seconds} does",
            ),
        )
    yield from network_findings(
        ("grants", "trusted"), grants.trusted, "then popgate would be an open relay; list your own networks"
    )
    yield from network_findings(("grants", "never"), grants.never, "")
    for index, never in _parsed(grants.never):
        if never.prefix_bits == 0:
            yield False, Finding(("grants", "never", index), "no address can get a grant")
        for trusted_index, trusted in _parsed(grants.trusted):
            if trusted.prefix_bits >= SHORTEST_PREFIX and _overlap(never, trusted):
                yield (
                    False,
                    Finding(
                        ("grants", "trusted", trusted_index),
                        f"overlaps with never = {never}: its addresses relay without a grant all the same",
                    ),
                )


def _overlap(one: Network, other: Network) -> bool:
    return _base(one) in other or _base(other) in one


def _base(network: Network) -> ClientAddress:
    return ClientAddress.parse(network.text.partition("/")[0])


def _auth(config: Config) -> Findings:
    backends = config.auth.backends
    if not backends:
        yield True, Finding(("auth", "backends"), "nobody can log in", 'write backends = ["accounts"]')
    for index, text in enumerate(backends):
        path = ("auth", "backends", index)
        kind, _, argument = text.partition(":")
        if kind == "accounts":
            if argument or text.endswith(":"):
                yield True, Finding(path, "takes nothing after its name", 'write "accounts"')
        elif kind == "passwd_file":
            if not argument:
                yield True, Finding(path, "names no file", '"passwd_file:/etc/popgate/users"')
        elif kind == "checkpassword":
            if not argument.strip():
                yield True, Finding(path, "names no program", '"checkpassword:/bin/checkpassword"')
        else:
            yield (
                True,
                Finding(
                    path, "is no way to check logins", "accounts, passwd_file:PATH or checkpassword:COMMAND"
                ),
            )
        if text in backends[:index]:
            yield False, Finding(path, "stands here twice")
    kinds = {text.partition(":")[0] for text in backends}
    if kinds == {"checkpassword"} and any(listener.service == "smtp" for listener in config.listener):
        yield (
            False,
            Finding(
                ("auth", "backends"),
                "a checkpassword program cannot say who gets mail here: only aliases will",
                'add "accounts", or make an alias for each user',
            ),
        )
    if config.auth.apop and "accounts" not in backends and backends:
        yield (
            False,
            Finding(("auth", "apop"), "only the accounts database keeps secrets that APOP can use"),
        )


def _delivery(config: Config) -> Findings:
    delivery = config.delivery
    if delivery.max_retry_seconds < delivery.first_retry_seconds:
        yield (
            False,
            Finding(
                ("delivery", "max_retry_seconds"),
                f"is less than first_retry_seconds = {delivery.first_retry_seconds}",
            ),
        )
    if delivery.lifetime_seconds < delivery.first_retry_seconds:
        yield (
            False,
            Finding(
                ("delivery", "lifetime_seconds"),
                "mail bounces before it is tried a second time",
                f"make it much longer than first_retry_seconds = {delivery.first_retry_seconds}",
            ),
        )
    if delivery.smarthost:
        # what stands in password_file is not read here; that there is one is enough
        stand_in = "secret" if delivery.password_file else ""
        yield from _way_out(config, ("delivery", "smarthost"), delivery.smarthost, stand_in)
    elif delivery.password_file:
        yield False, Finding(("delivery", "password_file"), "serves nothing: there is no smarthost")
    seen: dict[str, int] = {}
    for index, route in enumerate(delivery.route):
        yield from _way_out(config, ("delivery", "route", index, "to"), route.to, "")
        path: KeyPath = ("delivery", "route", index, "domains")
        if not route.domains:
            yield True, Finding(path, "a route for no domain", 'domains = ["partner.example"]')
        for number, domain in enumerate(route.domains):
            here = (*path, number)
            name = domain.lower()
            if fault := domain_fault(name.removeprefix(".")):
                yield True, Finding(here, fault, "such as partner.example, or .partner.example")
            elif name in seen:
                yield False, Finding(here, f"is never used: route {seen[name]} has it already")
            elif name in {local.lower() for local in config.local_domains}:
                yield False, Finding(here, "is never used: it is one of local_domains")
            seen.setdefault(name, index)


def _way_out(config: Config, path: KeyPath, text: str, password: str) -> Findings:
    try:
        route = parse_route(text, password)
    except RouteError as error:
        yield True, Finding(path, "is no way out", str(error))
        return
    if route.username and route.tls == "none":
        yield (
            False,
            Finding(path, "sends the password without TLS", "write smtp+starttls:// or smtps://"),
        )
    for listener in config.listener:
        try:
            bind = parse_bind(listener.bind)
        except BindError:
            continue
        is_here = bind.kind == "inet" and bind.port == route.port != 0
        if (
            is_here
            and listener.service in ("smtp", "submission", "ucspi")
            and route.host in _names_of(bind, config.hostname)
        ):
            yield (
                False,
                Finding(path, "leads back to this server: mail would go round until it bounces"),
            )
            break


def _names_of(bind: Bind, hostname: str) -> frozenset[str]:
    here = {hostname.lower(), "localhost", bind.host}
    if bind.is_wildcard:
        here |= {"127.0.0.1", "::1"}
    return frozenset(here)


def _limits(config: Config) -> Findings:
    limits = config.limits
    if limits.recipients < 100:
        # RFC 5321 4.5.3.1.8
        yield False, Finding(("limits", "recipients"), "RFC 5321 asks for at least 100")
    if limits.pop3_idle_seconds < 600:
        # RFC 1939 3
        yield False, Finding(("limits", "pop3_idle_seconds"), "RFC 1939 asks for at least 600")
    if limits.imap_idle_seconds < 1800:
        # RFC 9051 5.4
        yield False, Finding(("limits", "imap_idle_seconds"), "RFC 9051 asks for at least 1800")
    quota = config.grants.quota_bytes
    if quota and quota < limits.message_bytes:
        yield (
            False,
            Finding(
                ("grants", "quota_bytes"),
                f"is less than one message may have: limits.message_bytes = {limits.message_bytes}",
            ),
        )


_CHECKS: tuple[Callable[[Config], Findings], ...] = (
    _names,
    _listeners,
    _grants,
    _auth,
    _delivery,
    _limits,
    follow_findings,
    map_findings,
)
