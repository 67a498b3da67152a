"""The line of every key: the scanner and tomllib read the same document."""

import tomllib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from popgate.config.lines import key_lines, nearest_line
from popgate.config.schema import walk
from popgate.config.toml import to_key, to_toml

DOCUMENT = '''\
# a comment with [brackets] and key = 1
hostname = "mail.example.org"   # and "another"
domains = [ # first
  "a",      # "]"
  'b]',
  """c
  ] = [x]
  d""",
  {name = "e", "f.g" = [1,
  2]},
]
text = """
[not.a.table]
key = "no \\""" no"
""\"""
literal = \'\'\'
[[nor.this]]\'\'\'\'
date = 1979-05-27 07:32:00
a.b . c = 1
a."quoted\\u0020key".d = 2

[ grants ]
window_seconds = 900

[[listener]]
bind = "x"
[listener.extra]
deep = 1
[[listener.sub]]
one = 1
[[listener.sub]]
two = 2
[[listener]]
[[listener.sub]]
three = 3
'''


def test_every_key_has_the_line_where_it_stands() -> None:
    lines = key_lines(DOCUMENT)
    text = DOCUMENT.split("\n")
    assert lines[("hostname",)] == 2
    assert lines[("domains", 1)] == 5
    assert lines[("domains", 3, "f.g", 1)] == 10
    assert lines[("a", "b", "c")] == text.index("a.b . c = 1") + 1
    assert lines[("a", "quoted key", "d")] == text.index("a.b . c = 1") + 2
    assert lines[("grants", "window_seconds")] == text.index("window_seconds = 900") + 1
    assert lines[("listener", 0, "extra", "deep")] == text.index("deep = 1") + 1
    assert lines[("listener", 0, "sub", 1, "two")] == text.index("two = 2") + 1
    assert lines[("listener", 1, "sub", 0, "three")] == text.index("three = 3") + 1


def test_it_finds_the_keys_that_tomllib_finds_and_no_others() -> None:
    assert set(key_lines(DOCUMENT)) == {path for path, _ in walk(tomllib.loads(DOCUMENT))}


@pytest.mark.parametrize("line_end", ["\n", "\r\n"])
def test_windows_line_ends_count_once(line_end: str) -> None:
    document = line_end.join(["a = 1", "", 'b = """', "x", '"""', "c = 2"])
    assert key_lines(document)[("c",)] == 6


def test_the_nearest_line_is_that_of_the_table_around() -> None:
    lines = key_lines("[grants]\nwindow_seconds = 1\n")
    assert nearest_line(lines, ("grants", "window_secs")) == 1
    assert nearest_line(lines, ("nothing",)) == 0


NAMES = st.text("ab-_0", min_size=1, max_size=3) | st.text(
    st.characters(codec="utf-8", exclude_categories=("Cs",)), max_size=4
)
VALUES = st.recursive(
    st.booleans()
    | st.integers(-99, 99)
    | st.text(st.characters(codec="utf-8", exclude_categories=("Cs",)), max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3),
    max_leaves=6,
)


@st.composite
def documents(draw: st.DrawFn) -> str:
    """Top-level keys, tables and arrays of tables with comments and blank lines between."""
    blank = st.sampled_from(["", "\n", "# c = [1\n", '  # """\n\n'])
    names = draw(st.lists(NAMES, unique=True, min_size=1, max_size=8))
    parts = []
    kinds = [draw(st.sampled_from(["key", "table", "array"])) for _ in names]
    for kind in ("key", "table", "array"):
        for name, its_kind in zip(names, kinds, strict=True):
            if its_kind != kind:
                continue
            if kind == "key":
                parts.append(f"{to_key(name)} = {to_toml(draw(VALUES))}\n{draw(blank)}")
                continue
            for _ in range(draw(st.integers(1, 3)) if kind == "array" else 1):
                head = f"[[{to_key(name)}]]" if kind == "array" else f"[{to_key(name)}]"
                body = draw(st.dictionaries(NAMES, VALUES, max_size=3))
                lines = [f"{to_key(inner)} = {to_toml(item)}\n{draw(blank)}" for inner, item in body.items()]
                parts.append(f"{head} {draw(blank) or chr(10)}" + "".join(lines))
    return "".join(parts)


@given(documents())
def test_scanner_and_tomllib_agree_on_any_document(document: str) -> None:
    paths = {path for path, _ in walk(tomllib.loads(document))}
    lines = key_lines(document)
    assert set(lines) == paths
    text = document.split("\n")
    for path, line in lines.items():
        if isinstance(path[-1], str):
            assert to_key(path[-1]) in text[line - 1]


@given(VALUES)
def test_toml_text_reads_back_as_the_value(item: object) -> None:
    assert tomllib.loads(f"key = {to_toml(item)}")["key"] == item
