"""To whom an envelope sender belongs, for servers that compare it with who has logged in there."""

from collections.abc import Sequence
from typing import Protocol

from popgate.auth.authenticator import LookupUnavailable
from popgate.values.identity import Identity, IdentityError


class SenderBook(Protocol):
    """A place that knows which accounts may use which senders beside their own address."""

    def has_account(self, identity: Identity) -> bool:
        """Is there an enabled account of exactly this name? Raises LookupUnavailable."""
        ...

    def sender_owners(self, sender: str) -> Sequence[str]:
        """The enabled accounts that list `sender`: `user@domain`, or `@domain` for a whole domain, in lower
        case. Raises LookupUnavailable."""
        ...


class AccountSenders:
    """Postfix asks for the whole address first, then for other parts of it; one answer names all
    whose the whole address is, so the first answer is complete."""

    def __init__(self, book: SenderBook) -> None:
        self._book = book

    def owners(self, sender: str) -> list[str] | None:
        """The login names to which `sender` belongs; None when that cannot be said now. Never raises."""
        if not sender.isascii():  # no account has such a sender, and lower() makes ASCII of some letters
            return []
        key = sender.lower()
        user, at, domain = key.rpartition("@")
        if not at or not domain:
            return []
        try:
            found = list(self._book.sender_owners(key))
            if user:
                found += self._book.sender_owners(f"@{domain}")
                try:
                    identity = Identity(user, domain)
                except IdentityError:
                    pass
                else:
                    if self._book.has_account(identity):
                        found.insert(0, str(identity))
        except LookupUnavailable:
            return None
        return list(dict.fromkeys(found))
