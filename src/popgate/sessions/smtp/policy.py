"""What one SMTP listener allows."""

from dataclasses import field
from typing import Literal

from popgate.protocols.sasl import FindScramKeys
from popgate.protocols.smtp import SmtpOptions
from popgate.values.value import value


@value
class SmtpPolicy:
    """The settings that sessions of one listener need; made once, shared by all of them.

    `relay_by`: what lets a client send to other domains, of `grant` and `auth`.
    `offers_tls`: STARTTLS; `needs_tls`: no mail without it. `plaintext_login`: AUTH without TLS.
    `cram_md5`: offer it (accounts with a recoverable secret), and with `scram_keys` SCRAM-SHA-256.
    `tolerant_helo`: take what old devices do (see SmtpOptions). `sender_bound`: whoever logged in
    by AUTH sends only as himself. `header_bytes`: the longest header of a message.
    `waits_to_greet`: the shell calls `session.engine.greet()` and turns early talkers away.
    """

    hostname: str
    service: Literal["smtp", "submission"] = "smtp"
    relay_by: frozenset[str] = frozenset(("grant", "auth"))
    offers_tls: bool = False
    needs_tls: bool = False
    plaintext_login: bool = False
    offers_auth: bool = True
    cram_md5: bool = False
    scram_keys: FindScramKeys | None = None
    tolerant_helo: bool = False
    sender_bound: bool = True
    message_bytes: int = 52428800
    header_bytes: int = 262144
    recipients: int = 1000
    max_hops: int = 100
    errors: int = 20
    junk: int = 100
    failures_before_close: int = 3
    waits_to_greet: bool = False
    options: SmtpOptions = field(init=False, compare=False)

    def __post_init__(self) -> None:
        options = SmtpOptions(
            self.hostname,
            message_bytes=self.message_bytes,
            recipients=self.recipients,
            errors=self.errors,
            junk=self.junk,
            offers_tls=self.offers_tls,
            needs_tls=self.needs_tls,
            offers_auth=self.offers_auth,
            plaintext_login=self.plaintext_login,
            cram_md5=self.cram_md5,
            scram_keys=self.scram_keys,
            tolerant=self.tolerant_helo,
        )
        object.__setattr__(self, "options", options)
