"""A self-signed certificate to begin with."""

import datetime

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID


def self_signed(hostname: str, now: float, days: int = 3650) -> tuple[bytes, bytes]:
    """Certificate and private key (PEM) for `hostname`, valid from a day before `now` (Unix
    seconds). RSA, because the devices that need popgate seldom know elliptic curves."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    # X.520 limits a common name to 64 characters; the name that counts is in the extension
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, hostname[:64])])
    today = datetime.datetime.fromtimestamp(now, datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(today - datetime.timedelta(days=1))
        .not_valid_after(today + datetime.timedelta(days=days))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(hostname)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .sign(key, hashes.SHA256())
    )
    return (
        certificate.public_bytes(serialization.Encoding.PEM),
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        ),
    )
