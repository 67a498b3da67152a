"""The modules that run once a connection import next to nothing."""

import subprocess
import sys
from pathlib import Path

SOURCE = Path(__file__).parent.parent.parent / "src"


def test_the_spool_format_starts_fast() -> None:
    program = (
        f"import sys; sys.path.insert(0, {str(SOURCE)!r}); before = set(sys.modules)\n"
        "import popgate.grants.stores.spool, popgate.values.address\n"
        "print(*sorted(set(sys.modules) - before))"
    )
    done = subprocess.run([sys.executable, "-I", "-c", program], capture_output=True, text=True, check=True)
    foreign = [name for name in done.stdout.split() if not name.startswith("popgate")]
    assert set(foreign) <= {"os", "stat", "errno"}
    ours = {name for name in done.stdout.split() if name.startswith("popgate.")}
    assert ours == {
        "popgate.grants",
        "popgate.grants.stores",
        "popgate.grants.stores.spool",
        "popgate.values",
        "popgate.values.address",
        "popgate.values.identity",
    }
