"""`popgate account`, on a real database and a real grant directory."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Run = Callable[..., Any]


@pytest.fixture
def alice(site: Path, run: Run) -> str:
    run("account", "add", "alice@example.org", "--password-stdin", stdin="opensesame\n")
    return "alice@example.org"


def test_add_prints_a_generated_password_once(site: Path, run: Run) -> None:
    result = run("account", "add", "scanner@example.org", "--device")
    assert result.stdout.startswith("password: ")
    password = result.stdout.split()[1]
    assert len(password) == 19 and password.count("-") == 3
    assert password not in run("account", "show", "scanner@example.org").output


def test_add_with_all_options(site: Path, run: Run, run_json: Run) -> None:
    made = run_json(
        "account", "add", "scanner@example.org", "--device", "--window", "120", "--quota-messages", "5",
        "--sender", "office@example.org", "--sender", "@example.net", "--recoverable",
        "--max-age", "3600", "--quota-recipients", "0", "--quota-bytes", "1000000",
    )  # fmt: skip
    assert made.pop("password")
    shown = run_json("account", "show", "scanner@example.org")
    assert shown == made
    assert shown["device"] and shown["recoverable"] and shown["enabled"]
    assert (shown["window_seconds"], shown["max_age_seconds"], shown["quota_messages"]) == (120, 3600, 5)
    assert (shown["quota_recipients"], shown["quota_bytes"]) == (0, 1000000)
    assert set(shown["senders"]) == {"office@example.org", "@example.net"}


def test_set_changes_what_is_named_and_nothing_else(site: Path, run: Run, run_json: Run) -> None:
    run(
        "account", "add", "scanner@example.org", "--device", "--window", "120", "--quota-messages", "5",
        "--sender", "office@example.org",
    )  # fmt: skip
    before = run_json("account", "show", "scanner@example.org")
    after = run_json(
        "account", "set", "scanner@example.org", "--window", "60", "--max-age", "600", "--quota-bytes", "0",
        "--add-sender", "@example.net",
    )  # fmt: skip
    assert after == run_json("account", "show", "scanner@example.org")
    changes = {name: after[name] for name in after if after[name] != before[name]}
    del changes["changed_at"]
    assert changes == {
        "window_seconds": 60,
        "max_age_seconds": 600,
        "quota_bytes": 0,
        "senders": ["office@example.org", "@example.net"],
    }
    run(
        "account", "set", "scanner@example.org", "--window", "site", "--quota-messages", "site", "--mailbox",
        "--remove-sender", "OFFICE@example.org",
    )  # fmt: skip
    last = run_json("account", "show", "scanner@example.org")
    assert (last["window_seconds"], last["quota_messages"], last["device"]) == (None, None, False)
    assert (last["max_age_seconds"], last["senders"]) == (600, ["@example.net"])
    text = run("account", "show", "scanner@example.org").stdout
    assert "900 s (the site's)" in text and "600 s" in text and "100 (the site's)" in text


def test_set_ends_the_grants_that_were_given_for_the_old_terms(alice: str, run: Run, run_json: Run) -> None:
    run("grant", "allow", "203.0.113.9", alice)
    assert "ended the grant" in run("account", "set", alice, "--quota-messages", "1").stderr
    assert run_json("grant", "list") == []
    run("grant", "allow", "203.0.113.9", alice)
    assert "ended" not in run("account", "set", alice, "--quota-messages", "1").stderr, "nothing has changed"
    assert len(run_json("grant", "list")) == 1


@pytest.mark.parametrize(
    "options",
    [
        (),
        ("--window", "0"),
        ("--window", "soon"),
        ("--max-age", "2592001"),
        ("--quota-recipients", "-1"),
        ("--remove-sender", "x@example.net"),
    ],
)
def test_set_refuses_what_makes_no_sense(alice: str, run: Run, options: tuple[str, ...]) -> None:
    run("account", "set", alice, *options, code=2)


def test_set_refuses_a_sender_that_is_none(alice: str, run: Run, run_json: Run) -> None:
    run("account", "set", alice, "--add-sender", "no address", code=1)
    assert run_json("account", "show", alice)["senders"] == []


@pytest.mark.parametrize(
    "name", ["../x", "a b@example.org", "@example.org", "alice@", "é@example.org", "-x@example.org"]
)
def test_names_that_no_account_can_have_are_refused(site: Path, run: Run, name: str) -> None:
    result = run("account", "add", "--password-stdin", "--", name, code=1, stdin="opensesame\n")
    assert "Traceback" not in result.output


def test_an_empty_password_is_wrong_usage(site: Path, run: Run) -> None:
    run("account", "add", "alice@example.org", "--password-stdin", code=2, stdin="\n")


def test_the_list_shows_accounts_and_aliases(alice: str, run: Run, run_json: Run) -> None:
    run("account", "alias", "sales@example.org", alice, "bob@example.net")
    text = run("account", "list").stdout
    assert alice in text and "alice@example.org, bob@example.net" in text
    assert run_json("account", "list")["aliases"] == [
        {"address": "sales@example.org", "targets": [alice, "bob@example.net"]}
    ]
    run("account", "alias", "sales@example.org", "--remove")
    assert run_json("account", "list")["aliases"] == []


def test_an_alias_wants_targets_or_its_removal(alice: str, run: Run) -> None:
    run("account", "alias", "sales@example.org", code=2)
    run("account", "alias", "sales@example.org", alice, "--remove", code=2)
    run("account", "alias", "sales@example.org", "--remove", code=1)


@pytest.mark.parametrize("command", ["show", "set", "passwd", "disable", "enable", "remove"])
def test_who_is_not_there_is_a_no(site: Path, run: Run, command: str) -> None:
    options = ("--window", "60") if command == "set" else ()
    assert "there is no account" in run("account", command, "nobody@example.org", *options, code=1).stderr


@pytest.mark.parametrize("command", ["disable", "remove", "passwd"])
def test_grant_014_ending_a_login_ends_its_grants(alice: str, run: Run, run_json: Run, command: str) -> None:
    """Attack case grant-014: an account is disabled, removed or gets a new password while its
    address has a grant; nobody else's grant is touched."""
    run("grant", "allow", "203.0.113.9", alice)
    run("grant", "allow", "203.0.113.9", "bob@example.org")
    result = run("account", command, alice)
    assert "ended the grant of alice@example.org on 203.0.113.9" in result.stderr
    assert [one["identity"] for one in run_json("grant", "list")] == ["bob@example.org"]


def test_a_disabled_account_gets_no_grant_until_enabled(alice: str, run: Run, run_json: Run) -> None:
    run("account", "disable", alice)
    assert run_json("account", "show", alice)["enabled"] is False
    assert "is disabled" in run("grant", "allow", "203.0.113.9", alice, code=1).stderr
    run("account", "enable", alice)
    run("grant", "allow", "203.0.113.9", alice)


def test_a_foreign_domain_is_worth_a_note(site: Path, run: Run) -> None:
    assert "is not one of local_domains" in run("account", "add", "x@example.net", "--device").stderr
