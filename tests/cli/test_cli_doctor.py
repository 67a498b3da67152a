"""`popgate doctor`: what it prints, and its exit status."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from cli.conftest import Run
from support.qmail_host import POP3, SMTP, QmailHost


def test_nothing_is_wrong(tmp_path: Path, run: Run) -> None:
    QmailHost(tmp_path)
    result = run("doctor", "--qmail", "/service", "--root", str(tmp_path))
    assert result.stdout == ""
    assert result.stderr == "looked at 4 run scripts: nothing is wrong\n"


def test_a_finding_names_file_line_and_remedy(tmp_path: Path, run: Run) -> None:
    QmailHost(tmp_path).pop3(POP3.replace("mail.example.org", "$HOST"))
    result = run("doctor", "--qmail", "/service", "--root", str(tmp_path), code=1)
    first, second = result.stdout.splitlines()
    assert first.startswith("/service/qmail-pop3d/run:4: danger: $HOST expands to nothing")
    assert first.endswith("[recorder-is-checker]")
    assert second.startswith("    remedy: set $HOST")


def test_json(tmp_path: Path, run_json: Callable[..., Any]) -> None:
    host = QmailHost(tmp_path)
    arguments = ("doctor", "--qmail", "/service/qmail-smtpd", "--root", str(tmp_path))
    assert run_json(*arguments) == {
        "services": ["/service/qmail-smtpd/run", "/service/qmail-smtpd/log/run"],
        "cron": ["/etc/cron.d/relay-ctrl"],
        "findings": [],
    }
    host.smtp(SMTP.replace("-m 60000000", "-m 2000000"))
    (finding,) = run_json(*arguments, code=1)["findings"]
    assert finding["trap"] == "memory-limit"
    assert (finding["level"], finding["file"], finding["line"]) == ("broken", "/service/qmail-smtpd/run", 19)
    assert finding["what"] and finding["remedy"]


def test_cron_lines_elsewhere(tmp_path: Path, run: Run) -> None:
    host = QmailHost(tmp_path)
    (tmp_path / "etc/cron.d/relay-ctrl").rename(tmp_path / "crontab")
    arguments = ("doctor", "--qmail", "/service", "--root", str(tmp_path))
    assert "[nobody-ages]" in run(*arguments, code=1).stdout
    run(*arguments, "--cron", "/crontab")
    assert host.examine() != []


def test_wrong_usage(tmp_path: Path, run: Run) -> None:
    assert "--qmail SUPERVISE_DIR" in run("doctor", code=2).stderr
    assert "is no directory" in run("doctor", "--qmail", str(tmp_path / "nosuch"), code=2).stderr


def test_what_scripts_say_reaches_no_terminal_raw(tmp_path: Path, run: Run) -> None:
    QmailHost(tmp_path).pop3(POP3.replace("tcpserver", "/no\x1b[31m/tcpserver"))
    result = run("doctor", "--qmail", "/service", "--root", str(tmp_path), code=1)
    assert "\x1b[31m" not in result.stdout
