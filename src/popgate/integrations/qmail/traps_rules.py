"""Traps around RELAYCLIENT: who may relay without any login, by the environment or by tcprules."""

import posixpath
from collections.abc import Iterator

from popgate.integrations.findings import Finding
from popgate.integrations.qmail.chain import Link
from popgate.integrations.qmail.lines import ServerLine, server_lines
from popgate.integrations.qmail.machine import Machine
from popgate.integrations.qmail.programs import SMTP_SERVERS
from popgate.integrations.qmail.survey import Survey
from popgate.integrations.ucspi.cdb import Cdb, CdbError
from popgate.integrations.ucspi.rules import RuleError, parse_instructions

_EVERYBODY = ("", "=")
"""Addresses of rules that meet everybody, and everybody with a host name."""


def rules_traps(survey: Survey) -> Iterator[Finding]:
    for line in server_lines(survey):
        if line.listener is None:
            continue
        if line.is_smtp:
            yield from _environment_traps(line, line.listener)
        yield from _rule_file_traps(line, line.listener, survey.machine)


def _environment_traps(line: ServerLine, listener: Link) -> Iterator[Finding]:
    for link in (listener, *line.links(SMTP_SERVERS)):
        setting = link.environment.get("RELAYCLIENT")
        if setting is not None:
            yield Finding(
                "relay-for-everybody",
                "danger",
                setting.file,
                setting.line,
                "RELAYCLIENT is in the server's environment: everybody may relay, this is an open relay",
                "remove it; relay-ctrl-check sets it for those who logged in"
                " (RELAY_CTRL_RELAYCLIENT is the name for what it shall be set to)",
            )
            return


def _rule_file_traps(line: ServerLine, listener: Link, machine: Machine) -> Iterator[Finding]:
    given = listener.step.option("x")
    if given is None or not given.is_known or not given.text:
        return
    path = posixpath.join(posixpath.dirname(line.file), given.text)
    compiled = machine.state(path)
    source = path.removesuffix(".cdb")
    source_state = machine.state(source) if source != path else None
    if compiled is None:
        if "X" not in listener.step.flags:
            yield Finding(
                "no-rules",
                "broken",
                line.file,
                given.line,
                f"there is no {path}: every connection is dropped",
                f"make it: tcprules {path} {path}.tmp < {source}",
            )
    elif source_state is not None and source_state.st_mtime > compiled.st_mtime:
        yield Finding(
            "old-rules",
            "broken",
            source,
            None,
            f"it was changed after {path} was made from it; the old rules are in force",
            f"tcprules {path} {path}.tmp < {source}",
        )
    if line.is_smtp:
        found = list(_open_rules(source, machine))
        yield from found
        if not found and compiled is not None:
            yield from _open_records(path, machine)


def _open_rules(source: str, machine: Machine) -> Iterator[Finding]:
    for number, rule in enumerate((machine.text(source) or "").splitlines(), 1):
        address, colon, instructions = rule.partition(":")
        if not colon or rule.startswith("#") or address not in _EVERYBODY:
            continue
        if instructions.startswith("allow") and "RELAYCLIENT=" in instructions:
            yield _everybody(source, number)


def _open_records(path: str, machine: Machine) -> Iterator[Finding]:
    try:
        rules = Cdb(machine.octets(path) or b"")
        for address in _EVERYBODY:
            record = rules.find(address.encode())
            if record is None:
                continue
            verdict = parse_instructions(record)
            if not verdict.is_denied and b"RELAYCLIENT" in verdict.settings:
                yield _everybody(path, None)
                return
    except (CdbError, RuleError) as error:
        yield Finding(
            "no-rules",
            "broken",
            path,
            None,
            f"it is no rule file ({error}): every connection is dropped",
            "make it anew with tcprules",
        )


def _everybody(file: str, line: int | None) -> Finding:
    return Finding(
        "relay-for-everybody",
        "danger",
        file,
        line,
        "a rule sets RELAYCLIENT for everybody: this is an open relay",
        'set it for your own networks only (127.:allow,RELAYCLIENT=""), end with :allow,'
        " and run tcprules again",
    )
