"""The scripted groups against Debian's Dovecot: what popgate is held to, a server of the field does."""

from collections.abc import Iterator

import pytest

from conformance.imap_groups import GROUPS, run
from support.imap_script import Group
from support.imap_site import ImapSite, dovecot_site


@pytest.fixture(scope="module")
def site() -> Iterator[ImapSite]:
    with dovecot_site() as server:
        yield server


@pytest.mark.peer("dovecot-imapd")
@pytest.mark.parametrize("group", GROUPS, ids=lambda group: group.name)
def test_group(site: ImapSite, group: Group) -> None:
    run(site, group)
