"""The attack cases of cases.jsonl: one JSON object a line, the first explains the fields."""

import json
import re
from pathlib import Path

_LINES = (Path(__file__).parent / "cases.jsonl").read_text("ascii").splitlines()
CASES = {case["id"]: case for case in map(json.loads, _LINES) if case["id"] != "README"}


def of_class(*names: str) -> list[str]:
    """The ids of the cases of these classes."""
    return [name for name, case in CASES.items() if case["class"] in names]


def octets(part: object, places: dict[str, str]) -> bytes:
    """The octets of one element of `send`, with the placeholders put in."""
    if isinstance(part, dict):
        repeat = part["rep"]
        return _fill(repeat["s"], places) * repeat["n"]
    assert isinstance(part, str)
    return _fill(part, places)


def _fill(text: str, places: dict[str, str]) -> bytes:
    text = re.sub(r"\{rep:(.+?)\*(\d+)\}", lambda found: found[1] * int(found[2]), text)
    for name, value in places.items():
        text = text.replace("{" + name + "}", value)
    return text.encode("latin-1")
