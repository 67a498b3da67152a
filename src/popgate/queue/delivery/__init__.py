"""Delivery: from the queue into mailboxes and to other hosts."""
