"""Every chain of responses ends in credentials with a printable name and a bounded proof, or is malformed.

An input is the mechanism's number, then responses with a line end between them; a leading "=" line
stands for no initial response.
"""

import hmac

from popgate.protocols import sasl
from support import fuzzing

MECHANISMS = ("PLAIN", "LOGIN", "CRAM-MD5", "OTHER", "SCRAM-SHA-256")
_KEYS = sasl.ScramKeys(b"salt", 4096, bytes(32), bytes(32))


def check(data: bytes) -> None:
    if not data:
        return
    first, *others = data[1:].split(b"\n")
    initial = None if first == b"=" else first
    step = sasl.begin(
        MECHANISMS[data[0] % 5],
        initial,
        token=lambda: "token",
        hostname="mail.example.org",
        scram_keys=lambda name: _KEYS,
    )
    for response in others:
        if not isinstance(step, sasl.Challenge):
            break
        step = step.exchange.respond(response)
    if isinstance(step, sasl.PlainCredentials):
        assert step.name.isprintable()
        assert 0 < len(step.name.encode()) <= sasl.MAX_NAME
        assert 0 < len(step.password) <= sasl.MAX_PASSWORD
        assert b"\0" not in step.password
    elif isinstance(step, sasl.CramCredentials):
        assert step.name.isprintable()
        assert step.name
        assert len(bytes.fromhex(step.digest.decode())) == 16
        assert not hmac.compare_digest(step.challenge, b"")
    elif isinstance(step, sasl.ScramCredentials):
        assert step.name.isprintable()
        assert step.name
        assert not step.is_proven, "proven without a password"
    for line in (data, *others):
        decoded = sasl.decode_base64(line)
        assert decoded is None or sasl.encode_base64(decoded) == line


if __name__ == "__main__":
    fuzzing.main(check)
