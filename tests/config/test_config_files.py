"""What a configuration points to: certificates, keys, users, secrets, programs."""

import time
from pathlib import Path

import pytest

from popgate.app.certificate import self_signed
from popgate.config import ConfigError, load

NOW = time.time()
CERTIFICATE, KEY = self_signed("mail.example.org", NOW)
OTHER_CERTIFICATE, OTHER_KEY = self_signed("mail.example.org", NOW)
OLD_CERTIFICATE, OLD_KEY = self_signed("mail.example.org", NOW - 1000 * 86400, days=10)


@pytest.fixture
def site(tmp_path: Path) -> Path:
    (tmp_path / "data").mkdir(mode=0o700)
    write(tmp_path / "cert.pem", CERTIFICATE)
    write(tmp_path / "key.pem", KEY, 0o600)
    write(
        tmp_path / "popgate.toml",
        b'hostname = "mail.example.org"\ndata_dir = "data"\nlocal_domains = ["example.org"]\n'
        b'[[listener]]\nservice = "pop3"\nbind = "127.0.0.1:0"\ntls = "starttls"\n'
        b'[tls]\ncertificate = "../cert.pem"\nkey = "../key.pem"\n',
        0o600,
    )
    return tmp_path


def write(path: Path, content: bytes, mode: int = 0o644) -> None:
    path.write_bytes(content)
    path.chmod(mode)


def errors(site: Path, *overrides: str) -> str:
    with pytest.raises(ConfigError) as caught:
        load(str(site / "popgate.toml"), overrides)
    return str(caught.value)


def warnings(site: Path, *overrides: str) -> str:
    return "\n".join(map(str, load(str(site / "popgate.toml"), overrides).warnings))


def test_a_good_site_has_nothing_to_tell(site: Path) -> None:
    assert warnings(site) == ""


def test_missing_files_are_named_with_their_line(site: Path) -> None:
    (site / "cert.pem").unlink()
    (site / "key.pem").unlink()
    told = errors(site)
    assert 'popgate.toml:9: tls.certificate = "../cert.pem": there is no such file' in told
    assert 'popgate.toml:10: tls.key = "../key.pem": there is no such file' in told


def test_a_key_of_another_certificate(site: Path) -> None:
    write(site / "key.pem", OTHER_KEY, 0o600)
    assert "tls.key" in errors(site) and "does not belong to the certificate" in errors(site)


def test_a_chain_in_the_wrong_order(site: Path) -> None:
    write(site / "cert.pem", OTHER_CERTIFICATE + CERTIFICATE)
    assert "the server's own certificate must stand first" in errors(site)


def test_swapped_files(site: Path) -> None:
    write(site / "cert.pem", KEY)
    assert "are certificate and key swapped?" in errors(site)


def test_a_locked_key(site: Path) -> None:
    from cryptography.hazmat.primitives import serialization

    key = serialization.load_pem_private_key(KEY, None)
    form = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8)
    write(site / "key.pem", key.private_bytes(*form, serialization.BestAvailableEncryption(b"x")), 0o600)
    assert "is locked with a passphrase" in errors(site)


@pytest.mark.parametrize(
    "content", [b"", b"garbage", b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"]
)
def test_files_that_hold_something_else(site: Path, content: bytes) -> None:
    write(site / "key.pem", content, 0o600)
    assert "holds no private key in PEM form" in errors(site)
    write(site / "cert.pem", content)
    assert "holds no certificate in PEM form" in errors(site)


def test_a_directory_is_no_file(site: Path) -> None:
    assert "is not a file" in errors(site, "tls.key=.")


@pytest.mark.parametrize(
    ("mode", "told"), [(0o644, "can read the private key"), (0o660, "replace the private key")]
)
def test_a_key_that_others_can_reach(site: Path, mode: int, told: str) -> None:
    (site / "key.pem").chmod(mode)
    assert told in errors(site)


def test_a_group_may_read_the_key(site: Path) -> None:
    (site / "key.pem").chmod(0o640)
    assert warnings(site) == ""


def test_an_old_certificate_is_a_warning(site: Path) -> None:
    write(site / "cert.pem", OLD_CERTIFICATE)
    write(site / "key.pem", OLD_KEY, 0o600)
    assert "ran out on" in warnings(site)


def test_a_certificate_of_another_host_is_a_warning(site: Path) -> None:
    assert "names mail.example.org, not mx.example.net" in warnings(site, "hostname=mx.example.net")


def test_certificates_do_not_matter_where_no_listener_needs_them(site: Path) -> None:
    (site / "key.pem").chmod(0o644)
    load(str(site / "popgate.toml"), ["listener.0.tls=none", "listener.0.plaintext_login=true"])
    load(str(site / "popgate.toml"), check_files=False)


def test_the_user_must_exist_and_not_be_root(site: Path) -> None:
    assert "useradd --system" in errors(site, "user=no-such-user-here")
    assert "must not be root" in errors(site, "user=root")


def test_the_data_directory(site: Path) -> None:
    assert "is not there yet" in warnings(site, "data_dir=elsewhere", "tls.certificate=../cert.pem")
    (site / "data").chmod(0o755)
    assert "everybody on this machine can read there" in warnings(site)
    (site / "data").chmod(0o777)
    assert "everybody on this machine can write there" in errors(site)
    write(site / "plain", b"")
    assert "is not a directory" in errors(site, "data_dir=plain")


def test_secrets_must_not_be_readable_by_all(site: Path) -> None:
    write(site / "users", b"")
    assert "can read the secrets there" in errors(site, 'auth.backends=["passwd_file:../users"]')
    assert "can read the secrets there" in errors(site, "delivery.password_file=../users")
    (site / "users").chmod(0o600)
    assert warnings(site, 'auth.backends=["passwd_file:../users"]') == ""
    assert "there is no such file" in errors(site, "delivery.password_file=../nothing")


def test_a_unix_socket_needs_its_directory_and_group(site: Path) -> None:
    text = (site / "popgate.toml").read_text()
    place = f'[[listener]]\nservice = "line"\nbind = "unix:{site}/run/line"\nsocket_group = "{{group}}"\n'
    write(site / "popgate.toml", (text + place.format(group="root")).encode(), 0o600)
    assert "popgate.toml:13: listener.1.bind" in warnings(site)
    assert f"there is no directory {site}/run yet (install -d {site}/run)" in warnings(site)
    (site / "run").mkdir()
    assert warnings(site) == ""
    write(site / "popgate.toml", (text + place.format(group="no-such-group")).encode(), 0o600)
    told = errors(site)
    assert 'popgate.toml:14: listener.1.socket_group = "no-such-group": there is no such group' in told


def test_programs_must_be_there(site: Path) -> None:
    assert "there is no program" in errors(site, 'auth.backends=["checkpassword:/no/such/program true"]')
    assert "cannot be split" in errors(site, """auth.backends=["checkpassword:sh 'x"]""")
    assert warnings(site, 'auth.backends=["checkpassword:sh -c true"]') == ""


def test_the_file_of_authorities(site: Path) -> None:
    assert "there is no such file" in errors(site, "delivery.ca_file=../nothing")
    write(site / "ca.pem", b"garbage")
    assert "holds no certificates" in errors(site, "delivery.ca_file=../ca.pem")
    assert warnings(site, "delivery.ca_file=../cert.pem") == ""
