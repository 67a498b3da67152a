"""Sessions turn protocol events into replies by asking auth, mailbox, queue and grants; no transport."""
