"""What docs/qmail.md has people write into files is well: the doctor reads the scripts of each way, sh their
syntax, systemd the units."""

import os
import re
import shutil
import subprocess
import time
from pathlib import Path

import pytest
from click.testing import CliRunner

from popgate.cli.root import popgate
from support.qmail_host import QmailHost

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "qmail.md"
_FILE = re.compile(r"`(/[^`\s]+)`[^`]*:\n\n```\w*\n(.*?)^```", re.DOTALL | re.MULTILINE)
_HEADING = re.compile(r"^#{2,3} (.+)$", re.MULTILINE)


def files(heading: str) -> dict[str, str]:
    """The files of one section: path and content."""
    found = list(_HEADING.finditer(DOCUMENT.read_text()))
    for match, after in zip(found, [*found[1:], None], strict=True):
        if match[1] == heading:
            text = DOCUMENT.read_text()[match.end() : after.start() if after else None]
            return dict(_FILE.findall(text))
    raise AssertionError(f"docs/qmail.md has no section {heading!r}")


@pytest.fixture
def host(tmp_path: Path) -> QmailHost:
    """Healthy, with the documented line for cron and log scripts of daemontools."""
    host = QmailHost(tmp_path)
    for path, content in {**files("Cron"), **files("daemontools")}.items():
        host.script(path.replace("/var/qmail/supervise", "service").lstrip("/"), content)
    host.write("etc/relay-ctrl/RELAY_CTRL_EXPIRY", "180\n")
    for program in ("chpst", "svlogd"):
        host.program(f"usr/bin/{program}", b"\x7fELF\x02")
    return host


@pytest.mark.parametrize(
    ("heading", "count"), [("Way A: the commands", 2), ("popgate tcpserver", 2), ("popgate serve", 1)]
)
def test_the_documented_scripts_have_no_trap(host: QmailHost, heading: str, count: int) -> None:
    scripts = {path: text for path, text in files(heading).items() if path.endswith("/run")}
    if heading == "popgate serve":  # POP3 stays as it was
        scripts = {**files("popgate tcpserver"), **scripts}
    assert len(scripts) >= count
    for path, text in scripts.items():
        host.script(path.replace("/var/qmail/supervise", "service").lstrip("/"), text)
    assert host.examine() == []


def test_the_documented_scripts_for_runit_have_no_trap(host: QmailHost) -> None:
    scripts = files("runit")
    assert len(scripts) == 4
    for path, text in scripts.items():
        host.script(path.lstrip("/"), text)
    assert host.examine("/etc/sv") == []


@pytest.mark.parametrize(
    "heading", ["Way A: the commands", "popgate tcpserver", "popgate serve", "daemontools", "runit"]
)
def test_the_documented_scripts_are_shell(heading: str) -> None:
    scripts = [text for path, text in files(heading).items() if path.endswith("/run")]
    assert scripts
    for text in scripts:
        done = subprocess.run(["/bin/sh", "-n"], input=text, text=True, capture_output=True, check=False)
        assert done.returncode == 0, done.stderr


def test_the_documented_units_are_units(tmp_path: Path) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("there is no systemd-analyze")
    run = tmp_path / "run"
    run.write_text("#!/bin/sh\n")
    run.chmod(0o755)
    units = files("systemd")
    assert len(units) == 2
    for path, text in units.items():
        assert re.search(r"^ExecStart=/var/qmail/supervise/qmail-\w+/run$", text, re.MULTILINE)
        assert "NoNewPrivileges" not in text
        unit = tmp_path / Path(path).name
        unit.write_text(re.sub(r"^ExecStart=.*", f"ExecStart={run}", text, flags=re.MULTILINE))
        done = subprocess.run(
            ["systemd-analyze", "verify", "--man=no", str(unit)], capture_output=True, text=True, check=False
        )
        if "Failed to" in done.stderr and "run_dir" in done.stderr:
            pytest.skip("systemd-analyze cannot run here")
        assert done.returncode == 0 and unit.name not in done.stderr, done.stderr


_SHOWN = re.compile(r"```console\n\$ popgate grant explain (\S+)\n(.*?)```", re.DOTALL)


def test_explain_prints_what_is_documented(tmp_path: Path) -> None:
    directory = tmp_path / "allow"
    directory.mkdir()
    for address, seconds in (("192.0.2.77", 0), ("192.0.2.78", 200)):
        (directory / address).write_bytes(b"USER=alice\0DOMAIN=example.org\0")
        os.utime(directory / address, (time.time() - seconds,) * 2)
    configuration = tmp_path / "popgate.toml"
    (example,) = re.findall(
        r"^```toml\n(.*?)^```", DOCUMENT.read_text().partition("## When it does")[2], re.DOTALL | re.MULTILINE
    )
    configuration.write_text(
        f'hostname = "mail.example.org"\ndata_dir = "{tmp_path}/data"\n'
        + example.replace("/var/spool/relay-ctrl/allow", str(directory))
    )
    shown = _SHOWN.findall(DOCUMENT.read_text())
    assert len(shown) == 4
    for address, text in shown:
        done = CliRunner().invoke(popgate, ["grant", "explain", address, "--config", str(configuration)])
        dates = r"until \d{4}-\d\d-\d\d \d\d:\d\d:\d\d"
        assert re.sub(dates, "until ...", done.output) == re.sub(dates, "until ...", text)
        assert done.exit_code == (0 if address == "192.0.2.77" else 1)
