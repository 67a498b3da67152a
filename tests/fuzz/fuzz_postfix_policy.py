"""Whatever comes, in whatever pieces: permit is answered only to a whole request at RCPT that names an
address that logged in and a sender of who did, and nothing is answered behind what cannot be read."""

from question_checks import answers

from popgate.values.address import ClientAddress
from popgate.values.spelling import Spellings
from support import fuzzing

_GRANTED = {
    ClientAddress.parse("203.0.113.9"): "alice@example.org",
    ClientAddress.parse("2001:db8::9"): "bob@example.org",
}


def check(data: bytes) -> None:
    text = {"refusal": "text"} if data[:1] > b"\x80" else {}
    header = {"identity_header": "X-Id", "charge": "data"} if data[1:2] > b"\x80" else {}
    octets = data[2:]
    output, talk = answers("postfix_policy", octets, **text, **header)
    replies = output.split(b"\n\n")
    assert replies.pop() == b""
    assert len(replies) == talk.decided
    requests = octets.split(b"\n\n")
    for request, reply in zip(requests, replies, strict=False):
        assert reply.startswith(b"action=")
        assert b"\n" not in reply
        if reply != b"action=permit":
            continue
        lines = request.decode("utf-8", "replace").split("\n")
        attributes = dict(line.split("=", 1) for line in lines)
        address = Spellings().find(attributes["client_address"])
        assert attributes["request"] == "smtpd_access_policy"
        assert attributes["protocol_state"] == "RCPT"
        assert address in _GRANTED
        assert attributes["sender"].lower() in ("", "<>", _GRANTED[address])


if __name__ == "__main__":
    fuzzing.main(check)
