"""The repository's own checkers find what they are there to find."""

from pathlib import Path

import pytest

from tools import check_events, check_rfc, fuzz, generated, habits

HEADER = "number\ttitle\tstatus\tnote\n"


def rfc_faults(root: Path, index: str, source: str) -> list[str]:
    (root / "docs/rfc").mkdir(parents=True)
    (root / "docs/rfc/index.tsv").write_text(HEADER + index)
    (root / "src").mkdir()
    (root / "src/module.py").write_text(source)
    return check_rfc.check(root)


def test_a_reference_that_the_index_knows_passes(tmp_path: Path) -> None:
    assert rfc_faults(tmp_path, "5321\tSMTP\tyes\t\n", "# RFC 5321 4.1.1.4\n") == []


@pytest.mark.parametrize(
    ("index", "source", "fault"),
    [
        ("5321\tSMTP\tyes\t\n", "# RFC 5321 4.1\n# RFC 9999 1\n", "src/module.py:2: RFC 9999 is not in"),
        ("5321\tSMTP\tyes\t\n", "# RFC 5321 4.1 todo: later\n", "src/module.py:1: todo, but"),
        ("5321\tSMTP\tyes\t\n", "# RFC 5321 4.1 todo\n", "src/module.py:1: todo, but"),
        ("5321\tSMTP\tyes\t\n", "", "RFC 5321 is yes, but no line of src refers to it"),
        ("5321\tSMTP\tpartial\tno VRFY\n", "", "RFC 5321 is partial, but no line of src refers to it"),
        ("5321\tSMTP\tpartial\t\n", "# RFC 5321\n", "partial needs a note"),
        ("5321\tSMTP\tmaybe\t\n", "# RFC 5321\n", "the status is one of yes, partial, no"),
        ("5321\tSMTP\tyes\n", "# RFC 5321\n", "four columns are needed"),
        ("5321\tSMTP\tyes\t\n1939\tPOP3\tyes\t\n", "# RFC 5321, RFC 1939\n", "sorted by number"),
    ],
)
def test_a_disagreement_about_an_rfc_is_found(tmp_path: Path, index: str, source: str, fault: str) -> None:
    assert any(fault in found for found in rfc_faults(tmp_path, index, source))


def test_an_rfc_that_we_do_not_follow_needs_no_reference_and_may_have_a_todo(tmp_path: Path) -> None:
    assert rfc_faults(tmp_path, "2033\tLMTP\tno\twe deliver ourselves\n", "# RFC 2033 4.2 todo\n") == []


@pytest.mark.parametrize(
    ("line", "is_fault"),
    [
        ("see /" + "work/main/x", True),
        ("see ../" + "shared/design", True),
        ("open('/" + "home/ann/mail')", True),
        ("/tmp/" + "x/wt/pop3", True),
        ("fetch it from py" + "pi.org", True),
        ("$HOME/work/x and ~/home/x and docs/home/x", False),
        ("/etc/popgate/popgate.toml /var/lib/popgate /run/popgate", False),
        ("https://www.rfc-editor.org/rfc/rfc5321", False),
    ],
)
def test_paths_of_one_machine_and_registries_are_found(line: str, is_fault: bool) -> None:
    assert bool(list(habits.text_faults("file", line))) is is_fault


@pytest.mark.parametrize(
    ("name", "text", "fault"),
    [
        ("src/popgate/x.py", "a = 1\n", "no docstring"),
        ("src/popgate/utils.py", '"""Things."""\n', "utils says nothing"),
        ("src/popgate/x.py", '"""Long."""\n' + "#\n" * 600, "601 lines"),
        ("src/popgate/x.py", '"""X."""\nclass GrantManager: ...\n', "class GrantManager"),
        ("src/popgate/x/__init__.py", '"""X."""\ndef f(): ...\n', "code in __init__.py"),
        ("src/popgate/x/__init__.py", '"""X."""\nif True:\n    import os\n', "code in __init__.py"),
    ],
)
def test_a_broken_habit_is_found(name: str, text: str, fault: str) -> None:
    (found,) = habits.module_faults(name, text)
    assert fault in found


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("src/popgate/x.py", '"""Long. Kept whole: one table."""\n' + "#\n" * 700),
        ("src/popgate/x/__init__.py", '"""X."""\nfrom popgate.y import z\n__all__ = ["z"]\n'),
    ],
)
def test_a_kept_habit_passes(name: str, text: str) -> None:
    assert list(habits.module_faults(name, text)) == []


def test_a_generated_file_that_is_out_of_date_is_found(tmp_path: Path) -> None:
    (tmp_path / "old.md").write_text("old")
    (tmp_path / "new.md").write_text("new")
    makers = dict.fromkeys(("old.md", "new.md", "absent.md"), lambda _root, _text: "new")
    assert generated.stale(tmp_path, makers) == {"old.md": "new", "absent.md": "new"}


def test_only_the_marked_block_is_replaced() -> None:
    text = "a\n<!-- generated: x -->\nold\n<!-- end: x -->\nb\n"
    assert generated.replace_block(text, "x", "new\n") == text.replace("old", "new")
    with pytest.raises(ValueError, match="one pair"):
        generated.replace_block(text + text, "x", "new")


def test_fuzz_targets_are_found_by_name(tmp_path: Path) -> None:
    (tmp_path / "tests/fuzz").mkdir(parents=True)
    for name in ("fuzz_smtp.py", "fuzz_lines.py", "test_fuzz_smtp.py"):
        (tmp_path / "tests/fuzz" / name).touch()
    assert [path.name for path in fuzz.targets(tmp_path)] == ["fuzz_lines.py", "fuzz_smtp.py"]


@pytest.mark.parametrize(
    ("rows", "source", "fault"),
    [
        ("| `a.b` | when | x |", 'emit("a.b")', None),
        ("| `a.b` | when | x |", 'self._emit("a.b" if x else "a.c")', "the event a.c is not in"),
        ("| `a.b` | when | x |", 'Event("a.c", 1, {"x": "a.b"})', "the event a.c is not in"),
        ("| `a.b` | when | x |", "", "no code makes the event a.b"),
        ("| `a.c` | when | x |\n| `a.b` | when | x |", 'emit("a.b")\nemit("a.c")', "sorted by name"),
        ("| `a.b` | when |", 'emit("a.b")', "a row is"),
        ("", 'open("a.txt")', None),
    ],
)
def test_an_event_without_its_row_is_found(tmp_path: Path, rows: str, source: str, fault: str | None) -> None:
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs/events.md").write_text(f"| event | when | fields |\n|---|---|---|\n{rows}\n")
    (tmp_path / "src").mkdir()
    (tmp_path / "src/module.py").write_text(source)
    found = check_events.check(tmp_path)
    assert any(fault in one for one in found) if fault else found == []


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("see `grants/rules.py`, `rules.is_live` and `Grants.allow`, `Grants.size`", None),
        ("see `grants/gone.py`", "there is no grants/gone.py"),
        ("see `Grants.gone`", "the code has no Grants.gone"),
        ("see `rules.gone`", "the code has no rules.gone"),
        ("[a](src/popgate/grants/rules.py#x) [b](https://example.org/x) [c](#c)", None),
        ("[a](docs/gone.md)", "the link leads nowhere: docs/gone.md"),
    ],
)
def test_a_document_that_names_code_that_is_gone_is_found(
    tmp_path: Path, text: str, fault: str | None
) -> None:
    grants = tmp_path / "src/popgate/grants"
    grants.mkdir(parents=True)
    (grants / "rules.py").write_text("def is_live(): ...\n")
    (grants / "service.py").write_text("class Grants:\n    size: int\n    def allow(self): ...\n")
    found = list(habits.document_faults(tmp_path, "x.md", text, habits.code_names(tmp_path)))
    assert found == ([] if fault is None else [f"x.md:1: {fault}"])
