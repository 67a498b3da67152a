"""Each installed program has a manual page, which names each of its options and is well-formed."""

import dataclasses
import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest

from popgate.integrations.opensmtpd import table
from popgate.integrations.opensmtpd.settings import TableSettings
from popgate.integrations.ucspi import options

ROOT = Path(__file__).parents[2]
PAGES = sorted((ROOT / "docs/man").glob("*.8"))


def wheel() -> dict[str, dict[str, str]]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    found: dict[str, dict[str, str]] = project["tool"]["hatch"]["build"]["targets"]["wheel"]
    return found


def plain(page: str) -> str:
    """A page's source without the marks of its fonts."""
    text = (ROOT / f"docs/man/{page}.8").read_text()
    return re.sub(r"\\f[PBIR]", "", text).replace("\\-", "-")


def test_each_program_has_a_page_and_each_page_is_installed() -> None:
    programs = set(wheel()["shared-scripts"].values())
    console = {"popgate-tcpserver", "popgate-table-opensmtpd"}
    assert programs and programs | console == {page.stem for page in PAGES}
    assert wheel()["shared-data"] == {
        f"docs/man/{page.name}": f"share/man/man8/{page.name}" for page in PAGES
    }


def test_the_page_of_tcpserver_names_each_option_and_no_other() -> None:
    named = set(re.findall(r"^\.BI? (--?[a-zA-Z0-9-]+)", plain("popgate-tcpserver"), re.MULTILINE))
    letters = {f"-{letter}" for letter in options._LETTERS if letter != ":"}
    assert named == letters | {f"--{word.rstrip('=')}" for word in options._WORDS}


def test_the_page_of_the_table_program_names_each_setting() -> None:
    page = plain("popgate-table-opensmtpd")
    for field in dataclasses.fields(TableSettings):
        assert f".B {field.name}" in page
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["scripts"]["popgate-table-opensmtpd"] == f"{table.__name__}:main"


@pytest.mark.parametrize("script", sorted(wheel()["shared-scripts"]))
def test_pages_name_the_options_and_variables_of_the_programs(script: str) -> None:
    name = wheel()["shared-scripts"][script]
    command = name.removeprefix("relay-ctrl-")
    source = ROOT / f"src/popgate/commands/{command}.py" if command != name else ROOT / script
    text = source.read_text()
    wanted = set(re.findall(r"\b(?:RELAY_CTRL_[A-Z_]+|POPGATE_LOGIN_FD)\b", text))
    if command != name:
        wanted |= {"--envdir", *re.findall(r"[\"'](--[a-z-]+)[\"']", text)}
    page = plain(name)
    assert [word for word in sorted(wanted) if word not in page] == []


@pytest.mark.parametrize("page", [page.name for page in PAGES])
def test_a_page_is_set_without_a_complaint(page: str) -> None:
    text = (ROOT / "docs/man" / page).read_text()
    for heading in ("NAME", "SYNOPSIS", "DESCRIPTION", "EXIT STATUS", "SEE ALSO"):
        assert f".SH {heading}" in text
    if shutil.which("groff") is None:
        pytest.skip("there is no groff")
    done = subprocess.run(
        ["groff", "-man", "-ww", "-Tutf8", "-z"], input=text, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
