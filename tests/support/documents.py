"""Pieces of the documents that tests run as they stand there."""

import json
import re
import tomllib
from pathlib import Path

DOCS = Path(__file__).resolve().parents[2] / "docs"
_HEADING = re.compile(r"^#{2,4} (.+)$", re.MULTILINE)


def section(document: str, heading: str) -> str:
    """The text below `heading` up to the next heading. Raises AssertionError."""
    text = (DOCS / document).read_text()
    found = list(_HEADING.finditer(text))
    for match, after in zip(found, [*found[1:], None], strict=True):
        if match[1] == heading:
            return text[match.end() : after.start() if after else None]
    raise AssertionError(f"{document} has no section {heading!r}")


def blocks(document: str, heading: str, language: str) -> list[str]:
    """The fenced blocks of `language` in a section."""
    return re.findall(
        rf"^```{re.escape(language)}\n(.*?)^```", section(document, heading), re.DOTALL | re.MULTILINE
    )


def listeners(toml: str) -> list[tuple[str, str, dict[str, object]]]:
    """The [[listener]] tables of a documented configuration: service, bind, the other settings."""
    found = []
    for table in tomllib.loads(toml)["listener"]:
        settings = dict(table)
        found.append((settings.pop("service"), settings.pop("bind"), settings))
    return found


def toml_lines(settings: dict[str, object]) -> str:
    """Settings of a listener as TOML; JSON is TOML for text, numbers, truth and lists."""
    return "\n".join(f"{name} = {json.dumps(value)}" for name, value in settings.items())


def main_cf(text: str) -> dict[str, str]:
    """Parameters of Postfix, with the continued lines of each joined."""
    found: dict[str, str] = {}
    name = ""
    for line in text.splitlines():
        if line[:1] in (" ", "\t"):
            found[name] += " " + line.strip()
        elif line.strip():
            name, _, first = line.partition("=")
            name = name.strip()
            found[name] = first.strip()
    return {name: value.strip() for name, value in found.items()}
