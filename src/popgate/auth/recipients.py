"""Who gets mail here: accounts, aliases, `+detail`, and the postmaster whom every domain must have.

It knows names and targets only through address books; where those keep them is their affair.
"""

from collections.abc import Sequence

from popgate.auth.addressbook import AddressBook, Listing
from popgate.auth.authenticator import LocalRecipient, LookupUnavailable
from popgate.values.identity import Identity, IdentityError
from popgate.values.mail import MailAddress

MAX_DEPTH = 10
MAX_NAMES = 1000


class Recipients:
    """The RecipientTable over `books`: a name has a mailbox when one of them says so, and the
    alias targets of the first that has any.

    `local_domains` tells which targets of an alias are names here; the first of them completes
    an address without a domain. `postmaster` gets what is written to postmaster@ any of them
    where no account or alias of that name exists.
    """

    def __init__(
        self, books: Sequence[AddressBook], local_domains: Sequence[str], postmaster: Identity | None = None
    ) -> None:
        self._books = tuple(books)
        self._domains = frozenset(domain.lower() for domain in local_domains)
        self._first_domain = local_domains[0].lower() if local_domains else ""
        self._postmaster = postmaster

    def resolve(self, address: MailAddress) -> LocalRecipient | None:
        """See RecipientTable. An alias's unknown local targets are left out; one that leads nowhere at
        all is nobody. Raises LookupUnavailable too for aliases nested too deep or too wide."""
        found = self._find(address.local, address.domain or self._first_domain)
        if found is None:
            return None
        identity, listing = found
        if not listing.targets:  # by far the most common
            return LocalRecipient((identity,)) if listing.has_mailbox else None
        return self._expand(identity, listing)

    def _expand(self, identity: Identity, listing: Listing) -> LocalRecipient | None:
        mailboxes: dict[Identity, None] = {}
        forwards: dict[MailAddress, None] = {}
        seen = {identity}
        level = [(identity, listing)]
        for _ in range(MAX_DEPTH):
            deeper: list[tuple[Identity, Listing]] = []
            for name, names_listing in level:
                for target in names_listing.targets:
                    if len(mailboxes) + len(forwards) + len(seen) > MAX_NAMES:
                        raise LookupUnavailable(f"alias {identity} leads to more than {MAX_NAMES} names")
                    if target.domain not in self._domains:
                        forwards[target] = None
                        continue
                    found = self._find(target.local, target.domain)
                    if found is None:
                        continue
                    target_name, target_listing = found
                    # Its own name among an alias's targets is the mailbox beside the alias.
                    if not target_listing.targets or target_name == name:
                        if target_listing.has_mailbox:
                            mailboxes[target_name] = None
                    elif target_name not in seen:
                        seen.add(target_name)
                        deeper.append(found)
            if not deeper:
                if mailboxes or forwards:
                    return LocalRecipient(tuple(mailboxes), tuple(forwards))
                return None
            level = deeper
        raise LookupUnavailable(f"alias {identity} is nested deeper than {MAX_DEPTH}")

    def _find(self, local: str, domain: str) -> tuple[Identity, Listing] | None:
        try:
            identity = Identity(local, domain)
        except IdentityError:
            return None
        listing = self._listing(identity)
        if listing is not None:
            return identity, listing
        user, plus, _ = identity.user.partition("+")
        if plus and user:
            identity = Identity(user, domain)
            listing = self._listing(identity)
            if listing is not None:
                return identity, listing
        # RFC 5321 4.5.1: mail to postmaster of every domain here must find somebody
        if identity.user == "postmaster" and self._postmaster is not None and domain in self._domains:
            listing = self._listing(self._postmaster)
            if listing is not None:
                return self._postmaster, listing
        return None

    def _listing(self, identity: Identity) -> Listing | None:
        found: Listing | None = None
        for book in self._books:
            listing = book.listing(identity)
            if listing is None:
                continue
            if found is None:
                found = listing
            else:
                # An alias in one book may stand beside a mailbox that another one knows.
                found = Listing(found.has_mailbox or listing.has_mailbox, found.targets or listing.targets)
        return found
