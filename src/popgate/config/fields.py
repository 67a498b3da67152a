"""The settings dataclasses seen as data: one description of each field.

The reader, the sample and the reference are all made from these, so none of them can
forget a setting.
"""

import dataclasses
import types
import typing
from collections.abc import Iterator

from popgate.config.lines import KeyPath
from popgate.values.settings import Bounds, Doc
from popgate.values.value import value


@value
class Setting:
    """One field of a settings dataclass.

    `kind` is its type without Annotated. `default` is None when the field is required.
    `table` is the dataclass behind a table or an array of tables, else None.
    """

    name: str
    kind: object
    doc: Doc
    bounds: Bounds | None
    is_required: bool
    default: object
    table: type | None
    is_array: bool

    @property
    def wants(self) -> str:
        """What a value must be, to stand after `must be`."""
        return _wants(self.kind, self.bounds)


def settings_of(cls: type) -> list[Setting]:
    """The settings of a dataclass, in order. Every field must carry a Doc."""
    hints = typing.get_type_hints(cls, include_extras=True)
    return [_setting(field, hints[field.name]) for field in dataclasses.fields(cls)]


def setting_at(cls: type, path: KeyPath) -> Setting | None:
    """The setting that `path` leads to or through, None where there is no such setting."""
    found: Setting | None = None
    for step in path:
        if isinstance(step, int):
            continue
        if found is not None:
            if found.table is None:
                return found
            cls = found.table
        found = next((setting for setting in settings_of(cls) if setting.name == step), None)
        if found is None:
            return None
    return found


def tables_of(cls: type, prefix: str = "") -> Iterator[tuple[str, Setting]]:
    """Every table below `cls`, nested ones after their parent, as (dotted name, setting)."""
    for setting in settings_of(cls):
        if setting.table is not None:
            name = prefix + setting.name
            yield name, setting
            yield from tables_of(setting.table, name + ".")


def _setting(field: "dataclasses.Field[object]", hint: object) -> Setting:
    base, *extras = typing.get_args(hint)
    doc = next(extra for extra in extras if isinstance(extra, Doc))
    bounds = next((extra for extra in extras if isinstance(extra, Bounds)), None)
    default: object = None
    is_required = False
    if field.default is not dataclasses.MISSING:
        default = field.default
    elif field.default_factory is not dataclasses.MISSING:
        default = field.default_factory()
    else:
        is_required = True
    is_array = typing.get_origin(base) is list
    inner = typing.get_args(base)[0] if is_array else base
    table = inner if isinstance(inner, type) and dataclasses.is_dataclass(inner) else None
    return Setting(
        name=field.name,
        kind=base,
        doc=doc,
        bounds=bounds,
        is_required=is_required,
        default=default,
        table=table,
        is_array=is_array and table is not None,
    )


def _wants(kind: object, bounds: Bounds | None) -> str:
    if typing.get_origin(kind) is types.UnionType:
        kind = next(part for part in typing.get_args(kind) if part is not type(None))
    if bounds is not None:
        # "whole" is said where somebody could write a fraction
        number = "" if kind is float else "a whole number, "
        unit = f" {bounds.unit}" if bounds.unit else ""
        return f"{number}{_plain(bounds.least)} to {_plain(bounds.greatest)}{unit}"
    origin = typing.get_origin(kind)
    if origin is typing.Literal:
        return "one of " + ", ".join(f'"{choice}"' for choice in typing.get_args(kind))
    if origin is list:
        inner = typing.get_args(kind)[0]
        if dataclasses.is_dataclass(inner):
            return "a table in double brackets"
        if typing.get_origin(inner) is typing.Literal:
            choices = ", ".join(f'"{choice}"' for choice in typing.get_args(inner))
            return f"a list in [brackets] of {choices}"
        return 'a list of texts, such as ["one", "two"]'
    if kind is bool:
        return "true or false"
    if kind is str:
        return 'text in "quotes"'
    if isinstance(kind, type) and dataclasses.is_dataclass(kind):
        return "a table"
    raise TypeError(f"no words for a setting of type {kind}")


def _plain(number: float) -> str:
    return str(int(number)) if number == int(number) else str(number)
