"""Checks of [[map]]."""

from pathlib import Path

import pytest

from popgate.config import ConfigError, load_text
from popgate.config.load import load_bytes

HEAD = 'hostname = "mail.example.org"\nlocal_domains = ["example.org"]\n[grants]\nsender = "any"\n'


def problems(lines: str, head: str = HEAD) -> tuple[list[str], list[str]]:
    """Errors and warnings."""
    try:
        return [], [
            str(problem) for problem in load_text(head + "[[map]]\n" + lines, "popgate.toml").warnings
        ]
    except ConfigError as error:
        return [str(problem) for problem in error.problems], []


@pytest.mark.parametrize(
    "lines",
    [
        'path = "/run/popgate/relay.cdb"\nkind = "cdb"',
        'path = "/run/x.lmdb"\nkind = "lmdb"\nvalue = "OK"\nfile_group = "mail"\nfile_mode = "0640"',
        'path = "/etc/tcp.smtp.cdb"\nkind = "tcprules"\nrules = ["10.:deny", ":allow"]',
        'path = "/run/popgate/tcp"\nkind = "tcprules"\nvalue = "allow,RELAYCLIENT=\'@x\'"',
        'path = "granted"\nkind = "text"\nspelling = "sendmail"\ncommand = ["smtpctl", "update"]',
    ],
)
def test_what_is_right(lines: str) -> None:
    assert problems(lines) == ([], [])


@pytest.mark.parametrize(
    ("lines", "text"),
    [
        ('kind = "cdb"', "path"),
        ('path = "/x.cdb"', "kind"),
        ('path = "/x.cdb"\nkind = "hash"', "must be one of"),
        ('path = "/x\\u0000.cdb"\nkind = "cdb"', "holds a NUL"),
        ('path = "/x.cdb"\nkind = "cdb"\nfile_mode = "rw"', "is no mode of a file"),
        ('path = "/x.cdb"\nkind = "cdb"\nfile_mode = "0664"', "could let any address relay"),
        ('path = "/x.cdb"\nkind = "cdb"\nfile_mode = "0646"', "could let any address relay"),
        ('path = "/x.cdb"\nkind = "cdb"\nvalue = "a\\nb"', "control character"),
        ('path = "/x"\nkind = "text"\nvalue = "a\\nb"', "control character"),
        ('path = "/x"\nkind = "text"\nlines = ["a\\nb"]', "control character"),
        ('path = "/x"\nkind = "text"\ncommand = [""]', "is no program"),
        ('path = "/x"\nkind = "text"\nspelling = "short"', "must be one of"),
        ('path = "/x"\nkind = "tcprules"\nvalue = "RELAYCLIENT"', "a rule says allow or deny"),
        ('path = "/x"\nkind = "tcprules"\nrules = ["10."]', "no colon"),
        ('path = "/x"\nkind = "text"\n[[map]]\npath = "/x"\nkind = "text"', "is written by two maps"),
    ],
)
def test_what_is_wrong(lines: str, text: str) -> None:
    errors, _ = problems(lines)
    assert len(errors) == 1, errors
    assert text in errors[0]


@pytest.mark.parametrize(
    ("lines", "text"),
    [
        ('path = "/x"\nkind = "cdb"', "does not end in .cdb"),
        ('path = "/x.cdb"\nkind = "lmdb"', "does not end in .lmdb"),
        ('path = "/x"\nkind = "tcprules"\nspelling = "dotted"', "tcprules holds IPv4 addresses alone"),
        ('path = "/x.cdb"\nkind = "cdb"\nlines = ["x"]', "says nothing of a map of kind cdb"),
        ('path = "/x"\nkind = "text"\nrules = [":deny"]', "says nothing of a map of kind text"),
    ],
)
def test_what_is_doubtful(lines: str, text: str) -> None:
    errors, (warning,) = problems(lines)
    assert errors == []
    assert text in warning


def test_what_no_map_can_hold_is_said() -> None:
    lines = 'path = "/x"\nkind = "text"'
    _, (warning,) = problems(lines, HEAD.replace('"any"', '"bound"'))
    assert 'grants.sender = "bound" cannot be held by a map' in warning
    _, (warning,) = problems(lines, HEAD + "ipv6_prefix = 64\n")
    assert "no IPv6 address is in them" in warning
    (error,), _ = problems(lines, "workers = 1\n" + HEAD + 'store = "memory:"\n')
    assert "sees no grants in another's memory" in error


def on_disk(directory: Path, lines: str) -> list[str]:
    text = f'data_dir = "{directory}"\n{HEAD}[[map]]\n{lines}'
    try:
        return [str(each) for each in load_bytes(text.encode(), str(directory / "popgate.toml")).warnings]
    except ConfigError as error:
        return [str(each) for each in error.problems]


def test_where_it_lies(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    lines = f'path = "{tmp_path}/maps/x"\nkind = "text"'
    (problem,) = on_disk(tmp_path, lines)
    assert "its directory cannot be reached" in problem
    (tmp_path / "maps").mkdir()
    assert on_disk(tmp_path, lines) == []
    (problem,) = on_disk(tmp_path, lines + '\nfile_group = "no-such-group"')
    assert "no such group" in problem
    (tmp_path / "maps").chmod(0o777)
    (problem,) = on_disk(tmp_path, lines)
    assert "everybody can write in" in problem
    (tmp_path / "maps").chmod(0o755)
    (tmp_path / "maps/x").symlink_to("/etc/passwd")
    (problem,) = on_disk(tmp_path, lines)
    assert "is there, and is no file" in problem
