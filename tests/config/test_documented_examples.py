"""Every TOML block in the documents is a configuration that loads, so nobody copies a mistake."""

import re
from pathlib import Path

import pytest

from popgate.config import load_text

DOCS = Path(__file__).resolve().parents[2]
_BLOCK = re.compile(r"^( *)```toml\n(.*?)^ *```", re.DOTALL | re.MULTILINE)


def _blocks() -> list[tuple[str, str]]:
    found = []
    for path in sorted([*DOCS.glob("*.md"), *DOCS.glob("docs/*.md")]):
        for match in _BLOCK.finditer(path.read_text()):
            line = path.read_text()[: match.start()].count("\n") + 1
            found.append((f"{path.name}:{line}", re.sub(f"^{match[1]}", "", match[2], flags=re.MULTILINE)))
    return found


def left_out(text: str) -> str:
    """What an excerpt leaves out."""
    head = "" if re.search(r"^hostname", text, re.MULTILINE) else 'hostname = "mail.example.org"\n'
    if "starttls" in text and "[tls]" not in text:
        head += 'tls = {certificate = "/etc/popgate/cert.pem", key = "/etc/popgate/key.pem"}\n'
    return head


@pytest.mark.parametrize(("place", "text"), _blocks())
def test_a_documented_example_loads(place: str, text: str) -> None:
    load_text(left_out(text) + text, place)


def test_there_are_examples() -> None:
    assert len(_blocks()) >= 3
