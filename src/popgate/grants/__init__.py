"""Grants: the right of one client address to relay, held by one identity, until it lapses."""
