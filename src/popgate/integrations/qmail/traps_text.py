"""Traps in the text of run scripts: what sh, or the system that starts it, will stumble over."""

from collections.abc import Iterator

from popgate.integrations.findings import Finding
from popgate.integrations.qmail.shell import Flaw
from popgate.integrations.qmail.survey import Program, Survey


def text_traps(survey: Survey) -> Iterator[Finding]:
    for program in survey.programs():
        for flaw in program.flaws:
            yield _flaw(program.file, flaw)
    for service in survey.services:
        yield from _start(service)


def _flaw(file: str, flaw: Flaw) -> Finding:
    if flaw.kind == "quote":
        return Finding(
            "unbalanced-quotes",
            "broken",
            file,
            flaw.line,
            f"the quote ({flaw.detail}) that opens here is never closed, so sh runs nothing of this script",
            "add its partner; if this one is as it should be, an earlier one lacks its own"
            " (in an argument of sh -c the closing quote comes after the last word)",
        )
    if flaw.kind == "curly-quote":
        return Finding(
            "curly-quotes",
            "broken",
            file,
            flaw.line,
            "a typographic quotation mark, as web pages show them: for sh it is a letter",
            f"write {flaw.detail} instead, here and wherever else the text came from that page",
        )
    if flaw.kind == "dash":
        return Finding(
            "typographic-dash",
            "broken",
            file,
            flaw.line,
            "a typographic dash, as web pages show them: for programs it begins no option",
            "write the plain hyphen -",
        )
    if flaw.kind == "carriage-return":
        return Finding(
            "carriage-returns",
            "broken",
            file,
            flaw.line,
            "lines end with a carriage return, which becomes part of the last word of each",
            "convert the file: sed -i 's/\\r$//' FILE",
        )
    return Finding(
        "broken-continuation",
        "broken",
        file,
        flaw.line,
        "a blank follows the backslash, so the command ends with this line",
        "let the backslash be the last character of the line",
    )


def _start(service: Program) -> Iterator[Finding]:
    if not service.is_executable:
        yield Finding(
            "not-executable",
            "broken",
            service.file,
            None,
            "it is not executable, so the supervisor cannot start it",
            "chmod 755 FILE",
        )
    if not service.first_octets.startswith((b"#!", b"\x7fELF")):
        yield Finding(
            "no-interpreter",
            "broken",
            service.file,
            1,
            "the first line names no interpreter, so the system cannot run the file",
            "let the first line be #!/bin/sh, without a blank or an empty line before it",
        )
    elif service.first_octets.split(b"\n", 1)[0].endswith(b"\r"):
        yield Finding(
            "carriage-returns",
            "broken",
            service.file,
            1,
            "the interpreter's name ends with a carriage return, and no such program exists",
            "convert the file: sed -i 's/\\r$//' FILE",
        )
