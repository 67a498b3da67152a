"""Authentication: from a name and a proof to an identity."""
