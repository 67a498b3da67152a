"""Files made from the program are up to date: `python -m tools.check_generated [--write]`."""

import pathlib
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "src"))


def generated() -> dict[str, str]:
    """Path below the repository and what the file must hold."""
    from popgate.config.reference import reference
    from popgate.config.sample import sample

    return {"docs/settings.md": reference(), "docs/popgate.toml.sample": sample()}


def stale() -> list[str]:
    """The generated files that differ from what the program would write."""
    found = []
    for name, text in generated().items():
        path = ROOT / name
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            found.append(name)
    return found


def main() -> int:
    names = stale()
    if "--write" in sys.argv[1:]:
        for name in names:
            (ROOT / name).parent.mkdir(parents=True, exist_ok=True)
            (ROOT / name).write_text(generated()[name], encoding="utf-8")
            print(f"wrote {name}")
        return 0
    for name in names:
        print(f"{name} is not up to date: python -m tools.check_generated --write", file=sys.stderr)
    return 1 if names else 0


if __name__ == "__main__":
    raise SystemExit(main())
