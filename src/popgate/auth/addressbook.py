"""What the table of recipients asks of a place that knows names."""

from typing import Protocol

from popgate.values.identity import Identity
from popgate.values.mail import MailAddress
from popgate.values.value import value


@value
class Listing:
    """What is known of one name: `has_mailbox`, and `targets` where an alias stands under it.

    With targets, mail goes to these; to the name's own mailbox only when it is among them.
    """

    has_mailbox: bool
    targets: tuple[MailAddress, ...] = ()


class AddressBook(Protocol):
    def listing(self, identity: Identity) -> Listing | None:
        """What stands under exactly this name, or None. Raises LookupUnavailable."""
        ...
