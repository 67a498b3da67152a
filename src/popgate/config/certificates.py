"""Do certificate and key exist, fit each other and name this host?"""

import datetime
import os
import ssl
import stat
from collections.abc import Iterator

from popgate.config.schema import Finding
from popgate.config.settings import Config

_CERTIFICATE = ("tls", "certificate")
_KEY = ("tls", "key")


def certificate_findings(config: Config, now: float) -> Iterator[tuple[bool, Finding]]:
    """Yields (is it an error, what was found). Reads the files."""
    certificate, key = config.tls.certificate, config.tls.key
    faults = [
        Finding(path, fault, remedy)
        for path, name in ((_CERTIFICATE, certificate), (_KEY, key))
        for fault, remedy in [_file_fault(name)]
        if fault
    ]
    yield from ((True, fault) for fault in faults)
    mode = _mode(key)
    if mode & 0o007:
        yield True, Finding(_KEY, "everybody on this machine can read the private key", f"chmod 600 {key}")
    elif mode & 0o020:
        yield True, Finding(_KEY, "its group can replace the private key", f"chmod 640 {key}")
    if certificate and key and not faults:
        yield from _content_findings(config, now)


def _content_findings(config: Config, now: float) -> Iterator[tuple[bool, Finding]]:
    from cryptography import x509
    from cryptography.hazmat.primitives.serialization import (
        Encoding,
        PublicFormat,
        load_pem_private_key,
    )

    with open(config.tls.certificate, "rb") as file:
        chain_pem = file.read()
    with open(config.tls.key, "rb") as file:
        key_pem = file.read()
    try:
        chain = x509.load_pem_x509_certificates(chain_pem)
    except ValueError:
        holds = (
            "it holds a private key: are certificate and key swapped?" if b"PRIVATE KEY" in chain_pem else ""
        )
        yield True, Finding(_CERTIFICATE, "holds no certificate in PEM form", holds)
        return
    try:
        key = load_pem_private_key(key_pem, None)
    except TypeError:
        yield (
            True,
            Finding(
                _KEY,
                "is locked with a passphrase, which a server cannot type",
                f"openssl pkey -in {config.tls.key} -out unlocked.pem",
            ),
        )
        return
    except Exception:  # cryptography raises several kinds for keys that it does not know
        yield True, Finding(_KEY, "holds no private key in PEM form")
        return
    form = (Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    leaf_key = chain[0].public_key().public_bytes(*form)
    if key.public_key().public_bytes(*form) != leaf_key:
        in_chain = any(key.public_key() == other.public_key() for other in chain[1:])
        yield (
            True,
            Finding(
                _KEY,
                "does not belong to the certificate",
                "the server's own certificate must stand first in the chain"
                if in_chain
                else "give the key that the certificate was made for",
            ),
        )
        return
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(config.tls.certificate, config.tls.key)
    except (ssl.SSLError, OSError) as error:
        yield True, Finding(_CERTIFICATE, f"OpenSSL refuses it: {error}")
        return
    yield from _leaf_findings(chain[0], config.hostname, now)


def _leaf_findings(leaf: object, hostname: str, now: float) -> Iterator[tuple[bool, Finding]]:
    from cryptography import x509

    assert isinstance(leaf, x509.Certificate)
    today = datetime.datetime.fromtimestamp(now, datetime.UTC)
    if leaf.not_valid_after_utc <= today:
        when = leaf.not_valid_after_utc.date().isoformat()
        yield (
            False,
            Finding(_CERTIFICATE, f"ran out on {when}", "renew it; clients that check will refuse it"),
        )
    elif leaf.not_valid_before_utc > today:
        when = leaf.not_valid_before_utc.date().isoformat()
        yield (
            False,
            Finding(_CERTIFICATE, f"is not valid before {when}", "is the clock of this machine right?"),
        )
    try:
        names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        hosts = [name.lower() for name in names.get_values_for_type(x509.DNSName)]
    except (x509.ExtensionNotFound, ValueError):
        hosts = []
    wildcard = "*." + hostname.partition(".")[2]
    if hostname.lower() not in hosts and wildcard not in hosts:
        named = ", ".join(hosts) or "no host"
        yield (
            False,
            Finding(
                _CERTIFICATE, f"names {named}, not {hostname}", "clients that check the name will refuse it"
            ),
        )


def _file_fault(name: str) -> tuple[str, str]:
    if not name:
        return "", ""  # a missing setting is told by the check of the listeners
    try:
        mode = os.stat(name).st_mode
    except FileNotFoundError:
        return "there is no such file", "popgate init makes a self-signed pair to begin with"
    except OSError as error:
        return f"cannot be reached: {error.strerror}", ""
    if not stat.S_ISREG(mode):
        return "is not a file", ""
    if not os.access(name, os.R_OK):
        return "cannot be read by this user", "start popgate as root: it drops to `user` after reading"
    return "", ""


def _mode(name: str) -> int:
    try:
        return os.stat(name).st_mode if name else 0
    except OSError:
        return 0
