"""The reader of run scripts, alone and against the real sh."""

import re
import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from popgate.integrations.qmail.chain import follow
from popgate.integrations.qmail.machine import Machine
from popgate.integrations.qmail.shell import Output, Text, Variable, Word, read


def shown(word: Word) -> str:
    """A word with its quoted parts in [], its variables and outputs marked."""
    pieces = []
    for part in word.parts:
        match part:
            case Text(text, is_quoted):
                piece = text
            case Variable(name, is_quoted, default):
                piece = f"${name}" + ("" if default is None else f":{default}")
            case Output(command, is_quoted):
                piece = f"`{command}`"
        pieces.append(f"[{piece}]" if is_quoted else piece)
    return "".join(pieces)


def commands(source: str) -> list[list[str]]:
    return [
        [*(f"{one.name}={shown(one.word)}" for one in command.assignments), *map(shown, command.words)]
        for command in read(source).commands
    ]


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("a b\tc # d", [["a", "b", "c"]]),
        ("a#b", [["a#b"]]),
        ("a 'b c' \"d $e\" f\\ g", [["a", "[b c]", "[d ][$e]", "f[ ]g"]]),
        ("a''b", [["a[]b"]]),
        ('a ""', [["a", "[]"]]),
        ("X=1 Y=$Z a X=2", [["X=1", "Y=$Z", "a", "X=2"]]),
        ("X=`id -u a`; export X", [["X=`id -u a`"], ["export", "X"]]),
        ("X=$(id -u a)\na ${X} ${Y:-z}", [["X=`id -u a`"], ["a", "$X", "$Y:z"]]),
        ("a \\\n  b 2>&1 >>log 10>x <in", [["a", "b"]]),
        ("a 110 >x", [["a", "110"]]),
        ("a & b && c || d | e", [["a"], ["b"], ["c"], ["d"], ["e"]]),
        ("if a; then b; else c; fi", [["a"], ["b"], ["c"]]),
        ("while a; do b; done", [["a"], ["b"]]),
        ("for x in 1 2; do a $x; done", [["x=[\ufffc]"], ["a", "$x"]]),
        ("case $x in a|b) c ;; (d) e;; esac; f", [["c"], ["e"], ["f"]]),
        ("f() { a; }\nf", [["f"], ["a"], ["f"]]),
        ("( a; b )", [["a"], ["b"]]),
        ("cat <<E >x\nexec 'not a quote\nE\na", [["cat"], ["a"]]),
        ("cat <<-'E'\n\t$(\n\tE\na", [["cat"], ["a"]]),
        ("a $1 $@ $$ $", [["a", "[\ufffc]", "[\ufffc]", "[\ufffc]", "$"]]),
        ("a `b \\`c\\``", [["a", "`b `c``"]]),
        ("a $(b ')' \")\" $(c))", [["a", "`b ')' \")\" $(c)`"]]),
    ],
)
def test_commands(source: str, expected: list[list[str]]) -> None:
    assert commands(source) == expected
    assert read(source).flaws == ()


def test_lines_of_words() -> None:
    words = read("\n# x\na \\\n b 'c\nd' e\n").commands[0].words
    assert [word.line for word in words] == [3, 4, 4, 5]


@pytest.mark.parametrize(
    "source", ["a '", "a\nb '\n", 'a "b', "a `b", "a $(b", "a ${b", "'a' 'b", 'a "$(b "c""', "X='"]
)
def test_open_quotes_are_flaws_for_sh_too(source: str) -> None:
    assert [flaw.kind for flaw in read(source).flaws] == ["quote"]
    assert subprocess.run(["/bin/sh", "-n"], input=source.encode(), capture_output=True).returncode != 0


_PIECES = st.sampled_from(
    [
        "a",
        "exec",
        " ",
        " ",
        "\n",
        "'",
        '"',
        "\\",
        "\\\n",
        "$A",
        "${A",
        "}",
        "$(",
        ")",
        "`",
        "#",
        ";",
        "=",
        "2>&1",
        "|",
    ]
)


@given(st.lists(_PIECES, max_size=12).map("".join))
def test_whatever_comes_is_read(source: str) -> None:
    """It never raises, and where it sees an open quote, sh does not run the script either."""
    script = read(source)
    follow(Machine("/nonexistent"), "/run", source, "/", {})
    if any(flaw.kind == "quote" for flaw in script.flaws):
        checked = subprocess.run(["/bin/sh", "-n"], input=source.encode(), capture_output=True)
        assert checked.returncode != 0 or re.search(rb"\$\{|`", source.encode()), source


@given(st.text(max_size=200))
def test_any_text_is_read(source: str) -> None:
    """It never raises."""
    follow(Machine("/nonexistent"), "/run", source, "/", {})


def test_shells_within_shells_end() -> None:
    source = "sh -c true"
    for _ in range(20):
        source = 'sh -c "' + source.replace("\\", "\\\\").replace('"', '\\"') + '"'
        if len(source) > 100_000:
            break
    follow(Machine("/nonexistent"), "/run", source, "/", {})
