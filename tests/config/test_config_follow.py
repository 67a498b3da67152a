"""What a [[follow]] is told before anything is followed."""

import os
import pwd
from pathlib import Path

import pytest

from popgate.config import ConfigError, load, load_text

HEAD = 'hostname = "mail.example.org"\nlocal_domains = ["example.org"]\n'


def findings(text: str, *overrides: str) -> list[str]:
    """Errors, or else warnings."""
    try:
        return [str(one) for one in load_text(HEAD + text, "popgate.toml", overrides).warnings]
    except ConfigError as error:
        return [f"error: {one}" for one in error.problems]


def on_disk(directory: Path, text: str, head: str = HEAD) -> list[str]:
    path = directory / "popgate.toml"
    path.write_text(f'data_dir = "{directory}/data"\n{head}{text}')
    path.chmod(0o600)
    try:
        told = [str(one) for one in load(str(path), check_files=True).warnings]
    except ConfigError as error:
        told = [f"error: {one}" for one in error.problems]
    return [one for one in told if " data_dir =" not in one]


@pytest.fixture
def log(tmp_path: Path) -> Path:
    log = tmp_path / "log/mail.log"
    log.parent.mkdir(mode=0o755)
    log.touch(mode=0o644)
    return log


def follow(file: Path | str, *more: str) -> str:
    return "\n".join(["[[follow]]", f'file = "{file}"', *more]) + "\n"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[[follow]]\n", "is missing"),
        ('[[follow]]\nfile = "/var/log/mail.log"\njournal = true\n', "stands beside journal"),
        (follow("/var/log/mail.log") * 2, "is followed twice"),
        ("[[follow]]\njournal = true\n" * 2, "is followed twice"),
        (follow("/l", 'patterns = ["dovcot"]'), "dovecot"),
        (follow("/l", "protocols = []"), "no login would count"),
        (follow("/l", 'protocols = ["smtp"]'), "must be"),
        (follow("/l", 'default_domain = "ex ample"'), "default_domain"),
        (follow("/l", 'timezone = "Mars/Olympus"'), "no time zone"),
        (follow("/l", 'start = "middle"'), "must be"),
    ],
)
def test_errors(text: str, says: str) -> None:
    told = findings(text)
    assert len(told) == 1 and told[0].startswith("error: ") and says in told[0], told


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (follow("/l", 'units = ["dovecot.service"]'), "says nothing of a file"),
        ('[[follow]]\njournal = true\nowner = "syslog"\n', "says nothing of the journal"),
        (follow("/l") + '[grants]\nwho = "devices"\n', "no device account"),
    ],
)
def test_warnings(text: str, says: str) -> None:
    told = findings(text)
    assert len(told) == 1 and says in told[0] and not told[0].startswith("error"), told


def test_paths_are_below_data_dir() -> None:
    text = follow("logs/mail.log", 'patterns = ["my/pattern.toml", "dovecot"]')
    config = load_text(f'data_dir = "/srv/popgate"\n{HEAD}{text}', "/etc/popgate.toml").config
    assert config.follow[0].file == "/srv/popgate/logs/mail.log"
    assert config.follow[0].patterns == ["/srv/popgate/my/pattern.toml", "dovecot"]
    assert config.follow_directory == "/srv/popgate/follow"
    assert config.follow[0].source == "/srv/popgate/logs/mail.log"


def test_a_site_may_only_follow(tmp_path: Path, log: Path) -> None:
    """With no listener of its own: other programs read the grants."""
    assert on_disk(tmp_path, follow(log)) == []


@pytest.mark.parametrize("mode", [0o646, 0o666])
def test_a_log_that_others_can_write(tmp_path: Path, log: Path, mode: int) -> None:
    log.chmod(mode)
    (told,) = on_disk(tmp_path, follow(log))
    assert "does not count" in told and "chmod" in told


def test_a_log_that_is_not_there_yet(tmp_path: Path, log: Path) -> None:
    (told,) = on_disk(tmp_path, follow(log.with_name("other.log")))
    assert "not there yet" in told


def test_a_log_of_another_owner(tmp_path: Path, log: Path) -> None:
    nobody = pwd.getpwnam("nobody")
    os.chown(log, nobody.pw_uid, -1)
    (told,) = on_disk(tmp_path, follow(log))
    assert "belongs to nobody" in told
    assert on_disk(tmp_path, follow(log, 'owner = "nobody"')) == []
    (told,) = on_disk(tmp_path, follow(log, 'owner = "no-such-user"'))
    assert told.startswith("error") and "no-such-user" in told
    (told,) = on_disk(tmp_path, follow(log, 'owner = "nobody:no-such-group"'))
    assert told.startswith("error") and "no-such-group" in told


@pytest.mark.skipif(os.geteuid() != 0, reason="only root becomes another user")
def test_a_log_that_the_server_cannot_read(tmp_path: Path, log: Path) -> None:
    log.chmod(0o640)
    head = f'{HEAD}user = "nobody"\n'
    (told,) = on_disk(tmp_path, follow(log), head)
    assert "nobody cannot read it" in told and "usermod" in told
    log.chmod(0o644)
    assert on_disk(tmp_path, follow(log), head) == []


def test_a_pattern_file(tmp_path: Path, log: Path) -> None:
    pattern = tmp_path / "mine.toml"
    pattern.write_text(
        'name = "mine"\nprograms = { mypopd = "pop3" }\n'
        "login = ['^login of (?P<user>[^ ]+) from (?P<address>[0-9A-Fa-f:.]+)$']\n"
    )
    assert on_disk(tmp_path, follow(log, f'patterns = ["{pattern}"]')) == []
    pattern.write_text(pattern.read_text().replace("[^ ]+", "([^ ]+)+"))
    (told,) = on_disk(tmp_path, follow(log, f'patterns = ["{pattern}"]'))
    assert told.startswith("error") and "mine.toml" in told
    (told,) = on_disk(tmp_path, follow(log, 'patterns = ["/nonexistent/mine.toml"]'))
    assert told.startswith("error")


def test_a_mistyped_pattern_is_told_once(log: Path) -> None:
    told = on_disk(log.parent, follow(log, 'patterns = ["dovcot"]'))
    assert [one for one in told if "there is no pattern 'dovcot'" in one] == told[:1]


def test_a_pattern_file_that_is_missing(log: Path) -> None:
    (told,) = on_disk(log.parent, follow(log, f'patterns = ["dovecot", "{log.parent}/own.toml"]'))
    assert f"{log.parent}/own.toml" in told
