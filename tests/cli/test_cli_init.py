"""`popgate init`: what it makes, and that it overwrites nothing."""

import os
import ssl
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from popgate.config import load

Run = Callable[..., Any]


@pytest.fixture
def made(tmp_path: Path, run: Run) -> Path:
    home = tmp_path / "site"
    run(
        "init", str(home), "--hostname", "mail.example.org", "--user", "alice@example.org",
        "--bind", "127.0.0.1", "--ports", "high", "--password-stdin", stdin="opensesame\n",
    )  # fmt: skip
    return home


def test_what_it_makes_can_be_served(made: Path, run: Run) -> None:
    loaded = load(str(made / "popgate.toml"))
    config = loaded.config
    assert (config.hostname, config.local_domains) == ("mail.example.org", ["example.org"])
    assert [listener.bind for listener in config.listener][:2] == ["127.0.0.1:2525", "127.0.0.1:2587"]
    assert config.data_dir == str(made / "data")
    assert loaded.warnings == ()
    assert "alice@example.org" in run("account", "list", "--config", str(made / "popgate.toml")).stdout
    context = ssl.create_default_context(cafile=str(made / "tls" / "cert.pem"))
    assert context.get_ca_certs() == [] or context.cert_store_stats()["x509"] >= 1


def test_secrets_are_private(made: Path) -> None:
    for name, mode in (("data", 0o700), ("data/accounts.db", 0o600)):
        assert stat.S_IMODE((made / name).stat().st_mode) == mode
    for name in ("tls/key.pem", "popgate.toml"):
        assert stat.S_IMODE((made / name).stat().st_mode) & 0o007 == 0


def test_it_overwrites_nothing(made: Path, run: Run) -> None:
    before = (made / "popgate.toml").read_bytes()
    result = run("init", str(made), "--hostname", "other.example.net", code=1)
    assert "is there already" in result.stderr
    assert (made / "popgate.toml").read_bytes() == before


@pytest.mark.parametrize("name", ["popgate.toml", "tls/key.pem", "data/accounts.db"])
def test_one_file_there_is_enough_to_refuse(tmp_path: Path, run: Run, name: str) -> None:
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).symlink_to("/nonexistent")
    run("init", str(tmp_path), "--hostname", "mail.example.org", code=1)
    assert not os.path.exists(tmp_path / "popgate.toml")


def test_a_generated_password_is_the_only_result(tmp_path: Path, run: Run) -> None:
    result = run("init", str(tmp_path / "site"), "--hostname", "mail.example.org")
    assert result.stdout.startswith("password of postmaster@example.org: ")
    assert result.stdout.count("\n") == 1
    assert "popgate serve" in result.stderr


@pytest.mark.parametrize(
    "options",
    [
        ("--hostname", "mail_example"),
        ("--hostname", "mail.example.org", "--domain", "alice@example.org"),
        ("--hostname", "mail.example.org", "--user", "../x@example.org"),
        ("--hostname", "mail.example.org", "--user", "alice@example.net", "--domain", "example.org"),
        ("--hostname", "mail.example.org", "--bind", "localhost"),
        ("--hostname", "mail.example.org", "--ports", "other"),
    ],
)
def test_what_cannot_be_right_writes_nothing(tmp_path: Path, run: Run, options: tuple[str, ...]) -> None:
    run("init", str(tmp_path / "site"), *options, code=2)
    assert not (tmp_path / "site").exists()


def test_old_devices_get_their_plain_text_port(tmp_path: Path, run: Run) -> None:
    run("init", str(tmp_path / "s"), "--hostname", "mail.example.org", "--plaintext-login", "--ports", "high")
    config = load(str(tmp_path / "s" / "popgate.toml"), check_files=False).config
    plain = [listener.bind for listener in config.listener if listener.plaintext_login]
    assert [bind.rpartition(":")[2] for bind in plain] == ["2110", "2143"]
