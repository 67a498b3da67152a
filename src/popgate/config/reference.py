"""Writes docs/settings.md: every setting with its type, default and meaning."""

import typing

from popgate.config.fields import Setting, settings_of, tables_of
from popgate.config.settings import Config
from popgate.config.toml import to_toml

_HEAD = """\
# Settings

Every setting of `popgate.toml`. This page is made from the program by
`popgate config reference`; `popgate config sample` prints the same as a commented file.

The file is the one that `--config FILE` names, else `$POPGATE_CONFIG`, else `./popgate.toml`,
else `/etc/popgate/popgate.toml`. `--set KEY=VALUE` overrides one setting for one run:
`--set grants.window_seconds=120`, `--set listener.0.bind=127.0.0.1:2525`.
A relative path is below `data_dir`.
"""


def reference() -> str:
    """The page as Markdown."""
    parts = [_HEAD, "## Top of the file\n\n" + _rows(settings_of(Config))]
    for name, table in tables_of(Config):
        assert table.table is not None
        brackets = f"[[{name}]]" if table.is_array else f"[{name}]"
        parts.append(f"## {brackets}\n\n{table.doc.text}\n\n{_rows(settings_of(table.table))}")
    return "\n".join(parts)


def _rows(settings: list[Setting]) -> str:
    rows = ["| setting | value | default | meaning |", "|---|---|---|---|"]
    for setting in settings:
        if setting.table is not None:
            continue
        cells = (f"`{setting.name}`", setting.wants, _default(setting), _meaning(setting))
        rows.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(rows) + "\n"


def _default(setting: Setting) -> str:
    if setting.is_required:
        return "must be given"
    return "by service" if setting.default is None else f"`{to_toml(setting.default)}`"


def _meaning(setting: Setting) -> str:
    example = setting.doc.example
    if not example or (not setting.is_required and example == to_toml(setting.default)):
        return setting.doc.text
    if typing.get_origin(setting.kind) is typing.Literal:
        return setting.doc.text
    return f"{setting.doc.text} Example: `{example}`"
