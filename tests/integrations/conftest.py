"""What tests of other people's servers share with pytest."""

from pathlib import Path

import pytest

from support.qmail_host import QmailHost


@pytest.fixture
def host(tmp_path: Path) -> QmailHost:
    """A host with the recipe's scripts."""
    return QmailHost(tmp_path)
