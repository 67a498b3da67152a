"""Values as TOML text; the standard library only reads it."""

_ESCAPES = {'"': '\\"', "\\": "\\\\", "\n": "\\n", "\t": "\\t", "\r": "\\r"}


def to_toml(value: object) -> str:
    """`value` (text, number, truth, list, table of these) as TOML on one line."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return '"' + "".join(_escape(char) for char in value) + '"'
    if isinstance(value, list | tuple):
        return "[" + ", ".join(to_toml(item) for item in value) + "]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{to_key(str(name))} = {to_toml(item)}" for name, item in value.items()) + "}"
    return str(value)


def to_key(name: str) -> str:
    """`name` as a key, quoted where it must be."""
    is_bare = name and name.isascii() and name.replace("-", "").replace("_", "").isalnum()
    return name if is_bare else to_toml(name)


def _escape(char: str) -> str:
    if char in _ESCAPES:
        return _ESCAPES[char]
    if ord(char) < 32 or ord(char) == 127:
        return f"\\u{ord(char):04x}"
    return char
