"""The attack cases that an SMTP engine and session decide, played on both with all else in memory."""

import re
import time

import pytest

from attacks.attack_cases import CASES, octets, of_class
from popgate.grants.grant import Decision
from popgate.sessions.smtp import SmtpPolicy
from smtp_support import Dialogue

PLACES = {
    "L": "alice@example.org",
    "LD": "example.org",
    "H": "mx.example.org",
    "IP": "192.0.2.1",
    "R": "victim@example.net",
    "RD": "example.net",
    "U": "alice@example.org",
    "P": "secret",
    "B64": "AGFsaWNlQGV4YW1wbGUub3JnAHNlY3JldA==",
}
STATES = {"connect", "ehlo", "mail", "rcpt", "data", "auth+data", "tls", "ehlo+tls"}
CLASSES = ("smug-in", "relay", "inject", "limit", "auth", "pipe", "bdat", "starttls")

# What another layer decides is told in docs/attacks.md.
ELSEWHERE = {"starttls-022", "starttls-023", "starttls-029", "auth-024", "limit-048"}
PLAYED = [name for name in of_class(*CLASSES) if CASES[name]["state"] in STATES and name not in ELSEWHERE]
LISTENERS = ("strict", "tolerant")


def listener(kind: str, **more: object) -> SmtpPolicy:
    return SmtpPolicy(
        "mx.example.org",
        offers_tls=True,
        tolerant_helo=kind == "tolerant",
        cram_md5=True,
        message_bytes=4_000_000,
        **more,
    )


def bring_to(dialogue: Dialogue, state: str) -> None:
    if state == "connect":
        dialogue.say(b"")
        return
    assert b"\r\n250 HELP\r\n" in dialogue.say(b"EHLO client.example.com\r\n")
    if "tls" in state or "auth" in state:
        assert dialogue.say(b"STARTTLS\r\n").startswith(b"220")
        dialogue.start_tls()
        dialogue.say(b"EHLO client.example.com\r\n")
    if "auth" in state:
        dialogue.log_in()
    if state in ("mail", "rcpt", "data", "auth+data"):
        assert dialogue.say(b"MAIL FROM:<alice@example.org>\r\n").startswith(b"250")
    if state in ("rcpt", "data", "auth+data"):
        assert dialogue.say(b"RCPT TO:<alice@example.org>\r\n").startswith(b"250")
    if state in ("data", "auth+data"):
        assert dialogue.say(b"DATA\r\n").startswith(b"354")


class Play:
    """One case played to its end. `parts`: what came back for each part."""

    def __init__(self, name: str, kind: str, *, granted: bool) -> None:
        self.case = CASES[name]
        self.dialogue = Dialogue(listener(kind))
        if granted:
            self.dialogue.grants.allow()
        bring_to(self.dialogue, self.case["state"])
        self.parts: list[bytes] = []
        self.seconds = 0.0
        for part in self.case["send"]:
            if self.is_closed:
                break
            self._play(part)

    def _play(self, part: object) -> None:
        if part in ("<TLS handshake>", "<TLS>"):
            self.dialogue.start_tls()
        elif part == "<read 1 s>":
            self.parts.append(self.dialogue.say(b""))
        else:
            if part == "<old response>\r\n":
                part = "YWxpY2VAZXhhbXBsZS5vcmcgYmJiYmJiYmJiYmJiYmJiYmJiYmJiYmJiYmJiYmJiYmI=\r\n"
            everything = octets(part, PLACES)
            start = time.process_time()
            out = b""
            for at in range(0, len(everything), 65536):
                out += self.dialogue.say(everything[at : at + 65536])
                if self.is_closed:
                    break
            self.seconds += time.process_time() - start
            self.parts.append(out)

    @property
    def is_closed(self) -> bool:
        return self.dialogue.is_closed

    @property
    def replies(self) -> list[bytes]:
        return [line for line in b"".join(self.parts).split(b"\r\n") if line and line[3:4] != b"-"]

    def finish_message(self) -> None:
        """Go on as a client whose commands were all accepted."""
        for said in (b"MAIL FROM:<alice@example.org>", b"RCPT TO:<alice@example.org>", b"DATA", b"x\r\n."):
            self.dialogue.say(said + b"\r\n")


def codes(play: Play) -> list[int]:
    return [int(line[:3]) for line in play.replies]


def is_refusal(play: Play) -> bool:
    return play.is_closed or (bool(play.replies) and play.replies[-1][:1] in b"45")


def one_or_reject(play: Play) -> None:
    accepted = play.dialogue.intake.accepted
    assert len(accepted) <= 1
    assert 354 not in codes(play)
    for _, message in accepted:
        assert re.search(rb"\r(?!\n)|(?<!\r)\n|\0", message) is None
    lines = [len(octets(part, PLACES)) for part in play.case["send"]]
    if accepted and max(lines) > 900:
        assert b"x" * 1000 in accepted[0][1]  # a long line is stored unbroken


def accept_one(play: Play) -> None:
    assert codes(play) == [250]
    assert len(play.dialogue.intake.accepted) == 1


def no_relay(play: Play) -> None:
    """Nothing but local recipients, whatever the client tries next."""
    for octets_ in (b"RCPT TO:<alice@example.org>\r\n", b"RCPT TO:<victim@example.net>\r\n", b"DATA\r\n"):
        play.dialogue.say(octets_)
    if not play.is_closed:
        play.dialogue.say(b"x\r\n.\r\n")
    for envelope, _ in play.dialogue.intake.accepted:
        for recipient in envelope.recipients:
            assert recipient.is_local
            assert str(recipient.address).lower() in {"alice@example.org", "postmaster@example.org"}
            # what the client says about the original recipient sends nothing to it
            assert "victim" not in str(recipient.address)
    assert "smtp.relay.permitted" not in play.dialogue.names()


def reject(play: Play) -> None:
    assert is_refusal(play), play.parts
    assert not play.dialogue.intake.accepted


def reject_or_literal(play: Play) -> None:
    assert all(code in range(200, 600) for code in codes(play))
    if is_refusal(play):
        return
    if play.case["state"] == "mail":
        play.dialogue.say(b"DATA\r\n")
        play.dialogue.say(b"x\r\n.\r\n")
        assert len(play.dialogue.intake.accepted) <= 1


def clean_received(play: Play) -> None:
    play.finish_message()
    for envelope, message in play.dialogue.intake.accepted:
        header = message.partition(b"\r\n\tby ")[0]
        assert re.fullmatch(rb"Received: from [A-Za-z0-9._:\[\]?-]+ \(\[203\.0\.113\.9\]\)", header), header
        assert re.fullmatch(r"[A-Za-z0-9._:\[\]?-]*", envelope.helo)


def bounded_memory(play: Play) -> None:
    assert play.is_closed
    assert sum(len(block) for block in play.dialogue.intake.incoming[0]._blocks) <= 4_000_000


def bounded_cpu(play: Play) -> None:
    assert play.seconds < 1


def error_budget(play: Play) -> None:
    assert play.is_closed
    assert len(play.replies) <= 103
    assert play.replies[-1].startswith(b"421")


def auth_strict(play: Play) -> None:
    name = play.case["id"]
    assert all(code in (235, 250, 334, 421, 500, 501, 503, 504, 535, 538, 554) for code in codes(play))
    if 235 in codes(play):
        assert name == "auth-001"  # the right password, and only then
    if name == "auth-001":
        assert codes(play) == [235, 503]
    if name == "auth-002":
        assert codes(play) == [250, 503]
    if name == "auth-020":
        assert play.is_closed
        assert len(play.dialogue.authenticator.asked) <= 5
    if name == "auth-026":
        assert play.is_closed
        assert 250 not in codes(play)
    for event in play.dialogue.events:
        if event.name == "smtp.login.failed":
            assert "\r" not in str(event.fields["name"]) and "\n" not in str(event.fields["name"])


def sync_safe(play: Play) -> None:
    name, got = play.case["id"], codes(play)
    if name == "pipe-002":
        assert got == [250, 250]  # in order, MAIL read only after EHLO was answered
    elif name == "pipe-004":
        assert got == [554] and play.is_closed
    elif name == "pipe-006":
        assert got == [221] and play.is_closed
    else:
        assert name == "pipe-008"
        assert got == [250, 250]
        assert len(play.dialogue.intake.accepted) == 1


def bdat_safe(play: Play) -> None:
    expected = {
        "bdat-001": [501],
        "bdat-002": [501],
        "bdat-003": [501],
        "bdat-004": [552],
        "bdat-005": [552],
        "bdat-006": [250],
        "bdat-007": [501],
        "bdat-008": [554],  # CRLF, dot, and a CR whose LF is the chunk's no more
        "bdat-009": [554],
        "bdat-011": [250, 503],
        "bdat-014": [250, 250],
    }
    assert codes(play) == expected[play.case["id"]]
    for _, message in play.dialogue.intake.accepted:
        assert b"BDAT" not in message and b"RSET" not in message


def payload_not_commands(play: Play) -> None:
    # 40 octets are dropped; what the case sends beyond them is no command's beginning
    assert codes(play) == [503, 500]
    assert not [event for event in play.dialogue.events if event.name.startswith("smtp.relay")]


def rcpt_limit(play: Play) -> None:
    assert set(codes(play)) <= {250, 452, 421}
    play.dialogue.say(b"DATA\r\n")
    play.dialogue.say(b"x\r\n.\r\n")
    [(envelope, _)] = play.dialogue.intake.accepted
    assert len(envelope.recipients) == 1


def no_enum(play: Play) -> None:
    assert set(codes(play)) <= {252, 421}


def discard_or_close(play: Play) -> None:
    assert play.is_closed or play.parts[-1] == b""
    assert b"".join(play.parts).count(b"\r\n") <= 1


def close(play: Play) -> None:
    assert play.is_closed


def reject_or_reset(play: Play) -> None:
    assert is_refusal(play)


CHECKS = {
    "one-or-reject": one_or_reject,
    "accept-one": accept_one,
    "no-relay": no_relay,
    "reject": reject,
    "reject-or-literal": reject_or_literal,
    "reject-or-reset": reject_or_reset,
    "clean-received": clean_received,
    "bounded-memory": bounded_memory,
    "bounded-cpu": bounded_cpu,
    "error-budget": error_budget,
    "auth-strict": auth_strict,
    "sync-safe": sync_safe,
    "bdat-safe": bdat_safe,
    "payload-not-commands": payload_not_commands,
    "rcpt-limit": rcpt_limit,
    "no-enum": no_enum,
    "discard-or-close": discard_or_close,
    "close": close,
}


@pytest.mark.parametrize("kind", LISTENERS)
@pytest.mark.parametrize("name", PLAYED)
def test_attack(name: str, kind: str) -> None:
    play = Play(name, kind, granted=False)
    CHECKS[play.case["expect"]](play)


@pytest.mark.parametrize("name", of_class("smug-in"))
def test_granted_clients_may_smuggle_nothing_either(name: str) -> None:
    play = Play(name, "tolerant", granted=True)
    CHECKS[play.case["expect"]](play)


@pytest.mark.parametrize("name", of_class("relay"))
def test_a_grant_opens_no_second_reading_of_an_address(name: str) -> None:
    """With a grant a recipient is relayed as written or refused, never rewritten."""
    play = Play(name, "strict", granted=True)
    play.dialogue.say(b"DATA\r\n")
    if not play.is_closed:
        play.dialogue.say(b"x\r\n.\r\n")
    for envelope, _ in play.dialogue.intake.accepted:
        for recipient in envelope.recipients:
            assert not set("%!@:") & set(recipient.address.local)
            assert f"<{recipient.address}>".encode() in b"".join(
                octets(part, PLACES).replace(b'"x"', b"x") for part in play.case["send"]
            )


@pytest.mark.parametrize("name", of_class("name"))
def test_no_recipient_has_a_name_that_is_no_login(name: str) -> None:
    written = octets(CASES[name]["send"][0], PLACES)
    dialogue = Dialogue()
    asked: list[str] = []
    resolve = dialogue.recipients.resolve
    dialogue.recipients.resolve = lambda address: (asked.append(address.local), resolve(address))[1]  # type: ignore[method-assign]
    bring_to(dialogue, "mail")
    for local in (written, b'"' + written + b'"', b"alice+" + written):
        dialogue.say(b"RCPT TO:<" + local + b"@example.org>\r\n")
    for local_asked in asked:
        assert re.fullmatch(r"[A-Za-z0-9_+=][A-Za-z0-9._+=-]*", local_asked)
        assert ".." not in local_asked


# Cases whose state is "net": those that are the SMTP session's to decide.


def test_grant_001_no_login_no_relay() -> None:
    dialogue = Dialogue()
    bring_to(dialogue, "mail")
    assert dialogue.say(b"RCPT TO:<victim@example.net>\r\n").startswith(b"550 5.7.1")


def test_grant_012_a_grant_that_lapses_between_rcpt_and_data() -> None:
    dialogue = Dialogue()
    dialogue.grants.allow()
    bring_to(dialogue, "mail")
    assert dialogue.say(b"RCPT TO:<victim@example.net>\r\n").startswith(b"250")
    dialogue.grants.grant = None
    assert dialogue.say(b"DATA\r\n").startswith(b"550 5.7.1")
    assert not dialogue.intake.incoming


def test_grant_020_a_grant_that_is_revoked_while_the_body_comes() -> None:
    dialogue = Dialogue()
    dialogue.grants.allow()
    bring_to(dialogue, "mail")
    dialogue.say(b"RCPT TO:<victim@example.net>\r\n")
    assert dialogue.say(b"DATA\r\n").startswith(b"354")
    dialogue.grants.charge_verdict = Decision("refuse", "lapsed", "relaying denied", None)
    assert dialogue.say(b"x\r\n.\r\n").startswith(b"550 5.7.1")
    assert not dialogue.intake.accepted


def test_enum_004_unknown_and_wrong_look_the_same() -> None:
    answers = []
    for credentials in (b"AGFsaWNlQGV4YW1wbGUub3JnAG5v", b"AHdob0BleGFtcGxlLm9yZwBubw=="):
        dialogue = Dialogue()
        bring_to(dialogue, "connect")
        dialogue = Dialogue(listener("strict"), is_tls=True)
        dialogue.say(b"EHLO x\r\n")
        answers.append((dialogue.say(b"AUTH PLAIN " + credentials + b"\r\n"), dialogue.sleeps))
    assert answers[0] == answers[1]


def test_enum_007_unknown_recipients_use_up_the_error_budget() -> None:
    dialogue = Dialogue()
    bring_to(dialogue, "mail")
    out = dialogue.say(b"RCPT TO:<nobody@example.org>\r\n" * 100)
    assert out.count(b"550 5.1.1") == 20
    assert dialogue.is_closed


def test_every_case_has_a_check() -> None:
    assert {CASES[name]["expect"] for name in PLAYED} <= set(CHECKS)
    assert len(PLAYED) > 140
