"""The groups of tests/conformance/imap, for the tests that run them against one server or another."""

from pathlib import Path

import pytest

from support.imap_script import Group, Script, read_groups, read_messages
from support.imap_site import ImapSite

HERE = Path(__file__).resolve().parent
GROUPS = read_groups(HERE / "imap")
MESSAGES = read_messages(HERE / "messages.txt")


def run(site: ImapSite, group: Group) -> None:
    if reason := Script(site, group, MESSAGES).run():
        pytest.skip(reason)
