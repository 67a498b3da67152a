"""Where mail for a domain goes: the administrator's routes, read once and asked for each domain.

    smtp://HOST[:PORT]            port 25, TLS never asked for
    smtp+starttls://HOST[:PORT]   port 587, TLS required and checked
    smtps://HOST[:PORT]           port 465, TLS from the first byte, checked
    mx:                           the MX hosts of the recipient's domain

USER:PASSWORD@ may stand before HOST, both percent-encoded; an IPv6 address stands in
brackets. No look-up happens here.
"""

from typing import Literal
from urllib.parse import unquote_to_bytes

from popgate.queue.settings import DeliverySettings
from popgate.values.address import AddressError, ClientAddress
from popgate.values.value import value

# RFC 8314 3.3: submission with TLS from the first byte has its own port and scheme
Tls = Literal["none", "opportunistic", "starttls", "implicit"]

_SCHEMES: dict[str, tuple[Tls, int]] = {
    "smtp": ("none", 25),
    "smtp+starttls": ("starttls", 587),
    "smtps": ("implicit", 465),
}
_FORMS = "smtp://HOST:PORT, smtp+starttls://HOST:PORT, smtps://HOST:PORT or mx:"
_HOST = frozenset("abcdefghijklmnopqrstuvwxyz0123456789.-_")


class RouteError(ValueError):
    """A route that cannot be used; the text says what would be right, and never a password."""


class Secret(str):
    """Text that does not show itself in a repr, so that no traceback or log line holds it."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "'***'"


@value
class Route:
    """One way out. `host` is "" for the MX hosts of the domain; `username` is "" without login."""

    host: str
    port: int
    tls: Tls
    username: str = ""
    password: Secret = Secret("")

    @property
    def is_mx(self) -> bool:
        return not self.host

    def __str__(self) -> str:
        """The route without its password, for logs and lists."""
        if self.is_mx:
            return "mx:"
        scheme = next(name for name, (tls, _) in _SCHEMES.items() if tls == self.tls)
        host = f"[{self.host}]" if ":" in self.host else self.host
        user = f"{self.username}@" if self.username else ""
        return f"{scheme}://{user}{host}:{self.port}"


MX = Route("", 25, "opportunistic")


def parse_route(text: str, password: str = "") -> Route:
    """Read a route; `password` is used where the route names a user without one. Raises RouteError."""
    text = text.strip()
    if text.lower() in ("mx:", "mx://", "mx"):
        return MX
    scheme, slashes, rest = text.partition("://")
    if not slashes or scheme.lower() not in _SCHEMES:
        raise RouteError(f"{_without_login(text)!r} is no route: write {_FORMS}")
    tls, port = _SCHEMES[scheme.lower()]
    login, at, place = rest.rpartition("@")
    place = place.removesuffix("/")
    host, port = _host_and_port(place, port)
    username, secret = "", ""
    if at:
        username, colon, secret = login.partition(":")
        username, secret = _decode(username, "user name"), _decode(secret, "password")
        if not username:
            raise RouteError("the user name before @ is empty: write USER:PASSWORD@HOST, or leave out the @")
        if not colon:
            secret = password
        if not secret:
            raise RouteError(
                f"user {username!r} has no password: write USER:PASSWORD@HOST, or set delivery.password_file"
            )
    return Route(host, port, tls, username, Secret(secret))


def _without_login(text: str) -> str:
    scheme, slashes, rest = text.rpartition("://")
    return scheme + slashes + rest.rpartition("@")[2]


def _decode(text: str, what: str) -> str:
    try:
        decoded = unquote_to_bytes(text).decode("utf-8")
    except UnicodeDecodeError:
        raise RouteError(f"the {what} is not UTF-8 after percent-decoding") from None
    if any(ord(char) < 32 or ord(char) == 127 for char in decoded):
        raise RouteError(f"the {what} holds a control character")
    return decoded


def _host_and_port(text: str, port: int) -> tuple[str, int]:
    if text.startswith("["):
        host, bracket, rest = text[1:].partition("]")
        if not bracket or (rest and not rest.startswith(":")):
            raise RouteError(f"{text!r}: an IPv6 address is written [ADDRESS]:PORT")
        host, colon, port_text = _address(host), rest[:1], rest[1:]
    else:
        host, colon, port_text = text.partition(":")
        if ":" in port_text:
            raise RouteError(f"{text!r}: an IPv6 address stands in brackets, [ADDRESS]:PORT")
        host = _name(host)
    if colon:
        if not port_text.isascii() or not port_text.isdigit() or not 1 <= int(port_text[:6]) <= 65535:
            raise RouteError(f"{text!r}: the port after : is a number from 1 to 65535")
        port = int(port_text)
    return host, port


def _address(text: str) -> str:
    try:
        return ClientAddress.parse(text).text
    except AddressError as error:
        raise RouteError(str(error)) from None


def _name(host: str) -> str:
    host = host.lower().rstrip(".")
    if not host:
        raise RouteError(f"the host is missing: write {_FORMS}")
    if host.replace(".", "").isdigit():
        return _address(host)
    if len(host) > 255 or not _HOST.issuperset(host):
        raise RouteError(f"{host!r} is not a host name: letters, digits, hyphens and dots; IDNs as xn--")
    if any(not label or len(label) > 63 for label in host.split(".")):
        raise RouteError(f"{host!r} is not a host name: each label has 1 to 63 characters")
    return host


class Routes:
    """The routes of a site. Raises RouteError for settings that cannot be used.

    `password` is what stands in delivery.password_file; it serves the smart host only.
    """

    def __init__(self, settings: DeliverySettings, password: str = "") -> None:
        self._routes: list[tuple[frozenset[str], tuple[str, ...], Route]] = []
        for number, entry in enumerate(settings.route, 1):
            try:
                route = parse_route(entry.to)
            except RouteError as error:
                raise RouteError(f"delivery.route {number}: {error}") from None
            if not entry.domains:
                raise RouteError(f"delivery.route {number}: domains is empty, so the route serves nothing")
            names = [domain.lower().rstrip(".") for domain in entry.domains]
            exact = frozenset(name.removeprefix(".") for name in names)
            self._routes.append((exact, tuple(name for name in names if name.startswith(".")), route))
        try:
            self._default = parse_route(settings.smarthost, password) if settings.smarthost else MX
        except RouteError as error:
            raise RouteError(f"delivery.smarthost: {error}") from None

    def choose(self, domain: str) -> Route:
        """The first route that fits `domain` (lower case), else the smart host, else MX."""
        for exact, below, route in self._routes:
            if domain in exact or domain.endswith(below):
                return route
        return self._default
