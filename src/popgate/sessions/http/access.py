"""Who may ask: programs of the site that know the secret, never a page in somebody's browser.

A browser on this machine or in this network can be made to send requests to us by any page that it
shows. Such requests carry an Origin or Sec-Fetch header, or, where the page's own name was made to
lead here (DNS rebinding), that name as the host. Neither comes from a mail server or from curl.
"""

import base64
import binascii
import hmac

from popgate.protocols.http.messages import Request
from popgate.values.address import AddressError, ClientAddress

_BROWSERS_ONLY = ("origin", "sec-fetch-site", "sec-fetch-mode", "sec-fetch-dest")


def is_from_browser(request: Request) -> bool:
    return any(request.header(name) is not None for name in _BROWSERS_ONLY)


def is_for_us(host: str, hostname: str) -> bool:
    """Does a Host name us: by address, as localhost or by our own name?"""
    name = host
    if name.startswith("["):
        name, bracket, port = name[1:].partition("]")
        if not bracket or (port and not port.startswith(":")):
            return False
    elif ":" in name:
        name = name.rpartition(":")[0]
    if name.lower().rstrip(".") in ("", "localhost", hostname.lower()):
        return bool(name) or not host
    try:
        ClientAddress.parse(name)
    except AddressError:
        return False
    return True


def knows_secret(request: Request, secret: bytes) -> bool:
    """`Authorization: Bearer SECRET`, or Basic with the secret as the password, which is what a URL
    with user:password@ sends. Compared in constant time."""
    scheme, _, credentials = (request.header("authorization") or "").partition(" ")
    given = credentials.strip().encode("utf-8", "replace")
    if scheme.lower() == "basic":
        try:
            given = base64.b64decode(given, validate=True).partition(b":")[2]
        except (binascii.Error, ValueError):
            return False
    elif scheme.lower() != "bearer":
        return False
    return hmac.compare_digest(given, secret)
