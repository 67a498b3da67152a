"""One installation of the programs for all tests here."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.relay_ctrl import Installed, interpreter_for_everybody

NOBODY = 65534


@pytest.fixture(scope="session")
def programs() -> Iterator[Installed]:
    installed = Installed()
    yield installed
    installed.remove()


@pytest.fixture
def open_path() -> Iterator[Path]:
    """A directory that every user can reach, unlike tmp_path."""
    path = Path(tempfile.mkdtemp(prefix="popgate-test-"))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture
def other_users() -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can be another user")
    if interpreter_for_everybody() is None:
        pytest.skip("no interpreter here that another user could start")
