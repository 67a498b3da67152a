"""`popgate doctor`: what it prints, and its exit status."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

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


DOVECONF = """\
# 2.3.19.1 (9b53102964): /etc/dovecot/dovecot.conf
auth_policy_check_after_auth = no
auth_policy_check_before_auth = no
auth_policy_hash_nonce = x
auth_policy_request_attributes = user=%{user} master=%{master_user} remote=%{rip} protocol=%s
auth_policy_server_api_header = Authorization: Bearer 0123456789abcdef
auth_policy_server_url = http://127.0.0.1:22800/
"""
SITE = """\
hostname = "mail.example.org"
[[listener]]
service = "dovecot_auth_policy"
bind = "127.0.0.1:22800"
secret_file = "{secret}"
"""


def test_a_dovecot(tmp_path: Path, run: Run, run_json: Callable[..., Any]) -> None:
    secret, site, output = tmp_path / "secret", tmp_path / "popgate.toml", tmp_path / "doveconf"
    secret.write_text("0123456789abcdef\n")
    site.write_text(SITE.format(secret=secret))
    output.write_text(DOVECONF)
    arguments = ("doctor", "--doveconf-output", str(output), "--config", str(site))
    assert run(*arguments).stderr == "looked at the configuration of Dovecot 2.3.19.1: nothing is wrong\n"
    secret.write_text("fedcba9876543210\n")
    result = run(*arguments, code=1)
    first, second = result.stdout.splitlines()
    assert first.startswith(f"{output}:6: broken: auth_policy_server_api_header does not bring the secret")
    assert second.startswith("    remedy: auth_policy_server_api_header = ")
    assert "0123456789abcdef" not in result.stdout
    document = run_json(*arguments, code=1)
    assert (document["source"], document["version"]) == (str(output), "2.3.19.1")
    assert [finding["trap"] for finding in document["findings"]] == ["wrong-secret"]
    secret.unlink()
    run(*arguments)  # whoever may not read the secret hears of the rest


def test_a_dovecot_without_a_configuration_of_ours(
    tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("POPGATE_CONFIG", raising=False)
    (tmp_path / "doveconf").write_text(DOVECONF.replace("= no", "= yes"))
    result = run("doctor", "--doveconf-output", "doveconf", code=1)
    assert "no configuration of popgate" in result.stderr
    assert result.stdout.count("[checks-left-on]") == 2


def test_what_is_no_output_of_doveconf(tmp_path: Path, run: Run) -> None:
    (tmp_path / "empty").write_text("")
    assert "doveconf -n" in run("doctor", "--doveconf-output", str(tmp_path / "empty"), code=2).stderr
    assert "No such file" in run("doctor", "--doveconf-output", str(tmp_path / "nosuch"), code=2).stderr
    assert "one of them" in run("doctor", "--dovecot", "--qmail", "/service", code=2).stderr


def test_no_dovecot_here(tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "there is no doveconf here" in run("doctor", "--dovecot", code=2).stderr


def test_wrong_usage(tmp_path: Path, run: Run) -> None:
    assert "--qmail SUPERVISE_DIR" in run("doctor", code=2).stderr
    assert "is no directory" in run("doctor", "--qmail", str(tmp_path / "nosuch"), code=2).stderr


def test_what_scripts_say_reaches_no_terminal_raw(tmp_path: Path, run: Run) -> None:
    QmailHost(tmp_path).pop3(POP3.replace("tcpserver", "/no\x1b[31m/tcpserver"))
    result = run("doctor", "--qmail", "/service", "--root", str(tmp_path), code=1)
    assert "\x1b[31m" not in result.stdout
