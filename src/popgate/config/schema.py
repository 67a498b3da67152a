"""Checks a TOML document against the settings dataclasses and fills them in.

The dataclasses are translated into pydantic models, because only those refuse unknown
keys and report every error at once; the dataclasses themselves stay free of pydantic,
so that servers and commands can use them without it. Types are strict: "1", 1.0 and
true are three different things, and a mistake is better named than guessed at.
"""

import dataclasses
import difflib
import functools
import types
import typing
from collections.abc import Iterator, Mapping

from pydantic import BaseModel, ConfigDict, Field, Strict, ValidationError, create_model

from popgate.config.fields import Setting, setting_at, settings_of, tables_of
from popgate.config.lines import KeyPath
from popgate.config.toml import to_toml
from popgate.values.value import value

_T = typing.TypeVar("_T")


@value
class Finding:
    """Something to tell about the value at `path`. `shows_value` is False where it is a secret
    or where there is none."""

    path: KeyPath
    message: str
    remedy: str = ""
    shows_value: bool = True


def validate(cls: type[_T], document: Mapping[str, object]) -> tuple[_T | None, list[Finding]]:
    """The settings in `document`, or None and everything that is wrong with it."""
    try:
        model = _model(typing.cast(type, cls)).model_validate(document)
    except ValidationError as error:
        found: dict[KeyPath, Finding] = {}
        for detail in error.errors(include_url=False, include_input=True, include_context=False):
            finding = _finding(cls, detail["loc"], detail["type"], detail["input"])
            found.setdefault(finding.path, finding)
        return None, list(found.values())
    return typing.cast(_T, _fill(cls, model)), []


def _finding(cls: type, path: KeyPath, kind: str, given: object) -> Finding:
    if kind == "extra_forbidden":
        return Finding(path, "there is no such setting", _meant(cls, path), shows_value=False)
    setting = setting_at(cls, path)
    if setting is None:
        return Finding(path, "is not understood", shows_value=False)
    if kind == "missing":
        example = f" = {setting.doc.example}" if setting.doc.example else ""
        return Finding(path, "is missing", f"write {setting.name}{example}", shows_value=False)
    if setting.table is not None:
        brackets = f"[[{_dotted(path)}]]" if setting.is_array else f"[{_dotted(path)}]"
        return Finding(path, "must be a table", f"head it with {brackets}", shows_value=False)
    wants = setting.wants
    if isinstance(given, int) and not isinstance(given, bool):
        wants = wants.removeprefix("a whole number, ")  # it is one
    return Finding(path, f"must be {wants}", _advice(setting, given))


def _advice(setting: Setting, given: object) -> str:
    if isinstance(given, str) and typing.get_origin(setting.kind) is typing.Literal:
        close = difflib.get_close_matches(given.lower(), typing.get_args(setting.kind), 1)
        if close:
            return f'did you mean "{close[0]}"?'
    if isinstance(given, str) and setting.bounds is not None and given.strip().isdigit():
        return f"write {setting.name} = {given.strip()} without quotes"
    if isinstance(given, str) and setting.kind is bool:
        return f"write {setting.name} = true or {setting.name} = false without quotes"
    if isinstance(given, str) and typing.get_origin(setting.kind) is list:
        return f"write {setting.name} = [{to_toml(given)}]"
    if setting.is_required or setting.default is None:
        return setting.doc.text
    return f"the default is {to_toml(setting.default)}. {setting.doc.text}"


def _meant(cls: type, path: KeyPath) -> str:
    """What the writer of an unknown key may have had in mind."""
    name = str(path[-1])
    parent = setting_at(cls, path[:-1]) if len(path) > 1 else None
    siblings = settings_of(parent.table if parent is not None and parent.table is not None else cls)
    names = [setting.name for setting in siblings]
    plain = name.lower().replace("-", "_")
    close = difflib.get_close_matches(plain, names, 1, 0.75)
    if close:
        return f"did you mean {close[0]}?"
    homes = [""] if any(setting.name == plain for setting in settings_of(cls)) else []
    tables = list(tables_of(cls))
    for table_name, table in tables:
        assert table.table is not None
        if any(setting.name == plain for setting in settings_of(table.table)):
            homes.append(f"[[{table_name}]]" if table.is_array else f"[{table_name}]")
    if homes and homes[0]:
        return f"it belongs under {' or '.join(homes)}"
    if homes:
        return "it belongs at the top of the file, before the first [table]"
    loose = difflib.get_close_matches(plain, names, 1, 0.5)
    return f"did you mean {loose[0]}?" if loose else f"known here: {', '.join(names)}"


def repaired(cls: type, document: Mapping[str, object], bad: list[KeyPath]) -> dict[str, object]:
    """A copy of `document` that validates: what is at fault is left out, and where that
    cannot be, the documented example stands in. So the other checks can still run, and
    their findings come together with those of the schema."""
    wrong = set(bad)

    def table(kind: type, given: object, path: KeyPath) -> dict[str, object]:
        source = given if isinstance(given, Mapping) else {}
        out: dict[str, object] = {}
        for setting in settings_of(kind):
            here = (*path, setting.name)
            if setting.name in source and not _is_wrong(here):
                out[setting.name] = value_of(setting, source[setting.name], here)
            elif setting.is_required:
                out[setting.name] = _stand_in(setting)
        return out

    def value_of(setting: Setting, given: object, path: KeyPath) -> object:
        if setting.table is not None:
            if isinstance(given, list):
                return [table(setting.table, item, (*path, index)) for index, item in enumerate(given)]
            return table(setting.table, given, path)
        if isinstance(given, list):
            return [item for index, item in enumerate(given) if (*path, index) not in wrong]
        return given

    def _is_wrong(path: KeyPath) -> bool:
        return path in wrong

    return table(cls, document, ())


def _stand_in(setting: Setting) -> object:
    import tomllib

    if typing.get_origin(setting.kind) is typing.Literal:
        return typing.get_args(setting.kind)[0]
    return tomllib.loads(f"example = {setting.doc.example}")["example"]


def _dotted(path: KeyPath) -> str:
    return ".".join(str(step) for step in path if not isinstance(step, int))


@functools.cache
def _model(cls: type) -> type[BaseModel]:
    fields: dict[str, typing.Any] = {}
    for setting in settings_of(cls):
        # which defaults apply is the dataclass's business: it gets only what was set
        fields[setting.name] = (
            _strict(setting.kind, setting),
            Field() if setting.is_required else Field(default=None),
        )
    return create_model(
        cls.__name__, __config__=ConfigDict(extra="forbid", protected_namespaces=()), **fields
    )


def _strict(kind: typing.Any, setting: Setting) -> typing.Any:
    if dataclasses.is_dataclass(kind):
        return _model(typing.cast(type, kind))
    origin = typing.get_origin(kind)
    if origin is list:
        return typing.Annotated[list[_strict(typing.get_args(kind)[0], setting)], Strict()]  # type: ignore[misc]
    if origin is types.UnionType:
        inner = next(part for part in typing.get_args(kind) if part is not type(None))
        return typing.Optional[_strict(inner, setting)]  # noqa: UP045
    if origin is typing.Literal:
        return kind
    limits: dict[str, typing.Any] = {"strict": True}
    if setting.bounds is not None:
        limits |= {"ge": setting.bounds.least, "le": setting.bounds.greatest}
    if kind is float:
        limits["allow_inf_nan"] = False
    return typing.Annotated[kind, Field(**limits)]


def _fill(cls: type, model: BaseModel) -> object:
    """The dataclass with what the model was given; the rest keeps its defaults."""
    given: dict[str, object] = {}
    for setting in settings_of(cls):
        if setting.name not in model.model_fields_set:
            continue
        item = getattr(model, setting.name)
        if setting.table is not None:
            table = setting.table
            item = [_fill(table, one) for one in item] if isinstance(item, list) else _fill(table, item)
        given[setting.name] = item
    return cls(**given)


def walk(document: object, path: KeyPath = ()) -> Iterator[tuple[KeyPath, object]]:
    """Every table, key and element of a TOML document with its path."""
    items: Iterator[tuple[str | int, object]] = iter(())
    if isinstance(document, Mapping):
        items = iter(document.items())
    elif isinstance(document, list):
        items = iter(enumerate(document))
    for step, item in items:
        yield (*path, step), item
        yield from walk(item, (*path, step))
