"""Whatever stands in the file, loading gives a configuration or a ConfigError that can be read."""

import contextlib
from collections.abc import Mapping
from typing import Any

from hypothesis import example, given
from hypothesis import strategies as st

from popgate.config import Config, ConfigError, Loaded
from popgate.config.fields import settings_of
from popgate.config.load import load_bytes
from popgate.config.toml import to_key, to_toml

TEXT = st.text(st.characters(codec="utf-8", exclude_categories=("Cs",)), max_size=12)
HINTS = st.sampled_from(
    ["", ":", "unix:", "fd:x", "127.0.0.1:0", "[::1]:25", "::/0", "0.0.0.0/0", "192.0.2.1/24", "memory:",
     "directory:", "directory:x", "passwd_file:", "passwd_file:u", "checkpassword:x", "accounts", "smtp://h",
     "smtp://u:p@h:99999", "mx:", "smtps://[::1", "starttls", "smtp", "pop3", "example.org", "a@b", "\0"]
)  # fmt: skip
SCALARS = TEXT | HINTS | st.booleans() | st.integers() | st.floats()


def documents_of(cls: type) -> st.SearchStrategy[dict[str, object]]:
    """Documents with the known keys and any values, and some unknown keys."""
    fields: dict[str, st.SearchStrategy[Any]] = {}
    for setting in settings_of(cls):
        likely = st.lists(HINTS | SCALARS, max_size=3) | SCALARS | st.just(setting.default)
        if setting.table is not None:
            table = documents_of(setting.table)
            likely = st.lists(table, max_size=3) if setting.is_array else table
            likely = likely | SCALARS | st.lists(SCALARS, max_size=2)
        fields[setting.name] = likely.filter(lambda item: item is not None)
    known = st.fixed_dictionaries({}, optional=fields)
    return st.tuples(known, st.dictionaries(TEXT, SCALARS, max_size=1)).map(lambda two: {**two[1], **two[0]})


def as_document(table: Mapping[str, object]) -> str:
    return "".join(f"{to_key(name)} = {to_toml(item)}\n" for name, item in table.items())


def attempt(text: str, *overrides: str) -> Loaded | None:
    try:
        return load_bytes(text.encode(), "popgate.toml", overrides)
    except ConfigError as error:
        assert error.problems
        for problem in (*error.problems, *error.warnings):
            assert problem.message
            assert problem.file in ("popgate.toml", "--set")
            assert problem.line <= text.count("\n") + 1
            assert "\n" not in str(problem)
        return None


@given(documents_of(Config))
@example({"listener": [{"service": "pop3"}], "delivery": {"route": [{}]}})
@example({"a\nb": 1, "grants": {"\x1b[31m": 2}})
@example({"hostname": "a.example", "grants": [], "tls": [{}], "listener": {}})
def test_any_document_is_accepted_or_explained(document: dict[str, object]) -> None:
    loaded = attempt(as_document(document))
    if loaded is not None:
        assert loaded.config.data_dir.startswith("/")
        for listener in loaded.config.listener:
            assert listener.relay_by is not None


@given(st.binary(max_size=200))
@example(b"\xff")
@example(b"a = 1979-13-40")
@example(b"a = " + b"9" * 5000)
@example(b"\xef\xbb\xbf")
@example(b"a = 0x" + b"f" * 5000)
def test_any_bytes_are_accepted_or_explained(data: bytes) -> None:
    with contextlib.suppress(ConfigError):
        load_bytes(data, "popgate.toml", check_files=False)


@given(
    st.lists(st.text(max_size=30) | st.from_regex(r"[a-z_.0-9]{1,20}=.{0,10}", fullmatch=True), max_size=3)
)
@example(["listener.0=1", "listener.0.bind=x"])
@example(["listener.99999999999999999999=1"])
@example(["tls.0=1"])
@example(["a\nb=1"])
@example(["a.0=1", "a.x=1\n\n"])
@example(["grants=1", "grants.who=all"])
def test_any_overrides_are_accepted_or_explained(overrides: list[str]) -> None:
    attempt('hostname = "mail.example.org"\n', *overrides)
