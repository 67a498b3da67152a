"""Where Dovecot sends what it tells, against where popgate listens for it, and with what secret."""

import base64
import binascii
import hmac
import re
from urllib.parse import urlsplit

from popgate.values.address import AddressError, ClientAddress
from popgate.values.value import value


@value
class OurListener:
    """One listener of popgate for Dovecot: where it listens ("" where that is no address), and what it
    wants. `secret` is None where its file cannot be read, or none is asked for (`wants_secret`)."""

    host: str
    port: int
    wants_secret: bool
    secret: bytes | None
    has_tls: bool
    session_ends: bool

    @property
    def text(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@value
class Url:
    scheme: str
    host: str
    port: int
    path: str
    query: str
    has_credentials: bool


def split_url(text: str) -> Url | None:
    """A URL, as far as it can be read; doveconf hides the credentials in one."""
    try:
        # doveconf prints #hidden_use-P_to_show# in their place
        parts = urlsplit(re.sub(r"//#[^@/]*@", "//hidden:hidden@", text))
        port = parts.port
    except ValueError:
        return None
    return Url(
        parts.scheme.lower(),
        parts.hostname or "",
        port or (443 if parts.scheme.lower() == "https" else 80),
        parts.path,
        parts.query,
        bool(parts.password or parts.username),
    )


def is_same_host(host: str, listening: str) -> bool:
    """May a name or address lead to where we listen? A name that is not localhost may."""
    try:
        address = ClientAddress.parse(host)
    except AddressError:
        return host.lower() != "localhost" or listening in ("127.0.0.1", "::1", "0.0.0.0", "::")  # noqa: S104
    if listening in ("0.0.0.0", "::"):  # noqa: S104
        return address.is_ipv6 is (listening == "::")
    return address.text == listening


def is_right_header(header: str, secret: bytes) -> bool:
    """Does auth_policy_server_api_header bring the secret?"""
    name, _, content = header.partition(":")
    scheme, _, credentials = content.strip().partition(" ")
    given = credentials.strip().encode()
    if scheme.lower() == "basic":
        try:
            given = base64.b64decode(given, validate=True).partition(b":")[2]
        except (binascii.Error, ValueError):
            return False
    return (
        name.strip().lower() == "authorization"
        and scheme.lower() in ("bearer", "basic")
        and hmac.compare_digest(given, secret)
    )
