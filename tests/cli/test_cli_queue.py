"""`popgate queue`, on a real queue."""

import asyncio
import inspect
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from popgate.app import backends
from popgate.app.clock import SystemClock
from popgate.config import load
from popgate.queue.queue import Envelope, Recipient, raised
from popgate.values.address import ClientAddress
from popgate.values.mail import MailAddress

Run = Callable[..., Any]
CLIENT = ClientAddress.parse("203.0.113.9")


async def put(site: Path, sender: str | None, recipients: tuple[str, ...], body: bytes) -> str:
    """Accept one message as a server would."""
    config = load(str(site / "popgate.toml"), check_files=False).config
    queue = backends.queue(config, SystemClock(), lambda event: None)
    incoming = queue.receive()
    written = incoming.write(body)
    if written is not None:
        await written
    await incoming.commit(
        Envelope(
            None if sender is None else MailAddress(*sender.split("@")),
            tuple(Recipient(MailAddress(*to.split("@")), False) for to in recipients),
            CLIENT,
            identity="" if sender is None else sender,
            session="s1",
            helo="printer",
        ),
        raised,
    )
    closing = queue.close()
    if inspect.isawaitable(closing):
        await closing
    return incoming.queue_id


@pytest.fixture
def queued(site: Path) -> str:
    """The id of a message to two recipients."""
    body = b"Subject: hello\r\nX-Evil: \x1b[2J\r\n\r\nbody\r\n"
    return asyncio.run(put(site, "alice@example.org", ("bob@example.net", "carol@example.com"), body))


def test_an_empty_queue_is_no_error(site: Path, run: Run, run_json: Run) -> None:
    assert "no message waits" in run("queue", "list").stderr
    assert run_json("queue", "list") == []
    assert "there is none" in run("queue", "retry", "--all").stderr
    run("queue", "show", "AAAA", code=1)


def test_list_and_show(queued: str, run: Run, run_json: Run) -> None:
    line = run("queue", "list").stdout.splitlines()[1]
    assert line.startswith(queued)
    assert "alice@example.org" in line and "bob@example.net and 1 more" in line
    (listed,) = run_json("queue", "list")
    assert listed["id"] == queued
    assert [one["address"] for one in listed["recipients"]] == ["bob@example.net", "carol@example.com"]
    assert run_json("queue", "show", queued) == listed
    text = run("queue", "show", queued).stdout
    assert "203.0.113.9 (printer)" in text and "carol@example.com" in text


def test_filters_and_pages(site: Path, queued: str, run_json: Run) -> None:
    bounce = asyncio.run(put(site, None, ("dave@example.net",), b"\r\n"))

    def ids(*options: str) -> list[str]:
        return [one["id"] for one in run_json("queue", "list", *options)]

    assert ids() == [queued, bounce]
    assert ids("--domain", "example.com") == [queued]
    assert ids("--sender", "") == [bounce]
    assert ids("--sender", "alice@example.org") == [queued]
    assert ids("--most", "1") == [queued]
    assert ids("--after", queued) == [bounce]
    assert ids("--held") == []


def test_the_message_itself(queued: str, run: Run) -> None:
    assert run("queue", "show", queued, "--content").stdout_bytes.endswith(b"\x1b[2J\r\n\r\nbody\r\n")
    header = run("queue", "show", queued, "--header").stdout
    assert "Subject: hello" in header and "body" not in header
    assert "\x1b" not in header
    assert json.loads(run("queue", "show", queued, "--header", "--json").stdout)["header"].startswith(
        "Subject"
    )


def test_hold_release_retry_and_remove(queued: str, run: Run, run_json: Run) -> None:
    run("queue", "hold", queued)
    (held,) = run_json("queue", "list", "--held")
    assert held["held"] and {one["state"] for one in held["recipients"]} == {"held"}
    assert " held " in run("queue", "list").stdout
    run("queue", "retry", queued, code=1)
    assert queued in run("queue", "release", "--all").stderr
    assert run_json("queue", "list", "--held") == []
    run("queue", "retry", queued)
    run("queue", "remove", queued)
    assert run_json("queue", "list") == []


@pytest.mark.parametrize("command", ["retry", "hold", "release", "remove", "show"])
@pytest.mark.parametrize("name", ["NOSUCHID", "../x", "é", "0", "\x1b[2J"])
def test_ids_that_are_none(queued: str, run: Run, command: str, name: str) -> None:
    result = run("queue", command, "--", name, code=1)
    assert "\x1b" not in result.output


def test_all_or_some_but_not_both(queued: str, run: Run) -> None:
    for command in ("retry", "release"):
        run("queue", command, code=2)
        run("queue", command, queued, "--all", code=2)
    run("queue", "list", "--after", "!", code=2)
