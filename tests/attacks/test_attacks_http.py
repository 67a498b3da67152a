"""The attack cases about addresses and names, at the two doors that HTTP opens: Dovecot's reports,
where a wrong reading would give a grant, and `/v1/decide`, where it would permit."""

import json
from urllib.parse import quote

import pytest

from attacks.attack_cases import CASES, octets, of_class
from grants_kit import address
from http_site import Site, request, status
from popgate.grants.settings import GrantSettings
from popgate.values.address import ClientAddress

IP = [name for name in of_class("ip", "ip6") if len(CASES[name]["send"]) == 1]
NAMES = of_class("name")
LOOPBACK = ["127.0.0.0/8", "::1"]


def sent(name: str) -> str:
    return octets(CASES[name]["send"][0], {}).decode("utf-8", "surrogateescape")


def report(**changes: str) -> bytes:
    fields = {"user": "alice", "protocol": "imap", "remote": "203.0.113.9", **changes}
    document = json.dumps(fields | {"success": True, "policy_reject": False}, ensure_ascii=False)
    return request("/?command=report", document.encode("utf-8", "surrogateescape"))


@pytest.mark.parametrize("name", IP)
def test_spellings_of_addresses(name: str) -> None:
    site = Site(GrantSettings(never=LOOPBACK))
    text, expected = sent(name), CASES[name]["expect"]
    answer = status(site.talk().send(report(remote=text)))
    wanted = expected.removeprefix("ip-canon=")
    if expected.startswith("ip-canon=") and not wanted.startswith("refuse"):
        assert answer == 200
        assert site.granted() == [f"{wanted} alice@example.org imap"]
    elif expected == "ip-own":
        assert site.granted() in ([], [f"{ClientAddress.parse(text)} alice@example.org imap"])
        assert site.grants.right(address("1.2.3.4"), "").verdict == "refuse"
    else:
        assert site.granted() == []
        assert answer == (200 if expected == "ip-never-granted" or wanted.startswith("refuse (link") else 400)


@pytest.mark.parametrize("name", IP)
def test_what_may_relay_is_asked_in_one_spelling(name: str) -> None:
    site = Site()
    for granted in ("1.2.3.4", "2001:db8::1"):
        site.talk().send(report(remote=granted))
    target = "/v1/decide?address=" + quote(sent(name), errors="surrogateescape")
    answer = site.talk().send(request(target))
    wanted = CASES[name]["expect"].removeprefix("ip-canon=")
    assert (b'"verdict":"permit"' in answer) is (wanted in ("1.2.3.4", "2001:db8::1"))


@pytest.mark.parametrize("name", NAMES)
def test_names_that_are_no_names(name: str) -> None:
    site = Site()
    text = sent(name)
    answer = status(site.talk().send(report(user=text)))
    if site.granted():
        assert answer == 200
        assert text == "tmp"  # a name like another; nothing here makes a file of it
    else:
        assert answer == 400
    for event in site.sink.events:
        for field in event.fields.values():
            assert not isinstance(field, str) or field.isprintable()


def test_names_in_two_spellings_are_one_user() -> None:
    site = Site()
    site.talk().send(report(user="Alice") + report(user="aLICE@EXAMPLE.ORG"))
    assert site.granted() == ["203.0.113.9 alice@example.org imap"]


@pytest.mark.parametrize(
    "text",
    [
        "x\r\nNov 24 11:33:14 pop3-login: Info: Login: user=<eve>, rip=198.51.100.7",
        "x' rip=198.51.100.7, lip='",
        "alice\x00@example.org",
        "alice\u202e@example.org",
        "Login: user=<z>, method=PLAIN, rip=9.9.9.9>",
    ],
)
def test_forged_lines_in_a_name(text: str) -> None:
    site = Site()
    assert status(site.talk().send(report(user=text))) == 400
    assert site.granted() == []
