"""Traps of relay-ctrl's programs: where they stand in the chain, and what their environment lacks."""

from collections.abc import Iterator

from popgate.integrations.findings import Finding
from popgate.integrations.qmail.chain import Link
from popgate.integrations.qmail.environment import Setting
from popgate.integrations.qmail.lines import (
    GRANT_PROGRAMS,
    NO_CHECKERS,
    RECORDERS,
    ServerLine,
    cron_lines,
    server_lines,
)
from popgate.integrations.qmail.programs import RUNNERS
from popgate.integrations.qmail.survey import Survey
from popgate.integrations.qmail.traps_server import names_of, why_unset

DEFAULT_EXPIRY = 900


def grant_traps(survey: Survey) -> Iterator[Finding]:
    lines = server_lines(survey)
    for line in lines:
        yield from _checker_traps(line)
        yield from _order_traps(line)
        yield from _second_traps(line)
        yield from _directory_variable_traps(line)
    for line in cron_lines(survey):
        yield from _directory_variable_traps(line)
    yield from _pairing_traps(lines)
    yield from _expiry_traps(survey)
    yield from _different_directories(survey)
    yield from _ager_traps(survey)


def _checker_traps(line: ServerLine) -> Iterator[Finding]:
    """The program in whose place a password checker belongs."""
    if line.asker_at is None:
        return
    asker = line.chain[line.asker_at].step
    checker = line.chain[line.checker_at].step if line.checker_at is not None else None
    unset = sorted({name for gone in asker.vanished for name in gone.unset})
    shift = bool(asker.vanished) and asker.name == "qmail-popup"
    if checker is not None and checker.name in NO_CHECKERS:
        if shift:
            gone = names_of(unset) or "a word"
            yield Finding(
                "recorder-is-checker",
                "danger",
                line.file,
                asker.line,
                f"{gone} expands to nothing, so all words move up: {asker.words[0].text} is taken for the"
                f" host name and {checker.name} for the password checker. A wrong password opens the relay",
                _set_host(line, unset),
            )
        else:
            yield Finding(
                "recorder-is-checker",
                "danger",
                line.file,
                checker.line,
                f"{checker.name} stands where {asker.name} expects a password checker: it runs whatever"
                " the password is, so a wrong one opens the relay",
                f"put the checker before it: {asker.name} HOST checkpassword {checker.name} ...",
            )
    elif shift:
        yield Finding(
            "host-unset",
            "danger",
            line.file,
            asker.line,
            f"{names_of(unset) or 'a word'} expands to nothing, so all words move up: "
            f"{asker.words[0].text if asker.words else 'the next'} is taken for the host name, and"
            f" {checker.name if checker else 'nothing'} for the password checker",
            _set_host(line, unset),
        )
    elif asker.name == "qmail-popup" and asker.words and not asker.words[0].text:
        why, remedy = why_unset(line, list(asker.words[0].unset) or ["HOST"])
        yield Finding(
            "host-unset",
            "advice",
            line.file,
            asker.words[0].line,
            f"{why}: the banner, from which APOP makes its digest, names no host",
            remedy,
        )


def _set_host(line: ServerLine, unset: list[str]) -> str:
    why, remedy = why_unset(line, unset or ["HOST"])
    return f"{remedy}, or write the name itself: qmail-popup mail.example.org checkpassword ... ({why})"


def _order_traps(line: ServerLine) -> Iterator[Finding]:
    listener_at = line.listener_at
    if listener_at is None:
        return
    for at, link in enumerate(line.chain):
        name = link.step.name
        if name in RECORDERS | {"relay-ctrl-check"} and at < listener_at:
            yield Finding(
                "before-the-listener",
                "broken",
                line.file,
                link.step.line,
                f"{name} stands before tcpserver, where there is no client yet",
                f"put it behind tcpserver's host and port: tcpserver ... {name} PROGRAM",
            )
    first = next(
        (
            link
            for link in line.chain[listener_at + 1 :]
            if link.step.name not in RUNNERS or link.step.name in RECORDERS
        ),
        None,
    )
    if first is not None and first.step.name in RECORDERS and not _is_courier(line):
        yield Finding(
            "recorded-without-login",
            "danger",
            line.file,
            first.step.line,
            f"{first.step.name} runs for each connection before anybody has logged in: whoever connects"
            " may relay",
            "put it behind the password checker, before the POP3 server",
        )
    check_at = line.position({"relay-ctrl-check"})
    if line.is_smtp and check_at is not None and line.chain[-1].step.name == "relay-ctrl-check":
        yield Finding(
            "check-runs-nothing",
            "broken",
            line.file,
            line.chain[check_at].step.line,
            "relay-ctrl-check is told to run nothing",
            "put the SMTP server behind it: relay-ctrl-check /var/qmail/bin/qmail-smtpd",
        )


def _is_courier(line: ServerLine) -> bool:
    return any(link.step.name in ("pop3login", "imaplogin") for link in line.chain)


def _second_traps(line: ServerLine) -> Iterator[Finding]:
    uses = list(line.links(GRANT_PROGRAMS))
    if line.listener is not None and line.listener.step.is_popgate:
        # the first one is not run there, but done by the listener, which holds the directory
        return
    for second in uses[1:]:
        yield Finding(
            "second-relay-ctrl",
            "broken",
            line.file,
            second.step.line,
            f"{second.step.name} comes after {uses[0].step.name} in one chain; the original closes the"
            " descriptor of the directory there, so the second one records or finds nothing",
            "keep one of them: relay-ctrl-check for SMTP, relay-ctrl-allow for POP3",
        )


def _directory_variable_traps(line: ServerLine) -> Iterator[Finding]:
    has_opener = line.position({"relay-ctrl-chdir"}) is not None
    for link in line.chain:
        name = link.step.name
        if name not in GRANT_PROGRAMS | {"relay-ctrl-chdir", "relay-ctrl-age", "relay-ctrl-udp"}:
            continue
        if link.step.option("--envdir") is not None:
            continue
        setting = link.environment.get("RELAY_CTRL_DIR")
        if setting is None and not link.may_know_more:
            what = {
                "relay-ctrl-chdir": "it exits with 111, and no server starts",
                "relay-ctrl-age": "it exits, and nothing is removed",
                "relay-ctrl-udp": "it exits with 111, and no login of another host is recorded",
            }.get(
                name,
                "no login is recorded and nobody may relay"
                if has_opener
                else "the original uses whatever directory it is in; popgate's records and finds nothing",
            )
            yield Finding(
                "no-grant-directory",
                "broken",
                line.file,
                link.step.line,
                f"RELAY_CTRL_DIR is not set for {name}: {what}",
                "put envdir /etc/relay-ctrl before it, with a file RELAY_CTRL_DIR that names the directory",
            )
            return
        if setting is not None and setting.is_known and not setting.text.startswith("/"):
            yield Finding(
                "no-grant-directory",
                "broken",
                setting.file,
                setting.line,
                f"RELAY_CTRL_DIR is {setting.text!r}, which depends on the directory a program is in",
                "write the whole path, such as /var/spool/relay-ctrl/allow",
            )
            return


def _pairing_traps(lines: list[ServerLine]) -> Iterator[Finding]:
    """Somebody must record, and somebody must look."""
    checks = any(
        line.position({"relay-ctrl-check"}) is not None or _is_told(line, "--check") for line in lines
    )
    records = any(line.position(RECORDERS) is not None or _is_told(line, "--allow") for line in lines)
    # what relay-ctrl-send tells is asked for on another host
    records_here = any(
        line.position(RECORDERS - {"relay-ctrl-send"}) is not None or _is_told(line, "--allow")
        for line in lines
    )
    if any(link.step.name == "popgate" for line in lines for link in line.chain):
        # the whole server has listeners that these scripts do not show
        return
    for line in lines:
        if line.is_pop and line.asker_at is not None and checks and not records:
            yield Finding(
                "logins-not-recorded",
                "broken",
                line.file,
                line.chain[line.asker_at].step.line,
                "logins are not recorded here or in any other service, so nobody may relay",
                "put relay-ctrl-allow behind the password checker",
            )
        if line.is_smtp and records_here and not checks and line.listener is not None:
            yield Finding(
                "grants-not-asked",
                "broken",
                line.file,
                line.listener.step.line,
                "logins are recorded, but no SMTP service asks for them, so nobody may relay",
                "put relay-ctrl-check before the SMTP server",
            )


def _is_told(line: ServerLine, flag: str) -> bool:
    """What popgate tcpserver can be told instead of finding it in the chain."""
    return line.listener is not None and flag in line.listener.step.flags


def _expiry_traps(survey: Survey) -> Iterator[Finding]:
    seen: list[tuple[int, Link, ServerLine, Setting | None]] = []
    told: set[tuple[str, int | None]] = set()
    for line in (*server_lines(survey), *cron_lines(survey)):
        for link in line.links({"relay-ctrl-check", "relay-ctrl-age", "relay-ctrl-allow"}):
            if link.may_know_more:
                continue
            setting = link.environment.get("RELAY_CTRL_EXPIRY")
            if setting is not None and not setting.is_known:
                continue
            text = "" if setting is None else setting.text
            if setting is not None and not _is_duration(text) and (setting.file, setting.line) not in told:
                told.add((setting.file, setting.line))
                yield Finding(
                    "expiry-no-number",
                    "broken",
                    setting.file,
                    setting.line,
                    f"RELAY_CTRL_EXPIRY is {text!r}, no number of seconds: the programs take"
                    f" {_effective(text)} s",
                    f"write seconds in digits alone, such as {DEFAULT_EXPIRY}",
                )
            if setting is not None or link.step.name != "relay-ctrl-allow":
                # allow itself reads no expiry: it tells us only where it is set
                seen.append((_effective(text), link, line, setting))
    checked = next((one for one in seen if one[1].step.name == "relay-ctrl-check"), seen[0] if seen else None)
    for seconds, link, line, setting in seen:
        if checked is None or seconds == checked[0]:
            continue
        yield Finding(
            "expiry-differs",
            "broken",
            setting.file if setting else line.file,
            setting.line if setting else link.step.line,
            f"{link.step.name} takes {seconds} s for the life of a grant"
            f"{'' if setting else ' (RELAY_CTRL_EXPIRY is not set)'}, {checked[1].step.name} {checked[0]} s",
            "let all of them read one env directory",
        )


def _is_duration(text: str) -> bool:
    return text.isascii() and text.isdigit() and int(text) > 0


def _effective(text: str) -> int:
    """Seconds as the programs read them: leading digits count, what comes to nothing means 900."""
    digits = text.strip()
    size = 0
    while size < len(digits) and digits[size] in "0123456789":
        size += 1
    return int(digits[:size] or 0) or DEFAULT_EXPIRY


def _different_directories(survey: Survey) -> Iterator[Finding]:
    seen: dict[str, tuple[Link, ServerLine]] = {}
    for line in (*server_lines(survey), *cron_lines(survey)):
        for link in line.links(GRANT_PROGRAMS | {"relay-ctrl-age"}):
            setting = link.environment.get("RELAY_CTRL_DIR")
            if setting is None or not setting.is_known or not setting.text.startswith("/"):
                continue
            path = setting.text.rstrip("/")
            if not seen:
                seen[path] = (link, line)
            elif path not in seen:
                first, (other, _) = next(iter(seen.items()))
                seen[path] = (link, line)
                yield Finding(
                    "directory-differs",
                    "broken",
                    setting.file,
                    setting.line,
                    f"{link.step.name} uses {path}, {other.step.name} uses {first}: they do not meet",
                    "let all of them read one env directory",
                )


def _ager_traps(survey: Survey) -> Iterator[Finding]:
    lines = server_lines(survey)
    if not any(True for line in lines for _ in line.links(GRANT_PROGRAMS)):
        return
    for file in survey.unread_cron:
        yield Finding(
            "cron-skips-file",
            "advice",
            file,
            None,
            "cron passes over files with such a name, so relay-ctrl-age never runs",
            "name it in letters, digits, hyphens and underscores only",
        )
    everything = (*lines, *cron_lines(survey))
    # the listener of popgate tcpserver leaves that to cron; the whole server does it itself
    ages = any(True for line in everything for _ in line.links({"relay-ctrl-age"}))
    sweeps = any(
        link.step.name == "popgate" and link.step.words[:1] and link.step.words[0].text == "serve"
        for line in everything
        for link in line.chain
    )
    if not ages and not sweeps and not survey.unread_cron:
        yield Finding(
            "nobody-ages",
            "advice",
            survey.cron_files[0] if survey.cron_files else "/etc/cron.d",
            None,
            "nothing runs relay-ctrl-age: lapsed grants are refused, but their files stay and pile up",
            "a file /etc/cron.d/relay-ctrl with the line:"
            " */5 * * * * root /usr/bin/envdir /etc/relay-ctrl PATH/relay-ctrl-age",
        )
