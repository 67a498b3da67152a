"""What contract tests of grants share with pytest."""

from pathlib import Path

import pytest


@pytest.fixture
def allow(tmp_path: Path) -> Path:
    """A directory for grants."""
    path = tmp_path / "allow"
    path.mkdir(0o700)
    return path
