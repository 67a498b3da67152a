"""No attack case is forgotten: each is a test that carries its name, or stands in docs/attacks.md."""

import re
import subprocess
import sys
from pathlib import Path

from attacks.attack_cases import CASES

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
LISTED = ROOT / "docs/attacks.md"

_CLASSES = "|".join(sorted({str(case["class"]) for case in CASES.values()}, key=len, reverse=True))
ID = re.compile(rf"(?<![a-z])({_CLASSES})[-_](\d{{3}})(?!\d)")
RANGE = re.compile(r"`([a-z0-9-]+)-(\d{3})` to `\1-(\d{3})`")
PLACE = re.compile(r"`(tests/[\w/]+\.py)::(\w+)`")


def named_in(text: str) -> set[str]:
    """The ids in `text`; a range means those of its ids that are cases."""
    names = {f"{kind}-{number}" for kind, number in ID.findall(text)}
    for kind, first, last in RANGE.findall(text):
        names |= {f"{kind}-{number:03}" for number in range(int(first), int(last) + 1)}.intersection(CASES)
    return names


def collected() -> set[str]:
    """The cases for which pytest really has a test: named by its function or a parameter. A name in
    a comment or a list that no test uses does not count."""
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-o", "addopts=", "-p", "no:randomly", "--collect-only", "-q", HERE],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    tests = [line.partition("::")[2] for line in done.stdout.splitlines() if "::" in line]
    return set().union(*map(named_in, tests))


def rows() -> list[tuple[set[str], str]]:
    """The table rows of docs/attacks.md: the cases, and what is said of them."""
    found = []
    for line in LISTED.read_text().splitlines():
        cells = line.split("|")
        if len(cells) == 4 and named_in(cells[1]):
            found.append((named_in(cells[1]), cells[2].strip()))
    return found


def test_every_case_is_a_test_or_is_listed_and_never_both() -> None:
    played = collected()
    listed = set().union(*(names for names, _ in rows()))
    assert sorted(set(CASES) - played - listed) == [], "neither played nor listed"
    assert sorted(played & listed) == [], "a case that is played needs no excuse"
    assert sorted((played | listed) - set(CASES)) == [], "no such case"


def test_every_listed_case_has_a_reason_and_its_test_is_there() -> None:
    for names, said in rows():
        assert len(said) > 20, f"{sorted(names)}: no reason"
        for path, function in PLACE.findall(said):
            assert re.search(rf"def {function}\(", (ROOT / path).read_text()), f"{path} has no {function}"
        assert said.count("tests/") == len(PLACE.findall(said)), f"{sorted(names)}: name file and function"


def test_a_forgotten_case_is_seen() -> None:
    assert named_in("test_starttls_022_x[smtp]") == {"starttls-022"}
    assert named_in("test_maildir_010_pop3_027_odd_names") == {"maildir-010", "pop3-027"}
    assert named_in("`proxy-005` to `proxy-007`, `auth-022`, limit-9999, xauth-001") == {
        "proxy-005",
        "proxy-006",
        "proxy-007",
        "auth-022",
    }
