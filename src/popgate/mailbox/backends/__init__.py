"""Back ends of mailboxes; only popgate.app chooses among them."""
