"""What tests of followed logs share with pytest."""

from pathlib import Path

import pytest

from followed_log import Log


@pytest.fixture
def log(tmp_path: Path) -> Log:
    return Log(tmp_path / "log")
