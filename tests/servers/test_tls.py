"""TLS contexts: profiles, renewal, and clients that negotiate for real."""

import os
import ssl
import warnings
from pathlib import Path

import pytest
import trustme

from popgate.servers.settings import TlsSettings
from popgate.servers.tls import CertificateWatch, TlsUnavailable, server_context


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


def _issue(authority: trustme.CA, directory: Path, name: str) -> TlsSettings:
    certificate = authority.issue_cert(name)
    for path, blob in (
        ("cert.pem", certificate.cert_chain_pems[0]),
        ("key.pem", certificate.private_key_pem),
    ):
        fresh = directory / (path + ".new")
        blob.write_to_path(str(fresh))
        os.rename(fresh, directory / path)
    return TlsSettings(certificate=str(directory / "cert.pem"), key=str(directory / "key.pem"))


def _handshake(
    server: ssl.SSLContext, authority: trustme.CA, name: str, most: ssl.TLSVersion | None = None
) -> str | None:
    """The version that both sides agree on, over memory."""
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    authority.configure_trust(client)
    if most is not None:
        client.set_ciphers("DEFAULT:@SECLEVEL=0")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            client.minimum_version, client.maximum_version = ssl.TLSVersion.TLSv1, most
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    ours = server.wrap_bio(to_server, to_client, server_side=True)
    theirs = client.wrap_bio(to_client, to_server, server_hostname=name)
    pending = [ours, theirs]
    for _ in range(10):
        for side in list(pending):
            try:
                side.do_handshake()
                pending.remove(side)
            except ssl.SSLWantReadError:
                continue
        if not pending:
            return theirs.version()
    return None


def test_modern_refuses_what_legacy_accepts(authority: trustme.CA, tmp_path: Path) -> None:
    settings = _issue(authority, tmp_path, "mail.example.org")
    modern = server_context(settings, "modern", "smtp")
    legacy = server_context(settings, "legacy", "smtp")
    assert _handshake(modern, authority, "mail.example.org") == "TLSv1.3"
    assert _handshake(legacy, authority, "mail.example.org", ssl.TLSVersion.TLSv1) == "TLSv1"
    with pytest.raises(ssl.SSLError):
        _handshake(modern, authority, "mail.example.org", ssl.TLSVersion.TLSv1_1)


def test_a_renewed_certificate_is_served_and_a_bad_one_is_not(authority: trustme.CA, tmp_path: Path) -> None:
    settings = _issue(authority, tmp_path, "old.example.org")
    reports: list[str] = []
    watch = CertificateWatch(settings, "modern", "smtp", reports.append)
    assert not watch.refresh()
    _issue(authority, tmp_path, "new.example.org")
    assert watch.refresh()
    assert _handshake(watch.context, authority, "new.example.org") == "TLSv1.3"
    (tmp_path / "cert.pem").write_text("not a certificate")
    assert not watch.refresh()
    assert len(reports) == 1
    assert "cert.pem" in reports[0]
    assert _handshake(watch.context, authority, "new.example.org") == "TLSv1.3"
    (tmp_path / "cert.pem").unlink()  # between two renames of a renewal
    assert not watch.refresh()
    assert len(reports) == 1


def test_what_cannot_be_served_is_named(authority: trustme.CA, tmp_path: Path) -> None:
    settings = _issue(authority, tmp_path, "mail.example.org")
    other = tmp_path / "other"
    other.mkdir()
    settings.key = _issue(authority, other, "other.example.org").key
    with pytest.raises(TlsUnavailable, match=r"key\.pem"):
        server_context(settings, "modern", "smtp")
