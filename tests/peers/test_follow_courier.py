"""Debian's Courier and rsyslog as they are, the log followed."""

import contextlib
import poplib
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from support.courier import PASSWORD, USER, Courier
from support.follow_relay import by_imap, by_pop3, following, relay_code, relay_soon

pytestmark = [pytest.mark.peer("courier-pop", "courier-imap", "openssl", "rsyslog")]


@pytest.fixture(scope="module")
def courier() -> Iterator[Courier]:
    with Courier(has_syslog=True) as courier:
        yield courier


def follow(courier: Courier) -> str:
    """What docs/courier.md says, with our log in it."""
    page = (Path(__file__).parents[2] / "docs/courier.md").read_text()
    block = next(text for text in re.findall(r"```toml\n(.*?)```", page, re.DOTALL) if "[[follow]]" in text)
    return block.replace("/var/log/mail.log", str(courier.mail_log))


@pytest.mark.parametrize(
    ("log_in", "port", "client"),
    [(by_pop3, "pop3_port", "127.0.6.11"), (by_imap, "imap_port", "127.0.6.12")],
    ids=["pop3", "imap"],
)
def test_refused_login_accepted_lapsed_refused(
    courier: Courier, tmp_path: Path, log_in: Callable[..., None], port: str, client: str
) -> None:
    with following(tmp_path, follow(courier), "window_seconds = 5") as server:
        assert relay_code(server, client, USER) == 550
        log_in(getattr(courier, port), client, USER, PASSWORD)
        relay_soon(server, client, USER, 250)
        assert relay_code(server, client, "somebody@example.org") == 550
        relay_soon(server, client, USER, 550)
        server.wait_for("follow.logout")


def test_a_failed_login_grants_nothing(courier: Courier, tmp_path: Path) -> None:
    with following(tmp_path, follow(courier), 'sender = "any"') as server:
        with contextlib.suppress(poplib.error_proto):
            by_pop3(courier.pop3_port, "127.0.6.13", USER, "wrong")
        by_pop3(courier.pop3_port, "127.0.6.14", USER, PASSWORD)
        relay_soon(server, "127.0.6.14", USER, 250)
        assert relay_code(server, "127.0.6.13", USER) == 550
