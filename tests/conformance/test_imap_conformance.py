"""The scripted groups against a started popgate."""

from collections.abc import Iterator

import pytest

from conformance.imap_groups import GROUPS, run
from support.imap_script import Group
from support.imap_site import ImapSite, popgate_site


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ImapSite]:
    with popgate_site(tmp_path_factory.mktemp("imap") / "site") as server:
        yield server


@pytest.mark.parametrize("group", GROUPS, ids=lambda group: group.name)
def test_group(site: ImapSite, group: Group) -> None:
    run(site, group)
