"""What the server says it can do (RFC 9051 6.1.1), by phase and by whether TLS runs."""

import functools

from popgate.protocols import sasl
from popgate.values.value import value

PASSWORD_MECHANISMS = (*sasl.PLAINTEXT_MECHANISMS, "OAUTHBEARER", "XOAUTH2")
"""They show a password or what is as good as one, so they belong under TLS."""


@value
class Offer:
    """What the connections of a listener are offered.

    `offers_tls`: STARTTLS is; `plaintext_login`: passwords are taken without TLS; `mechanisms`: of
    AUTHENTICATE, all that popgate.protocols.sasl may begin here; `cram_md5` adds CRAM-MD5 to them.
    `errors` refused commands in a row and, before the login, `junk` idle ones close the session.
    `append_limit`: the most octets of a message that APPEND takes.
    """

    hostname: str
    offers_tls: bool = False
    plaintext_login: bool = False
    cram_md5: bool = False
    mechanisms: tuple[str, ...] = sasl.PLAINTEXT_MECHANISMS
    errors: int = 20
    junk: int = 100
    append_limit: int = 67108864


@functools.lru_cache(128)
def mechanisms(offer: Offer, is_tls: bool) -> tuple[str, ...]:
    """Those that may be used now."""
    is_private = is_tls or offer.plaintext_login
    usable = [one for one in offer.mechanisms if is_private or one not in PASSWORD_MECHANISMS]
    if offer.cram_md5 and "CRAM-MD5" not in usable:
        usable.append("CRAM-MD5")
    return tuple(usable)


@functools.lru_cache(128)
def before_login(offer: Offer, is_tls: bool) -> bytes:
    """The list for a client that has not logged in."""
    told = ["IMAP4rev1", "IMAP4rev2", "LITERAL+", "SASL-IR", "ENABLE", "ID", "IDLE"]
    if offer.offers_tls and not is_tls:
        told.append("STARTTLS")
    if not is_tls and not offer.plaintext_login:
        told.append("LOGINDISABLED")  # RFC 9051 6.2.3
    told += ["AUTH=" + one for one in mechanisms(offer, is_tls)]
    return " ".join(told).encode("ascii", "replace")


@functools.lru_cache(128)
def after_login(offer: Offer, is_compressed: bool) -> bytes:
    """The list for a client that has logged in."""
    told = _AFTER_LOGIN + f" APPENDLIMIT={offer.append_limit}"  # RFC 7889 2
    if not is_compressed:
        told += " COMPRESS=DEFLATE"  # RFC 4978 3: no second time
    return told.encode("ascii")


_AFTER_LOGIN = (
    "IMAP4rev1 IMAP4rev2 LITERAL+ SASL-IR ENABLE ID IDLE NAMESPACE UIDPLUS MOVE UNSELECT CHILDREN"
    " ESEARCH SEARCHRES WITHIN SORT THREAD=ORDEREDSUBJECT THREAD=REFERENCES"
    " LIST-EXTENDED LIST-STATUS STATUS=SIZE SPECIAL-USE CREATE-SPECIAL-USE"
    " CONDSTORE QRESYNC QUOTA QUOTA=RES-STORAGE UTF8=ACCEPT BINARY MULTIAPPEND OBJECTID PREVIEW"
)
