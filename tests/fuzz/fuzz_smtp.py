"""Whatever an SMTP client sends, in whatever pieces, it reads whole reply lines, the same ones for every
cut, nobody elsewhere gets mail without a grant or a login, and what is accepted has clean line ends.

The first octet of an input chooses the listener's policy, the second how the rest is cut. A line `~` alone
(octets 7E 0D 0A) in the input is a pause, in which the client reads what was answered.
"""

import random
import re

from popgate.protocols.engine import Wait
from popgate.sessions.smtp import SmtpPolicy
from smtp_support import Dialogue
from support import fuzzing

MESSAGE_BYTES = 2000
PAUSE = b"~\r\n"
REPLY_LINE = re.compile(rb"(?:220|221|214|235|25[0-2]|334|354|421|45[0-4]|5[0-5][0-9])[ -][ -~]*")
GROUP_BROKEN = b"554 5.5.0 nothing may follow this command before its reply\r\n"
BARE_LINE_END = re.compile(rb"\r(?!\n)|(?<!\r)\n|\0")


def dialogue_for(options: int) -> Dialogue:
    dialogue = Dialogue(
        SmtpPolicy(
            "mx.example.org",
            service="submission" if options & 1 else "smtp",
            relay_by=frozenset(("grant", "auth") if options & 2 else ("auth",)),
            plaintext_login=not options & 4,
            offers_tls=bool(options & 8),
            tolerant_helo=bool(options & 16),
            cram_md5=True,
            message_bytes=MESSAGE_BYTES,
            header_bytes=500,
            max_hops=3,
            recipients=3,
            errors=6 if options & 32 else 1000,
            junk=6 if options & 32 else 1000,
        )
    )
    if options & 64:
        dialogue.grants.allow()
    dialogue.authenticator.is_slow = dialogue.intake.is_slow = bool(options & 128)
    return dialogue


def converse(dialogue: Dialogue, octets: bytes, cuts: random.Random | None) -> list[bytes]:
    """What came back in each group of commands between two pauses."""
    output = [dialogue.say(b"")]
    for group in octets.split(PAUSE):
        out = []
        while group and not dialogue.is_closed:
            size = len(group) if cuts is None else cuts.randint(1, 20)
            out.append(dialogue.say(group[:size]))
            group = group[size:]
            if dialogue.engine.waiting_for is Wait.TLS:
                dialogue.start_tls()
            assert dialogue.engine.next_event() is None
            assert dialogue.engine.waiting_for is not Wait.DECISION
        output.append(b"".join(out))
        if dialogue.is_closed:
            break
    assert dialogue.is_closed or dialogue.say(b"", end=True) == b""
    assert dialogue.is_closed
    assert dialogue.say(b"NOOP\r\nQUIT\r\n") == b""
    dialogue.session.closed("eof")
    return output


def check(data: bytes) -> None:
    options, seed, octets = (data[:1] or b"\0")[0], data[1:2], data[2:]
    dialogue = dialogue_for(options)
    whole = converse(dialogue, octets, None)
    for line in b"".join(whole).split(b"\r\n")[:-1]:
        assert REPLY_LINE.fullmatch(line), line
    assert b"".join(whole).endswith(b"\r\n")
    judge(dialogue, is_granted=bool(options & 64) and bool(options & 2))
    other = dialogue_for(options)
    cut = converse(other, octets, random.Random(seed))
    judge(other, is_granted=bool(options & 64) and bool(options & 2))
    for mine, theirs in zip(whole, cut, strict=False):
        if mine.endswith(GROUP_BROKEN):
            # by design: in one packet it breaks the group, later it is an answer to our reply
            assert theirs.startswith(mine.removesuffix(GROUP_BROKEN))
            return
        assert mine == theirs
    assert len(whole) == len(cut)
    assert dialogue.intake.accepted == other.intake.accepted


def judge(dialogue: Dialogue, *, is_granted: bool) -> None:
    may_relay = is_granted or "smtp.login" in dialogue.names()
    for envelope, message in dialogue.intake.accepted:
        assert BARE_LINE_END.search(message) is None
        assert message.startswith(b"Received: from ")
        assert message.endswith(b"\r\n")
        assert len(message) <= MESSAGE_BYTES + 600
        assert 1 <= len(envelope.recipients) <= 3
        for recipient in envelope.recipients:
            address = recipient.address
            assert recipient.is_local == (address.domain == "example.org")
            assert recipient.is_local or may_relay
            assert not BARE_LINE_END.search(f"{address}{recipient.orcpt}{envelope.envid}".encode())
    for incoming in dialogue.intake.incoming:
        assert incoming.is_aborted or incoming.is_committed
    for event in dialogue.events:
        for field in event.fields.values():
            assert "\n" not in str(field)
            assert "\r" not in str(field)
    assert dialogue.names().count("smtp.close") == 1
    if not may_relay:
        assert "smtp.relay.permitted" not in dialogue.names()


if __name__ == "__main__":
    fuzzing.main(check)
