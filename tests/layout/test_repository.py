"""The repository keeps the habits that no import contract can hold.

`make check` runs the same checkers; here they guard whoever only runs the tests.
"""

import re
from pathlib import Path

from tools import check_events, check_rfc, generated, habits

ROOT = Path(__file__).parents[2]


def test_every_rfc_that_the_code_names_is_in_the_index_and_the_other_way_round() -> None:
    assert check_rfc.check(ROOT) == []


def test_every_event_has_its_row() -> None:
    assert check_events.check(ROOT) == []


def test_modules_documents_and_paths_keep_the_habits() -> None:
    assert habits.check(ROOT) == []


def test_generated_files_are_up_to_date() -> None:
    assert generated.stale(ROOT, generated.GENERATORS) == {}


def test_every_decision_is_listed_and_short() -> None:
    directory = ROOT / "docs/decisions"
    listed = re.findall(r"\]\(([^)]+)\)", (directory / "README.md").read_text())
    records = sorted(path.name for path in directory.glob("[0-9]*.md"))
    assert sorted(listed) == records
    assert len({name[:4] for name in records}) == len(records), "a number stands for one record"
    for name in records:
        text = (directory / name).read_text()
        assert text.startswith(f"# {name[:4]}: "), name
        for heading in ("## Context", "## Choice", "## Cost", "## What would change our mind"):
            assert heading in text, f"{name} has no {heading}"
        assert len(text.splitlines()) <= 60, name


def test_the_recipes_of_the_readme_exist() -> None:
    recipes = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for name in ("README.md", "CONTRIBUTING.md"):
        wanted = set(re.findall(r"^make ([a-z]+)", (ROOT / name).read_text(), re.MULTILINE))
        assert wanted, name
        assert wanted <= recipes
