"""Delivery to a smart host, against a peer that keeps every octet."""

import asyncio
import json
import ssl
from pathlib import Path

import pytest
import trustme

from popgate.queue.queue import Recipient
from popgate.values.mail import MailAddress
from support.queue_site import QueueSite
from support.smtp_peer import SmtpPeer, Transaction


def smarthost(peer: SmtpPeer, scheme: str = "smtp", login: str = "") -> str:
    return f"{scheme}://{login}127.0.0.1:{peer.port}"


async def test_a_message_goes_out_as_it_came_in(tmp_path: Path) -> None:
    body = b"Subject: x\r\n\r\n.\r\n..\r\n.dots\r\nlast line\r\n"
    async with SmtpPeer() as peer, QueueSite(tmp_path, smarthost=smarthost(peer)) as site:
        name = await site.send("you@example.net", body=body, identity="me@example.org", session="s7")
        (event,) = await site.wait_for("delivery.sent")
        await site.until_empty()
    (transaction,) = peer.transactions
    assert transaction.content == body
    assert transaction.body == b"Subject: x\r\n\r\n..\r\n...\r\n..dots\r\nlast line\r\n"
    assert transaction.mail == f"MAIL FROM:<me@example.org> SIZE={len(body)}"
    assert transaction.rcpts == ["RCPT TO:<you@example.net>"]
    assert peer.commands[0] == "EHLO mail.example.org"
    assert event.fields["queue_id"] == name
    assert event.fields["identity"] == "me@example.org"
    assert event.fields["session"] == "s7"
    assert event.fields["recipient"] == "you@example.net"
    assert event.fields["reason"] == "250 2.0.0 taken"


async def test_a_large_message_comes_from_its_file(tmp_path: Path) -> None:
    body = b"Subject: x\r\n\r\n" + b"0123456789abcdef" * 4 * 5000 + b"\r\n"
    async with SmtpPeer() as peer, QueueSite(tmp_path, smarthost=smarthost(peer)) as site:
        await site.send("you@example.net", body=body)
        await site.wait_for("delivery.sent")
        await site.until_empty()
        await site.until(lambda: not list((tmp_path / "bodies").iterdir()))
    assert peer.transactions[0].content == body


async def test_recipients_share_a_transaction_and_are_judged_one_by_one(tmp_path: Path) -> None:
    def answer(line: str) -> str | None:
        if "no@" in line:
            return "550 5.1.1 no such\x1b[2J user"
        return "450 4.2.1 later" if "later@" in line else None

    async with SmtpPeer(answer) as peer, QueueSite(tmp_path, smarthost=smarthost(peer)) as site:
        site.recipients.mailbox("me@example.org")
        await site.send("yes@example.net", "no@example.net", "later@example.com")
        await site.wait_for("delivery.bounce")
        (later,) = site.named("delivery.deferred")
        (no,) = site.named("delivery.failed")
        assert len(site.named("delivery.sent")) == 1
        assert later.fields["recipient"] == "later@example.com"
        assert later.fields["attempts"] == 1
        assert 240 <= int(str(later.fields["retry"])) <= 360
        assert no.fields["reason"] == "550 5.1.1 no such?[2J user"
        assert len(peer.transactions) == 1
        site.clock.advance(400)
        site.runner.wake()
        await site.wait_for("delivery.deferred", 2)
        assert [line for line in peer.commands if "yes@" in line] == ["RCPT TO:<yes@example.net>"]


@pytest.mark.parametrize(
    ("stage", "reply", "event"),
    [
        ("MAIL", "451 4.3.0 not now", "delivery.deferred"),
        ("MAIL", "553 5.1.8 not you", "delivery.failed"),
        ("RCPT", "999 nonsense", "delivery.deferred"),
        ("DATA", "554 5.7.1 no", "delivery.failed"),
        ("DATA", "250 what", "delivery.deferred"),
        ("DATA", "421 4.3.2 bye", "delivery.deferred"),
        ("MAIL", "421 4.3.2 bye", "delivery.deferred"),
        ("RCPT", "421 4.3.2 bye", "delivery.deferred"),
        ("RCPT", "", "delivery.deferred"),
        ("DATA", "", "delivery.deferred"),
    ],
)
async def test_replies_mean_what_they_say(tmp_path: Path, stage: str, reply: str, event: str) -> None:
    def answer(line: str) -> str | None:
        return reply if line.startswith(stage) else None

    async with SmtpPeer(answer) as peer, QueueSite(tmp_path, smarthost=smarthost(peer)) as site:
        await site.send("you@example.net", sender="")
        await site.wait_for(event)
        assert not site.named("delivery.sent")
        assert not site.named("queue.fault")


@pytest.mark.parametrize(
    ("reply", "event"), [("452 4.3.1 full", "deferred"), ("552 5.3.4 too big", "failed"), ("", "deferred")]
)
async def test_the_reply_after_the_dot_counts(tmp_path: Path, reply: str, event: str) -> None:
    async with (
        SmtpPeer(end_of_data=lambda transaction: reply) as peer,
        QueueSite(tmp_path, smarthost=smarthost(peer)) as site,
    ):
        await site.send("a@example.net", "b@example.net", sender="")
        await site.wait_for(f"delivery.{event}", 2)


async def test_a_connection_is_used_again_and_then_closed(tmp_path: Path) -> None:
    settings = {"destination_concurrency": 1}
    async with SmtpPeer() as peer, QueueSite(tmp_path, smarthost=smarthost(peer), **settings) as site:
        for number in range(5):
            await site.send(f"you{number}@example.net")
        await site.wait_for("delivery.sent", 5)
        assert peer.connections == 1
        await site.until(lambda: peer.commands[-1] == "QUIT")
        await site.send("again@example.net")
        await site.wait_for("delivery.sent", 6)
        assert peer.connections == 2


async def test_a_transaction_that_failed_is_reset_before_the_next(tmp_path: Path) -> None:
    def answer(line: str) -> str | None:
        return "550 5.1.1 no" if "no@" in line else None

    settings = {"destination_concurrency": 1}
    async with SmtpPeer(answer) as peer, QueueSite(tmp_path, smarthost=smarthost(peer), **settings) as site:
        await site.send("no@example.net", sender="")
        await site.send("you@example.net")
        await site.wait_for("delivery.sent")
        assert peer.connections == 1
        assert "RSET" in peer.commands


async def test_an_idle_connection_that_the_peer_closed_costs_no_attempt(tmp_path: Path) -> None:
    seen: list[str] = []

    def answer(line: str) -> str | None:
        seen.append(line)
        # the second MAIL on the first connection finds it gone
        return "" if [one[:4] for one in seen].count("MAIL") == 2 and line.startswith("MAIL") else None

    settings = {"destination_concurrency": 1}
    async with SmtpPeer(answer) as peer, QueueSite(tmp_path, smarthost=smarthost(peer), **settings) as site:
        await site.send("a@example.net")
        await site.wait_for("delivery.sent", 1)
        await site.send("b@example.net")
        await site.wait_for("delivery.sent", 2)
        assert peer.connections == 2
        assert not site.named("delivery.deferred")


async def test_no_more_connections_to_a_destination_than_allowed(tmp_path: Path) -> None:
    settings = {"destination_concurrency": 3}
    async with SmtpPeer() as peer, QueueSite(tmp_path, smarthost=smarthost(peer), **settings) as site:
        await asyncio.gather(*[site.send(f"you{number}@example.net") for number in range(40)])
        await site.wait_for("delivery.sent", 40)
        assert 1 < peer.most_open <= 3


@pytest.mark.parametrize("scheme", ["smtp+starttls", "smtps"])
@pytest.mark.parametrize("is_trusted", [True, False])
async def test_tls_to_a_smart_host_is_checked(tmp_path: Path, scheme: str, is_trusted: bool) -> None:
    authority, other = trustme.CA(), trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    (authority if is_trusted else other).cert_pem.write_to_path(tmp_path / "ca.pem")
    async with (
        SmtpPeer(tls=context, implicit_tls=scheme == "smtps") as peer,
        QueueSite(
            tmp_path / "q", smarthost=smarthost(peer, scheme), ca_file=str(tmp_path / "ca.pem")
        ) as site,
    ):
        await site.send("you@example.net")
        if is_trusted:
            await site.wait_for("delivery.sent")
        else:
            (event,) = await site.wait_for("delivery.deferred")
            assert "certificate" in str(event.fields["reason"]).lower()
            assert not [line for line in peer.commands if line.startswith("MAIL")]


async def test_a_smart_host_without_starttls_gets_nothing(tmp_path: Path) -> None:
    async with SmtpPeer() as peer, QueueSite(tmp_path, smarthost=smarthost(peer, "smtp+starttls")) as site:
        await site.send("you@example.net")
        (event,) = await site.wait_for("delivery.deferred")
        assert event.fields["status"] == "4.7.5"
        assert not [line for line in peer.commands if line.startswith("MAIL")]


@pytest.mark.parametrize("mechanisms", ["AUTH PLAIN LOGIN", "AUTH LOGIN", "AUTH CRAM-MD5"])
async def test_login_at_a_smart_host(tmp_path: Path, mechanisms: str) -> None:
    from base64 import b64decode, b64encode

    said: list[bytes] = []

    def answer(line: str) -> str | None:
        words = line.split(" ")
        if words[0] == "AUTH":
            if len(words) > 2:
                said.append(b64decode(words[2]))
            if words[1] == "PLAIN":
                return "235 2.7.0 welcome"
            return "334 " + b64encode(b"<1@peer>" if words[1] == "CRAM-MD5" else b"Password:").decode()
        if words[0] not in ("EHLO", "MAIL", "RCPT", "DATA", "QUIT", "RSET"):
            said.append(b64decode(words[0]))
            return "235 2.7.0 welcome"
        return None

    async with (
        SmtpPeer(answer, extensions=(mechanisms,)) as peer,
        QueueSite(tmp_path, smarthost=smarthost(peer, login="us%40er:p%3Aw@")) as site,
    ):
        await site.send("you@example.net")
        await site.wait_for("delivery.sent")
        told = json.dumps([dict(event.fields) for event in site.events])
        assert "p:w" not in told
        assert "p%3Aw" not in told
    if "PLAIN" in mechanisms:
        assert said == [b"\0us@er\0p:w"]
    elif "LOGIN" in mechanisms:
        assert said == [b"us@er", b"p:w"]
    else:
        assert said[0].startswith(b"us@er ")


async def test_a_refused_login_bounces_nothing(tmp_path: Path) -> None:
    def answer(line: str) -> str | None:
        return "535 5.7.8 no" if line.startswith("AUTH") else None

    async with (
        SmtpPeer(answer, extensions=("AUTH PLAIN",)) as peer,
        QueueSite(tmp_path, smarthost=smarthost(peer, login="u:p@")) as site,
    ):
        await site.send("you@example.net")
        (event,) = await site.wait_for("delivery.deferred")
        assert event.fields["status"] == "4.7.8"
        assert not site.named("delivery.failed")


async def test_a_peer_without_ehlo_is_greeted_with_helo(tmp_path: Path) -> None:
    def answer(line: str) -> str | None:
        return "502 what" if line.startswith("EHLO") else None

    async with SmtpPeer(answer) as peer, QueueSite(tmp_path, smarthost=smarthost(peer)) as site:
        await site.send("you@example.net")
        await site.wait_for("delivery.sent")
        assert peer.transactions[0].mail == "MAIL FROM:<me@example.org>"


async def test_a_message_over_the_peers_size_is_not_sent(tmp_path: Path) -> None:
    async with (
        SmtpPeer(extensions=("SIZE 1000",)) as peer,
        QueueSite(tmp_path, smarthost=smarthost(peer)) as site,
    ):
        await site.send("you@example.net", body=b"x" * 1001 + b"\r\n", sender="")
        (event,) = await site.wait_for("delivery.failed")
        assert event.fields["status"] == "5.3.4"
        assert not peer.transactions


UTF8 = "jürgen@example.net"


async def test_utf8_addresses_need_smtputf8(tmp_path: Path) -> None:
    async with (
        SmtpPeer(extensions=("8BITMIME",)) as peer,
        QueueSite(tmp_path, smarthost=smarthost(peer)) as site,
    ):
        await site.send(UTF8, "you@example.net", sender="")
        (event,) = await site.wait_for("delivery.failed")
        await site.wait_for("delivery.sent")
        assert event.fields["status"] == "5.6.7"
        assert peer.transactions[0].rcpts == ["RCPT TO:<you@example.net>"]
    async with SmtpPeer() as peer, QueueSite(tmp_path / "2", smarthost=smarthost(peer)) as site:
        await site.send(UTF8, sender="")
        await site.wait_for("delivery.sent")
        assert "SMTPUTF8" in peer.transactions[0].mail.split()
        assert peer.transactions[0].rcpts == [f"RCPT TO:<{UTF8}>"]


MIME = (
    b"Subject: x\r\nMIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\n"
    b"Content-Transfer-Encoding: 8bit\r\n\r\ngr\xc3\xbc\xc3\x9fe\r\n"
)


async def test_eight_bits_for_peers_that_take_seven(tmp_path: Path) -> None:
    async with SmtpPeer(extensions=()) as peer, QueueSite(tmp_path, smarthost=smarthost(peer)) as site:
        await site.send("you@example.net", body=MIME, sender="")
        await site.wait_for("delivery.sent")
        await site.send("you@example.net", body=b"Subject: x\r\n\r\ngr\xfc\xdfe\r\n", sender="")
        (event,) = await site.wait_for("delivery.failed")
    assert event.fields["status"] == "5.6.3"
    (transaction,) = peer.transactions
    assert transaction.content.isascii()
    assert b"gr=C3=BC=C3=9Fe" in transaction.content or b"Z3LDvMOfZQ" in transaction.content
    async with SmtpPeer() as peer, QueueSite(tmp_path / "2", smarthost=smarthost(peer)) as site:
        await site.send("you@example.net", body=MIME, sender="")
        await site.wait_for("delivery.sent")
        assert peer.transactions[0].content == MIME
        assert "BODY=8BITMIME" in peer.transactions[0].mail


async def test_dsn_wishes_are_passed_on(tmp_path: Path) -> None:
    recipient = Recipient(
        MailAddress("you", "example.net"), False, ("SUCCESS", "DELAY"), "rfc822;you+tag@example.net"
    )
    async with SmtpPeer(extensions=("DSN",)) as peer, QueueSite(tmp_path, smarthost=smarthost(peer)) as site:
        await site.send(recipient, envid="a=b", ret="HDRS")
        await site.wait_for("delivery.sent")
        await site.until_empty()
        assert not site.named("delivery.report")
    assert peer.transactions[0].mail == "MAIL FROM:<me@example.org> RET=HDRS ENVID=a+3Db"
    assert peer.transactions[0].rcpts == [
        "RCPT TO:<you@example.net> NOTIFY=SUCCESS,DELAY ORCPT=rfc822;you+2Btag@example.net"
    ]


ATTACKS = Path(__file__).parent / "smug_out.jsonl"


@pytest.mark.parametrize("case", [json.loads(line) for line in ATTACKS.read_text().splitlines()])
async def test_nothing_that_could_end_a_body_early_goes_out(tmp_path: Path, case: dict[str, str]) -> None:
    """Put into the queue past the SMTP server, which would have refused most of it."""
    body = case["content"].encode("latin-1")
    async with SmtpPeer() as peer, QueueSite(tmp_path, smarthost=smarthost(peer)) as site:
        await site.send("you@example.net", body=body, sender="")
        await site.until(lambda: bool(site.named("delivery.sent") or site.named("delivery.failed")))
    wire = b"".join(transaction.body for transaction in peer.transactions)
    rest = wire.replace(b"\r\n", b"")
    assert b"\r" not in rest
    assert b"\n" not in rest
    assert b"\0" not in rest
    assert len(peer.transactions) == (1 if case["goes"] == "out" else 0)
    for transaction in peer.transactions:
        assert transaction.content.removesuffix(b"\r\n") == body.removesuffix(b"\r\n")


async def test_a_peer_that_answers_without_end_does_not_fill_memory(tmp_path: Path) -> None:
    def answer(line: str) -> str | None:
        return "250-" + "x" * 200_000 if line.startswith("MAIL") else None

    async with SmtpPeer(answer) as peer, QueueSite(tmp_path, smarthost=smarthost(peer)) as site:
        await site.send("you@example.net", sender="")
        (event,) = await site.wait_for("delivery.deferred")
        assert len(str(event.fields["reason"])) <= 400


def test_the_peer_double_sees_stuffing() -> None:
    assert Transaction(body=b"..\r\n...\r\nx\r\n").content == b".\r\n..\r\nx\r\n"
