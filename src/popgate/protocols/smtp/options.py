"""What one listener's SMTP engines have in common, with the replies that follow from it."""

from popgate.protocols.sasl import PLAINTEXT_MECHANISMS, FindScramKeys, secret_mechanisms
from popgate.protocols.smtp.replies import Reply, reply


class SmtpOptions:
    """Made once for a listener and shared by its engines; nobody changes it.

    `message_bytes`: the largest message; `recipients`: what LIMITS announces. `errors`, `junk`:
    commands that are refused, or do nothing, before the session is closed. `offers_tls`: STARTTLS;
    `needs_tls`: no mail before it. `offers_auth`, `plaintext_login` (also without TLS), `cram_md5`:
    the AUTH command; `scram_keys` adds SCRAM-SHA-256 where CRAM-MD5 is. `tolerant`: what old devices
    do is let pass: no HELO or one without a name, and a space behind `MAIL FROM:`.
    """

    __slots__ = (
        "banner",
        "ehlo",
        "ehlo_tls",
        "errors",
        "helo",
        "hostname",
        "junk",
        "mechanisms",
        "message_bytes",
        "needs_tls",
        "offers_auth",
        "offers_tls",
        "plaintext_login",
        "scram_keys",
        "swallow_bytes",
        "tolerant",
    )

    def __init__(
        self,
        hostname: str,
        *,
        message_bytes: int = 52428800,
        recipients: int = 1000,
        errors: int = 20,
        junk: int = 100,
        offers_tls: bool = False,
        needs_tls: bool = False,
        offers_auth: bool = True,
        plaintext_login: bool = False,
        cram_md5: bool = False,
        scram_keys: FindScramKeys | None = None,
        tolerant: bool = False,
    ) -> None:
        self.hostname = hostname
        self.message_bytes = message_bytes
        # Of a message that is too large, so much is read to give a proper 552 at its end.
        self.swallow_bytes = message_bytes + min(message_bytes, 1 << 20)
        self.errors = errors
        self.junk = junk
        self.offers_tls = offers_tls
        self.needs_tls = needs_tls
        self.offers_auth = offers_auth
        self.plaintext_login = plaintext_login
        self.tolerant = tolerant
        self.scram_keys = scram_keys
        secret = secret_mechanisms(has_scram=scram_keys is not None) if cram_md5 else ()
        self.mechanisms = (PLAINTEXT_MECHANISMS + secret) * offers_auth
        self.banner = reply(220, "", f"{hostname} ESMTP")
        self.helo = reply(250, "", hostname)
        extensions = [
            hostname,
            "PIPELINING",  # RFC 2920
            f"SIZE {message_bytes}",  # RFC 1870
            "8BITMIME",  # RFC 6152
            "SMTPUTF8",  # RFC 6531
            "ENHANCEDSTATUSCODES",  # RFC 2034
            "CHUNKING",  # RFC 3030
            "DSN",  # RFC 3461
            f"LIMITS RCPTMAX={recipients}",  # RFC 9422
        ]
        auth = [f"AUTH {' '.join(self.mechanisms)}"] if self.mechanisms else []  # RFC 4954
        help_line = ["HELP"]
        self.ehlo: Reply = reply(
            250,
            "",
            *extensions,
            *(["STARTTLS"] if offers_tls else []),  # RFC 3207
            *(auth if plaintext_login else []),
            *help_line,
        )
        self.ehlo_tls: Reply = reply(250, "", *extensions, *auth, *help_line)
