"""The main job on a started server of two workers: quotas, renewal, lapse, and what the log says."""

import poplib
import smtplib
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.popgate import Popgate

USER, PASSWORD = "scanner@example.org", "correct-horse-battery"
REMOTE = "invoices@partner.example"


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Popgate]:
    """What it relays stays in the queue, because nobody listens at its route."""
    server = Popgate(
        tmp_path / "site",
        settings='[grants]\nnever = []\n[[delivery.route]]\ndomains = ["partner.example"]\n'
        'to = "smtp://127.0.0.1:9"\n',
        workers=2,
    )
    with server:
        yield server


def log_in(site: Popgate, password: str = PASSWORD) -> poplib.POP3:
    client = poplib.POP3("127.0.0.1", site.port("pop3"), timeout=10)
    try:
        client.user(USER)
        client.pass_(password)
    except BaseException:
        client.close()
        raise
    return client


def relay(site: Popgate) -> int:
    """Relay one message; the code of the command that decided."""
    with smtplib.SMTP("127.0.0.1", site.port("smtp"), timeout=10) as client:
        client.ehlo("scanner.example.org")
        client.mail(USER)
        code = client.rcpt(REMOTE)[0]
        return client.data(b"Subject: scan\r\n\r\nx\r\n")[0] if code == 250 else code


def test_a_quota_holds_over_workers_logins_and_restarts(site: Popgate) -> None:
    site.add_account(USER, PASSWORD, "--device", "--quota-messages", "5")
    log_in(site).quit()
    assert [relay(site) for _ in range(8)] == [250] * 5 + [452] * 3
    log_in(site).quit()
    assert relay(site) == 452, "a new login does not begin the quota afresh"
    assert site.stop() == 0
    site.start()
    log_in(site).quit()
    assert relay(site) == 452
    site.command("account", "set", USER, "--quota-messages", "6")
    log_in(site).quit()
    assert [relay(site), relay(site)] == [250, 452]


@pytest.mark.slow
def test_an_accounts_own_short_window_is_renewed_while_its_session_is_open(site: Popgate) -> None:
    site.add_account(USER, PASSWORD, "--device", "--window", "4")
    session = log_in(site)
    started = time.monotonic()
    while time.monotonic() - started < 7:
        assert relay(site) == 250, f"lapsed after {time.monotonic() - started:.1f} s of an open session"
        time.sleep(0.5)
    session.quit()
    assert relay(site) == 250
    time.sleep(5.5)
    assert relay(site) == 550
    story = site.command("grant", "explain", "127.0.0.1", check=False)
    assert story.returncode == 1
    assert "lapsed" in story.stdout


def test_no_secret_is_in_the_log(site: Popgate) -> None:
    site.add_account(USER, PASSWORD)
    with pytest.raises(poplib.error_proto):
        log_in(site, "a-wrong-password")
    log_in(site).quit()
    assert relay(site) == 250
    for name in ("pop3.login.failed", "pop3.login ", "grant.allow", "smtp.relay.permitted", "smtp.accept"):
        site.wait_for(name)
    assert site.stop() == 0  # the history is written at the latest now
    kept = "".join(path.read_text() for path in (site.directory / "data/history").iterdir())
    for secret in (PASSWORD, "a-wrong-password"):
        assert secret not in site.log + kept
