"""Which of Dovecot's reports and events give a grant, and to whom."""

import json
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from grants_kit import address
from http_site import Site, request, status, statuses
from popgate.grants.settings import GrantSettings
from popgate.integrations.dovecot.logins import address_in, session_key

SESSION = "Td9uEwRhYad/AAAJ"  # of 127.0.0.9
SESSION_V6 = "6PmWEwRh+soAAAAAAAAAAAAAAAAAAAAB"
NO_LOGINS = [
    "imap_command_finished",
    "imap_client_hibernated",
    "imap_client_unhibernated",
    "mail_user_session_finished",
    "mail_expunged",
    "",
]
GRANTED = ["203.0.113.9 alice@example.org pop3"]


def report(**changes: object) -> bytes:
    fields: dict[str, object] = {
        "local": "198.51.100.1",
        "login": "alice",
        "protocol": "pop3",
        "remote": "203.0.113.9",
        "session_id": SESSION,
        "user": "alice",
        "success": True,
        "policy_reject": False,
        "tls": False,
    }
    kept = {name: field for name, field in (fields | changes).items() if field is not ...}
    return request("/?command=report", json.dumps(kept))


def event(name: str, **changes: object) -> bytes:
    fields: dict[str, object] = {
        "success": "yes",
        "service": "imap",
        "session": SESSION,
        "remote_ip": "203.0.113.9",
        "user": "alice",
        "duration": 262,
    }
    kept = {key: field for key, field in (fields | changes).items() if field is not ...}
    document = {"event": name, "hostname": "mx", "categories": ["auth"], "fields": kept}
    return request("/event", json.dumps(document))


def test_a_login_gives_a_grant_and_the_log_says_who_told() -> None:
    site = Site()
    assert status(site.talk().send(report())) == 200
    assert site.granted() == GRANTED
    (allowed,) = site.sink.told("grant.allow")
    assert allowed.fields["via"] == "dovecot"
    assert allowed.fields["session"] == SESSION


@pytest.mark.parametrize(
    "changes",
    [
        {"success": False},
        {"policy_reject": True},
        {"protocol": "smtp"},
        {"protocol": "submission"},
        {"protocol": "sieve"},
        {"protocol": "lmtp"},
        {"protocol": "doveadm"},
        {"protocol": ""},
        {"protocol": "POP3"},
        {"master": "administrator"},
    ],
    ids=str,
)
def test_what_is_told_and_gives_nothing(changes: dict[str, object]) -> None:
    site = Site()
    assert status(site.talk().send(report(**changes))) == 200
    assert site.granted() == []
    assert site.sink.events == []


@pytest.mark.parametrize(
    "changes",
    [
        {"remote": ""},
        {"remote": ...},
        {"remote": None},
        {"remote": "203.0.113.009"},
        {"remote": "3405803785"},
        {"remote": "0xcb.0.0x71.9"},
        {"remote": "203.0.113.9 "},
        {"remote": "203.0.113.9\n198.51.100.7"},
        {"remote": "fe80::1%eth0"},
        {"remote": "[::1]"},
        {"remote": ["203.0.113.9"]},
        {"remote": 3405803785},
        {"user": "alice smith"},
        {"user": "../alice"},
        {"user": "алиса"},
        {"user": "alice\u0000"},
        {"user": "alice@example.org\r\n"},
        {"user": "", "login": ""},
        {"user": "@example.org"},
        {"user": {"name": "alice"}},
        {"protocol": ...},
        {"success": ...},
        {"success": "true"},
        {"success": 1},
        {"success": None},
        {"policy_reject": ...},
        {"policy_reject": "no"},
    ],
    ids=str,
)
def test_what_cannot_be_read_gives_nothing(changes: dict[str, object]) -> None:
    site = Site()
    assert status(site.talk().send(report(**changes))) == 400
    assert site.granted() == []
    assert site.sink.names() == ["http.refused"]


@pytest.mark.parametrize(
    ("changes", "granted"),
    [
        ({"user": "Alice@Example.NET"}, "203.0.113.9 alice@example.net pop3"),
        ({"user": ...}, "203.0.113.9 alice@example.org pop3"),
        ({"user": "bob"}, "203.0.113.9 bob@example.org pop3"),
        ({"remote": "2001:DB8:0:0::9", "protocol": "imap"}, "2001:db8::9 alice@example.org imap"),
        ({"remote": "::ffff:203.0.113.9"}, "203.0.113.9 alice@example.org pop3"),
        ({"session_id": ...}, "203.0.113.9 alice@example.org pop3"),
        ({"session_id": "a b"}, "203.0.113.9 alice@example.org pop3"),
        ({"unknown": {"nested": [1, 2]}}, "203.0.113.9 alice@example.org pop3"),
    ],
    ids=str,
)
def test_who_gets_it(changes: dict[str, object], granted: str) -> None:
    site = Site()
    assert status(site.talk().send(report(**changes))) == 200
    assert site.granted() == [granted]


def test_a_site_without_domains() -> None:
    site = Site(default_domain="")
    site.talk().send(report())
    assert site.granted() == ["203.0.113.9 alice pop3"]


def test_checks_that_were_left_on_are_told_yes_whatever_they_ask() -> None:
    site = Site()
    output = site.talk().send(request("/?command=allow", "{}") + request("/?command=allow", '{"remote":1}'))
    assert statuses(output) == [200, 200]
    assert output.count(b'{"status":0,"msg":""}') == 2
    assert site.granted() == []


def test_an_address_that_gets_none() -> None:
    site = Site(GrantSettings(never=["203.0.113.0/24"]))
    assert status(site.talk().send(report())) == 200
    (refused,) = site.sink.told("grant.refuse")
    assert (refused.fields["reason"], refused.fields["via"]) == ("never", "dovecot")


# The event exporter


def test_an_exported_login_gives_a_grant() -> None:
    site = Site()
    assert status(site.talk().send(event("auth_request_finished"))) == 204
    assert site.granted() == ["203.0.113.9 alice@example.org imap"]


@pytest.mark.parametrize(
    "changes",
    [
        {"success": ...},
        {"success": "no"},
        {"success": ""},
        {"service": "smtp"},
        {"service": ...},
        {"master_user": "administrator"},
    ],
    ids=str,
)
def test_exported_events_that_give_nothing(changes: dict[str, object]) -> None:
    site = Site()
    assert status(site.talk().send(event("auth_request_finished", **changes))) == 204
    assert site.granted() == []


@pytest.mark.parametrize("name", NO_LOGINS)
def test_other_events_never_give_a_grant(name: str) -> None:
    site = Site(tells_ends=True)
    assert status(site.talk().send(event(name))) == 204
    assert site.granted() == []


def test_events_with_strange_fields() -> None:
    site = Site()
    for changes in ({"success": True}, {"remote_ip": 7}, {"user": []}, {"remote_ip": "1.2.3"}):
        assert status(site.talk().send(event("auth_request_finished", **changes))) == 400
    assert site.granted() == []


def is_live_after(site: Site, seconds: float, step: Callable[[], None] = lambda: None) -> bool:
    for _ in range(int(seconds / 10)):
        site.clock.pass_seconds(10)
        site.sessions.tick()
        step()
    return site.grants.right(address("203.0.113.9"), "").verdict == "permit"


def test_the_window_runs_from_the_end_of_the_last_session() -> None:
    site = Site(tells_ends=True)
    talk = site.talk()
    talk.send(report(protocol="imap") + report(protocol="imap", session_id="second"))
    assert is_live_after(site, 3600)
    talk.send(event("mail_user_session_finished"))
    assert is_live_after(site, 3600)
    talk.send(event("mail_user_session_finished", session="second", remote_ip=...))
    assert is_live_after(site, 890)
    assert not is_live_after(site, 20)


def test_where_ends_are_not_told_the_window_runs_from_the_login() -> None:
    site = Site()
    site.talk().send(report(protocol="imap"))
    assert is_live_after(site, 890)
    assert not is_live_after(site, 20)


def test_where_ends_are_not_counted_one_that_is_told_ends_nothing() -> None:
    site = Site(GrantSettings(revoke_on_logout=True))
    site.talk().send(report() + report(session_id="second") + event("mail_user_session_finished"))
    assert site.granted() == GRANTED


def test_commands_of_imap_renew() -> None:
    site = Site()
    talk = site.talk()
    talk.send(report(protocol="imap"))

    def noop() -> None:
        talk.send(event("imap_command_finished"))

    assert is_live_after(site, 3600, noop)
    assert not is_live_after(site, 1000)
    talk.send(event("imap_command_finished"))
    assert not is_live_after(site, 0)


def test_a_session_that_hibernates_and_wakes() -> None:
    site = Site(tells_ends=True)
    talk = site.talk()
    talk.send(report(protocol="imap"))
    assert is_live_after(site, 3600)
    talk.send(event("mail_user_session_finished") + event("imap_client_hibernated"))
    assert is_live_after(site, 800)
    talk.send(event("imap_client_unhibernated"))
    assert is_live_after(site, 3600)
    talk.send(event("mail_user_session_finished"))
    assert not is_live_after(site, 1000)
    talk.send(event("imap_client_unhibernated"))
    assert not is_live_after(site, 20), "nothing dead comes back"


def test_commands_of_somebody_else_renew_nothing() -> None:
    site = Site()
    talk = site.talk()
    talk.send(report(protocol="imap"))
    changes = ({"user": "eve"}, {"remote_ip": "203.0.113.10"}, {"user": "\u0000"})

    def others() -> None:
        for change in changes:
            talk.send(event("imap_command_finished", **change))

    assert not is_live_after(site, 1000, others)


def test_an_end_that_names_somebody_else_ends_nothing() -> None:
    site = Site(GrantSettings(revoke_on_logout=True), tells_ends=True)
    talk = site.talk()
    talk.send(report())
    talk.send(event("mail_user_session_finished", user="eve"))
    talk.send(event("mail_user_session_finished", remote_ip="203.0.113.10"))
    assert site.granted() == GRANTED
    talk.send(event("mail_user_session_finished", remote_ip=...))
    assert site.granted() == []


def test_the_end_of_a_session_that_began_before_we_did() -> None:
    site = Site(GrantSettings(revoke_on_logout=True, never=[]), tells_ends=True)
    talk = site.talk()
    talk.send(report(remote="127.0.0.9", session_id=...))
    assert site.granted() == ["127.0.0.9 alice@example.org pop3"]
    talk.send(event("mail_user_session_finished", remote_ip=...))  # its id tells the address
    assert site.granted() == []


def test_an_address_that_is_told_is_not_guessed() -> None:
    site = Site(GrantSettings(revoke_on_logout=True, never=[]), tells_ends=True)
    talk = site.talk()
    talk.send(report(remote="127.0.0.9", session_id=...))
    talk.send(event("mail_user_session_finished", remote_ip="203.0.113.9"))
    assert site.granted() == ["127.0.0.9 alice@example.org pop3"]


def test_the_end_of_a_delivery_is_nothing() -> None:
    site = Site(tells_ends=True)
    for session in ("IyKXLwRhYad9EAAAmk1v9w", "IyKXLwRhYad9EAAAmk1v9w:1", ...):
        answer = site.talk().send(event("mail_user_session_finished", session=session, remote_ip=...))
        assert status(answer) == 204
    assert site.sink.events == []


def test_addresses_in_the_ids_of_sessions() -> None:
    assert address_in(SESSION) == address("127.0.0.9")
    assert address_in(SESSION_V6) == address("::1")
    for session in ("", "x", "second", SESSION[:-1], SESSION + "AAAA", "Td9uEwRhYad/AAA\n"):
        assert address_in(session) is None


@given(st.text(max_size=40))
def test_ids_of_sessions_are_plain_text(session: str) -> None:
    key = session_key(session)
    assert key is None or (key.isascii() and key.isprintable() and " " not in key)
    address_in(key or "")
