"""From what a client typed as its name to an identity.

One place, so that every back end folds and refuses the same spellings.
"""

from functools import lru_cache

from popgate.values.identity import MAX_DOMAIN, MAX_LOCAL, Identity, IdentityError

_LONGEST = MAX_LOCAL + 1 + MAX_DOMAIN


def login_identity(name: str, default_domain: str = "") -> Identity | None:
    """`user@domain`, or `user` alone to which `default_domain` is added; None for a name that
    the allow-list of values.identity refuses."""
    return None if len(name) > _LONGEST else _identity(name, default_domain)


# The same few clients come again and again. Longer names never get here, so it holds 4 MB at the most.
@lru_cache(maxsize=4096)
def _identity(name: str, default_domain: str) -> Identity | None:
    try:
        identity = Identity.parse(name)
        if not identity.domain and default_domain:
            return Identity(identity.user, default_domain)
    except IdentityError:
        return None
    return identity
