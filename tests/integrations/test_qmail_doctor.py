"""Each trap of the guides: a host that stepped into it, and what the doctor says; and hosts that did not."""

import os

import pytest

from popgate.integrations.qmail import NoServices
from support.qmail_host import LOG, NESTED, POP3, POP3_RUN, SMTP, SMTP_RUN, QmailHost, one

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
