"""Debian's Cyrus and rsyslog as they are, with the lines of docs/cyrus.md on popgate's side."""

import contextlib
import imaplib
import os
import poplib
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from support.cyrus import PASSWORD, USER, Cyrus
from support.follow_relay import ImapFrom, by_imap, by_pop3, following, relay_code, relay_soon

pytestmark = [pytest.mark.peer("cyrus-imapd", "cyrus-pop3d", "rsyslog")]

SENDER = f"{USER}@example.org"


@pytest.fixture(scope="module")
def cyrus() -> Iterator[Cyrus]:
    with Cyrus() as cyrus:
        yield cyrus


def documented(log: Path) -> str:
    """The first [[follow]] of the page, with our log in it."""
    page = (Path(__file__).parents[2] / "docs/cyrus.md").read_text()
    block = next(text for text in re.findall(r"```toml\n(.*?)```", page, re.DOTALL) if "[[follow]]" in text)
    assert "/var/log/mail.log" in block
    return block.replace("/var/log/mail.log", str(log))


@pytest.mark.parametrize(
    ("log_in", "port", "client", "host"),
    [
        (by_pop3, "pop3_port", "127.0.6.1", "127.0.0.1"),
        (by_imap, "imap_port", "127.0.6.2", "127.0.0.1"),
        (by_imap, "imap_port", "::1", "[::1]"),
    ],
    ids=["pop3", "imap", "ipv6"],
)
def test_refused_login_accepted_lapsed_refused(
    cyrus: Cyrus, tmp_path: Path, log_in: Callable[..., None], port: str, client: str, host: str
) -> None:
    with following(tmp_path, documented(cyrus.mail_log), "window_seconds = 5", host=host) as server:
        assert relay_code(server, client, SENDER) == 550
        log_in(getattr(cyrus, port), client, USER, PASSWORD)
        relay_soon(server, client, SENDER, 250)
        assert relay_code(server, client, "somebody@example.org") == 550
        relay_soon(server, client, SENDER, 550)
        told = server.explain(client, f"(told by {cyrus.mail_log})")
        assert f"{SENDER} logged in by" in told


def test_failed_logins_grant_nothing(cyrus: Cyrus, tmp_path: Path) -> None:
    with following(tmp_path, documented(cyrus.mail_log), 'sender = "any"') as server:
        for user in (USER, "login: [127.0.6.9] dave plaintext User logged in"):
            with contextlib.suppress(poplib.error_proto, imaplib.IMAP4.error):
                by_imap(cyrus.imap_port, "127.0.6.3", f'"{user}"', "wrong")
        by_pop3(cyrus.pop3_port, "127.0.6.4", USER, PASSWORD)
        relay_soon(server, "127.0.6.4", SENDER, 250)
        for client in ("127.0.6.3", "127.0.6.9"):
            assert relay_code(server, client, SENDER) == 550


def test_an_open_session_keeps_the_grant_through_a_rotation(cyrus: Cyrus, tmp_path: Path) -> None:
    client = "127.0.6.5"
    with following(tmp_path, documented(cyrus.mail_log), "window_seconds = 5") as server:
        with ImapFrom(cyrus.imap_port, client) as session:
            session.login(USER, PASSWORD)
            relay_soon(server, client, SENDER, 250)
            # rsyslog goes on writing into the renamed file: nobody has told it
            os.rename(cyrus.mail_log, cyrus.mail_log.with_name("mail.log.1"))
            until = time.monotonic() + 9
            while time.monotonic() < until:
                assert relay_code(server, client, SENDER) == 250
                time.sleep(0.5)
        relay_soon(server, client, SENDER, 550)
        server.wait_for("follow.logout")
    os.rename(cyrus.mail_log.with_name("mail.log.1"), cyrus.mail_log)
