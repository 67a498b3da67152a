"""`GET /v1/decide`, and who may ask over HTTP at all."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from grants_kit import ALICE, BOB, address
from http_site import SECRET, Site, request, status, statuses
from popgate.grants.grant import DEFAULT_TERMS
from popgate.grants.rules import ANONYMOUS
from popgate.grants.settings import GrantSettings
from popgate.grants.store import StoreError
from popgate.grants.stores.memory import MemoryStore
from popgate.sessions.http.access import is_for_us
from popgate.sessions.session import Peer
from popgate.values.address import ClientAddress

RECIPIENTS = "&recipient=x@partner.example" * 100


def ask(site: Site, query: str) -> tuple[int, dict[str, object]]:
    answer = site.talk().send(request(f"/v1/decide?{query}"))
    return status(answer), json.loads(answer.partition(b"\r\n\r\n")[2])


@pytest.fixture
def site() -> Site:
    site = Site()
    site.grants.allow(address(), ALICE, "pop3", DEFAULT_TERMS, "")
    return site


def test_the_whole_answer(site: Site) -> None:
    assert ask(site, "address=203.0.113.9&sender=alice@example.org&recipient=x@partner.example") == (
        200,
        {
            "verdict": "permit",
            "reason": "granted",
            "text": "",
            "address": "203.0.113.9",
            "identity": "alice@example.org",
            "protocol": "pop3",
            "login_at": site.clock.now(),
            "ends_at": site.clock.now() + 900,
        },
    )
    (told,) = site.sink.told("relay.decide")
    assert told.fields == {
        "session": "session-one",
        "service": "http",
        "client": "203.0.113.9",
        "identity": "alice@example.org",
        "reason": "granted",
        "verdict": "permit",
        "sender": "alice@example.org",
        "recipient": "x@partner.example",
    }


@pytest.mark.parametrize(
    ("query", "verdict", "reason"),
    [
        ("address=203.0.113.9", "permit", "granted"),
        ("address=%32%303.0.113.9", "permit", "granted"),
        ("address=::ffff:203.0.113.9", "permit", "granted"),
        ("address=203.0.113.10", "refuse", "no-grant"),
        ("address=203.0.113.9&sender=", "permit", "granted"),
        ("address=203.0.113.9&sender=eve@example.org", "refuse", "sender-not-bound"),
        ("address=203.0.113.9&sender=alice@example.net", "refuse", "sender-not-bound"),
        ("address=198.51.100.1", "permit", "trusted"),
        ("address=198.51.100.1&sender=eve@example.net", "permit", "trusted"),
        ("address=0.0.0.0", "refuse", "never"),
        ("address=203.0.113.9&sender=alice@example.org&size=2000000000", "quota", "quota-bytes"),
        ("address=203.0.113.9&sender=alice@example.org" + RECIPIENTS, "permit", "granted"),
    ],
)
def test_verdicts(query: str, verdict: str, reason: str) -> None:
    site = Site(GrantSettings(trusted=["198.51.100.0/24"]))
    site.grants.allow(address(), ALICE, "pop3", DEFAULT_TERMS, "")
    code, document = ask(site, query)
    assert (code, document["verdict"], document["reason"]) == (200, verdict, reason)
    if verdict != "permit":
        assert document["identity"] is None
        assert document["text"]


def test_two_identities_behind_one_address(site: Site) -> None:
    site.grants.allow(address(), BOB, "imap", DEFAULT_TERMS, "")
    for who in (ALICE, BOB):
        assert ask(site, f"address=203.0.113.9&sender={who}")[1]["identity"] == str(who)
    assert ask(site, "address=203.0.113.9&sender=eve@example.org")[1]["verdict"] == "refuse"


def test_a_login_that_named_nobody() -> None:
    site = Site(GrantSettings(sender="any"))
    site.grants.allow(address(), ANONYMOUS, "relay-ctrl", DEFAULT_TERMS, "")
    document = ask(site, "address=203.0.113.9")[1]
    assert (document["verdict"], document["identity"], document["protocol"]) == ("permit", None, "relay-ctrl")


def test_it_counts_nothing(site: Site) -> None:
    for _ in range(300):
        assert ask(site, "address=203.0.113.9&sender=alice@example.org")[1]["verdict"] == "permit"


@pytest.mark.parametrize(
    "query",
    [
        "",
        "address=",
        "address",
        "address=203.0.113.9&address=203.0.113.9",
        "address=203.0.113.09",
        "address=3405803785",
        "address=[::1]",
        "address=203.0.113.9%00",
        "address=%ff",
        "address=203.0.113.9&sendr=alice@example.org",
        "address=203.0.113.9&sender=alice",
        "address=203.0.113.9&sender=<alice@example.org>",
        "address=203.0.113.9&sender=@relay.example:alice@example.org",
        "address=203.0.113.9&sender=alice@example.org%0d%0aX",
        "address=203.0.113.9&sender=alice@example.org&sender=eve@example.org",
        "address=203.0.113.9&sender=alice@example.org&recipient=",
        "address=203.0.113.9&size=-1",
        "address=203.0.113.9&size=1e3",
        "address=203.0.113.9&size=٣",
        "address=203.0.113.9&size=9999999999999",
        "address=203.0.113.9;sender=alice@example.org",
        "address=203.0.113.9&",
    ],
)
def test_parameters_that_cannot_be_read(site: Site, query: str) -> None:
    answer = site.talk().send(request(f"/v1/decide?{query}"))
    assert status(answer) == 400
    assert b"permit" not in answer


def test_a_plus_is_a_plus(site: Site) -> None:
    site = Site(GrantSettings(sender="any"))
    site.grants.allow(address(), ALICE, "pop3", DEFAULT_TERMS, "")
    assert ask(site, "address=203.0.113.9&sender=alice+scans@example.org")[0] == 200
    assert site.sink.told("relay.decide")[0].fields["sender"] == "alice+scans@example.org"


CHARGE = "address=203.0.113.9&sender=alice@example.org&recipient=x@partner.example"


def charge(site: Site, query: str) -> tuple[int, dict[str, object]]:
    answer = site.talk().send(request(f"/v1/charge?{query}", method="POST", headers=["Content-Length: 0"]))
    return status(answer), json.loads(answer.partition(b"\r\n\r\n")[2])


def test_a_charge_counts_until_the_quota_is_used_up() -> None:
    site = Site(GrantSettings(quota_messages=3, quota_recipients=5))
    site.grants.allow(address(), ALICE, "pop3", DEFAULT_TERMS, "")
    assert [charge(site, CHARGE)[1]["reason"] for _ in range(4)] == ["granted"] * 3 + ["quota-messages"]
    (grant,) = site.grants.list()
    assert (grant.used.messages, grant.used.recipients) == (3, 3)
    assert ask(site, CHARGE)[1]["verdict"] == "quota"
    assert len(site.sink.told("relay.decide")) == 5


def test_a_charge_counts_recipients_and_octets() -> None:
    site = Site()
    site.grants.allow(address(), ALICE, "pop3", DEFAULT_TERMS, "")
    assert charge(site, CHARGE + "&recipient=y@partner.example&size=1000")[1]["verdict"] == "permit"
    (grant,) = site.grants.list()
    assert (grant.used.messages, grant.used.recipients, grant.used.bytes) == (1, 2, 1000)


@pytest.mark.parametrize(
    "query",
    ["address=203.0.113.9", "address=203.0.113.9&sender=alice@example.org", CHARGE + "&size=x", "x=y"],
)
def test_what_is_no_message_counts_nothing(site: Site, query: str) -> None:
    assert charge(site, query)[0] == 400
    assert site.grants.list()[0].used.messages == 0


def test_a_charge_for_somebody_else_counts_nothing(site: Site) -> None:
    assert charge(site, CHARGE.replace("alice", "eve"))[1]["reason"] == "sender-not-bound"
    assert site.grants.list()[0].used.messages == 0


def test_a_charge_is_a_post(site: Site) -> None:
    assert status(site.talk().send(request(f"/v1/charge?{CHARGE}"))) == 405
    assert status(site.talk().send(request(f"/v1/decide?{CHARGE}", "{}"))) == 405


class BrokenStore(MemoryStore):
    def find(self, address: object) -> list[object]:  # type: ignore[override]
        raise StoreError("input/output error")


@pytest.mark.parametrize("query", ["address=203.0.113.9", "address=203.0.113.9&sender=alice@example.org"])
def test_a_store_at_fault_is_503(query: str) -> None:
    answer = Site(store=BrokenStore()).talk().send(request(f"/v1/decide?{query}"))
    assert status(answer) == 503
    assert b"\r\nRetry-After: 10\r\n" in answer
    assert b'"verdict":"defer","reason":"store-unavailable"' in answer


# Who may ask


def test_the_same_refusal_is_told_once_in_a_while(site: Site) -> None:
    def refuse(target: str = "/x") -> None:
        site.talk().send(request(target))

    for _ in range(100):
        refuse()
    refuse("/v1/decide?address=x")
    assert [event.fields["reason"] for event in site.sink.told("http.refused")] == ["path", "parameter"]
    site.clock.pass_seconds(10)
    refuse()
    refuse()
    told = site.sink.told("http.refused")
    assert [event.fields["times"] for event in told] == [None, None, 100]


def test_many_clients_are_not_remembered_for_ever(site: Site) -> None:
    for number in range(5000):
        peer = Peer("session", ClientAddress(number.to_bytes(4, "big")), 1, "here")
        site.refusals.tell(peer, "path", 404)
    assert len(site.refusals._told) <= 1024


def test_after_many_mistakes_the_connection_is_closed() -> None:
    talk = Site().talk(errors=3)
    assert statuses(talk.send(request("/x") * 5)) == [404, 404, 404]
    assert talk.is_closing


@pytest.mark.parametrize(
    ("header", "code"),
    [
        (f"Authorization: Bearer {SECRET}", 200),
        (f"authorization: bearer {SECRET}", 200),
        (f"Authorization: Bearer  {SECRET}", 200),
        (f"Authorization: Bearer {SECRET}x", 401),
        (f"Authorization: Bearer {SECRET[:-1]}", 401),
        (f"Authorization: {SECRET}", 401),
        (f"Authorization: Basic {SECRET}", 401),
        ("Authorization: Basic cG9wZ2F0ZTphIHNlY3JldCBvZiAyNCBvY3RldHMuLi4=", 200),
        ("Authorization: Basic cG9wZ2F0ZTphIHNlY3JldCBvZiAyNCBvY3RldHMuLg==", 401),
        ("Authorization: Basic YSBzZWNyZXQgb2YgMjQgb2N0ZXRzLi4u", 401),
        ("Authorization: Basic \xff", 401),
        ("Authorization:", 401),
        ("X-Nothing: 1", 401),
        (f"Cookie: {SECRET}", 401),
    ],
)
def test_the_secret(site: Site, header: str, code: int) -> None:
    query = request("/v1/decide?address=203.0.113.9", headers=[header]).replace(b"\xc3\xbf", b"\xff")
    talk = site.talk(secret=SECRET)
    answer = talk.send(query)
    assert status(answer) == code
    assert talk.is_closing is (code == 401)
    assert all(SECRET not in str(event.fields) for event in site.sink.events)
    if code == 401:
        assert b"\r\nWWW-Authenticate: Bearer" in answer


def test_nobody_learns_without_the_secret_what_there_is(site: Site) -> None:
    for target in ("/v1/decide?address=203.0.113.9", "/", "/x"):
        assert status(site.talk(secret=SECRET).send(request(target))) == 401


@pytest.mark.parametrize(
    "header", ["Origin: null", "Origin:", "Sec-Fetch-Mode: cors", "Sec-Fetch-Dest: image"]
)
def test_pages_may_not_ask_even_with_the_secret(site: Site, header: str) -> None:
    headers = [header, f"Authorization: Bearer {SECRET}"]
    answer = site.talk(secret=SECRET).send(request("/v1/decide?address=203.0.113.9", headers=headers))
    assert status(answer) == 403


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("", True),
        ("127.0.0.1", True),
        ("127.0.0.1:22800", True),
        ("[::1]", True),
        ("[::1]:22800", True),
        ("localhost", True),
        ("LOCALHOST:80", True),
        ("localhost.", True),
        ("mail.example.org:80", True),
        ("192.0.2.7", True),
        ("evil.example", False),
        ("evil.example:80", False),
        ("localhost.evil.example", False),
        ("127.0.0.1.evil.example", False),
        ("mail.example.org.evil.example", False),
        ("127.1", False),
        ("0x7f.1", False),
        ("2130706433", False),
        (":80", False),
        ("[::1]x", False),
        ("[evil.example]", False),
        ("::1", False),
        ("user@localhost", False),
        ("localhost/x", False),
    ],
)
def test_hosts(host: str, expected: bool) -> None:
    assert is_for_us(host, "mail.example.org") is expected


@given(st.text(max_size=60))
def test_no_host_raises(host: str) -> None:
    is_for_us(host, "mail.example.org")


@given(st.text(st.characters(min_codepoint=33, max_codepoint=126), max_size=80))
def test_no_query_raises_and_none_permits_an_address_without_grant(query: str) -> None:
    site = Site()
    answer = site.talk().send(request(f"/v1/decide?address=203.0.113.9&{query}".replace("#", "")))
    assert status(answer) in (200, 400)
    assert b'"permit"' not in answer
