"""Checks of listeners that other mail servers ask: who may connect, and what an answer can be."""

import re

from popgate.config.lines import KeyPath
from popgate.config.networks import Findings, is_loopback, network_findings
from popgate.config.peers import says_nothing
from popgate.config.schema import Finding
from popgate.config.settings import Config
from popgate.servers.bind import Bind
from popgate.servers.settings import DELEGATION_ONLY, QUESTION_SERVICES, ListenerSettings
from popgate.values.address import ClientAddress

# RFC 5322 3.6.8 field-name, of which only letters, digits and hyphens are worth while
_FIELD_NAME = re.compile(r"[A-Za-z][A-Za-z0-9-]{0,59}\Z")
_WORD = re.compile(r"[!-~]+(?: [!-~]+)*\Z")
_MODE = re.compile(r"0?[0-7]{3}\Z")


def question_findings(
    config: Config, listener: ListenerSettings, path: KeyPath, bind: Bind | None
) -> Findings:
    """What a listener that mail servers ask must not be, and what says nothing elsewhere."""
    service = listener.service
    if service != "postfix_policy":
        yield from says_nothing(listener, path, DELEGATION_ONLY)
    if service not in ("socketmap", "tcp_table"):
        yield from says_nothing(listener, path, ("map_value",))
    if service != "line":
        yield from says_nothing(listener, path, ("line_end",))
    yield from _on_store_fault(listener, path)
    if service not in QUESTION_SERVICES:
        return
    yield from says_nothing(listener, path, ("tls_profile", "plaintext_login", "max_connections_per_address"))
    if listener.tls != "none":
        yield (
            True,
            Finding(
                (*path, "tls"), "mail servers ask in the clear",
                'write tls = "none", and keep to a unix socket, loopback or a network of your own',
            ),
        )  # fmt: skip
    if listener.proxy_from:
        yield True, Finding((*path, "proxy_from"), "mail servers send no PROXY header", "remove it")
    yield from _callers(listener, path, bind)
    yield from _answers(config, listener, path)


def _on_store_fault(listener: ListenerSettings, path: KeyPath) -> Findings:
    path = (*path, "on_store_fault")
    if listener.service == "ucspi":
        if listener.on_store_fault == "defer_if_permit":
            yield True, Finding(path, "is for Postfix", 'write "defer" or "run"')
    elif listener.service == "postfix_policy":
        if listener.on_store_fault == "run":
            yield True, Finding(path, "no program runs here", 'write "defer" or "defer_if_permit"')
    else:
        yield from says_nothing(listener, path[:-1], ("on_store_fault",))


def _callers(listener: ListenerSettings, path: KeyPath, bind: Bind | None) -> Findings:
    is_local = bind is None or bind.kind != "inet" or is_loopback(ClientAddress.parse(bind.host))
    if not is_local and not listener.callers:
        yield (
            True,
            Finding(
                (*path, "callers"),
                f"is missing: whoever can connect to {bind} could learn who may relay, and use up quotas",
                'bind to 127.0.0.1 or unix:/PATH, or list the mail servers: callers = ["192.0.2.25"]',
                shows_value=False,
            ),
        )
    if is_local and listener.callers and bind is not None and bind.kind != "fd":
        yield False, Finding((*path, "callers"), f"says nothing: only this machine can connect to {bind}")
    yield from network_findings(
        (*path, "callers"), listener.callers, "a caller learns who may relay; list the mail servers"
    )


def _answers(config: Config, listener: ListenerSettings, path: KeyPath) -> Findings:
    if listener.identity_header and not _FIELD_NAME.match(listener.identity_header):
        yield (
            True,
            Finding(
                (*path, "identity_header"), "is no name of a header field",
                "letters, digits and hyphens, without a colon, such as X-Popgate-Identity",
            ),
        )  # fmt: skip
    if not _WORD.match(listener.map_value) or len(listener.map_value) > 100:
        yield True, Finding((*path, "map_value"), "is no result of a look-up", "such as RELAY, OK or permit")
    if config.grants.sender == "bound" and listener.service in ("socketmap", "tcp_table"):
        yield (
            False,
            Finding(
                (*path, "service"),
                'grants.sender = "bound" cannot be held here: a look-up names no sender, and any live grant'
                " serves",
                'ask by postfix_policy or line, or write sender = "any"',
            ),
        )


def socket_findings(listener: ListenerSettings, path: KeyPath, bind: Bind | None) -> Findings:
    """Who may connect to a unix socket."""
    if bind is not None and bind.kind != "unix":
        defaults = ListenerSettings(listener.service, listener.bind)
        for name in ("socket_group", "socket_mode"):
            if getattr(listener, name) != getattr(defaults, name):
                yield False, Finding((*path, name), f"says nothing: {bind} is no unix: socket")
    if not _MODE.match(listener.socket_mode):
        yield True, Finding((*path, "socket_mode"), "is no mode of a file", 'such as "0660"')
    if "\0" in listener.socket_group:
        yield True, Finding((*path, "socket_group"), "holds a NUL, which no name can")
