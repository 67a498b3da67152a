"""TLS contexts for listeners, made again when the certificate files change."""

import os
import ssl
from collections.abc import Callable

from popgate.servers.settings import TlsSettings


class TlsUnavailable(Exception):
    """No usable certificate; the text names the file and the fault."""


def server_context(settings: TlsSettings, profile: str, alpn: str) -> ssl.SSLContext:
    """A context for one listener. `profile`: "modern" (TLS 1.2+) or "legacy" (TLS 1.0+).

    `alpn`: the RFC 7301 name of the protocol. Raises TlsUnavailable.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if profile == "legacy":
        # old devices know nothing better than TLS 1.0 with SHA-1; OpenSSL 3 wants level 0 for that
        context.set_ciphers("DEFAULT:@SECLEVEL=0")
        context.minimum_version = ssl.TLSVersion.MINIMUM_SUPPORTED
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION | ssl.OP_CIPHER_SERVER_PREFERENCE
    context.set_alpn_protocols([alpn])
    try:
        context.load_cert_chain(settings.certificate, settings.key or None, password=_no_password)
    except (OSError, ValueError) as fault:
        raise TlsUnavailable(f"{settings.certificate}, {settings.key}: {fault}") from fault
    return context


def _no_password() -> str:
    raise ValueError("the private key is encrypted; popgate cannot ask for its password")


class CertificateWatch:
    """Serves the newest good context; a bad new certificate leaves the old one in place."""

    def __init__(self, settings: TlsSettings, profile: str, alpn: str, report: Callable[[str], None]) -> None:
        """Raises TlsUnavailable. `report(detail)` is told of a certificate that cannot be read."""
        self._settings = settings
        self._profile = profile
        self._alpn = alpn
        self._report = report
        self._stamp = self._read_stamp()
        self.context = server_context(settings, profile, alpn)

    def refresh(self) -> bool:
        """Look whether the files changed and read them again; True when there is a new context."""
        stamp = self._read_stamp()
        if stamp == self._stamp or None in stamp:
            return False
        self._stamp = stamp
        try:
            self.context = server_context(self._settings, self._profile, self._alpn)
        except TlsUnavailable as fault:
            self._report(str(fault))
            return False
        return True

    def _read_stamp(self) -> tuple[tuple[int, int, int] | None, ...]:
        stamps: list[tuple[int, int, int] | None] = []
        for path in (self._settings.certificate, self._settings.key):
            try:
                state = os.stat(path) if path else None
            except OSError:
                state = None
                stamps.append(None)
                continue
            stamps.append((state.st_ino, state.st_mtime_ns, state.st_size) if state else (0, 0, 0))
        return tuple(stamps)
