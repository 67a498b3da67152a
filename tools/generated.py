"""Files that are made from the code: `--check` says which are out of date, `--write` makes them anew.

A generator takes the root of the repository and the present text and returns what the text must be,
so that a file may be generated whole or in one marked block only.
"""

import sys
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path

from popgate.cli.manual import manual
from popgate.config.reference import reference
from popgate.config.sample import sample
from popgate.integrations.logs import shipped

Generator = Callable[[Path, str], str]


def replace_block(text: str, name: str, block: str) -> str:
    """Put `block` between the lines `<!-- generated: NAME -->` and `<!-- end: NAME -->`.

    Raises ValueError when the text does not have exactly one such pair.
    """
    begin, end = f"<!-- generated: {name} -->\n", f"<!-- end: {name} -->"
    if text.count(begin) != 1 or text.count(end) != 1 or text.index(begin) > text.index(end):
        raise ValueError(f"one pair of the marks {begin.strip()} and {end} is needed")
    before, _, rest = text.partition(begin)
    _, _, after = rest.partition(end)
    return f"{before}{begin}{block.rstrip()}\n{end}{after}"


def layers(root: Path, text: str) -> str:
    """ARCHITECTURE.md shows the layers that import-linter holds."""
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))
    contracts = project["tool"]["importlinter"]["contracts"]
    (lines,) = (contract["layers"] for contract in contracts if contract["id"] == "layers")
    return replace_block(text, "layers", "```\n" + "\n".join(lines) + "\n```")


def log_patterns(_root: Path, text: str) -> str:
    """docs/logs.md lists the patterns that are shipped."""
    rows = ["| name | server | versions | logouts | syntax | form known from |", "|---|---|---|---|---|---|"]
    for pattern in shipped().values():
        logouts = "yes" if pattern.tells_logouts else "no"
        known = f"{pattern.known_from}: {pattern.source}"
        cells = (f"`{pattern.name}`", pattern.title, pattern.versions, logouts, pattern.syntax, known)
        rows.append(f"| {' | '.join(cells)} |")
    return replace_block(text, "log patterns", "\n".join(rows))


def launcher(name: str) -> Generator:
    """One of relay-ctrl's programs, as it is installed."""

    def generate(root: Path, _text: str) -> str:
        text = (root / "scripts/launcher.sh").read_text(encoding="utf-8")
        return text.replace("@NAME@", name).replace("@MODULE@", name.removeprefix("relay-ctrl-"))

    return generate


_LAUNCHED = [f"relay-ctrl-{word}" for word in ("allow", "check", "age", "chdir", "send", "udp")]

GENERATORS: Mapping[str, Generator] = {
    "ARCHITECTURE.md": layers,
    "docs/command-line.md": lambda _root, _text: manual(),
    "docs/logs.md": log_patterns,
    "docs/popgate.toml.sample": lambda _root, _text: sample(),
    "docs/settings.md": lambda _root, _text: reference(),
    **{f"scripts/{name}": launcher(name) for name in _LAUNCHED},
}


def stale(root: Path, generators: Mapping[str, Generator]) -> dict[str, str]:
    """The files that are out of date, each with the text that it must have."""
    texts = {}
    for name, generate in generators.items():
        path = root / name
        present = path.read_text(encoding="utf-8") if path.exists() else ""
        wanted = generate(root, present)
        if wanted != present:
            texts[name] = wanted
    return texts


def main(arguments: list[str]) -> int:
    """Exit status 1 when `--check` found a file out of date."""
    if arguments not in (["--check"], ["--write"]):
        print("usage: python -m tools.generated --check | --write", file=sys.stderr)
        return 2
    root = Path.cwd()
    texts = stale(root, GENERATORS)
    for name, text in texts.items():
        if arguments == ["--write"]:
            (root / name).write_text(text, encoding="utf-8")
            print(f"{name}: written")
        else:
            print(f"{name}: out of date; make fix writes it")
    return 1 if texts and arguments == ["--check"] else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
