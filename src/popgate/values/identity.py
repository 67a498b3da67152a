"""Who logged in.

Imports nothing: the relay-ctrl commands write and read identities too.
"""

# What may stand in a user or domain name. The name reaches file names, log lines,
# Received: fields and other programs' environments, so it is an allow-list.
_LOCAL = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._+-=")
_DOMAIN = frozenset("abcdefghijklmnopqrstuvwxyz0123456789.-")
MAX_LOCAL = 64  # RFC 5321 4.5.3.1.1
MAX_DOMAIN = 255  # RFC 5321 4.5.3.1.2


class IdentityError(ValueError):
    """A name that popgate does not accept for a user."""


class Identity:
    """A login name: `user` and `domain` ("" where the site has none), both lower-case.

    `str()` is `user@domain`, or `user` alone. Non-ASCII names are refused: two
    spellings of one glyph must not be two users.
    """

    __slots__ = ("domain", "user")

    def __init__(self, user: str, domain: str = "") -> None:
        """Raises IdentityError unless both names pass the allow-list."""
        if not user or len(user) > MAX_LOCAL or not _LOCAL.issuperset(user):
            raise IdentityError("a user name has 1 to 64 of the characters A-Z a-z 0-9 . _ + - =")
        if user[0] in ".-" or user[-1] == "." or ".." in user:
            raise IdentityError(
                "a user name does not begin with . or -, end with . or hold two dots together"
            )
        domain = domain.lower()
        if domain and (len(domain) > MAX_DOMAIN or not _DOMAIN.issuperset(domain)):
            raise IdentityError("a domain name has up to 255 of the characters a-z 0-9 . -")
        if domain and any(
            not label or len(label) > 63 or label[0] == "-" or label[-1] == "-" for label in domain.split(".")
        ):
            raise IdentityError(
                "each label of a domain name has 1 to 63 characters and no hyphen at its ends"
            )
        self.user = user.lower()
        self.domain = domain

    @classmethod
    def parse(cls, text: str) -> "Identity":
        """Read `user@domain` or `user`; raises IdentityError."""
        user, at, domain = text.rpartition("@")
        if not at:
            return cls(text)
        if not domain:
            raise IdentityError("there is nothing after the @")
        return cls(user, domain)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Identity) and self.user == other.user and self.domain == other.domain

    def __hash__(self) -> int:
        return hash((self.user, self.domain))

    def __str__(self) -> str:
        return f"{self.user}@{self.domain}" if self.domain else self.user

    def __repr__(self) -> str:
        return f"Identity({str(self)!r})"
