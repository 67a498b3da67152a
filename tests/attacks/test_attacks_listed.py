"""No attack case is forgotten: each is played by a test, or docs/attacks.md says why not."""

import re
from pathlib import Path

from attacks.attack_cases import CASES, of_class
from attacks.test_attacks_smtp import PLAYED

HERE = Path(__file__).parent
ID = re.compile(r"\b([a-z][a-z0-9-]*?)[-_](\d{3})(?!\d)")
RANGE = re.compile(r"`([a-z0-9-]+)-(\d{3})` to `\1-(\d{3})`")


def named_in(text: str) -> set[str]:
    names = {f"{kind}-{number}" for kind, number in ID.findall(text.replace("test_", ""))}
    for kind, first, last in RANGE.findall(text):
        names |= {f"{kind}-{number:03}" for number in range(int(first), int(last) + 1)}
    return names


def test_every_case_is_played_or_listed() -> None:
    known = set(PLAYED) | set(of_class("ip", "name", "smug-in", "maildir", "pop3", "apop"))
    for path in HERE.glob("test_*.py"):
        known |= named_in(path.read_text())
    known |= named_in((HERE.parent.parent / "docs/attacks.md").read_text())
    assert sorted(set(CASES) - known) == []


def test_a_forgotten_case_is_seen() -> None:
    assert named_in("`proxy-002` to `proxy-004`, def test_grant_012_it_lapses, `auth-022`") == {
        "proxy-002",
        "proxy-003",
        "proxy-004",
        "grant-012",
        "auth-022",
    }
