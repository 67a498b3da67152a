"""The environment from a directory, by the rules of envdir(8)."""

import os

_MOST_OCTETS = 65536


def read_envdir(directory: str) -> None:
    """For each file: its first line is the value of the variable of its name, without blanks at
    the end, NUL for a line end; an empty file removes the variable. Raises OSError."""
    for name in sorted(os.listdir(directory)):
        if name.startswith(".") or "=" in name:
            continue
        path = os.path.join(directory, name)
        if not os.path.isfile(path):
            continue
        with open(path, "rb") as file:
            content = file.read(_MOST_OCTETS)
        if content:
            text = content.partition(b"\n")[0].rstrip(b" \t").replace(b"\0", b"\n")
            os.environb[os.fsencode(name)] = text
        else:
            os.environ.pop(name, None)
