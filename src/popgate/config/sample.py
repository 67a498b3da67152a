"""Writes popgate.toml with every setting explained; for `config sample` and for `init`.

Settings that were given are written plainly, all others as comments with their
defaults, so that the file shows what there is without changing anything.
"""

import textwrap
import typing
from collections.abc import Mapping, Sequence

from popgate.config.fields import Setting, settings_of
from popgate.config.settings import Config
from popgate.config.toml import to_toml

_WIDTH = 92
_HEAD = """\
# popgate: POP before SMTP. Lines that begin with # are comments; a setting that is
# commented out has the value that stands there, unless an example is announced.
# `popgate config check` tells whether the file is right, `popgate config reference`
# prints all settings as a table.
"""

SAMPLE: Mapping[str, object] = {
    "hostname": "mail.example.org",
    "data_dir": "/var/lib/popgate",
    "local_domains": ["example.org"],
    "user": "popgate",
    "listener": [
        {"service": "smtp", "bind": "0.0.0.0:25", "tls": "starttls"},
        {"service": "submission", "bind": "0.0.0.0:587", "tls": "starttls"},
        {"service": "submission", "bind": "0.0.0.0:465", "tls": "implicit"},
        {"service": "pop3", "bind": "0.0.0.0:110", "tls": "starttls"},
        {"service": "pop3", "bind": "0.0.0.0:995", "tls": "implicit"},
        {"service": "imap", "bind": "0.0.0.0:143", "tls": "starttls"},
        {"service": "imap", "bind": "0.0.0.0:993", "tls": "implicit"},
    ],
    "tls": {"certificate": "/etc/popgate/tls/cert.pem", "key": "/etc/popgate/tls/key.pem"},
}
"""What `popgate config sample` shows: a mail server on the usual ports."""


def sample(given: Mapping[str, object] = SAMPLE) -> str:
    """A commented popgate.toml with the values of `given`, which is shaped like the document."""
    blocks = [_HEAD]
    settings = settings_of(Config)
    blocks += [_entry(setting, given) for setting in settings if setting.table is None]
    for setting in settings:
        if setting.table is not None:
            blocks += _table(setting, setting.name, given.get(setting.name))
    return "\n".join(blocks)


def _table(setting: Setting, name: str, given: object) -> list[str]:
    if setting.is_array:
        return _array(setting, name, typing.cast(Sequence[Mapping[str, object]], given or ()))
    values = typing.cast(Mapping[str, object], given or {})
    assert setting.table is not None
    blocks = ["\n" + _comment(setting.doc.text) + f"[{name}]\n"]
    inner = settings_of(setting.table)
    blocks += [_entry(one, values) for one in inner if one.table is None]
    for one in inner:
        if one.table is not None:
            blocks += _table(one, f"{name}.{one.name}", values.get(one.name))
    return blocks


def _array(setting: Setting, name: str, given: Sequence[Mapping[str, object]]) -> list[str]:
    """The first element is explained whole, the others only hold what was given."""
    assert setting.table is not None
    inner = settings_of(setting.table)
    if not given:
        examples = "".join(f"#{one.name} = {one.doc.example}\n" for one in inner if one.is_required)
        notes = "".join(_comment(f"{one.name}: {one.doc.text}") for one in inner)
        return ["\n" + _comment(setting.doc.text) + notes + f"#[[{name}]]\n{examples}"]
    blocks = ["\n" + _comment(setting.doc.text) + f"[[{name}]]\n"]
    blocks += [_entry(one, given[0]) for one in inner]
    for element in given[1:]:
        lines = "".join(f"{key} = {to_toml(item)}\n" for key, item in element.items())
        blocks.append(f"[[{name}]]\n{lines}")
    return blocks


def _entry(setting: Setting, given: Mapping[str, object]) -> str:
    note = _comment(setting.doc.text)
    if setting.bounds is not None or typing.get_origin(setting.kind) is typing.Literal:
        note += f"# {setting.wants[:1].upper()}{setting.wants[1:]}.\n"
    if setting.name in given:
        return f"{note}{setting.name} = {to_toml(given[setting.name])}\n"
    if setting.doc.example and not setting.is_required and not setting.default:
        return f"{note}# Not set. An example:\n#{setting.name} = {setting.doc.example}\n"
    return f"{note}#{setting.name} = {to_toml(setting.default)}\n"


def _comment(text: str) -> str:
    return textwrap.fill(text, _WIDTH, initial_indent="# ", subsequent_indent="# ") + "\n"
