"""Each trap of the guides: a host that stepped into it, and what the doctor says; and hosts that did not."""

import os
from pathlib import Path

import pytest

from popgate.integrations.qmail import Finding, NoServices
from support.qmail_host import LOG, POP3, SMTP, QmailHost, one_record

SMTP_RUN, POP3_RUN = "/service/qmail-smtpd/run", "/service/qmail-pop3d/run"

# One script in another, as many guides have it.
NESTED = """\
#!/bin/sh
QMAILDUID=`id -u qmaild`
NOFILESGID=`id -g qmaild`
export QMAILDUID NOFILESGID
exec envdir /etc/relay-ctrl relay-ctrl-chdir sh -c '
    exec softlimit -m 60000000 tcpserver -vRHl0 \\
        -x /etc/tcp.smtp.cdb -c 40 \\
        -u "$QMAILDUID" -g "$NOFILESGID" 0 25 \\
        relay-ctrl-check /var/qmail/bin/qmail-smtpd 2>&1'
"""


@pytest.fixture
def host(tmp_path: Path) -> QmailHost:
    return QmailHost(tmp_path)


def one(findings: list[Finding], trap: str, file: str, line: int | None, level: str = "broken") -> Finding:
    """The only finding, which must be this one."""
    assert [(it.trap, it.file, it.line, it.level) for it in findings] == [(trap, file, line, level)], findings
    return findings[0]


# -- hosts that are well


def test_the_recipe_is_well(host: QmailHost) -> None:
    assert host.examine() == []


@pytest.mark.parametrize(
    "smtp",
    [
        NESTED,
        # the outer shell puts the numbers in
        NESTED.replace("sh -c '", 'sh -c "')
        .replace("2>&1'", '2>&1"')
        .replace('"$QMAILDUID"', "$QMAILDUID")
        .replace('"$NOFILESGID"', "$NOFILESGID")
        .replace("export QMAILDUID NOFILESGID\n", ""),
        NESTED.replace("export QMAILDUID NOFILESGID\n", "").replace("#!/bin/sh\n", "#!/bin/sh\nset -a\n"),
        """#!/bin/sh -e
exec 2>&1
cd /
exec env - PATH="$PATH:/usr/bin:/usr/local/bin" \\
envdir /etc/relay-ctrl relay-ctrl-chdir \\
envuidgid qmaild softlimit -m 50000000 -f 10000000 \\
tcpserver -vHRUl 0 -c 30 -x /etc/tcp.smtp.cdb -- 0.0.0.0 smtp \\
  rblsmtpd -b -r bl.example.net recordio relay-ctrl-check /var/qmail/bin/qmail-smtpd
""",
        """#!/bin/sh
# chosen by the host's name
case `uname -n` in
  mx*|mail*) PORT=25 ;;
  *) PORT=${PORT:-2525} ;;
esac
if test -r /etc/default/qmail; then . /etc/default/qmail; fi
export RELAY_CTRL_DIR=/var/spool/relay-ctrl/allow RELAY_CTRL_EXPIRY=900
exec relay-ctrl-chdir tcpserver -vRHl0 -c20 -u7791 -g2108 -x /etc/tcp.smtp.cdb 0 $PORT \\
    setuidgid qmaild relay-ctrl-check /var/qmail/bin/qmail-smtpd
""",
    ],
    ids=["nested", "nested in double quotes", "set -a", "envuidgid", "case and sourced defaults"],
)
def test_other_ways_to_write_it_are_well(host: QmailHost, smtp: str) -> None:
    host.smtp(smtp)
    assert host.examine() == []


def test_one_service_alone_can_be_looked_at(host: QmailHost) -> None:
    assert host.examine("/service/qmail-smtpd") == []
    host.script("service/qmail-smtpd/log/run", LOG.replace("exec", "exec '"))
    one(host.examine("/service/qmail-smtpd"), "unbalanced-quotes", "/service/qmail-smtpd/log/run", 2)


def test_one_user_for_everything_needs_no_descriptor(host: QmailHost) -> None:
    """A host of virtual users: one uid owns the directory, records and looks."""
    uid = os.stat(host.root).st_uid
    host.directory("var/spool/relay-ctrl", 0o755)
    host.directory("var/spool/relay-ctrl/allow", 0o700)
    user = f"-u {uid or 89} -g 89"
    if uid == 0:
        os.chown(host.root / "var/spool/relay-ctrl/allow", 89, 89)
    host.smtp(
        f"#!/bin/sh\nexec envdir /etc/relay-ctrl tcpserver -vRHl0 -c 20 {user} -x /etc/tcp.smtp.cdb 0 25"
        " relay-ctrl-check /var/qmail/bin/qmail-smtpd\n"
    )
    host.pop3(
        f"#!/bin/sh\nexec envdir /etc/relay-ctrl tcpserver -vRHl0 -c 20 {user} 0 110"
        " /var/qmail/bin/qmail-popup mail.example.org checkpassword relay-ctrl-allow"
        " /var/qmail/bin/qmail-pop3d Maildir\n"
    )
    assert host.examine() == []


# -- the text of the scripts


@pytest.mark.parametrize("quote", ["'", '"', "`"])
def test_unbalanced_quotes_start_no_server(host: QmailHost, quote: str) -> None:
    host.pop3(f"#!/bin/sh\n# the guide's\nexec envdir /etc/relay-ctrl sh -c {quote}\n    tcpserver 0 110 x\n")
    found = one(host.examine("/service/qmail-pop3d"), "unbalanced-quotes", POP3_RUN, 3)
    assert quote in found.what


def test_unbalanced_quotes_within_quotes(host: QmailHost) -> None:
    host.smtp(NESTED.replace('-u "$QMAILDUID"', '-u "$QMAILDUID'))
    found = [it for it in host.examine() if it.trap == "unbalanced-quotes"]
    # the inner shell sees "$QMAILDUID -g " closed, and the one behind $NOFILESGID open
    assert [(it.file, it.line) for it in found] == [(SMTP_RUN, 8)]


@pytest.mark.parametrize(
    ("change", "trap", "line"),
    [
        (('"$QMAILDUID" -g', "\u201c$QMAILDUID\u201d -g"), "curly-quotes", 21),
        ((" -c ", " \u2013c "), "typographic-dash", 20),
        (("60000000 \\", "60000000 \\ "), "broken-continuation", 19),
    ],
)
def test_marks_that_came_from_a_web_page(
    host: QmailHost, change: tuple[str, str], trap: str, line: int
) -> None:
    host.smtp(SMTP.replace(*change))
    assert (trap, SMTP_RUN, line) in [(it.trap, it.file, it.line) for it in host.examine()]


def test_carriage_returns(host: QmailHost) -> None:
    host.pop3(POP3.replace("\n", "\r\n"))
    assert ("carriage-returns", POP3_RUN, 1) in [(it.trap, it.file, it.line) for it in host.examine()]


def test_a_run_script_that_cannot_be_run(host: QmailHost) -> None:
    (host.root / "service/qmail-pop3d/run").chmod(0o644)
    one(host.examine(), "not-executable", POP3_RUN, None)
    host.pop3("\n" + POP3)
    one(host.examine(), "no-interpreter", POP3_RUN, 1)


# -- users and limits


def test_ids_that_are_not_exported_leave_the_server_root(host: QmailHost) -> None:
    host.smtp(NESTED.replace("export QMAILDUID NOFILESGID\n", "\n"))
    found = one(host.examine(), "server-stays-root", SMTP_RUN, 8, "danger")
    assert "not exported" in found.what and "root" in found.what
    assert found.remedy == "write export NOFILESGID QMAILDUID before it"


def test_unquoted_ids_that_are_not_exported(host: QmailHost) -> None:
    """The words vanish, and -u takes the next option for the user."""
    host.smtp(
        NESTED.replace("export QMAILDUID NOFILESGID\n", "\n")
        .replace('"$QMAILDUID"', "$QMAILDUID")
        .replace('"$NOFILESGID"', "$NOFILESGID")
    )
    assert "server-stays-root" in [it.trap for it in host.examine()]


@pytest.mark.parametrize(
    ("user", "says"),
    [
        ("-u qmaild -g qmail", "reads the name qmaild as 0"),
        ("-u 0 -g 0", "0"),
        ('-u "`id -u nobodyhere`" -g 7', "empty"),
        ("-U", "not set"),
        ("", "no user"),
    ],
)
def test_a_server_that_is_root(host: QmailHost, user: str, says: str) -> None:
    host.smtp(SMTP.replace('-u "$QMAILDUID" -g "$NOFILESGID"', user))
    found = one(host.examine(), "server-stays-root", SMTP_RUN, 21 if user.startswith("-u") else 20, "danger")
    assert says in found.what


def test_memory_of_the_guides(host: QmailHost) -> None:
    host.smtp(SMTP.replace("-m 60000000", "-m 2000000"))
    found = one(host.examine(), "memory-limit", SMTP_RUN, 19)
    assert "2000000" in found.what and "64 bits" in found.what


def test_memory_for_python(host: QmailHost) -> None:
    host.smtp(SMTP.replace("-m 60000000", "-m 12000000"))
    found = one(host.examine(), "memory-limit", SMTP_RUN, 19)
    assert "relay-ctrl-check, which runs on Python" in found.what
    # the same limit does for the C programs
    host.program("usr/local/bin/relay-ctrl-check", b"\x7fELF")
    assert host.examine() == []


def test_all_memory_limits_count(host: QmailHost) -> None:
    host.smtp(SMTP.replace("-m 60000000", "-a 3000000 -d 60000000"))
    one(host.examine(), "memory-limit", SMTP_RUN, 19)


@pytest.mark.parametrize(
    ("limit", "level"), [("", "advice"), ("-c 0", "broken"), ("-c ten", "broken"), ('-c "$NONE"', "broken")]
)
def test_concurrency(host: QmailHost, limit: str, level: str) -> None:
    host.pop3(POP3.replace("-c 100", limit))
    one(host.examine(), "no-concurrency", POP3_RUN, 3, level)


@pytest.mark.parametrize(
    ("flags", "missing"),
    [("-v", "-H -R -l0"), ("-vR", "-H -l0"), ("-v -H -l 0", "-R"), ("-vRH", "-l0")],
)
def test_slow_lookups(host: QmailHost, flags: str, missing: str) -> None:
    host.pop3(POP3.replace("-vRHl0", flags))
    found = one(host.examine(), "slow-lookups", POP3_RUN, 3, "advice")
    assert f"without {missing} " in found.what


def test_ipv4_only(host: QmailHost) -> None:
    loopback = "00000000000000000000000000000001 01 80 10 80       lo\n"
    host.write("proc/net/if_inet6", loopback)
    assert host.examine() == []
    host.write("proc/net/if_inet6", loopback + "20010db8000000000000000000000002 02 40 00 80     eth0\n")
    assert [(it.trap, it.level) for it in host.examine()] == [("ipv4-only", "advice")] * 2


# -- the password checker's place


def test_an_unset_host_makes_the_recorder_the_checker(host: QmailHost) -> None:
    host.pop3(POP3.replace("mail.example.org", "$HOST"))
    found = one(host.examine(), "recorder-is-checker", POP3_RUN, 4, "danger")
    assert "$HOST expands to nothing" in found.what and "wrong password opens the relay" in found.what
    assert "qmail-popup mail.example.org checkpassword" in found.remedy


def test_an_unexported_host_within_sh(host: QmailHost) -> None:
    host.pop3(
        "#!/bin/sh\nHOST=mail.example.org\nexec envdir /etc/relay-ctrl relay-ctrl-chdir sh -c '\n"
        "exec tcpserver -vRHl0 -c 100 0 110 /var/qmail/bin/qmail-popup $HOST checkpassword \\\n"
        "  relay-ctrl-allow /var/qmail/bin/qmail-pop3d Maildir'\n"
    )
    found = one(host.examine(), "recorder-is-checker", POP3_RUN, 4, "danger")
    assert "export HOST" in found.remedy
    host.pop3((host.root / "service/qmail-pop3d/run").read_text().replace("HOST=mail", "export HOST=mail"))
    assert host.examine() == []


@pytest.mark.parametrize("content", [None, "", "\n"], ids=["missing", "empty", "an empty line"])
def test_a_host_from_a_file_that_says_nothing(host: QmailHost, content: str | None) -> None:
    """The variable is there for whoever uses it: an export would change nothing."""
    if content is None:
        host.remove("var/qmail/control/me")
    else:
        host.write("var/qmail/control/me", content)
    script = POP3.replace("mail.example.org", "$HOST")
    host.pop3(script.replace("#!/bin/sh\n", "#!/bin/sh\nHOST=`head -1 /var/qmail/control/me`\n"))
    (found,) = [it for it in host.examine() if it.trap == "recorder-is-checker"]
    assert (found.file, found.line, found.level) == (POP3_RUN, 5, "danger")
    assert "export" not in found.what + found.remedy
    assert "/var/qmail/control/me is missing or empty" in found.remedy
    assert "write what $HOST is to be into /var/qmail/control/me" in found.remedy


def test_ids_of_a_user_that_is_missing(host: QmailHost) -> None:
    host.smtp(SMTP.replace("id -u qmaild", "id -u nobodyhere"))
    (found,) = [it for it in host.examine() if it.trap == "server-stays-root"]
    assert "-u is empty" in found.what
    assert "export" not in found.remedy


def test_an_empty_host_that_is_written_so(host: QmailHost) -> None:
    script = POP3.replace("mail.example.org", "$HOST")
    host.pop3(script.replace("#!/bin/sh\n", "#!/bin/sh\nHOST=\n"))
    (found,) = [it for it in host.examine() if it.trap == "recorder-is-checker"]
    assert "$HOST is set to nothing" in found.remedy and "export" not in found.remedy


def test_an_unset_host_without_a_recorder_is_as_bad(host: QmailHost) -> None:
    host.pop3(POP3.replace("mail.example.org", "$HOST").replace(" relay-ctrl-allow", ""))
    assert ("host-unset", "danger") in [(it.trap, it.level) for it in host.examine()]


def test_a_quoted_unset_host_is_only_an_empty_name(host: QmailHost) -> None:
    host.pop3(POP3.replace("mail.example.org", '"$HOST"'))
    one(host.examine(), "host-unset", POP3_RUN, 4, "advice")


def test_a_recorder_where_the_checker_belongs(host: QmailHost) -> None:
    host.pop3(POP3.replace("checkpassword relay-ctrl-allow", "relay-ctrl-allow checkpassword"))
    found = one(host.examine(), "recorder-is-checker", POP3_RUN, 5, "danger")
    assert "expects a password checker" in found.what


def test_a_recorder_before_anybody_is_asked(host: QmailHost) -> None:
    host.pop3(
        POP3.replace("110 \\", "110 relay-ctrl-allow \\").replace(
            "checkpassword relay-ctrl-allow", "checkpassword"
        )
    )
    one(host.examine(), "recorded-without-login", POP3_RUN, 3, "danger")


def test_a_recorder_in_the_smtp_line(host: QmailHost) -> None:
    host.smtp(SMTP.replace("relay-ctrl-check", "relay-ctrl-allow relay-ctrl-check"))
    assert {(it.trap, it.level) for it in host.examine()} == {
        ("recorded-without-login", "danger"),
        ("second-relay-ctrl", "broken"),
    }


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


# -- odds and ends


def test_programs_that_are_not_there(host: QmailHost) -> None:
    host.smtp(SMTP.replace("/usr/bin/tcpserver", "/usr/local/bin/tcpserver"))
    found = one(host.examine(), "no-such-program", SMTP_RUN, 20)
    assert found.remedy == "write /usr/bin/tcpserver"


def test_nothing_to_look_at(host: QmailHost) -> None:
    host.directory("empty", 0o755)
    for directory in ("/empty", "/nosuch", "/etc/passwd"):
        with pytest.raises(NoServices):
            host.examine(directory)


def test_links_lead_nowhere_outside_the_root(host: QmailHost) -> None:
    (host.root / "etc/outside").symlink_to("../../../../../../etc/hostname")
    (host.root / "etc/loop").symlink_to("loop")
    host.pop3(POP3.replace("-c 100", "-c `cat /etc/outside` -c `cat /etc/loop`"))
    assert [it.trap for it in host.examine()] == ["no-concurrency"]


def test_a_pipe_in_the_way_is_not_waited_for(host: QmailHost) -> None:
    os.mkfifo(host.root / "etc/relay-ctrl/PIPE")
    os.mkfifo(host.root / "service/qmail-pop3d/log/run.tmp")
    host.remove("service/qmail-pop3d/log/run")
    os.mkfifo(host.root / "service/qmail-pop3d/log/run", 0o755)
    assert {it.trap for it in host.examine()} == {"unreadable-env-file", "no-interpreter"}


# -- popgate tcpserver in tcpserver's place


def ours(text: str) -> str:
    return text.replace("/usr/bin/tcpserver", "tcpserver").replace("tcpserver ", "popgate tcpserver ")


def test_one_word_changed_is_well(host: QmailHost) -> None:
    host.smtp(ours(SMTP))
    host.pop3(ours(POP3))
    assert host.examine() == []
    # it opens the directory itself, while it is root
    host.smtp(ours(SMTP).replace("relay-ctrl-chdir", ""))
    host.pop3(
        ours(POP3).replace("relay-ctrl-chdir", "").replace("-vRHl0", "-vH -C 5:later --envdir /etc/none")
    )
    assert [it.trap for it in host.examine()] == ["no-env-directory"]


def test_popgate_listens_to_names_of_users_and_refuses_empty_ones(host: QmailHost) -> None:
    host.smtp(ours(SMTP).replace('-u "$QMAILDUID" -g "$NOFILESGID"', "-u qmaild -g qmail"))
    assert host.examine() == []
    host.smtp(ours(NESTED).replace("export QMAILDUID NOFILESGID\n", "\n"))
    found = one(host.examine(), "no-user", SMTP_RUN, 8)
    assert "export" in found.remedy
    host.smtp(ours(SMTP).replace('-u "$QMAILDUID" -g "$NOFILESGID"', "-u 0 -g 0"))
    one(host.examine(), "server-stays-root", SMTP_RUN, 21, "danger")


def test_popgate_hears_ipv6_where_it_is_told(host: QmailHost) -> None:
    host.write("proc/net/if_inet6", "20010db8000000000000000000000002 02 40 00 80     eth0\n")
    host.smtp(ours(SMTP).replace(" 0 smtp", " :: smtp"))
    host.pop3(ours(POP3).replace("-vRHl0", "-6vRHl0"))
    assert host.examine() == []
    host.pop3(ours(POP3))
    one(host.examine(), "ipv4-only", POP3_RUN, 3, "advice")


def test_popgate_allow_where_the_checker_belongs(host: QmailHost) -> None:
    host.pop3(ours(POP3).replace("relay-ctrl-allow", "popgate-allow").replace("mail.example.org", "$HOST"))
    one([it for it in host.examine() if it.level == "danger"], "recorder-is-checker", POP3_RUN, 4, "danger")


def test_popgate_told_what_to_do(host: QmailHost) -> None:
    host.smtp(ours(SMTP).replace("relay-ctrl-check ", "").replace("-v -R", "--check -v -R"))
    host.pop3(ours(POP3))
    assert host.examine() == []


def test_popgate_needs_memory_for_python(host: QmailHost) -> None:
    host.smtp(ours(SMTP).replace("-m 60000000", "-m 9000000"))
    assert "runs on Python" in one(host.examine(), "memory-limit", SMTP_RUN, 19).what


def test_the_whole_server_ages(host: QmailHost) -> None:
    host.remove("etc/cron.d/relay-ctrl")
    host.smtp(ours(SMTP))
    assert [it.trap for it in host.examine()] == ["nobody-ages"]
    host.script("service/popgate/run", "#!/bin/sh\nexec popgate serve --config /etc/popgate.toml 2>&1\n")
    assert host.examine() == []


# -- logins told from host to host

TELLING = POP3.replace("relay-ctrl-allow", "relay-ctrl-send")
HEARING = """\
#!/bin/sh
exec envdir /etc/relay-ctrl relay-ctrl-udp 2>&1
"""
UDP_RUN = "/service/relay-ctrl-udp/run"


def with_peers(host: QmailHost, key: str = "x" * 44, mode: int = 0o640) -> None:
    host.write("etc/popgate/peer-key", key + "\n")
    (host.root / "etc/popgate/peer-key").chmod(mode)
    host.write("etc/relay-ctrl/RELAY_CTRL_KEY", "/etc/popgate/peer-key\n")
    host.write("etc/relay-ctrl/RELAY_CTRL_REMOTES", "192.0.2.25,192.0.2.26:811\n")
    host.write("etc/relay-ctrl/RELAY_CTRL_CALLERS", "192.0.2.110\n")
    host.pop3(TELLING)
    host.script("service/relay-ctrl-udp/run", HEARING)


def test_hosts_that_tell_each_other_are_well(host: QmailHost) -> None:
    with_peers(host)
    assert host.examine() == []
    # a host that only reads mail, beside an SMTP server for what comes in
    host.smtp(SMTP.replace("relay-ctrl-check ", ""))
    assert [it.trap for it in host.examine() if it.trap == "grants-not-asked"] == []


def test_unsigned_logins(host: QmailHost) -> None:
    with_peers(host)
    host.script("service/relay-ctrl-udp/run", HEARING.replace("-udp", "-udp --insecure"))
    assert "in a caller's name" in one(host.examine(), "unsigned-logins", UDP_RUN, 2, "danger").what
    host.remove("service/relay-ctrl-udp")
    host.remove("etc/relay-ctrl/RELAY_CTRL_KEY")
    host.pop3(TELLING.replace("relay-ctrl-send", "relay-ctrl-send --insecure"))
    one(host.examine(), "unsigned-logins", POP3_RUN, 5, "advice")


@pytest.mark.parametrize(
    ("key", "mode", "told"),
    [
        ("short", 0o640, "less than 16 octets"),
        ("x" * 44, 0o644, "everybody can read or change"),
        ("x" * 44, 0o600, "only root can read"),
        (None, 0, "is no file"),
    ],
)
def test_a_key_that_cannot_be_used(host: QmailHost, key: str | None, mode: int, told: str) -> None:
    with_peers(host, key or "", mode)
    if key is None:
        host.remove("etc/popgate/peer-key")
    findings = host.examine()
    assert {(it.trap, it.file) for it in findings} == {("peer-key", "/etc/relay-ctrl/RELAY_CTRL_KEY")}
    assert told in findings[0].what


def test_nobody_is_told_or_heard(host: QmailHost) -> None:
    with_peers(host)
    host.remove("etc/relay-ctrl/RELAY_CTRL_REMOTES")
    assert "RELAY_CTRL_REMOTES" in one(host.examine(), "nobody-is-told", POP3_RUN, 5).what
    with_peers(host)
    host.remove("etc/relay-ctrl/RELAY_CTRL_CALLERS")
    one(host.examine(), "no-callers", UDP_RUN, 2)
    with_peers(host)
    host.remove("etc/relay-ctrl/RELAY_CTRL_KEY")
    assert "RELAY_CTRL_KEY" in one(host.examine(), "nobody-is-told", POP3_RUN, 5).what
    host.write("etc/relay-ctrl/RELAY_CTRL_REMOTES", "127.0.0.1 [::1]:811\n")
    assert host.examine() == []
    with_peers(host)
    host.script("service/relay-ctrl-udp/run", HEARING.replace("envdir /etc/relay-ctrl ", ""))
    one(host.examine(), "no-grant-directory", UDP_RUN, 2)
