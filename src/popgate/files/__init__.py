"""The one module through which queue and mailbox touch the disk."""
