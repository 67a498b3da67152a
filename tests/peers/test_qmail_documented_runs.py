"""The run scripts of docs/qmail.md start the services they are for, under supervise and under runit's chpst,
with no change but places and ports."""

import re
from pathlib import Path

import pytest

from integrations.test_qmail_documented import files
from support import peers
from support.qmail_site import QmailSite, running

pytestmark = [pytest.mark.peer("ucspi-tcp", "daemontools")]


@pytest.fixture(scope="module", autouse=True)
def _as_root() -> None:
    peers.require_root("ucspi-tcp")


def here(script: str) -> str:
    """A documented script in the terms of QmailSite."""
    text = script.replace("{", "{{").replace("}", "}}")
    text = re.sub(r"(?<=\s)(0|::) (25|110)(?=\s)", "{host} {port}", text)
    text = re.sub(r"`id -[ug] qmaild`", "{qmaild}", text)
    text = text.replace("/var/qmail/bin/", "").replace("/var/qmail/", "{root}/qmail/")
    return text.replace("/etc/", "{root}/etc/")


@pytest.mark.parametrize("heading", ["Way A: the commands", "popgate tcpserver", "runit"])
def test_login_then_mail(heading: str) -> None:
    if heading == "runit":
        peers.require("runit")
    scripts = {Path(path).parent.name: text for path, text in files(heading).items() if "/log/" not in path}
    smtp, pop3 = here(scripts["qmail-smtpd"]), here(scripts["qmail-pop3d"])
    client = "127.0.5.1"
    with running(QmailSite(smtp_run=smtp, pop3_run=pop3)) as site:
        assert not site.may_relay(client)
        site.log_in(client)
        assert "login alice@example.org\n" in site.send(client)
        site.make_older(client, 901)
        assert not site.may_relay(client)
