"""Traps in how a qmail host records logins and asks for them: programs, variables, cron, directory, rules."""

import os

import pytest

from support.qmail_host import POP3, POP3_RUN, SMTP, SMTP_RUN, QmailHost, one, one_record

# -- the relay-ctrl programs' surroundings


def test_a_second_program_in_one_chain(host: QmailHost) -> None:
    host.pop3(POP3.replace("relay-ctrl-allow", "relay-ctrl-allow relay-ctrl-check"))
    found = one(host.examine(), "second-relay-ctrl", POP3_RUN, 5)
    assert "relay-ctrl-check comes after relay-ctrl-allow" in found.what


def test_without_chdir_nobody_is_granted(host: QmailHost) -> None:
    host.pop3(POP3.replace("relay-ctrl-chdir ", ""))
    found = one(host.examine(), "no-chdir", POP3_RUN, 5)
    assert "0600" in found.what
    host.smtp(SMTP.replace("relay-ctrl-chdir ", ""))
    assert [(it.trap, it.file) for it in host.examine()] == [("no-chdir", POP3_RUN), ("no-chdir", SMTP_RUN)]


def test_chdir_behind_the_listener_comes_too_late(host: QmailHost) -> None:
    host.smtp(
        SMTP.replace(" relay-ctrl-chdir", "").replace("relay-ctrl-check", "relay-ctrl-chdir relay-ctrl-check")
    )
    one(host.examine(), "chdir-too-late", SMTP_RUN, 22)


def test_no_directory_named(host: QmailHost) -> None:
    host.remove("etc/relay-ctrl/RELAY_CTRL_DIR")
    traps = [(it.trap, it.file, it.line) for it in host.examine()]
    assert traps == [
        ("no-grant-directory", "/etc/cron.d/relay-ctrl", 2),
        ("no-grant-directory", POP3_RUN, 2),
        ("no-grant-directory", SMTP_RUN, 18),
    ]


def test_no_directory_named_and_no_chdir(host: QmailHost) -> None:
    host.pop3(POP3.replace("envdir /etc/relay-ctrl relay-ctrl-chdir ", ""))
    found = one(host.examine(), "no-grant-directory", POP3_RUN, 5)
    assert "whatever directory it is in" in found.what


def test_an_empty_env_file_removes_the_variable(host: QmailHost) -> None:
    host.write("etc/relay-ctrl/RELAY_CTRL_DIR", "")
    assert {it.trap for it in host.examine()} == {"no-grant-directory"}


def test_a_relative_directory(host: QmailHost) -> None:
    host.write("etc/relay-ctrl/RELAY_CTRL_DIR", "spool/allow\n")
    assert {(it.trap, it.file) for it in host.examine()} == {
        ("no-grant-directory", "/etc/relay-ctrl/RELAY_CTRL_DIR")
    }


def test_no_env_directory(host: QmailHost) -> None:
    host.pop3(POP3.replace("/etc/relay-ctrl", "/etc/relayctrl"))
    assert ("no-env-directory", POP3_RUN, 2) in [(it.trap, it.file, it.line) for it in host.examine()]


def test_a_directory_in_an_env_directory(host: QmailHost) -> None:
    host.directory("etc/relay-ctrl/old", 0o755)
    assert {it.trap for it in host.examine()} == {"unreadable-env-file"}


def test_an_env_directory_below_the_service(host: QmailHost) -> None:
    host.write("service/qmail-pop3d/env/RELAY_CTRL_DIR", b"/var/spool/relay-ctrl/allow \t\nsecond line\n")
    host.write("service/qmail-pop3d/env/RELAY_CTRL_EXPIRY", "900")
    host.pop3(POP3.replace("/etc/relay-ctrl", "./env"))
    assert host.examine() == []


@pytest.mark.parametrize(
    ("text", "takes"), [("abc", 900), ("15m", 15), ("-5", 900), ("0", 900), ('"600"', 900), ("1e3", 1)]
)
def test_an_expiry_that_is_no_number(host: QmailHost, text: str, takes: int) -> None:
    host.write("etc/relay-ctrl/RELAY_CTRL_EXPIRY", f"{text}\n")
    found = one(host.examine(), "expiry-no-number", "/etc/relay-ctrl/RELAY_CTRL_EXPIRY", 1)
    assert f"{takes} s" in found.what


def test_expiry_differs_between_check_and_age(host: QmailHost) -> None:
    host.write(
        "etc/cron.d/relay-ctrl",
        "* * * * * root RELAY_CTRL_DIR=/var/spool/relay-ctrl/allow RELAY_CTRL_EXPIRY=300"
        " /usr/local/bin/relay-ctrl-age\n",
    )
    found = one(host.examine(), "expiry-differs", "/etc/cron.d/relay-ctrl", 1)
    assert "300 s" in found.what and "900 s" in found.what


def test_expiry_set_for_one_only(host: QmailHost) -> None:
    host.write("etc/relay-ctrl/RELAY_CTRL_EXPIRY", "1800")
    host.smtp(SMTP.replace("relay-ctrl-check /var", "env RELAY_CTRL_EXPIRY=600 relay-ctrl-check /var"))
    assert {it.trap for it in host.examine()} == {"expiry-differs"}


def test_directories_that_do_not_meet(host: QmailHost) -> None:
    host.directory("var/spool/relay-ctrl/other", 0o777)
    host.write("service/qmail-pop3d/env/RELAY_CTRL_DIR", "/var/spool/relay-ctrl/other")
    host.pop3(POP3.replace("/etc/relay-ctrl", "env"))
    found = [it for it in host.examine() if it.trap == "directory-differs"]
    assert found and "do not meet" in found[0].what


def test_logins_that_are_not_recorded(host: QmailHost) -> None:
    host.pop3(POP3.replace("relay-ctrl-allow ", ""))
    one(host.examine(), "logins-not-recorded", POP3_RUN, 4)


def test_grants_that_nobody_asks_for(host: QmailHost) -> None:
    host.smtp(SMTP.replace("relay-ctrl-check ", ""))
    one(host.examine(), "grants-not-asked", SMTP_RUN, 20)


def test_check_before_the_listener(host: QmailHost) -> None:
    host.smtp(
        SMTP.replace("relay-ctrl-check ", "").replace(
            "relay-ctrl-chdir \\", "relay-ctrl-chdir relay-ctrl-check \\"
        )
    )
    one(host.examine(), "before-the-listener", SMTP_RUN, 18)


# -- cron


def test_nobody_ages(host: QmailHost) -> None:
    host.remove("etc/cron.d/relay-ctrl")
    found = host.examine()
    assert [(it.trap, it.level) for it in found] == [("nobody-ages", "advice")]
    host.write("etc/crontab", "SHELL=/bin/sh\n17 * * * * root cd / && run-parts /etc/cron.hourly\n")
    assert [it.trap for it in host.examine()] == ["nobody-ages"]


@pytest.mark.parametrize(
    ("path", "line"),
    [
        ("etc/crontab", "*/5 * * * *\troot\tenvdir /etc/relay-ctrl /usr/local/bin/relay-ctrl-age"),
        (
            "var/spool/cron/crontabs/root",
            "@hourly /usr/bin/envdir /etc/relay-ctrl /usr/local/bin/relay-ctrl-age",
        ),
        (
            "etc/cron.d/mail",
            "PATH=/usr/bin:/usr/local/bin\n0 * * * * root envdir /etc/relay-ctrl relay-ctrl-age",
        ),
        ("etc/cron.hourly/age", "#!/bin/sh\nexec envdir /etc/relay-ctrl relay-ctrl-age"),
        ("service/age/run", "#!/bin/sh\nwhile sleep 300; do\n  envdir /etc/relay-ctrl relay-ctrl-age\ndone"),
    ],
)
def test_who_ages_is_found(host: QmailHost, path: str, line: str) -> None:
    host.remove("etc/cron.d/relay-ctrl")
    host.script(path, f"{line}\n")
    assert host.examine() == []


def test_cron_does_not_find_the_program(host: QmailHost) -> None:
    host.write("etc/cron.d/relay-ctrl", "# age\n* * * * * root envdir /etc/relay-ctrl relay-ctrl-age\n")
    found = one(host.examine(), "no-such-program", "/etc/cron.d/relay-ctrl", 2)
    assert found.remedy == "write /usr/local/bin/relay-ctrl-age"


def test_cron_skips_names_with_periods(host: QmailHost) -> None:
    (host.root / "etc/cron.d/relay-ctrl").rename(host.root / "etc/cron.d/relay-ctrl.cron")
    one(host.examine(), "cron-skips-file", "/etc/cron.d/relay-ctrl.cron", None, "advice")


# -- the directory of grants


@pytest.mark.parametrize("mode", [0o777, 0o1733])
def test_a_directory_that_every_user_reaches(host: QmailHost, mode: int) -> None:
    host.directory("var/spool/relay-ctrl/allow", mode)
    host.directory("var/spool/relay-ctrl", 0o755)
    os.chmod(host.root, 0o755)
    found = one(host.examine(), "spool-open", "/var/spool/relay-ctrl/allow", None, "danger")
    assert "chmod 700 /var/spool/relay-ctrl" in found.remedy


def test_a_directory_that_nobody_can_use(host: QmailHost) -> None:
    host.directory("var/spool/relay-ctrl/allow", 0o700)
    assert {(it.trap, it.file) for it in host.examine()} == {
        ("spool-not-writable", "/var/spool/relay-ctrl/allow"),
        ("spool-not-searchable", "/var/spool/relay-ctrl/allow"),
    }


def test_no_directory_of_grants(host: QmailHost) -> None:
    host.remove("var/spool/relay-ctrl/allow")
    one(host.examine(), "no-spool", "/etc/relay-ctrl/RELAY_CTRL_DIR", 1)


def test_files_that_the_smtp_server_cannot_read(host: QmailHost) -> None:
    host.write("var/spool/relay-ctrl/allow/203.0.113.9", b"USER=alice\0")
    (host.root / "var/spool/relay-ctrl/allow/203.0.113.9").chmod(0o600)
    one(host.examine(), "grants-unreadable", "/var/spool/relay-ctrl/allow/203.0.113.9", None)
    (host.root / "var/spool/relay-ctrl/allow/203.0.113.9").chmod(0o666)
    assert host.examine() == []


# -- rules


def test_rules_that_are_not_there(host: QmailHost) -> None:
    host.remove("etc/tcp.smtp.cdb")
    found = one(host.examine(), "no-rules", SMTP_RUN, 20)
    assert found.remedy == "make it: tcprules /etc/tcp.smtp.cdb /etc/tcp.smtp.cdb.tmp < /etc/tcp.smtp"


def test_rules_older_than_their_source(host: QmailHost) -> None:
    host.age("etc/tcp.smtp.cdb", 2000)
    one(host.examine(), "old-rules", "/etc/tcp.smtp", None)


@pytest.mark.parametrize("rule", [':allow,RELAYCLIENT=""', '=:allow,RBLSMTPD="",RELAYCLIENT="@fixme"'])
def test_rules_that_let_everybody_relay(host: QmailHost, rule: str) -> None:
    host.write("etc/tcp.smtp", f'127.:allow,RELAYCLIENT=""\n# others\n{rule}\n')
    host.age("etc/tcp.smtp", 1000)
    one(host.examine(), "relay-for-everybody", "/etc/tcp.smtp", 3, "danger")


def test_compiled_rules_that_let_everybody_relay(host: QmailHost) -> None:
    """The source may be elsewhere, or have been mended and not compiled since."""
    host.remove("etc/tcp.smtp")
    host.write("etc/tcp.smtp.cdb", one_record(b"", b"+RELAYCLIENT=\0"))
    one(host.examine(), "relay-for-everybody", "/etc/tcp.smtp.cdb", None, "danger")
    host.write("etc/tcp.smtp.cdb", one_record(b"", b"D\0+RELAYCLIENT=\0"))
    assert host.examine() == []
    host.write("etc/tcp.smtp.cdb", b"no database")
    one(host.examine(), "no-rules", "/etc/tcp.smtp.cdb", None)


def test_relayclient_in_the_environment(host: QmailHost) -> None:
    host.smtp(SMTP.replace("exec /usr", "RELAYCLIENT=; export RELAYCLIENT\nexec /usr"))
    one(host.examine(), "relay-for-everybody", SMTP_RUN, 18, "danger")
    host.smtp(SMTP)
    host.write("etc/relay-ctrl/RELAYCLIENT", "\n")
    one(host.examine(), "relay-for-everybody", "/etc/relay-ctrl/RELAYCLIENT", 1, "danger")
