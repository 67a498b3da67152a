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

    __slots__ = ("_text", "domain", "user")

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
        self._text = f"{self.user}@{domain}" if domain else self.user

    @classmethod
    def parse(cls, text: str) -> "Identity":
        """Read `user@domain` or `user`; raises IdentityError."""
        known = _known.get(text)
        if known is not None:
            return known
        user, at, domain = text.rpartition("@")
        if at and not domain:
            raise IdentityError("there is nothing after the @")
        identity = cls(user, domain) if at else cls(text)
        if len(_known) >= _MAX_KNOWN:
            _known.clear()
        _known[text] = identity
        return identity

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Identity) and self._text == other._text

    def __hash__(self) -> int:
        return hash(self._text)

    def __str__(self) -> str:
        return self._text

    def __repr__(self) -> str:
        return f"Identity({self._text!r})"


# The names of those who were here lately: read once, and one object that tables find by `is`
_known: dict[str, Identity] = {}
_MAX_KNOWN = 4096
